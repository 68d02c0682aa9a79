package manifests

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

func coreDNSPatch(kind v1beta1.PatchType, target, content string) v1beta1.ClusterSpec {
	spec := v1beta1.Default().Spec
	what, name, _ := strings.Cut(target, "/")
	spec.Network.CoreDNS.Patches = []v1beta1.Patch{{
		Target: v1beta1.PatchTarget{Kind: what, Name: name}, Patch: v1beta1.PatchSpec{Type: kind, Content: content},
	}}
	return spec
}

func TestPatch(t *testing.T) {
	const deployment = "Deployment/coredns"
	for _, tc := range []struct {
		name    string
		kind    v1beta1.PatchType
		target  string
		content string
		// what the object has then, by the path
		path []string
		want any
		// that not all of the containers' fields are gone
		wantImage bool
	}{
		{"JSON", v1beta1.JSONPatch, deployment, "- {op: replace, path: /spec/replicas, value: 3}", []string{"spec", "replicas"}, int64(3), true},
		{"JSON as JSON", v1beta1.JSONPatch, deployment, `[{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}]`, []string{"metadata", "annotations", "a"}, "b", true},
		{"merge", v1beta1.MergePatch, deployment, "spec: {replicas: 3}", []string{"spec", "replicas"}, int64(3), true},
		{"merge replaces lists", v1beta1.MergePatch, deployment, "spec: {template: {spec: {containers: [{name: coredns, tty: true}]}}}", []string{"metadata", "name"}, "coredns", false},
		{"strategic merge joins lists", v1beta1.StrategicMergePatch, deployment, "spec: {template: {spec: {containers: [{name: coredns, tty: true}]}}}", []string{"metadata", "name"}, "coredns", true},
		{"another object", v1beta1.MergePatch, "ConfigMap/coredns", `data: {Corefile: ".:53 {}"}`, []string{"data", "Corefile"}, ".:53 {}", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stacks, err := Render(DefaultParams())
			if err != nil {
				t.Fatal(err)
			}
			patched, err := Patch(stacks, coreDNSPatch(tc.kind, tc.target, tc.content))
			if err != nil {
				t.Fatal(err)
			}
			kind, name, _ := strings.Cut(tc.target, "/")
			got, _, _ := unstructured.NestedFieldNoCopy(find(t, patched, kind, name).Object, tc.path...)
			if got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			containers, _, _ := unstructured.NestedSlice(find(t, patched, "Deployment", "coredns").Object, "spec", "template", "spec", "containers")
			if image := containers[0].(map[string]any)["image"]; (image != nil) != tc.wantImage {
				t.Errorf("the container's image is %v", image)
			}
			before, _, _ := unstructured.NestedFieldNoCopy(find(t, stacks, kind, name).Object, tc.path...)
			if before == tc.want && tc.path[0] != "metadata" {
				t.Error("the patch has changed the original")
			}
		})
	}
}

