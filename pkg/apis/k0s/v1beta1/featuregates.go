package v1beta1

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// FeatureGatesFlag is the programs' flag for feature gates. What extraArgs say
// under this name is added to spec.featureGates, and wins where both name a gate.
const FeatureGatesFlag = "feature-gates"

// GatedComponents are the programs that feature gates may be set for.
func GatedComponents() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kubelet", "kube-scheduler", "kube-proxy"}
}

// AppliesTo tells whether the gate is meant for a component.
func (g FeatureGate) AppliesTo(component string) bool {
	return len(g.Components) == 0 || slices.Contains(g.Components, component)
}

// FeatureGatesOf returns the gates that are meant for a component, by name.
func (c *ClusterConfig) FeatureGatesOf(component string) map[string]bool {
	gates := map[string]bool{}
	for _, g := range c.Spec.FeatureGates {
		if g.AppliesTo(component) {
			gates[g.Name] = g.Enabled
		}
	}
	return gates
}

func validateFeatureGates(path *field.Path, gates []FeatureGate) field.ErrorList {
	var errs field.ErrorList
	for i, g := range gates {
		path := path.Index(i)
		if g.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "the feature's name"))
		} else if strings.ContainsAny(g.Name, "=:, \t\r\n\x00") {
			errs = append(errs, field.Invalid(path.Child("name"), g.Name, "must be a feature's name, without \"=\", colon, comma or blank"))
		}
		for _, other := range gates[:i] {
			if c, twice := both(g, other); twice && g.Name != "" && g.Name == other.Name {
				errs = append(errs, field.Invalid(path.Child("name"), g.Name, fmt.Sprintf("is set twice for %s", c)))
				break
			}
		}
	}
	return errs
}

// both names a component that two gates are meant for.
func both(a, b FeatureGate) (string, bool) {
	for _, c := range GatedComponents() {
		if a.AppliesTo(c) && b.AppliesTo(c) {
			return c, true
		}
	}
	return "", false
}

// checkFeatureGates returns what the programs refuse of spec.featureGates. Each
// problem is reported once, however many programs have it.
func (c *ClusterConfig) checkFeatureGates(path *field.Path, programs Programs) field.ErrorList {
	var errs field.ErrorList
	unknown := map[string]bool{}
	for i, g := range c.Spec.FeatureGates {
		problems := g.checkName(path.Index(i).Child("name"), programs)
		unknown[g.Name] = unknown[g.Name] || g.Name == "" || len(problems) > 0
		errs = append(errs, problems...)
	}
	said := map[string]bool{}
	for _, component := range GatedComponents() {
		gates := c.FeatureGatesOf(component)
		maps.DeleteFunc(gates, func(name string, _ bool) bool { return unknown[name] })
		problems := programs.CheckFeatures(component, gates)
		for i, g := range c.Spec.FeatureGates {
			reason, ok := problems[g.Name]
			path := path.Index(i).Child("enabled")
			if key := path.String() + reason; ok && g.AppliesTo(component) && !said[key] {
				said[key] = true
				errs = append(errs, field.Invalid(path, g.Enabled, reason))
			}
		}
	}
	return errs
}

// checkKubeletGates returns what the kubelet refuses of its gates where no profile
// adds to them: what k0s sets may need a gate.
func checkKubeletGates(path *field.Path, gates map[string]bool, programs Programs) field.ErrorList {
	settings, err := withFeatureGates(nil, gates)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	var errs field.ErrorList
	for _, problem := range programs.CheckKubelet(settings) {
		errs = append(errs, field.Forbidden(path, "the kubelet refuses these: "+problem.Detail))
	}
	return errs
}

// checkName tells whether the programs know the gate. Without components, those
// need not that have no use for it.
func (g FeatureGate) checkName(path *field.Path, programs Programs) field.ErrorList {
	if g.Name == "" {
		return nil // reported already
	}
	var errs field.ErrorList
	for _, component := range g.Components {
		if features := programs.Features(component); !slices.Contains(features, g.Name) && slices.Contains(GatedComponents(), component) {
			errs = append(errs, field.Invalid(path, g.Name, component+" has no such feature"+Nearest(g.Name, features)))
		}
	}
	if len(g.Components) > 0 {
		return errs
	}
	var all []string
	for _, component := range GatedComponents() {
		all = append(all, programs.Features(component)...)
	}
	if !slices.Contains(all, g.Name) {
		errs = append(errs, field.Invalid(path, g.Name, "Kubernetes has no such feature"+Nearest(g.Name, all)))
	}
	return errs
}

// checkExtraGates returns what a program refuses of the feature gates among its
// extraArgs, in addition to spec.featureGates.
func (c *ClusterConfig) checkExtraGates(path *field.Path, component, value string, programs Programs) field.ErrorList {
	gates := c.FeatureGatesOf(component)
	extra, err := ParseFeatureGates(value)
	if err != nil {
		return field.ErrorList{field.Invalid(path, value, err.Error())}
	}
	var errs field.ErrorList
	features := programs.Features(component)
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		gates[name] = extra[name]
		if !slices.Contains(features, name) {
			errs = append(errs, field.Invalid(path, value, fmt.Sprintf("%s has no feature %q%s", component, name, Nearest(name, features))))
		}
	}
	if len(errs) > 0 {
		return errs
	}
	problems := programs.CheckFeatures(component, gates)
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		if _, here := extra[name]; here {
			errs = append(errs, field.Invalid(path, value, name+" "+problems[name]))
		}
	}
	return errs
}

// ParseFeatureGates reads A=true,B=false. The prefix "kube:" is left out, as
// there are no other components than those of Kubernetes.
func ParseFeatureGates(value string) (map[string]bool, error) {
	gates := map[string]bool{}
	for gate := range strings.SplitSeq(value, ",") {
		gate = strings.TrimSpace(gate)
		if gate == "" {
			continue
		}
		name, enabled, _ := strings.Cut(strings.TrimPrefix(gate, "kube:"), "=")
		on, err := strconv.ParseBool(strings.TrimSpace(enabled))
		if name = strings.TrimSpace(name); err != nil || name == "" {
			return nil, fmt.Errorf("%q must be NAME=true or NAME=false", gate)
		}
		gates[name] = on
	}
	return gates, nil
}
