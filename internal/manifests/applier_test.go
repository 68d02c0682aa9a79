package manifests

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

const (
	crdPath     = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.org"
	defaultPath = "/api/v1/namespaces/default/configmaps/"
)

const mixed = `
{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: v1.x}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: hook}}
---
{apiVersion: example.org/v1, kind: Widget, metadata: {name: w}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: mine}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: b}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: r, namespace: silly}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: mine}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: widgets.example.org}}
`

func TestApplyOrderAndPrune(t *testing.T) {
	s := newStub(t)
	a := s.applier()
	if err := a.Apply(t.Context(), parsed(t, "mine", mixed)); err != nil {
		t.Fatal(err)
	}
	order := []string{
		crdPath,
		"/api/v1/namespaces/mine",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/r",
		"/apis/example.org/v1/namespaces/default/widgets/w",
		"/api/v1/namespaces/mine/configmaps/a",
		defaultPath + "b",
		"/apis/apiregistration.k8s.io/v1/apiservices/v1.x",
		"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hook",
	}
	equal(t, "applied", s.did("apply"), order...)
	for _, path := range order {
		if got := s.get(path).GetLabels()[StackLabel]; got != "mine" {
			t.Errorf("%s has stack label %q", path, got)
		}
	}

	// A later process that was told nothing finds and prunes them, the other
	// way round.
	if err := s.applier().Apply(t.Context(), Stack{Name: "mine"}); err != nil {
		t.Fatal(err)
	}
	equal(t, "pruned", s.did("delete"),
		"/apis/apiregistration.k8s.io/v1/apiservices/v1.x",
		"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hook",
		defaultPath+"b",
		"/api/v1/namespaces/mine/configmaps/a",
		"/apis/example.org/v1/namespaces/default/widgets/w",
		"/apis/rbac.authorization.k8s.io/v1/clusterroles/r",
		"/api/v1/namespaces/mine",
		crdPath,
	)
}

func TestApplySendsOnlyWhatAUserMayWrite(t *testing.T) {
	s := newStub(t)
	stack := parsed(t, "saved", `
apiVersion: v1
kind: ConfigMap
metadata:
  name: saved
  labels: {keep: me}
  resourceVersion: "17"
  uid: some
  generation: 3
  creationTimestamp: "2026-01-01T00:00:00Z"
  managedFields: [{manager: kubectl}]
data: {a: b}`)
	before := stack.Objects[0].DeepCopy()
	if err := s.applier().Apply(t.Context(), stack); err != nil {
		t.Fatal(err)
	}
	got := s.get(defaultPath + "saved")
	metadata, _, _ := unstructured.NestedMap(got.Object, "metadata")
	for _, field := range []string{"generation", "creationTimestamp", "managedFields"} {
		if metadata[field] != nil {
			t.Errorf("%s was sent", field)
		}
	}
	if got.GetUID() == "some" || got.GetLabels()["keep"] != "me" || got.GetNamespace() != "default" {
		t.Errorf("sent %v", metadata)
	}
	if before.GetResourceVersion() != stack.Objects[0].GetResourceVersion() || len(stack.Objects[0].GetLabels()) != 1 {
		t.Errorf("the caller's object was changed: %v", stack.Objects[0].Object)
	}
}

func TestApplyOneFailing(t *testing.T) {
	const good = "{apiVersion: v1, kind: ConfigMap, metadata: {name: good}}\n---\n"
	for name, test := range map[string]struct {
		text   string
		refuse metav1.Status // for ConfigMap default/bad
		errs   []string
	}{
		"refused": {
			text:   "{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}}",
			refuse: status(422, metav1.StatusReasonInvalid, "data is wrong"),
			errs:   []string{"stack s: ConfigMap bad (s.yaml:3): data is wrong: correct the manifest"},
		},
		"immutable": {
			text:   "{apiVersion: v1, kind: ConfigMap, metadata: {name: bad, namespace: default}}",
			refuse: status(422, metav1.StatusReasonInvalid, "data: field is immutable"),
			errs:   []string{"stack s: ConfigMap default/bad (s.yaml:3): data: field is immutable: to have it made anew, run: k0s kubectl delete configmap bad -n default"},
		},
		"no namespace": {
			text:   "{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}}",
			refuse: status(404, metav1.StatusReasonNotFound, `namespaces "default" not found`),
			errs:   []string{"add the Namespace to this stack or create it"},
		},
		"unknown kind": {
			text: "{apiVersion: x.org/v1, kind: Nothing, metadata: {name: one}}\n---\n{apiVersion: v2, kind: ConfigMap, metadata: {name: two}}",
			errs: []string{
				"stack s: Nothing one (s.yaml:3): no matches for kind \"Nothing\" in version \"x.org/v1\": correct apiVersion x.org/v1 and kind Nothing, or add the CustomResourceDefinition that defines them",
				"correct apiVersion v2 and kind ConfigMap",
			},
		},
		"no name": {
			text: "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: x-}}",
			errs: []string{"(s.yaml:3): has no metadata.name"},
		},
		"name that is not a string": {
			text: "{apiVersion: v1, kind: ConfigMap, metadata: {name: on}}",
			errs: []string{"(s.yaml:3): metadata.name must be a string"},
		},
		"label that is a number": {
			text: "{apiVersion: v1, kind: ConfigMap, metadata: {name: l, labels: {version: 1}}}",
			errs: []string{"metadata.labels must map strings to strings"},
		},
		"twice": {
			text: "{apiVersion: v1, kind: ConfigMap, metadata: {name: good, namespace: default}}",
			errs: []string{"ConfigMap default/good (s.yaml:3): is defined twice in this stack, first in s.yaml:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t)
			a := s.applier()
			if err := a.Apply(t.Context(), parsed(t, "s", "{apiVersion: v1, kind: ConfigMap, metadata: {name: old}}")); err != nil {
				t.Fatal(err)
			}
			s.did("")
			if test.refuse.Code != 0 {
				s.refuse[defaultPath+"bad"] = test.refuse
			}
			err := a.Apply(t.Context(), parsed(t, "s", good+test.text+"\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: last}}"))
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.errs {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is\n%v\nexpected\n%s", err, want)
				}
			}
			if got := strings.Count(err.Error(), "stack s: "); got != len(test.errs) {
				t.Errorf("%d errors instead of %d: %v", got, len(test.errs), err)
			}
			for _, name := range []string{"good", "last", "old"} {
				if s.get(defaultPath+name) == nil {
					t.Errorf("%s is not there", name)
				}
			}
			if asked := len(s.did("discover")); asked > 1 {
				t.Errorf("asked %d times what the API server serves", asked)
			}
		})
	}
}

