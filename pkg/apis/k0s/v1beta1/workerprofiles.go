package v1beta1

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// DefaultProfile is the name of the profile of a worker that names none. What
	// a k0s.yaml has under this name is laid over the built-in settings.
	DefaultProfile = "default"
	// windowsProfile is what upstream's workers on Windows choose by themselves.
	windowsProfile = "default-windows"
)

// WorkerProfile is a set of kubelet settings.
type WorkerProfile struct {
	// Name of the profile, an RFC 1123 label. Required. A profile named
	// "default" applies to every worker that chooses none; other profiles do not
	// build on it.
	Name string `json:"name" scope:"cluster" change:"restart" example:"dense"`
	// Values are fields of KubeletConfiguration (kubelet.config.k8s.io/v1beta1),
	// laid over those k0s sets as a merge patch (RFC 7386): mappings are merged,
	// anything else, lists included, replaces what is there, and null takes a
	// setting of k0s back, so that the kubelet's own default applies. The
	// kubelet's own rules apply. featureGates add to spec.featureGates and win.
	// These are for k0s to set: authentication.x509.clientCAFile, cgroupDriver,
	// clusterDNS, clusterDomain, containerRuntimeEndpoint, registerNode,
	// registerWithTaints and staticPodURL.
	Values *runtime.RawExtension `json:"values,omitempty" scope:"cluster" change:"restart" example:"{maxPods: 250}"`
}

// kubeletAPI are apiVersion and kind of a profile's values, if they say so.
var kubeletAPI = [][2]string{{"apiVersion", "kubelet.config.k8s.io/v1beta1"}, {"kind", "KubeletConfiguration"}}

// reservedKubeletFields are for k0s to set, for these reasons.
var reservedKubeletFields = [][2]string{
	{"authentication.x509.clientCAFile", "the kubelet must trust the cluster's own authority"},
	{"cgroupDriver", "the kubelet and containerd must use the same"},
	{"clusterDNS", "it follows from spec.network.serviceCIDR"},
	{"clusterDomain", "it is spec.network.clusterDomain"},
	{"containerRuntimeEndpoint", "it is that of k0s' own containerd"},
	{"registerNode", "k0s waits for the node it registers"},
	{"registerWithTaints", "give --taints to the node instead"},
	{"staticPodURL", "k0s serves its own pods there; use staticPodPath for yours"},
}

// ProfileNames lists the profiles that a worker may choose.
func (c *ClusterConfig) ProfileNames() []string {
	names := []string{DefaultProfile}
	for _, p := range c.Spec.WorkerProfiles {
		if p.Name != DefaultProfile {
			names = append(names, p.Name)
		}
	}
	return names
}

// KubeletSettings returns what a profile, and spec.featureGates, lay over the
// settings of a node: fields of KubeletConfiguration as JSON, a merge patch. An
// empty name is [DefaultProfile], which need not be in the file; an unknown one
// is an error.
func (c *ClusterConfig) KubeletSettings(profile string) ([]byte, error) {
	if profile == "" {
		profile = DefaultProfile
	}
	if !slices.Contains(c.ProfileNames(), profile) {
		return nil, fmt.Errorf("there is no worker profile %q; there are: %s (spec.workerProfiles)", profile, strings.Join(c.ProfileNames(), ", "))
	}
	var values []byte
	for _, p := range c.Spec.WorkerProfiles {
		if p.Name == profile && p.Values != nil {
			values = p.Values.Raw
		}
	}
	return withFeatureGates(values, c.FeatureGatesOf("kubelet"))
}

// withFeatureGates adds gates to those of a profile's values, which win.
func withFeatureGates(values []byte, gates map[string]bool) ([]byte, error) {
	settings := map[string]any{}
	if len(values) > 0 {
		if err := json.Unmarshal(values, &settings); err != nil {
			return nil, fmt.Errorf("reading a worker profile: %w", err)
		}
	}
	all := map[string]any{}
	for name, enabled := range gates {
		all[name] = enabled
	}
	if own, ok := settings["featureGates"].(map[string]any); ok {
		for name, enabled := range own {
			all[name] = enabled
		}
	}
	if len(all) > 0 {
		settings["featureGates"] = all
	}
	return json.Marshal(settings)
}

func validateWorkerProfiles(path *field.Path, profiles []WorkerProfile) field.ErrorList {
	var errs field.ErrorList
	var names []string
	for i, p := range profiles {
		path := path.Index(i)
		switch problems := validation.IsDNS1123Label(p.Name); {
		case p.Name == "":
			errs = append(errs, field.Required(path.Child("name"), "workers choose a profile by it"))
		case len(problems) > 0:
			errs = append(errs, field.Invalid(path.Child("name"), p.Name, strings.Join(problems, "; ")))
		case slices.Contains(names, p.Name):
			errs = append(errs, field.Invalid(path.Child("name"), p.Name, "is the name of another profile, too"))
		}
		names = append(names, p.Name)
		if p.Values == nil {
			continue
		}
		path = path.Child("values")
		values, ok := asMapping(p.Values.Raw)
		if !ok {
			errs = append(errs, field.Forbidden(path, "must be a mapping of names to values"))
			continue
		}
		for _, api := range kubeletAPI {
			if got, ok := values[api[0]]; ok && got != any(api[1]) {
				errs = append(errs, field.Invalid(path.Child(api[0]), fmt.Sprint(got), "must be "+api[1]))
			}
		}
		for _, reserved := range reservedKubeletFields {
			if has(values, strings.Split(reserved[0], ".")) {
				errs = append(errs, field.Forbidden(path.Child(reserved[0]), "is for k0s to set: "+reserved[1]))
			}
		}
		if port, ok := values["healthzPort"]; ok && port == any(0.0) {
			errs = append(errs, field.Invalid(path.Child("healthzPort"), 0, "k0s asks the kubelet there how it is: choose a port"))
		}
	}
	return errs
}

func asMapping(data []byte) (map[string]any, bool) {
	var values map[string]any
	return values, json.Unmarshal(data, &values) == nil
}

// has tells whether a value is set at a path, or taken away by null, there or
// above.
func has(values map[string]any, path []string) bool {
	value, ok := values[path[0]]
	if !ok || len(path) == 1 || value == nil {
		return ok
	}
	below, isMapping := value.(map[string]any)
	return isMapping && has(below, path[1:])
}

// inertProfiles lists the profiles that nobody chooses by himself.
func inertProfiles(profiles []WorkerProfile) []string {
	var without []string
	for i, p := range profiles {
		if p.Name == windowsProfile {
			without = append(without, fmt.Sprintf("spec.workerProfiles[%d] (%s) has no effect unless a worker is told to use it: there are no workers on Windows yet", i, p.Name))
		}
	}
	return without
}

// checkProfiles returns what the kubelet refuses of each profile, together with
// the feature gates set for all.
func (c *ClusterConfig) checkProfiles(path *field.Path, gates map[string]bool, programs Programs) field.ErrorList {
	var errs field.ErrorList
	for i, profile := range c.Spec.WorkerProfiles {
		if profile.Values == nil {
			continue
		}
		settings, err := withFeatureGates(profile.Values.Raw, gates)
		if err != nil {
			continue // not a mapping, as has been said
		}
		for _, problem := range programs.CheckKubelet(settings) {
			if reserved := func(r [2]string) bool { return r[0] == problem.Field }; slices.ContainsFunc(reservedKubeletFields, reserved) {
				continue // nobody may set it anyway
			}
			problem.Field = strings.TrimSuffix(path.Index(i).Child("values").String()+"."+problem.Field, ".")
			errs = append(errs, problem)
		}
	}
	return errs
}
