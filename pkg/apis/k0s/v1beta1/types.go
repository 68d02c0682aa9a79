// Package v1beta1 is the ClusterConfig API (k0s.yaml): its types, defaults,
// strict decoding, validation, and what follows from the values.
//
// The types are the single source of what is known about a field. Its doc
// comment explains it, [Default] gives its default, and struct tags say the
// rest. These are for the reader:
//
//	scope:"node"       every controller has its own value
//	scope:"cluster"    all controllers must have the same value
//
//	change:"restart"   takes effect at the next start of the controller
//	change:"renewal"   applies to certificates issued after the next start
//	change:"founding"  looked at when the cluster is founded, never after
//	change:"redeploy"  fixed when the cluster is founded: another value is refused
//	change:"none"      has no effect
//
//	example:"…"        a value, as YAML
//	default:"…"        the default where it is not a constant
//
// And these make rules, which [ClusterConfig.Validate] enforces:
//
//	enum:"a,b"         no other values; ",a" allows the empty one, too
//	known:"c"          values that upstream has, and that Validate refuses in
//	                   words of their own
//	min:"1" max:"9"    the smallest and the largest value
//	later:"x,y"        the feature does not exist yet: only the default, the
//	                   zero value and these are accepted
//	never:"why"        what it would ask for cannot be: only the default, also
//	                   that of the tag, and the zero value are accepted
//	gone:"why"         accepted and without effect; a value other than the
//	                   default is warned of
//
// [Fields] lists all of this for documentation and tests.
package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

//go:generate go run ../../../../hack/configdoc -root ../../../..

const (
	// APIVersion is the only apiVersion a k0s.yaml may have.
	APIVersion = "k0s.k0sproject.io/v1beta1"
	// Kind is the only kind a k0s.yaml may have.
	Kind = "ClusterConfig"
)

// ClusterConfig is the content of k0s.yaml.
type ClusterConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec is what the cluster shall be.
	Spec ClusterSpec `json:"spec"`
}

// ClusterSpec has one section per part of the cluster.
type ClusterSpec struct {
	// API configures kube-apiserver and the join API of this controller.
	API APISpec `json:"api"`
	// ControllerManager configures kube-controller-manager.
	ControllerManager ControllerManagerSpec `json:"controllerManager,omitzero"`
	// Scheduler configures kube-scheduler.
	Scheduler SchedulerSpec `json:"scheduler,omitzero"`
	// Storage says where the cluster keeps its state.
	Storage StorageSpec `json:"storage"`
	// Network configures pod and service networking.
	Network NetworkSpec `json:"network"`
	// WorkerProfiles are sets of kubelet settings, which a worker chooses one of
	// by name: `k0s worker --profile NAME`.
	WorkerProfiles []WorkerProfile `json:"workerProfiles,omitempty" scope:"cluster" change:"restart"`
	// FeatureGates turns features of the Kubernetes programs on and off.
	FeatureGates []FeatureGate `json:"featureGates,omitempty" scope:"cluster" change:"restart"`
	// Images names the container images of the system pods.
	Images ImagesSpec `json:"images"`
	// Extensions are installed into the cluster.
	Extensions ExtensionsSpec `json:"extensions"`
	// Konnectivity configures the tunnel from the control plane to the nodes.
	Konnectivity KonnectivitySpec `json:"konnectivity"`
	// InstallConfig names the system users the control plane runs as.
	InstallConfig InstallConfigSpec `json:"installConfig"`
	// MetricsServer configures metrics-server.
	MetricsServer MetricsServerSpec `json:"metricsServer,omitzero"`
	// Telemetry is accepted for compatibility: k0s sends no telemetry.
	Telemetry TelemetrySpec `json:"telemetry,omitzero"`
	// PodSecurityPolicy has no effect: Kubernetes has no such policies any more.
	PodSecurityPolicy *PodSecurityPolicySpec `json:"podSecurityPolicy,omitempty"`
}

// Args are further command line arguments for a program.
type Args struct {
	// ExtraArgs are flags by name, without leading dashes. They replace the
	// value k0s would give; feature-gates are added to spec.featureGates. A name
	// the program does not know is refused, and a value that it cannot read;
	// null leaves the flag out.
	ExtraArgs map[string]string `json:"extraArgs,omitempty" scope:"cluster" change:"restart" example:"{v: \"2\"}"`
	// RawArgs are appended to the command line as they are, after all others;
	// a flag may be repeated.
	RawArgs []string `json:"rawArgs,omitempty" scope:"cluster" change:"restart" example:"[--vmodule=garbagecollector=4]"`
}

// CASpec is how long a certificate authority and its certificates are valid.
type CASpec struct {
	// ExpiresAfter is the lifetime of the authority, counted from its creation:
	// ten minutes or longer.
	ExpiresAfter metav1.Duration `json:"expiresAfter" scope:"cluster" change:"founding" example:"43800h"`
	// CertificatesExpireAfter is the lifetime of each certificate it issues, ten
	// minutes or longer; none outlives the authority. Certificates are renewed
	// at a start of k0s, when a third of it is left.
	CertificatesExpireAfter metav1.Duration `json:"certificatesExpireAfter" scope:"node" change:"renewal" example:"4380h"`
}

// ControllerManagerSpec configures kube-controller-manager.
type ControllerManagerSpec struct {
	// Args are further arguments of kube-controller-manager.
	Args `json:",inline"`
}

// SchedulerSpec configures kube-scheduler.
type SchedulerSpec struct {
	// Args are further arguments of kube-scheduler.
	Args `json:",inline"`
}

// InstallConfigSpec is what an installation prepares on the host.
type InstallConfigSpec struct {
	// Users are the system users of the control plane.
	Users UsersSpec `json:"users"`
}

