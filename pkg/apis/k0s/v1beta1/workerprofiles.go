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

// DefaultProfile is the name of the profile of a worker that names none. What a
// k0s.yaml has under this name is laid over the built-in settings.
const DefaultProfile = "default"

// WorkerProfile is a set of kubelet settings.
type WorkerProfile struct {
	// Name of the profile, an RFC 1123 label. Required. A profile named
	// "default" applies to every worker that chooses none.
	Name string `json:"name" scope:"cluster" change:"restart" example:"dense"`
	// Values are fields of KubeletConfiguration (kubelet.config.k8s.io/v1beta1),
	// laid over those k0s sets; the kubelet's own rules apply. clusterDNS,
	// clusterDomain and staticPodURL are k0s' own.
	Values *runtime.RawExtension `json:"values,omitempty" scope:"cluster" change:"restart" example:"{maxPods: 250}"`
}

// kubeletAPI are apiVersion and kind of a profile's values, if they say so.
var kubeletAPI = map[string]string{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"}

// reservedKubeletFields are for k0s to set.
var reservedKubeletFields = []string{"clusterDNS", "clusterDomain", "staticPodURL"}

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
		var values map[string]any
		if err := json.Unmarshal(p.Values.Raw, &values); err != nil {
			errs = append(errs, field.Forbidden(path, "must be a mapping of names to values"))
			continue
		}
		for name, want := range kubeletAPI {
			if got, ok := values[name]; ok && got != want {
				errs = append(errs, field.Invalid(path.Child(name), fmt.Sprint(got), "must be "+want))
			}
		}
		for _, name := range reservedKubeletFields {
			if _, ok := values[name]; ok {
				errs = append(errs, field.Forbidden(path.Child(name), "is for k0s to set"))
			}
		}
	}
	return errs
}
