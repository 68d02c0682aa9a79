// Package v1beta1 is the ClusterConfig API (k0s.yaml): its types, defaults,
// strict decoding, validation, and what follows from the values.
//
// The types are the single source of what is known about a field. Its doc
// comment explains it, [Default] gives its default, and two struct tags say
// what the reader must know before changing it:
//
//	scope:"node"       every controller has its own value
//	scope:"cluster"    all controllers must have the same value
//
//	change:"restart"   takes effect at the next start of the controller
//	change:"renewal"   applies to certificates issued after the next start
//	change:"redeploy"  fixed when the cluster is founded
//	change:"none"      has no effect
//
// [Fields] lists all of this for documentation and tests.
//
// Fields which k0s.yaml knows but which do not work yet are listed in
// unsupported.yaml; setting one is an error, never ignored.
package v1beta1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	ControllerManager ControllerManagerSpec `json:"controllerManager"`
	// Scheduler configures kube-scheduler.
	Scheduler SchedulerSpec `json:"scheduler"`
	// Storage says where the cluster keeps its state.
	Storage StorageSpec `json:"storage"`
	// Network configures pod and service networking.
	Network NetworkSpec `json:"network"`
	// Images names the container images of the system pods.
	Images ImagesSpec `json:"images"`
	// Telemetry is accepted for compatibility: k0s sends no telemetry.
	Telemetry TelemetrySpec `json:"telemetry"`
	// InstallConfig names the system users the control plane runs as.
	InstallConfig InstallConfigSpec `json:"installConfig"`
	// Konnectivity configures the tunnel from the control plane to the nodes.
	Konnectivity KonnectivitySpec `json:"konnectivity"`
}

// Args are further command line arguments for a program.
type Args struct {
	// ExtraArgs are flags by name, without leading dashes. They replace the
	// value k0s would give.
	ExtraArgs map[string]string `json:"extraArgs,omitempty" scope:"cluster" change:"restart"`
	// RawArgs are appended to the command line as they are, after all others;
	// a flag may be repeated.
	RawArgs []string `json:"rawArgs,omitempty" scope:"cluster" change:"restart"`
}

// CASpec is how long a certificate authority and its certificates are valid.
type CASpec struct {
	// ExpiresAfter is the lifetime of the authority, counted from its creation.
	ExpiresAfter metav1.Duration `json:"expiresAfter" scope:"cluster" change:"redeploy"`
	// CertificatesExpireAfter is the lifetime of each certificate it issues.
	CertificatesExpireAfter metav1.Duration `json:"certificatesExpireAfter" scope:"node" change:"renewal"`
}

