package manifests

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"
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
		wrong := map[int]v1beta1.Problem{} // since which patch an object is
		for n, p := range patches {
			if p.Target.Kind == "" || p.Target.Name == "" {
				continue // that it is required is said elsewhere
			}
			objects, changed, err := patchObjects(patched[i].Objects, p)
			problem := v1beta1.Problem{Path: fmt.Sprintf("%s[%d]", path, n)}
			if err != nil {
				problem.Reason = err.Error()
				problems = append(problems, problem)
				continue
			}
			patched[i].Objects = objects
			// Patches may be meant for each other: what counts is the result of all.
			if err := checkObject(objects[changed]); err == nil {
				delete(wrong, changed)
			} else if _, before := wrong[changed]; !before {
				problem.Reason = fmt.Sprintf("patching %s: %s", describeTarget(p.Target.Kind, p.Target.Namespace, p.Target.Name), err)
				wrong[changed] = problem
			}
		}
		for _, changed := range slices.Sorted(maps.Keys(wrong)) {
			problems = append(problems, wrong[changed])
		}
	}
	return patched, problems
}

// checkObject tells what the API server would refuse of an object of a kind built into Kubernetes: what does not
// decode and, in a Deployment, that it has nothing to run.
func checkObject(o Object) error {
	typed, err := scheme.Scheme.New(o.GroupVersionKind())
	if runtime.IsNotRegisteredError(err) {
		return nil
	}
	if err != nil {
		return err
	}
	data, err := json.Marshal(o.Object)
	if err != nil {
		return err
	}
	unknown, err := kjson.UnmarshalStrict(data, typed)
	if err != nil {
		return fmt.Errorf("the result is no %s any more: %w", o.GetKind(), err)
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the result has what no %s has: %w", o.GetKind(), errors.Join(unknown...))
	}
	if d, ok := typed.(*appsv1.Deployment); ok && (d.Spec.Selector == nil || len(d.Spec.Template.Spec.Containers) == 0) {
		return errors.New("the result has no spec.selector or no containers: this takes away more than it may")
	}
	return nil
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

// patchObjects returns the objects with the one changed that p is meant for, and which that is.
func patchObjects(objects []Object, p v1beta1.Patch) ([]Object, int, error) {
	i := slices.IndexFunc(objects, func(o Object) bool {
		return o.GetKind() == p.Target.Kind && o.GetName() == p.Target.Name &&
			(p.Target.Namespace == "" || o.GetNamespace() == p.Target.Namespace)
	})
	if i < 0 {
		var there []string
		for _, o := range objects {
			there = append(there, describeTarget(o.GetKind(), o.GetNamespace(), o.GetName()))
		}
		return nil, 0, fmt.Errorf("there is no %s to be patched; there are: %s",
			describeTarget(p.Target.Kind, p.Target.Namespace, p.Target.Name), strings.Join(there, ", "))
	}
	changed, err := patchObject(objects[i], p.Patch)
	if err != nil {
		return nil, 0, fmt.Errorf("patching %s: %w", describeTarget(p.Target.Kind, p.Target.Namespace, p.Target.Name), err)
	}
	patched := slices.Clone(objects)
	patched[i] = changed
	return patched, i, nil
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
