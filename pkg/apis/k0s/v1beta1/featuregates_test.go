package v1beta1

import (
	"maps"
	"testing"
)

func TestFeatureGates(t *testing.T) {
	for _, test := range []struct{ name, gates, want string }{
		{"no name", "[{enabled: true}]", "line 1: spec.featureGates[0].name: required: the feature's name"},
		{"not a name", `[{name: "A=true", enabled: true}, {name: "A,B", enabled: true}, {name: "kube:A", enabled: true}]`,
			`line 1: spec.featureGates[0].name: invalid value "A=true": must be a feature's name, without "=", colon, comma or blank` + "\n" +
				`line 1: spec.featureGates[1].name: invalid value "A,B": must be a feature's name, without "=", colon, comma or blank` + "\n" +
				`line 1: spec.featureGates[2].name: invalid value "kube:A": must be a feature's name, without "=", colon, comma or blank`},
		{"component", "[{name: A, enabled: true, components: [kubelet, kube-apisever]}]",
			`line 1: spec.featureGates[0].components[1]: invalid value "kube-apisever": must be kube-apiserver, kube-controller-manager, kubelet, kube-scheduler or kube-proxy`},
		{"twice", "[{name: A, enabled: true}, {name: A, enabled: true, components: [kubelet]}]", `line 1: spec.featureGates[1].name: invalid value "A": is set twice for kubelet`},
		{"contradiction", "[{name: A, enabled: true, components: [kube-proxy]}, {name: A}]", `line 1: spec.featureGates[1].name: invalid value "A": is set twice for kube-proxy`},
		{"each for its own", "[{name: A, enabled: true, components: [kubelet]}, {name: A, enabled: false, components: [kube-proxy]}]", ""},
		{"not a list", "{A: true}", "line 1: spec.featureGates: must be a list, not a mapping"},
		{"unknown key", "[{name: A, enable: true}]", `line 1: spec.featureGates[0].enable: unknown field: did you mean "enabled"?`},
		{"not a bool", "[{name: A, enabled: always}]", `line 1: spec.featureGates[0].enabled: invalid value "always": must be true or false`},
	} {
		got := ""
		if _, err := Parse([]byte("spec: {featureGates: "+test.gates+"}"), nil); err != nil {
			got = err.Error()
		}
		if got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestFeatureGatesOf(t *testing.T) {
	c := Default()
	c.Spec.FeatureGates = []FeatureGate{{Name: "A", Enabled: true}, {Name: "B", Components: []string{"kubelet"}}, {Name: "C", Enabled: true, Components: []string{"kube-proxy"}}}
	for component, want := range map[string]map[string]bool{
		"kubelet":        {"A": true, "B": false},
		"kube-proxy":     {"A": true, "C": true},
		"kube-apiserver": {"A": true},
	} {
		if got := c.FeatureGatesOf(component); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", component, got, want)
		}
	}
}

func TestParseFeatureGates(t *testing.T) {
	for value, want := range map[string]map[string]bool{
		"":                          {},
		"A=true":                    {"A": true},
		" A=true , kube:B=false, ":  {"A": true, "B": false},
		"A=true,A=false":            {"A": false},
		"A=1,B=f":                   {"A": true, "B": false},
		"A":                         nil,
		"A=":                        nil,
		"=true":                     nil,
		"A=yes":                     nil,
		"kube:=true":                nil,
		"A=true;B=true":             nil,
		"A=true,B=true,C=sometimes": nil,
	} {
		got, err := ParseFeatureGates(value)
		if !maps.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: got %v, %v", value, got, err)
		}
	}
}
