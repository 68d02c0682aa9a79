package manifests

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

// stub is as much of an API server as the applier needs: discovery, server
// side apply (which replaces the object), get, list, delete, and a watch for
// CRDs.
type stub struct {
	*httptest.Server
	t *testing.T

	mu        sync.Mutex
	resources map[string][]metav1.APIResource           // by group/version
	objects   map[string]*unstructured.Unstructured     // by path
	calls     []string                                  // "apply /api/v1/…", "delete …", "discover"
	refuse    map[string]metav1.Status                  // by path: what applying it is answered with
	broken    map[string]bool                           // paths whose list fails
	establish func(crd *unstructured.Unstructured) bool // whether a CRD gets served; nil: yes
}

func newStub(t *testing.T) *stub {
	s := &stub{
		t:       t,
		objects: map[string]*unstructured.Unstructured{},
		refuse:  map[string]metav1.Status{},
		broken:  map[string]bool{},
		resources: map[string][]metav1.APIResource{
			"v1": {
				{Name: "namespaces", Kind: "Namespace"},
				{Name: "configmaps", Kind: "ConfigMap", Namespaced: true},
				{Name: "pods", Kind: "Pod", Namespaced: true},
				{Name: "pods/log", Kind: "Pod", Namespaced: true},
				{Name: "endpoints", Kind: "Endpoints", Namespaced: true},
				{Name: "bindings", Kind: "Binding", Namespaced: true, Verbs: metav1.Verbs{"create"}},
			},
			"rbac.authorization.k8s.io/v1":    {{Name: "clusterroles", Kind: "ClusterRole"}},
			"apiregistration.k8s.io/v1":       {{Name: "apiservices", Kind: "APIService"}},
			"discovery.k8s.io/v1":             {{Name: "endpointslices", Kind: "EndpointSlice", Namespaced: true}},
			"admissionregistration.k8s.io/v1": {{Name: "validatingwebhookconfigurations", Kind: "ValidatingWebhookConfiguration"}},
			"apiextensions.k8s.io/v1":         {{Name: "customresourcedefinitions", Kind: "CustomResourceDefinition"}},
		},
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// applier returns a new applier for the stub, as a new process would have it.
func (s *stub) applier() *Applier {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{s.t}, nil))
	a, err := NewApplier(&rest.Config{Host: s.URL, QPS: 0.001, Burst: 1}, log)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// put stores an object as if someone else had made it.
func (s *stub) put(path, text string) {
	s.t.Helper()
	object := parsed(s.t, "put", text).Objects[0].Unstructured
	object.SetUID("uid-of-put")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[path] = object
}

func (s *stub) get(path string) *unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[path]
}

// did returns the calls of a kind so far, and forgets all calls.
func (s *stub) did(kind string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	for _, call := range s.calls {
		if what, ok := strings.CutPrefix(call, kind+" "); ok {
			found = append(found, what)
		}
	}
	s.calls = nil
	return found
}

func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path, query := r.URL.Path, r.URL.Query()
	switch {
	case path == "/api":
		s.calls = append(s.calls, "discover api")
		answer(w, 200, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case path == "/apis":
		answer(w, 200, s.groups())
	case s.resources[groupVersion(path)] != nil:
		answer(w, 200, s.resourceList(groupVersion(path)))
	case r.Method == http.MethodPatch:
		s.apply(w, r)
	case r.Method == http.MethodDelete:
		s.delete(w, r)
	case r.Method == http.MethodGet && query.Get("watch") != "":
		s.watch(w, r)
	case r.Method == http.MethodGet && s.objects[path] != nil:
		answer(w, 200, s.objects[path])
	case r.Method == http.MethodGet && s.isList(path):
		s.list(w, r)
	default:
		answer(w, 404, status(404, metav1.StatusReasonNotFound, path+" not found"))
	}
}

// groupVersion returns "v1" of /api/v1 and "apps/v1" of /apis/apps/v1.
func groupVersion(path string) string {
	if v, ok := strings.CutPrefix(path, "/apis/"); ok {
		return v
	}
	return strings.TrimPrefix(path, "/api/")
}