// APISpec configures kube-apiserver and the join API of this controller.
type APISpec struct {
	// Address is the IPv4 address other nodes reach this controller at. Empty:
	// the host's first address that is not a loopback, secondary or pod
	// network address.
	Address string `json:"address,omitempty" scope:"node" change:"restart"`
	// OnlyBindToAddress makes kube-apiserver and the join API listen on
	// address only, instead of on all addresses.
	OnlyBindToAddress bool `json:"onlyBindToAddress,omitempty" scope:"node" change:"restart"`
	// ExternalAddress is the name or IP of a load balancer in front of all
	// controllers, which nodes and users connect to. With a port (host:port)
	// the same host and port serve the Kubernetes API and the join API.
	ExternalAddress string `json:"externalAddress,omitempty" scope:"cluster" change:"restart"`
	// Port is the port of kube-apiserver. One below 1024 lets kube-apiserver
	// bind it through CAP_NET_BIND_SERVICE.
	Port int `json:"port" scope:"node" change:"restart"`
	// K0sAPIPort is the port of the join API, used by joining controllers.
	K0sAPIPort int `json:"k0sApiPort" scope:"node" change:"restart"`
	// SANs are further names and IPs the API server certificate is valid for.
	SANs []string `json:"sans,omitempty" scope:"node" change:"restart"`
	// Args are further arguments of kube-apiserver.
	Args `json:",inline" scope:"node"`
	// CA is the authority of the Kubernetes API.
	CA CASpec `json:"ca"`
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

// StorageType is a kind of cluster store.
type StorageType string

const (
	// EtcdStorage keeps the state in the built-in etcd.
	EtcdStorage StorageType = "etcd"
	// KineStorage keeps the state in a SQL database or NATS; not supported yet.
	KineStorage StorageType = "kine"
)

// StorageSpec says where the cluster keeps its state.
type StorageSpec struct {
	// Type is the kind of store: etcd, also for a single node, so that it can
	// grow to more controllers later.
	Type StorageType `json:"type" scope:"cluster" change:"redeploy"`
	// Etcd configures the built-in etcd.
	Etcd EtcdSpec `json:"etcd"`
}

// EtcdSpec configures the built-in etcd.
type EtcdSpec struct {
	// PeerAddress is the IPv4 address other etcd members reach this one at.
	// Empty: the value of spec.api.address.
	PeerAddress string `json:"peerAddress,omitempty" scope:"node" change:"restart"`
	// Args are further arguments of etcd.
	Args `json:",inline" scope:"node"`
	// CA is the authority of etcd, a separate one.
	CA CASpec `json:"ca"`
}

// NetworkProvider is who connects the pods.
type NetworkProvider string

const (
	// KubeRouterProvider is built into k0s.
	KubeRouterProvider NetworkProvider = "kuberouter"
	// CalicoProvider is not supported yet.
	CalicoProvider NetworkProvider = "calico"
	// CustomProvider leaves the pod network to the user.
	CustomProvider NetworkProvider = "custom"
)

// NetworkSpec configures pod and service networking.
type NetworkSpec struct {
	// Provider connects the pods: kuberouter (built in), or custom: bring your
	// own CNI plugin.
	Provider NetworkProvider `json:"provider" scope:"cluster" change:"redeploy"`
	// PodCIDR is the IPv4 network pod addresses are taken from. Each node gets
	// a /24 of it.
	PodCIDR string `json:"podCIDR" scope:"cluster" change:"redeploy"`
	// ServiceCIDR is the IPv4 network service addresses are taken from. Its
	// first address is the API server's, its tenth the cluster DNS's (its
	// second if it has no more than eight addresses).
	ServiceCIDR string `json:"serviceCIDR" scope:"cluster" change:"redeploy"`
	// ClusterDomain is the DNS domain of services and pods.
	ClusterDomain string `json:"clusterDomain" scope:"cluster" change:"redeploy"`
	// KubeProxy configures kube-proxy.
	KubeProxy KubeProxySpec `json:"kubeProxy"`
	// KubeRouter configures the kuberouter provider; without effect for another.
	KubeRouter KubeRouterSpec `json:"kuberouter"`
}

// KubeProxyMode is how kube-proxy programs the kernel.
type KubeProxyMode string

const (
	// AutoProxyMode is nftables where the kernel allows it, else iptables.
	AutoProxyMode KubeProxyMode = ""
	// IPTablesProxyMode uses iptables.
	IPTablesProxyMode KubeProxyMode = "iptables"
	// NFTablesProxyMode uses nftables.
	NFTablesProxyMode KubeProxyMode = "nftables"
)

// KubeProxySpec configures kube-proxy.
type KubeProxySpec struct {
	// Disabled leaves kube-proxy out, for a network that replaces it. The
	// other fields are then not looked at.
	Disabled bool `json:"disabled,omitempty" scope:"cluster" change:"restart"`
	// Mode is iptables or nftables. Empty, the default: nftables where the
	// kernel allows it, else iptables. Upstream k0s differs: its default is
	// iptables, and it offers ipvs.
	Mode KubeProxyMode `json:"mode,omitempty" scope:"cluster" change:"restart"`
	// MetricsBindAddress is the IP:port of the metrics server.
	MetricsBindAddress string `json:"metricsBindAddress" scope:"cluster" change:"restart"`
	// HealthzBindAddress is the IP:port of the health server.
	HealthzBindAddress string `json:"healthzBindAddress" scope:"cluster" change:"restart"`
	// IPTables applies in mode iptables.
	IPTables KubeProxyIPTables `json:"iptables,omitzero"`
	// NFTables applies in mode nftables.
	NFTables KubeProxyNFTables `json:"nftables,omitzero"`
	// NodePortAddresses are the networks (CIDRs) of node addresses on which
	// NodePorts answer, or only "primary". Empty: kube-proxy's default for the
	// mode.
	NodePortAddresses []string `json:"nodePortAddresses,omitempty" scope:"cluster" change:"restart"`
	// Args are further arguments of kube-proxy.
	Args `json:",inline"`
}

// KubeProxyIPTables is how kube-proxy uses iptables.
type KubeProxyIPTables struct {
	// MasqueradeBit is the bit of the packet mark (0 to 31) that asks for
	// source NAT. Unset: kube-proxy's default, 14.
	MasqueradeBit *int32 `json:"masqueradeBit,omitempty" scope:"cluster" change:"restart"`
	// MasqueradeAll applies source NAT to all traffic to service addresses.
	MasqueradeAll bool `json:"masqueradeAll,omitempty" scope:"cluster" change:"restart"`
	// LocalhostNodePorts lets NodePorts answer on 127.0.0.1. Unset:
	// kube-proxy's default, true.
	LocalhostNodePorts *bool `json:"localhostNodePorts,omitempty" scope:"cluster" change:"restart"`
	// SyncPeriod is the longest time between two complete rewrites of the
	// rules. 0s: kube-proxy's default, 30s.
	SyncPeriod metav1.Duration `json:"syncPeriod,omitzero" scope:"cluster" change:"restart"`
	// MinSyncPeriod is the shortest time between two rewrites of the rules.
	// 0s: kube-proxy's default, 1s.
	MinSyncPeriod metav1.Duration `json:"minSyncPeriod,omitzero" scope:"cluster" change:"restart"`
}

// KubeProxyNFTables is how kube-proxy uses nftables.
type KubeProxyNFTables struct {
	// MasqueradeAll applies source NAT to all traffic to service addresses.
	MasqueradeAll bool `json:"masqueradeAll,omitempty" scope:"cluster" change:"restart"`
}

// HairpinMode is whether a pod may reach itself through its own service.
type HairpinMode string

const (
	// HairpinEnabled turns it on for every pod.
	HairpinEnabled HairpinMode = "Enabled"
	// HairpinAllowed turns it on in the CNI plugin only.
	HairpinAllowed HairpinMode = "Allowed"
	// HairpinDisabled turns it off.
	HairpinDisabled HairpinMode = "Disabled"
)

// KubeRouterSpec configures the kuberouter provider.
type KubeRouterSpec struct {
	// AutoMTU derives the MTU of the pod network from the host's interfaces.
	AutoMTU bool `json:"autoMTU" scope:"cluster" change:"restart"`
	// MTU is the MTU of the pod network in bytes. Only together with
	// autoMTU: false (upstream k0s ignores it otherwise; here it is refused).
	// 0: the kernel's default.
	MTU int `json:"mtu,omitempty" scope:"cluster" change:"restart"`
	// Hairpin lets a pod reach itself through its own service: Enabled for
	// every pod, Allowed in the CNI plugin only, Disabled.
	Hairpin HairpinMode `json:"hairpin" scope:"cluster" change:"restart"`
	// IPMasq hides pod addresses behind the node's address for traffic that
	// leaves the node's pod network.
	IPMasq bool `json:"ipMasq,omitempty" scope:"cluster" change:"restart"`
}

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
// inside the k0s executable and need no registry.
type ImagesSpec struct {
	// CoreDNS is the image of the cluster DNS.
	CoreDNS Image `json:"coredns"`
	// MetricsServer is the image of metrics-server.
	MetricsServer Image `json:"metricsserver"`
	// Pause is the image that holds the namespaces of each pod.
	Pause Image `json:"pause"`
	// DefaultPullPolicy of the system pods: IfNotPresent, Always or Never.
	DefaultPullPolicy PullPolicy `json:"default_pull_policy" scope:"cluster" change:"restart"`
}

// Image is a container image.
type Image struct {
	// Image is the name with registry, without tag.
	Image string `json:"image" scope:"cluster" change:"restart"`
	// Version is the tag, optionally followed by @ and a digest.
	Version string `json:"version" scope:"cluster" change:"restart"`
}

// TelemetrySpec is accepted for compatibility.
type TelemetrySpec struct {
	// Enabled has no effect: k0s sends no telemetry.
	Enabled bool `json:"enabled,omitempty" scope:"cluster" change:"none"`
}

// InstallConfigSpec is what an installation prepares on the host.
type InstallConfigSpec struct {
	// Users are the system users of the control plane.
	Users UsersSpec `json:"users"`
}

// UsersSpec names the system users of the control plane. A program whose user
// does not exist on the host runs as root.
type UsersSpec struct {
	// EtcdUser runs etcd.
	EtcdUser string `json:"etcdUser" scope:"node" change:"restart"`
	// KineUser runs kine.
	KineUser string `json:"kineUser" scope:"node" change:"restart"`
	// KonnectivityUser runs the konnectivity server.
	KonnectivityUser string `json:"konnectivityUser" scope:"node" change:"restart"`
	// KubeAPIServerUser runs kube-apiserver and kube-controller-manager.
	KubeAPIServerUser string `json:"kubeAPIserverUser" scope:"node" change:"restart"`
	// KubeSchedulerUser runs kube-scheduler.
	KubeSchedulerUser string `json:"kubeSchedulerUser" scope:"node" change:"restart"`
}

// KonnectivitySpec configures the tunnel from the control plane to the nodes.
type KonnectivitySpec struct {
	// AdminPort is the port of the server's admin interface.
	AdminPort int `json:"adminPort" scope:"node" change:"restart"`
	// AgentPort is the port agents on the nodes connect to.
	AgentPort int `json:"agentPort" scope:"cluster" change:"restart"`
}
