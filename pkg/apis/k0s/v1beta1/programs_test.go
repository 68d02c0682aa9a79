package v1beta1

import (
	"encoding/json"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// stubPrograms knows few flags and features, and a kubelet that refuses a negative maxPods and to be
// without the feature Serving.
type stubPrograms struct{ asked *[]string }

func (s stubPrograms) ask(what string) {
	if s.asked != nil {
		*s.asked = append(*s.asked, what)
	}
}

func (s stubPrograms) Flags(program string) []string {
	s.ask("flags of " + program)
	if program == "kine" {
		return nil // not known
	}
	return []string{"v", "profiling", FeatureGatesFlag, program + "-only"}
}

func (s stubPrograms) CheckFlags(program string, values map[string]string) map[string]string {
	s.ask("values of " + program)
	problems := map[string]string{}
	for flag, value := range values {
		if flag == "v" && value == "abc" {
			problems[flag] = "must be a whole number"
		}
	}
	return problems
}

func (s stubPrograms) Features(component string) []string {
	s.ask("features of " + component)
	features := []string{"Common", "Locked", "Needy"}
	if component == "kubelet" {
		features = append(features, "Swapping", "Serving")
	}
	return features
}

func (s stubPrograms) CheckFeatures(component string, gates map[string]bool) map[string]string {
	s.ask("gates of " + component)
	problems := map[string]string{}
	if enabled, set := gates["Locked"]; set && !enabled {
		problems["Locked"] = "is locked"
	}
	if gates["Needy"] && !gates["Common"] {
		problems["Needy"] = "needs Common"
	}
	return problems
}

func (s stubPrograms) CheckDataSource(source string) string {
	s.ask("data source")
	if source == "mysql://wrong" {
		return "cannot be read"
	}
	return ""
}

func (s stubPrograms) CheckKubelet(settings []byte) field.ErrorList {
	s.ask("kubelet with " + string(settings))
	var c struct {
		MaxPods      int
		FeatureGates map[string]bool
		ClusterDNS   any
	}
	var errs field.ErrorList
	if err := json.Unmarshal(settings, &c); err != nil {
		return field.ErrorList{{Type: field.ErrorTypeForbidden, Detail: "does not decode"}}
	}
	if c.MaxPods < 0 {
		errs = append(errs, field.Forbidden(field.NewPath("maxPods"), "must not be negative"))
	}
	if serving, set := c.FeatureGates["Serving"]; set && !serving {
		errs = append(errs, field.Forbidden(field.NewPath("serverTLSBootstrap"), "needs Serving"))
	}
	if c.ClusterDNS != nil {
		errs = append(errs, field.Forbidden(field.NewPath("clusterDNS"), "is wrong, too"))
	}
	return errs
}

func TestProgramsRefuse(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		// Flags
		{"no such flag", "spec:\n  api:\n    extraArgs:\n      profling: x", `line 4: spec.api.extraArgs[profling]: kube-apiserver has no such flag: did you mean "profiling"?`},
		{"a flag of another program", "spec: {scheduler: {extraArgs: {kube-apiserver-only: x}}}", `line 1: spec.scheduler.extraArgs[kube-apiserver-only]: kube-scheduler has no such flag: did you mean "kube-scheduler-only"?`},
		{"flags of each program", "spec: {controllerManager: {extraArgs: {a: b}}, storage: {etcd: {extraArgs: {c: d}}}, network: {kubeProxy: {extraArgs: {e: f}}}}",
			"line 1: spec.controllerManager.extraArgs[a]: kube-controller-manager has no such flag\n" +
				"line 1: spec.storage.etcd.extraArgs[c]: etcd has no such flag\n" +
				"line 1: spec.network.kubeProxy.extraArgs[e]: kube-proxy has no such flag"},
		{"a flag's value", "spec:\n  scheduler:\n    extraArgs:\n      v: abc\n      vv: abc", "line 4: spec.scheduler.extraArgs[v]: invalid value \"abc\": must be a whole number\n" +
			"line 5: spec.scheduler.extraArgs[vv]: kube-scheduler has no such flag"},
		{"flags that are not known", "spec: {storage: {type: kine, kine: {extraArgs: {whatever: x}}}}", ""},
		{"a data source", "spec: {storage: {type: kine, kine: {dataSource: mysql://wrong}}}", "line 1: spec.storage.kine.dataSource: cannot be read"},
		{"a data source without effect", "spec: {storage: {kine: {dataSource: mysql://wrong}}}", ""},
		{"good flags", "spec: {api: {extraArgs: {profiling: \"true\", feature-gates: Common=true}, rawArgs: [--no-such]}}", ""},

		// Feature gates
		{"no such feature", "spec: {featureGates: [{name: Comon, enabled: true}]}", `line 1: spec.featureGates[0].name: invalid value "Comon": Kubernetes has no such feature: did you mean "Common"?`},
		{"known to one component only", "spec: {featureGates: [{name: Swapping, enabled: true}]}", ""},
		{"not known to the component", "spec: {featureGates: [{name: Swapping, enabled: true, components: [kubelet, kube-proxy]}]}", `line 1: spec.featureGates[0].name: invalid value "Swapping": kube-proxy has no such feature`},
		{"an unknown component is not asked", "spec: {featureGates: [{name: Common, enabled: true, components: [etcd]}]}",
			`line 1: spec.featureGates[0].components[0]: invalid value "etcd": must be kube-apiserver, kube-controller-manager, kubelet, kube-scheduler or kube-proxy`},
		{"locked, said once", "spec:\n  featureGates:\n  - name: Common\n    enabled: true\n  - name: Locked\n    enabled: false", `line 6: spec.featureGates[1].enabled: invalid value false: is locked`},
		{"an unknown one does not hide another problem", "spec: {featureGates: [{name: Comon, enabled: true}, {name: Locked, enabled: false}]}",
			`line 1: spec.featureGates[0].name: invalid value "Comon": Kubernetes has no such feature: did you mean "Common"?` + "\n" +
				"line 1: spec.featureGates[1].enabled: invalid value false: is locked"},
		{"locked to what it is set to", "spec: {featureGates: [{name: Locked, enabled: true}]}", ""},
		{"needs another, which one component lacks", "spec: {featureGates: [{name: Common, enabled: true, components: [kubelet]}, {name: Needy, enabled: true, components: [kubelet, kube-proxy]}]}",
			`line 1: spec.featureGates[1].enabled: invalid value true: needs Common`},
		{"k0s' own settings need it", "spec: {featureGates: [{name: Serving, enabled: false, components: [kubelet]}], workerProfiles: [{name: a, values: {maxPods: 1}}]}",
			"line 1: spec.featureGates: the kubelet refuses these: needs Serving"},
		{"extra gate that is not known", "spec: {api: {extraArgs: {feature-gates: \"Common=true,Comon=false\"}}}",
			`line 1: spec.api.extraArgs[feature-gates]: invalid value "Common=true,Comon=false": kube-apiserver has no feature "Comon": did you mean "Common"?`},
		{"extra gate that is not one", "spec: {scheduler: {extraArgs: {feature-gates: \"Common\"}}}",
			`line 1: spec.scheduler.extraArgs[feature-gates]: invalid value "Common": "Common" must be NAME=true or NAME=false`},
		{"extra gate that is locked", "spec: {network: {kubeProxy: {extraArgs: {feature-gates: \"Locked=false\"}}}}",
			`line 1: spec.network.kubeProxy.extraArgs[feature-gates]: invalid value "Locked=false": Locked is locked`},
		{"extra gate with what it needs from featureGates", "spec: {featureGates: [{name: Common, enabled: true}], scheduler: {extraArgs: {feature-gates: \"kube:Needy=true\"}}}", ""},

		// Worker profiles
		{"refused by the kubelet", "spec:\n  workerProfiles:\n  - name: a\n    values: {maxPods: 1}\n  - name: b\n    values:\n      podsPerCore: 1\n      maxPods: -1\n",
			"line 8: spec.workerProfiles[1].values.maxPods: must not be negative"},
		{"not decoded by the kubelet", "spec: {workerProfiles: [{name: a, values: {maxPods: many}}]}", "line 1: spec.workerProfiles[0].values: does not decode"},
		{"reserved, said once", "spec: {workerProfiles: [{name: a, values: {clusterDNS: [192.0.2.1]}}]}", "line 1: spec.workerProfiles[0].values.clusterDNS: is for k0s to set: it follows from spec.network.serviceCIDR"},
		{"a profile's gate", "spec: {workerProfiles: [{name: a, values: {featureGates: {Serving: false}}}]}", "line 1: spec.workerProfiles[0].values.serverTLSBootstrap: needs Serving"},
		{"a profile's gate wins", "spec: {featureGates: [{name: Swapping, enabled: true}], workerProfiles: [{name: a, values: {featureGates: {Swapping: false}}}]}", ""},
		{"not a mapping, said once", "spec: {workerProfiles: [{name: a, values: [maxPods]}]}", "line 1: spec.workerProfiles[0].values: must be a mapping of names to values"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := ""
			if _, err := Parse([]byte(test.file), stubPrograms{}); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("\n got %s\nwant %s", got, test.want)
			}
		})
	}
}

// What the file does not mention costs nothing.
func TestProgramsAreAskedOnlyWhatMatters(t *testing.T) {
	for _, test := range []struct {
		file string
		want []string
	}{
		{"spec: {api: {port: 6444}, workerProfiles: [{name: a}]}", nil},
		{"spec: {api: {rawArgs: [--v=1]}, scheduler: {extraArgs: {v: 1}}}", []string{"flags of kube-scheduler", "values of kube-scheduler"}},
		{"spec: {workerProfiles: [{name: a, values: {maxPods: 1}}]}", []string{`kubelet with {"maxPods":1}`}},
	} {
		var asked []string
		if _, err := Parse([]byte(test.file), stubPrograms{&asked}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(asked, test.want) {
			t.Errorf("%s: asked for %q, want %q", test.file, asked, test.want)
		}
	}
}