func (s *stub) groups() metav1.APIGroupList {
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for gv := range s.resources {
		if group, version, ok := strings.Cut(gv, "/"); ok {
			v := metav1.GroupVersionForDiscovery{GroupVersion: gv, Version: version}
			list.Groups = append(list.Groups, metav1.APIGroup{Name: group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
		}
	}
	return list
}

func (s *stub) resourceList(gv string) metav1.APIResourceList {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
	for _, resource := range s.resources[gv] {
		if resource.Verbs == nil {
			resource.Verbs = metav1.Verbs{"get", "list", "watch", "patch", "delete"}
		}
		list.APIResources = append(list.APIResources, resource)
	}
	return list
}

func (s *stub) isList(path string) bool {
	for gv, resources := range s.resources {
		for _, resource := range resources {
			if strings.HasSuffix(path, "/"+gv+"/"+resource.Name) {
				return true
			}
		}
	}
	return false
}

func (s *stub) apply(w http.ResponseWriter, r *http.Request) {
	path, query := r.URL.Path, r.URL.Query()
	s.calls = append(s.calls, "apply "+path)
	if r.Header.Get("Content-Type") != "application/apply-patch+yaml" || query.Get("fieldManager") != "k0s" || query.Get("force") != "true" {
		s.t.Errorf("not a forced server-side apply by k0s: %s %s %s", r.Method, r.URL, r.Header)
	}
	if refusal, ok := s.refuse[path]; ok {
		answer(w, int(refusal.Code), refusal)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Error(err)
	}
	object := &unstructured.Unstructured{}
	if err := json.Unmarshal(body, object); err != nil {
		s.t.Error(err)
	}
	if old := s.objects[path]; old != nil {
		object.SetDeletionTimestamp(old.GetDeletionTimestamp())
		object.SetOwnerReferences(old.GetOwnerReferences())
	}
	object.SetUID("uid-of-apply")
	object.SetResourceVersion("1")
	s.objects[path] = object
	answer(w, 200, object)
}

func (s *stub) delete(w http.ResponseWriter, r *http.Request) {
	s.calls = append(s.calls, "delete "+r.URL.Path)
	var options metav1.DeleteOptions
	if err := json.NewDecoder(r.Body).Decode(&options); err != nil {
		s.t.Error(err)
	}
	object := s.objects[r.URL.Path]
	if options.Preconditions == nil || options.Preconditions.UID == nil || object == nil || *options.Preconditions.UID != object.GetUID() {
		s.t.Errorf("deleted %s without saying which one: %+v", r.URL.Path, options)
	}
	delete(s.objects, r.URL.Path)
	answer(w, 200, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Success"})
}

func (s *stub) list(w http.ResponseWriter, r *http.Request) {
	s.calls = append(s.calls, "list "+r.URL.Path)
	if r.URL.Query().Get("labelSelector") != StackLabel {
		s.t.Errorf("lists more than objects of stacks: %s", r.URL)
	}
	if s.broken[r.URL.Path] {
		answer(w, 500, status(500, metav1.StatusReasonInternalError, "broken"))
		return
	}
	list := metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"}}
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	prefix := strings.TrimSuffix(r.URL.Path, resource)
	for path, object := range s.objects {
		if strings.HasPrefix(path, prefix) && strings.Contains(path, "/"+resource+"/") && object.GetLabels()[StackLabel] != "" {
			list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
				Name: object.GetName(), Namespace: object.GetNamespace(), Labels: object.GetLabels(),
			}})
		}
	}
	answer(w, 200, list)
}

// watch answers a watch for one CRD: with it being served, if it gets served,
// from when on the kind it defines is.
func (s *stub) watch(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	crd := s.objects[r.URL.Path+"/"+name]
	if crd == nil {
		s.t.Errorf("watch for %s", r.URL)
		return
	}
	kind := "NamesAccepted"
	state := "False"
	if s.establish == nil || s.establish(crd) {
		kind, state = "Established", "True"
		s.resources["example.org/v1"] = append(s.resources["example.org/v1"], metav1.APIResource{Name: "widgets", Kind: "Widget", Namespaced: true})
	}
	crd = crd.DeepCopy()
	_ = unstructured.SetNestedSlice(crd.Object, []any{map[string]any{"type": kind, "status": state, "message": "because"}}, "status", "conditions")
	answer(w, 200, map[string]any{"type": "MODIFIED", "object": crd.Object})
}

func status(code int32, reason metav1.StatusReason, message string) metav1.Status {
	return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: code, Reason: reason, Message: message}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nexpected:\n%s", what, lines(got), lines(want))
	}
}

func lines(s []string) string { return fmt.Sprintf("\t%s", strings.Join(s, "\n\t")) }
