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
	// CheckFlags tells by name what is wrong with values for known flags of a
	// program, as far as that can be told without starting it.
	CheckFlags(program string, values map[string]string) map[string]string
	// Features lists the names of a component's feature gates.
	Features(component string) []string
	// CheckFeatures tells by name what is wrong with values for feature gates that
	// a component knows, alone and together.
	CheckFeatures(component string, gates map[string]bool) map[string]string
	// CheckDataSource tells what is wrong with a data source of kine, without
	// repeating any of it; empty if nothing is.
	CheckDataSource(source string) string
	// CheckKubelet tells what is wrong with settings, as of
	// [ClusterConfig.KubeletSettings], by the rules of the kubelet. The paths are
	// those in the settings; empty for all of them.
	CheckKubelet(settings []byte) field.ErrorList
}

// validateWith returns what the programs refuse. It asks only about what the file
// has: the answers take time.
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
		if len(p.args.ExtraArgs) == 0 {
			continue
		}
		known := programs.Flags(p.name)
		valued := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(p.args.ExtraArgs)) {
			path := p.path.Child("extraArgs").Key(name)
			switch {
			case UnknownFlag(p.name, name, known) != "":
				errs = append(errs, field.Forbidden(path, UnknownFlag(p.name, name, known)))
			case name == FeatureGatesFlag && slices.Contains(GatedComponents(), p.name):
				errs = append(errs, c.checkExtraGates(path, p.name, p.args.ExtraArgs[name], programs)...)
			default:
				valued[name] = p.args.ExtraArgs[name]
			}
		}
		if len(valued) == 0 {
			continue
		}
		problems := programs.CheckFlags(p.name, valued)
		for _, name := range slices.Sorted(maps.Keys(problems)) {
			errs = append(errs, field.Invalid(p.path.Child("extraArgs").Key(name), valued[name], problems[name]))
		}
	}
	if source := c.Spec.Storage.Kine.DataSource; c.Spec.Storage.Type == KineStorage && source != "" {
		if reason := programs.CheckDataSource(source); reason != "" {
			errs = append(errs, field.Forbidden(spec.Child("storage", "kine", "dataSource"), reason))
		}
	}
	gates := c.FeatureGatesOf("kubelet")
	if len(c.Spec.FeatureGates) > 0 {
		problems := c.checkFeatureGates(spec.Child("featureGates"), programs)
		if len(problems) == 0 && len(gates) > 0 {
			problems = checkKubeletGates(spec.Child("featureGates"), gates, programs)
		}
		if len(problems) > 0 {
			gates = nil // the profiles are not to blame
		}
		errs = append(errs, problems...)
	}
	return append(errs, c.checkProfiles(spec.Child("workerProfiles"), gates, programs)...)
}

// UnknownFlag says that a program has no flag of a name; empty if it has, or if its
// flags are not known.
func UnknownFlag(program, name string, known []string) string {
	if len(known) == 0 || slices.Contains(known, name) {
		return ""
	}
	return program + " has no such flag" + Nearest(name, known)
}

// Nearest puts into words what a misspelt name was probably meant to be; empty if
// none of the names is near.
func Nearest(name string, names []string) string {
	if best := closest(name, names); best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ""
}
