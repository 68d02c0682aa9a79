package manifests

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// patchesFor are the patches of k0s.yaml that concern a stack, and the path of their list.
func patchesFor(stack string, spec v1beta1.ClusterSpec) (string, []v1beta1.Patch) {
	switch stack {
	case CoreDNS:
		return "spec.network.coreDNS.patches", spec.Network.CoreDNS.Patches
	case MetricsServer:
		return "spec.metricsServer.patches", spec.MetricsServer.Patches
	}
	return "", nil
}

// Patch applies the patches of a k0s.yaml to our own stacks, in their order. The error is a
// *v1beta1.Error with all that do not apply.
func Patch(stacks []Stack, spec v1beta1.ClusterSpec) ([]Stack, error) {
	patched, problems := patch(stacks, spec)
	if len(problems) > 0 {
		return nil, &v1beta1.Error{Problems: problems}
	}
	return patched, nil
}

func patch(stacks []Stack, spec v1beta1.ClusterSpec) (patched []Stack, problems []v1beta1.Problem) {
	patched = slices.Clone(stacks)
	for i, stack := range patched {
		path, patches := patchesFor(stack.Name, spec)
		if len(stack.Objects) == 0 {
			continue // it is disabled
		}
		for n, p := range patches {
			objects, err := patchObjects(patched[i].Objects, p)
			if err != nil {
				problems = append(problems, v1beta1.Problem{Path: fmt.Sprintf("%s[%d]", path, n), Reason: err.Error()})
				continue
			}
			patched[i].Objects = objects
		}
	}
	return patched, problems
}

// CheckPatches tells which patches of a k0s.yaml do not apply to the stacks as they would be rendered.
func CheckPatches(config *v1beta1.ClusterConfig) []v1beta1.Problem {
	stacks, err := Render(DefaultParams())
	if err != nil {
		return []v1beta1.Problem{{Reason: err.Error()}}
	}
	_, problems := patch(stacks, config.Spec)
	return problems
}

// patchObjects returns the objects with the one changed that p is meant for.
func patchObjects(objects []Object, p v1beta1.Patch) ([]Object, error) {
	i := slices.IndexFunc(objects, func(o Object) bool {
		return o.GetKind() == p.Target.Kind && o.GetName() == p.Target.Name &&
			(p.Target.Namespace == "" || o.GetNamespace() == p.Target.Namespace)
	})
	if i < 0 {
		var there []string
		for _, o := range objects {
			there = append(there, describeTarget(o.GetKind(), o.GetNamespace(), o.GetName()))
		}
		return nil, fmt.Errorf("there is no %s to be patched; there are: %s",
			describeTarget(p.Target.Kind, p.Target.Namespace, p.Target.Name), strings.Join(there, ", "))
	}
	changed, err := patchObject(objects[i], p.Patch)
	if err != nil {
		return nil, fmt.Errorf("patching %s: %w", describeTarget(p.Target.Kind, p.Target.Namespace, p.Target.Name), err)
	}
	patched := slices.Clone(objects)
	patched[i] = changed
	return patched, nil
}

func describeTarget(kind, namespace, name string) string {
	if namespace != "" {
		name = namespace + "/" + name
	}
	return kind + " " + name
}

func patchObject(o Object, p v1beta1.PatchSpec) (Object, error) {
	original, err := json.Marshal(o.Object)
	if err != nil {
		return Object{}, err
	}
	content, err := yaml.YAMLToJSON([]byte(p.Content))
	if err != nil {
		return Object{}, err
	}
	changed, err := applyPatch(original, content, p.Type, o)
	if err != nil {
		return Object{}, err
	}
	result := &unstructured.Unstructured{}
	if err := result.UnmarshalJSON(changed); err != nil {
		return Object{}, fmt.Errorf("the result is no object any more: %w", err)
	}
	if result.GroupVersionKind() != o.GroupVersionKind() || result.GetName() != o.GetName() || result.GetNamespace() != o.GetNamespace() {
		return Object{}, errors.New("a patch must not change apiVersion, kind, name or namespace")
	}
	return Object{Unstructured: result, Source: o.Source}, nil
}

func applyPatch(original, content []byte, how v1beta1.PatchType, o Object) ([]byte, error) {
	switch how {
	case v1beta1.JSONPatch:
		operations, err := jsonpatch.DecodePatch(content)
		if err != nil {
			return nil, err
		}
		return operations.Apply(original)
	case v1beta1.MergePatch:
		return jsonpatch.MergePatch(original, content)
	case v1beta1.StrategicMergePatch:
		typed, err := scheme.Scheme.New(o.GroupVersionKind())
		if runtime.IsNotRegisteredError(err) {
			return nil, fmt.Errorf("the type %s works only for kinds built into Kubernetes: use %s", how, v1beta1.MergePatch)
		}
		if err != nil {
			return nil, err
		}
		return strategicpatch.StrategicMergePatch(original, content, typed)
	}
	return nil, fmt.Errorf("there is no patch type %q", how)
}