func find(t *testing.T, stacks []Stack, kind, name string) Object {
	t.Helper()
	for _, stack := range stacks {
		for _, o := range stack.Objects {
			if o.GetKind() == kind && o.GetName() == name {
				return o
			}
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return Object{}
}

func TestPatchRefused(t *testing.T) {
	apiService := v1beta1.Default().Spec
	apiService.MetricsServer.Patches = []v1beta1.Patch{
		{Target: v1beta1.PatchTarget{Kind: "APIService", Name: "v1beta1.metrics.k8s.io"}, Patch: v1beta1.PatchSpec{Type: v1beta1.StrategicMergePatch, Content: "spec: {insecureSkipTLSVerify: false}"}},
		{Target: v1beta1.PatchTarget{Kind: "Deployment", Name: "metrics-server", Namespace: "default"}, Patch: v1beta1.PatchSpec{Type: v1beta1.MergePatch, Content: "{}"}},
	}
	for _, tc := range []struct {
		name string
		spec v1beta1.ClusterSpec
		want string
	}{
		{"no such object", coreDNSPatch(v1beta1.MergePatch, "Deployment/dns", "{}"),
			"spec.network.coreDNS.patches[0]: there is no Deployment dns to be patched; there are: ServiceAccount kube-system/coredns, ClusterRole system:coredns, "},
		{"a JSON patch that does not fit", coreDNSPatch(v1beta1.JSONPatch, "Deployment/coredns", "[{op: remove, path: /spec/nothing}]"),
			"spec.network.coreDNS.patches[0]: patching Deployment coredns: error in remove for path: '/spec/nothing': "},
		{"another name", coreDNSPatch(v1beta1.MergePatch, "Deployment/coredns", "metadata: {name: dns}"),
			"spec.network.coreDNS.patches[0]: patching Deployment coredns: a patch must not change apiVersion, kind, name or namespace"},
		{"no kind left", coreDNSPatch(v1beta1.MergePatch, "Deployment/coredns", "kind: null"),
			"spec.network.coreDNS.patches[0]: patching Deployment coredns: the result is no object any more: "},
		{"both problems of a list", apiService,
			"spec.metricsServer.patches[0]: patching APIService v1beta1.metrics.k8s.io: the type StrategicMergePatch works only for kinds built into Kubernetes: use MergePatch\n" +
				"spec.metricsServer.patches[1]: there is no Deployment default/metrics-server to be patched; there are: "},
	} {
		err := &v1beta1.Error{Problems: CheckPatches(&v1beta1.ClusterConfig{Spec: tc.spec})}
		if !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s:\n got %v\nwant %s", tc.name, err, tc.want)
		}
	}
}

// What no patch is to make of an object.
func TestPatchResultRefused(t *testing.T) {
	const at = "spec.network.coreDNS.patches[0]: patching Deployment coredns: "
	for _, tc := range []struct {
		name    string
		kind    v1beta1.PatchType
		content string
		want    string
	}{
		{"a value of another type", v1beta1.MergePatch, `spec: {replicas: "two"}`, at + "the result is no Deployment any more: json: cannot unmarshal string "},
		{"a misspelt field", v1beta1.MergePatch, "spec: {replicaz: 2}", at + `the result has what no Deployment has: unknown field "spec.replicaz"`},
		{"a misspelt field below", v1beta1.StrategicMergePatch, "spec: {template: {spec: {containers: [{name: coredns, tti: true}]}}}",
			at + `the result has what no Deployment has: unknown field "spec.template.spec.containers[0].tti"`},
		{"replacing nothing", v1beta1.JSONPatch, "[{op: replace, path: /spec/nope, value: 1}]", at + `the result has what no Deployment has: unknown field "spec.nope"`},
		{"no specification", v1beta1.JSONPatch, `[{op: replace, path: /spec, value: "x"}]`, at + "the result is no Deployment any more: json: cannot unmarshal string "},
		{"nothing left", v1beta1.MergePatch, "spec: null", at + "the result has no spec.selector or no containers"},
		{"no containers", v1beta1.JSONPatch, "[{op: remove, path: /spec/template/spec/containers}]", at + "the result has no spec.selector or no containers"},
		{"a quantity", v1beta1.StrategicMergePatch, "spec: {template: {spec: {containers: [{name: coredns, resources: {limits: {memory: 1 GB}}}]}}}",
			at + "the result is no Deployment any more: "},
		{"fine", v1beta1.StrategicMergePatch, "spec: {template: {spec: {containers: [{name: coredns, resources: {limits: {memory: 1Gi}}}], tolerations: [{operator: Exists}]}}}", ""},
	} {
		err := &v1beta1.Error{Problems: CheckPatches(&v1beta1.ClusterConfig{Spec: coreDNSPatch(tc.kind, "Deployment/coredns", tc.content)})}
		if !strings.HasPrefix(err.Error(), tc.want) || (tc.want == "") != (len(err.Problems) == 0) {
			t.Errorf("%s:\n got %v\nwant %s", tc.name, err, tc.want)
		}
	}
}

// Each patch is told of its own mistake, and those that mend another's are fine.
func TestPatchesTogether(t *testing.T) {
	spec := v1beta1.Default().Spec
	patch := func(target, content string) {
		kind, name, _ := strings.Cut(target, "/")
		spec.Network.CoreDNS.Patches = append(spec.Network.CoreDNS.Patches, v1beta1.Patch{
			Target: v1beta1.PatchTarget{Kind: kind, Name: name}, Patch: v1beta1.PatchSpec{Type: v1beta1.MergePatch, Content: content}})
	}
	patch("Service/kube-dns", "spec: {whatever: 1}")
	patch("Deployment/coredns", "spec: {replicaz: 3}")
	patch("Deployment/coredns", "spec: {replicas: 3}")
	patch("Service/kube-dns", "spec: {whatever: null}")
	patch("Deployment/", "{}")
	err := &v1beta1.Error{Problems: CheckPatches(&v1beta1.ClusterConfig{Spec: spec})}
	const want = `spec.network.coreDNS.patches[1]: patching Deployment coredns: the result has what no Deployment has: unknown field "spec.replicaz"`
	if err.Error() != want {
		t.Errorf("\n got %v\nwant %s", err, want)
	}
}

func TestPatchOfDisabled(t *testing.T) {
	p := DefaultParams()
	p.Disabled = []string{CoreDNS}
	stacks, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Patch(stacks, coreDNSPatch(v1beta1.MergePatch, "Deployment/coredns", "{}")); err != nil {
		t.Error(err)
	}
}
