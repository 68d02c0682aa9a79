package v1beta1

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// GatedComponents are the programs that feature gates may be set for.
func GatedComponents() []string {
	return []string{"kube-apiserver", "kube-controller-manager", "kubelet", "kube-scheduler", "kube-proxy"}
}

// AppliesTo tells whether the gate is meant for a component.
func (g FeatureGate) AppliesTo(component string) bool {
	return len(g.Components) == 0 || slices.Contains(g.Components, component)
}

func validateFeatureGates(path *field.Path, gates []FeatureGate) field.ErrorList {
	var errs field.ErrorList
	for i, g := range gates {
		path := path.Index(i)
		if g.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), "the feature's name"))
		} else if strings.ContainsAny(g.Name, "=, \t\r\n\x00") {
			errs = append(errs, field.Invalid(path.Child("name"), g.Name, "must be a feature's name, without \"=\", comma or blank"))
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