func TestApplyAwaitsDefinitions(t *testing.T) {
	s := newStub(t)
	s.establish = func(*unstructured.Unstructured) bool { return false }
	err := s.applier().Apply(t.Context(), parsed(t, "s", mixed))
	if err == nil || !strings.Contains(err.Error(), "CustomResourceDefinition widgets.example.org (s.yaml:16): its names are refused, another definition has them: because") {
		t.Errorf("error is %v", err)
	}
	if s.get("/apis/apiregistration.k8s.io/v1/apiservices/v1.x") == nil {
		t.Error("the others were not applied")
	}
}

func TestApplyWhileBeingDeleted(t *testing.T) {
	s := newStub(t)
	s.put(defaultPath+"a", `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: default, deletionTimestamp: "2026-01-01T00:00:00Z"}}`)
	err := s.applier().Apply(t.Context(), parsed(t, "s", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"))
	if err == nil || !strings.Contains(err.Error(), "is being deleted") {
		t.Errorf("error is %v", err)
	}
}

func TestApplyUnreachable(t *testing.T) {
	s := newStub(t)
	a := s.applier()
	s.Close()
	err := a.Apply(t.Context(), parsed(t, "s", mixed))
	if err == nil || strings.Count(err.Error(), "stack s: ") != 1 || !strings.Contains(err.Error(), "no answer from the API server") {
		t.Errorf("error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newStub(t).applier().Apply(ctx, parsed(t, "s", mixed)); err == nil {
		t.Error("no error though it was cancelled")
	}
}

func TestPruneSpares(t *testing.T) {
	s := newStub(t)
	label := "labels: {" + StackLabel + ": s}"
	spared := map[string]string{
		defaultPath + "owned":                    "{apiVersion: v1, kind: ConfigMap, metadata: {name: owned, namespace: default, " + label + ", ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: u}]}}",
		defaultPath + "other":                    "{apiVersion: v1, kind: ConfigMap, metadata: {name: other, namespace: default, labels: {" + StackLabel + ": t}}}",
		defaultPath + "plain":                    "{apiVersion: v1, kind: ConfigMap, metadata: {name: plain, namespace: default}}",
		"/api/v1/namespaces/default/endpoints/e": "{apiVersion: v1, kind: Endpoints, metadata: {name: e, namespace: default, " + label + "}}",
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/e-xy": "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: e-xy, namespace: default, " + label + "}}",
	}
	for path, text := range spared {
		s.put(path, text)
	}
	s.put(defaultPath+"left", "{apiVersion: v1, kind: ConfigMap, metadata: {name: left, namespace: default, "+label+"}}")
	a := s.applier()
	if err := a.Apply(t.Context(), parsed(t, "s", "{apiVersion: v1, kind: ConfigMap, metadata: {name: moving}}")); err != nil {
		t.Fatal(err)
	}
	equal(t, "pruned", s.did("delete"), defaultPath+"left")

	// What went over to another stack is not pruned from the first.
	if err := a.Apply(t.Context(), parsed(t, "t", "{apiVersion: v1, kind: ConfigMap, metadata: {name: moving}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: other}}")); err != nil {
		t.Fatal(err)
	}
	if err := a.Apply(t.Context(), Stack{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	equal(t, "pruned", s.did("delete"))
	for path := range spared {
		if s.get(path) == nil {
			t.Errorf("%s is gone", path)
		}
	}
}

func TestPruneLooksAgainWhereItCouldNot(t *testing.T) {
	s := newStub(t)
	s.put(defaultPath+"left", "{apiVersion: v1, kind: ConfigMap, metadata: {name: left, namespace: default, labels: {"+StackLabel+": s}}}")
	s.broken["/api/v1/configmaps"] = true
	a := s.applier()
	if err := a.Apply(t.Context(), Stack{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.broken = nil
	s.mu.Unlock()
	if err := a.Apply(t.Context(), Stack{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	equal(t, "pruned", s.did("delete"), defaultPath+"left")

	// Once the whole was seen, there is nothing more to list.
	if err := a.Apply(t.Context(), Stack{Name: "s"}); err != nil {
		t.Fatal(err)
	}
	equal(t, "listed", s.did("list"))
}
