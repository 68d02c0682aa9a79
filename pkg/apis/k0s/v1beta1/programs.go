package v1beta1

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Programs knows what only the programs themselves can tell. The executable has
// them inside; who has not passes nil, and what they would refuse shows when
// they start.
type Programs interface {
	// Flags lists the names of a program's flags; none if they are not known.
	Flags(program string) []string
	// Features lists the names of a component's feature gates.
	Features(component string) []string
	// CheckKubelet tells what is wrong with a worker profile's values, as JSON,
	// by the rules of the kubelet.
	CheckKubelet(values []byte) []error
}

// validateWith returns what the programs refuse.
func (c *ClusterConfig) validateWith(programs Programs) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	for _, p := range []struct {
		name string
		path *field.Path
		args Args
	}{
		{"kube-apiserver", spec.Child("api"), c.Spec.API.Args},
		{"kube-controller-manager", spec.Child("controllerManager"), c.Spec.ControllerManager.Args},
		{"kube-scheduler", spec.Child("scheduler"), c.Spec.Scheduler.Args},
		{"etcd", spec.Child("storage", "etcd"), c.Spec.Storage.Etcd.Args},
		{"kine", spec.Child("storage", "kine"), c.Spec.Storage.Kine.Args},
		{"kube-proxy", spec.Child("network", "kubeProxy"), c.Spec.Network.KubeProxy.Args},
	} {
		known := programs.Flags(p.name)
		for _, name := range slices.Sorted(maps.Keys(p.args.ExtraArgs)) {
			if len(known) > 0 && !slices.Contains(known, name) {
				errs = append(errs, field.Forbidden(p.path.Child("extraArgs").Key(name),
					fmt.Sprintf("%s has no such flag%s", p.name, nearest(name, known))))
			}
		}
	}
	for i, gate := range c.Spec.FeatureGates {
		path := spec.Child("featureGates").Index(i).Child("name")
		components := gate.Components
		if len(components) == 0 {
			components = GatedComponents()
		}
		var all []string
		known := false
		for _, component := range components {
			features := programs.Features(component)
			all = append(all, features...)
			known = known || slices.Contains(features, gate.Name)
			if len(gate.Components) > 0 && !slices.Contains(features, gate.Name) {
				errs = append(errs, field.Invalid(path, gate.Name, fmt.Sprintf("%s has no such feature%s", component, nearest(gate.Name, features))))
				known = true // and said what there is to say
			}
		}
		if !known {
			errs = append(errs, field.Invalid(path, gate.Name, "Kubernetes has no such feature"+nearest(gate.Name, all)))
		}
	}
	for i, profile := range c.Spec.WorkerProfiles {
		if profile.Values == nil {
			continue
		}
		for _, err := range programs.CheckKubelet(profile.Values.Raw) {
			errs = append(errs, field.Forbidden(spec.Child("workerProfiles").Index(i).Child("values"), err.Error()))
		}
	}
	return errs
}

// nearest is what a misspelt name was probably meant to be, if anything is near.
func nearest(name string, names []string) string {
	if best := closest(name, names); best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ""
}
