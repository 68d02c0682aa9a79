package v1beta1

import (
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Names and versions of the images inside the k0s executable.
const (
	CoreDNSImage         = "k0s.io/coredns"
	CoreDNSVersion       = "v1.14.7"
	MetricsServerImage   = "k0s.io/metrics-server"
	MetricsServerVersion = "v0.9.0"
	PauseImage           = "k0s.io/pause"
	PauseVersion         = "3.10.2"
)

// Default returns the configuration used where k0s.yaml says nothing. Addresses
// of the host are left empty: see [ClusterConfig.Complete].
func Default() *ClusterConfig {
	ca := CASpec{
		ExpiresAfter:            metav1.Duration{Duration: 87600 * time.Hour},
		CertificatesExpireAfter: metav1.Duration{Duration: 8760 * time.Hour},
	}
	return &ClusterConfig{
		TypeMeta:   metav1.TypeMeta{APIVersion: APIVersion, Kind: Kind},
		ObjectMeta: metav1.ObjectMeta{Name: "k0s", Namespace: "kube-system"},
		Spec: ClusterSpec{
			API:     APISpec{Port: 6443, K0sAPIPort: 9443, CA: ca},
			Storage: StorageSpec{Type: EtcdStorage, Etcd: EtcdSpec{CA: ca}},
			Network: NetworkSpec{
				Provider:      KubeRouterProvider,
				PodCIDR:       "10.244.0.0/16",
				ServiceCIDR:   "10.96.0.0/12",
				ClusterDomain: "cluster.local",
				KubeProxy: KubeProxySpec{
					Mode:               AutoProxyMode,
					MetricsBindAddress: "127.0.0.1:10249",
					HealthzBindAddress: "127.0.0.1:10256",
				},
				KubeRouter: KubeRouterSpec{AutoMTU: true, Hairpin: HairpinDisabled},
				NodeLocalLoadBalancing: NodeLocalLoadBalancingSpec{
					Type:       "EnvoyProxy",
					EnvoyProxy: NodeLocalProxySpec{APIServerBindPort: 7443, KonnectivityServerBindPort: 7132},
					Traefik:    NodeLocalProxySpec{APIServerBindPort: 7443, KonnectivityServerBindPort: 7132},
				},
			},
			Images: ImagesSpec{
				CoreDNS:           Image{CoreDNSImage, CoreDNSVersion},
				MetricsServer:     Image{MetricsServerImage, MetricsServerVersion},
				Pause:             Image{PauseImage, PauseVersion},
				DefaultPullPolicy: PullIfNotPresent,
			},
			Extensions: ExtensionsSpec{Helm: HelmSpec{ConcurrencyLevel: 5}},
			InstallConfig: InstallConfigSpec{Users: UsersSpec{
				EtcdUser:          "etcd",
				KineUser:          "kube-apiserver",
				KonnectivityUser:  "konnectivity-server",
				KubeAPIServerUser: "kube-apiserver",
				KubeSchedulerUser: "kube-scheduler",
			}},
			Konnectivity: KonnectivitySpec{AdminPort: 8133, AgentPort: 8132},
		},
	}
}

// defaultDataSource is a SQLite database that several connections write to:
// with a log ahead of writing, and patience while another holds the lock.
func defaultDataSource(dataDir string) string {
	return "sqlite://file:" + filepath.Join(dataDir, "db", "state.db") + "?mode=rwc&_journal=WAL&cache=shared&_busy_timeout=30000"
}
