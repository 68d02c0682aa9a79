// Package name has the names of the applets, as they appear in argv[0] and in ps, for those who
// start them. It is apart from package applet so that nobody links the big servers by naming one.
package name

// Names of the applets.
const (
	KubeAPIServer         = "kube-apiserver"
	KubeControllerManager = "kube-controller-manager"
	KubeScheduler         = "kube-scheduler"
	Kubelet               = "kubelet"
	KubeProxy             = "kube-proxy"
	Kubectl               = "kubectl"
	Etcd                  = "etcd"
	Kine                  = "kine"
	Containerd            = "containerd"
	Ctr                   = "ctr"
	KonnectivityServer    = "konnectivity-server"
)
