package controlplane

import (
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// adminConfig connects to the local API server as administrator, without client-side throttling.
func (o Options) adminConfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", o.Layout.AdminConf())
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.UserAgent = "k0s"
	return config, nil
}

func (o Options) adminClient() (kubernetes.Interface, error) {
	config, err := o.adminConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}
