package v1beta1

import (
	"strings"

	"github.com/distribution/reference"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PullPolicy is when a node pulls an image.
type PullPolicy string

const (
	// PullIfNotPresent pulls an image the node does not have.
	PullIfNotPresent PullPolicy = "IfNotPresent"
	// PullAlways asks the registry at every start of a container.
	PullAlways PullPolicy = "Always"
	// PullNever uses only images the node has.
	PullNever PullPolicy = "Never"
)

// ImagesSpec names the container images of the system pods. The defaults are
// inside the k0s executable and need no registry; an image named here, or moved
// to another registry by repository, is pulled as any other.
type ImagesSpec struct {
	// Repository replaces the registry in the names of all images, and may
	// have a path. Empty: the names stay as they are.
	Repository string `json:"repository,omitempty" scope:"cluster" change:"restart" example:"registry.example.org:5000/mirror"`
	// DefaultPullPolicy of the system pods: IfNotPresent, Always or Never.
	DefaultPullPolicy PullPolicy `json:"default_pull_policy" scope:"cluster" change:"restart" enum:"IfNotPresent,Always,Never" example:"Never"`
	// CoreDNS is the image of the cluster DNS.
	CoreDNS Image `json:"coredns"`
	// MetricsServer is the image of metrics-server.
	MetricsServer Image `json:"metricsserver"`
	// Pause is the image that holds the namespaces of each pod.
	Pause Image `json:"pause"`
	// Konnectivity has no effect: the agent is part of the worker.
	Konnectivity *UnusedImage `json:"konnectivity,omitempty"`
	// PushGateway has no effect: there is none.
	PushGateway *UnusedImage `json:"pushgateway,omitempty"`
	// KubeProxy has no effect: kube-proxy is part of the worker.
	KubeProxy *UnusedImage `json:"kubeproxy,omitempty"`
	// KubeRouter has no effect: the provider is part of the worker.
	KubeRouter *KubeRouterImages `json:"kuberouter,omitempty"`
	// Calico are the images of the calico provider.
	Calico *CalicoImages `json:"calico,omitempty"`
	// Windows are the images of Windows nodes, which there are none of.
	Windows *WindowsImages `json:"windows,omitempty"`
}

// Image is a container image.
type Image struct {
	// Image is the name with registry, without tag.
	Image string `json:"image" scope:"cluster" change:"restart" example:"registry.example.org/pause"`
	// Version is the tag, optionally followed by @ and a digest.
	Version string `json:"version" scope:"cluster" change:"restart" example:"\"1.0\""`
}

// UnusedImage is the image of what needs none: it is inside the k0s executable.
type UnusedImage struct {
	// Image has no effect.
	Image string `json:"image,omitempty" scope:"cluster" change:"none" gone:"this is inside k0s, not a pod with an image" example:"example.org/unused"`
	// Version has no effect.
	Version string `json:"version,omitempty" scope:"cluster" change:"none" gone:"this is inside k0s, not a pod with an image" example:"\"1.0\""`
}

// KubeRouterImages have no effect.
type KubeRouterImages struct {
	// CNI has no effect.
	CNI *UnusedImage `json:"cni,omitempty"`
	// CNIInstaller has no effect.
	CNIInstaller *UnusedImage `json:"cniInstaller,omitempty"`
}

// CalicoImages are the images of the calico provider; without effect for
// another.
type CalicoImages struct {
	// CNI installs the CNI plugin.
	CNI *LaterImage `json:"cni,omitempty"`
	// Node runs on each node.
	Node *LaterImage `json:"node,omitempty"`
	// KubeControllers runs once.
	KubeControllers *LaterImage `json:"kubecontrollers,omitempty"`
	// Windows are the images of Windows nodes, which there are none of.
	Windows *CalicoWindowsImages `json:"windows,omitempty"`
}

// LaterImage is an image of the calico provider, which does not exist yet.
type LaterImage struct {
	// Image has no effect yet: the calico provider itself is refused.
	Image string `json:"image,omitempty" scope:"cluster" change:"none" gone:"there is no calico provider yet" example:"example.org/calico"`
	// Version has no effect yet.
	Version string `json:"version,omitempty" scope:"cluster" change:"none" gone:"there is no calico provider yet" example:"\"1.0\""`
}

// CalicoWindowsImages have no effect.
type CalicoWindowsImages struct {
	// CNI has no effect.
	CNI *WindowsImage `json:"cni,omitempty"`
	// Node has no effect.
	Node *WindowsImage `json:"node,omitempty"`
}

// WindowsImages have no effect.
type WindowsImages struct {
	// KubeProxy has no effect.
	KubeProxy *WindowsImage `json:"kubeproxy,omitempty"`
	// Pause has no effect.
	Pause *WindowsImage `json:"pause,omitempty"`
}

// WindowsImage has no effect: k0s has no Windows nodes.
type WindowsImage struct {
	// Image has no effect.
	Image string `json:"image,omitempty" scope:"cluster" change:"none" gone:"k0s has no Windows nodes" example:"example.org/windows"`
	// Version has no effect.
	Version string `json:"version,omitempty" scope:"cluster" change:"none" gone:"k0s has no Windows nodes" example:"\"1.0\""`
}

// Ref is the reference of an image, name:version, in the repository. A name
// that is in it already stays.
func (i ImagesSpec) Ref(image Image) string {
	name, repository := image.Image, strings.TrimSuffix(i.Repository, "/")
	if repository != "" && !strings.HasPrefix(name, repository+"/") {
		name = repository + "/" + pathOf(name)
	}
	return name + ":" + image.Version
}

// pathOf is an image's name without the registry, if it has one: what precedes
// the first slash is one if it has a dot or a colon, or is localhost.
func pathOf(name string) string {
	registry, path, ok := strings.Cut(name, "/")
	if ok && (strings.ContainsAny(registry, ".:") || registry == "localhost") {
		return path
	}
	return name
}

func (i ImagesSpec) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if i.Repository != "" {
		if named, err := reference.ParseNormalizedNamed(strings.TrimSuffix(i.Repository, "/") + "/image"); err != nil || !reference.IsNameOnly(named) {
			errs = append(errs, field.Invalid(path.Child("repository"), i.Repository, "must be a registry with or without a path, such as registry.example.org:5000/mirror"))
		}
	}
	errs = append(errs, i.CoreDNS.validate(path.Child("coredns"))...)
	errs = append(errs, i.MetricsServer.validate(path.Child("metricsserver"))...)
	return append(errs, i.Pause.validate(path.Child("pause"))...)
}

func (i Image) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name, err := reference.ParseNormalizedNamed(i.Image); err != nil {
		errs = append(errs, field.Invalid(path.Child("image"), i.Image, err.Error()))
	} else if !reference.IsNameOnly(name) {
		errs = append(errs, field.Invalid(path.Child("image"), i.Image, "must not have a tag or digest: that goes into version"))
	}
	// With a valid name only the version can be wrong.
	if _, err := reference.Parse("image:" + i.Version); err != nil {
		errs = append(errs, field.Invalid(path.Child("version"), i.Version, "must be an image tag, with or without @sha256:…"))
	}
	return errs
}