// UsersSpec names the system users of the control plane. Where a user of a
// default name does not exist on the host, its programs run as root; a user of
// another name must exist. The names count at every start; upstream k0s uses
// them only to make the users.
type UsersSpec struct {
	// EtcdUser runs etcd.
	EtcdUser string `json:"etcdUser" scope:"node" change:"restart" example:"my-etcd"`
	// KineUser runs kine. Its socket is for this user alone, so that it must be
	// that of the API server, unless that is root. Left out, it is that of the
	// API server.
	KineUser string `json:"kineUser" scope:"node" change:"restart" example:"my-kine"`
	// KonnectivityUser runs the konnectivity server.
	KonnectivityUser string `json:"konnectivityUser" scope:"node" change:"restart" example:"my-konnectivity"`
	// KubeAPIServerUser runs kube-apiserver and kube-controller-manager.
	KubeAPIServerUser string `json:"kubeAPIserverUser" scope:"node" change:"restart" example:"my-apiserver"`
	// KubeSchedulerUser runs kube-scheduler.
	KubeSchedulerUser string `json:"kubeSchedulerUser" scope:"node" change:"restart" example:"my-scheduler"`
}

// KonnectivitySpec configures the tunnel from the control plane to the nodes.
type KonnectivitySpec struct {
	// AdminPort is the port of the server's health and metrics, on loopback.
	AdminPort int `json:"adminPort" scope:"node" change:"restart" min:"1" max:"65535" example:"9133"`
	// AgentPort is the port agents on the nodes connect to.
	AgentPort int `json:"agentPort" scope:"cluster" change:"restart" min:"1" max:"65535" example:"9132"`
	// ExternalAddress is the host or host:port that agents connect to in place
	// of each controller's own address: a TCP load balancer that hands
	// connections to all controllers by turns. Without a port: agentPort. Empty:
	// the host of spec.api.externalAddress, where workers go by that one.
	ExternalAddress string `json:"externalAddress,omitempty" scope:"cluster" change:"restart" example:"konnectivity.example.org:8132"`
}

// MetricsServerSpec configures metrics-server.
type MetricsServerSpec struct {
	// Patches change the manifests of metrics-server before they are applied.
	Patches []Patch `json:"patches,omitempty" scope:"cluster" change:"restart" example:"[{target: {kind: Deployment, name: metrics-server}, patch: {type: MergePatch, content: '{spec: {replicas: 2}}'}}]"`
}

// TelemetrySpec is accepted for compatibility.
type TelemetrySpec struct {
	// Enabled has no effect: k0s sends no telemetry.
	Enabled bool `json:"enabled,omitempty" scope:"cluster" change:"none" gone:"k0s sends no telemetry" example:"false"`
	// Interval was the time between two reports.
	Interval metav1.Duration `json:"interval,omitzero" scope:"cluster" change:"none" gone:"k0s sends no telemetry" example:"10m"`
}

// PodSecurityPolicySpec is accepted for compatibility.
type PodSecurityPolicySpec struct {
	// DefaultPolicy was the policy of pods without another.
	DefaultPolicy string `json:"defaultPolicy,omitempty" scope:"cluster" change:"none" gone:"Kubernetes has no pod security policies any more" example:"00-k0s-privileged"`
}

// PatchType is how a patch is written.
type PatchType string

const (
	// JSONPatch is a list of operations (RFC 6902).
	JSONPatch PatchType = "JSON"
	// MergePatch is a part of the object that replaces what is there (RFC 7386).
	MergePatch PatchType = "MergePatch"
	// StrategicMergePatch is a part of the object that is merged as `kubectl
	// patch` does by default; only for kinds built into Kubernetes.
	StrategicMergePatch PatchType = "StrategicMergePatch"
)

// Patch changes one object of a component's manifests before it is applied.
type Patch struct {
	// Target is the object to be changed. There must be one.
	Target PatchTarget `json:"target"`
	// Patch is the change.
	Patch PatchSpec `json:"patch"`
}

// PatchTarget names an object of a component's manifests.
type PatchTarget struct {
	// Kind of the object. Required.
	Kind string `json:"kind" scope:"cluster" change:"restart" example:"Deployment"`
	// Name of the object. Required.
	Name string `json:"name" scope:"cluster" change:"restart" example:"coredns"`
	// Namespace of the object; empty: any.
	Namespace string `json:"namespace,omitempty" scope:"cluster" change:"restart" example:"kube-system"`
}

// PatchSpec is a change to an object.
type PatchSpec struct {
	// Type is how content is written: JSON, MergePatch or StrategicMergePatch.
	Type PatchType `json:"type" scope:"cluster" change:"restart" enum:"JSON,MergePatch,StrategicMergePatch" example:"StrategicMergePatch"`
	// Content is the patch itself, as a string of YAML or JSON. Required.
	Content string `json:"content" scope:"cluster" change:"restart" example:"'{spec: {replicas: 2}}'"`
}

// FeatureGate turns a feature on or off.
type FeatureGate struct {
	// Name of the feature as Kubernetes writes it. Required, once per component.
	// A name that none of the components knows is refused.
	Name string `json:"name" scope:"cluster" change:"restart" example:"HPAScaleToZero"`
	// Enabled turns the feature on; false turns it off.
	Enabled bool `json:"enabled" scope:"cluster" change:"restart" example:"true"`
	// Components are the programs it concerns. Empty: all five, where they know
	// the feature.
	Components []string `json:"components,omitempty" scope:"cluster" change:"restart" enum:"kube-apiserver,kube-controller-manager,kubelet,kube-scheduler,kube-proxy" default:"all five" example:"[kube-apiserver, kubelet]"`
}
