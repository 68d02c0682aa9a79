package controlplane

import (
	"context"
	"fmt"
	"path/filepath"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/kubeconfig"
	"k0s.io/k0s/internal/pki"
)

// NodeCredentials provides the kubeconfigs of the worker inside a controller. The controller has the
// authority at hand, so its own kubelet need not ask for a certificate and wait for the approval.
func NodeCredentials(o Options) component.Component {
	return component.Component{Name: "node-credentials", Start: func(context.Context) error {
		return makeNodeCredentials(o)
	}}
}

func makeNodeCredentials(o Options) error {
	l, api := o.Layout, o.Config.Spec.API
	ca, err := pki.EnsureCA(l.PKI("ca"), "kubernetes-ca", api.CA.ExpiresAfter.Duration, pki.Owner{UID: -1})
	if err != nil {
		return err
	}
	lifetime := api.CA.CertificatesExpireAfter.Duration
	proxy := pki.Request{Path: l.PKI("kube-proxy"), CommonName: "system:kube-proxy", Client: true, Lifetime: lifetime}
	if err := ca.Ensure(proxy); err != nil {
		return err
	}
	proxyConf := kubeconfig.Config{Server: api.LocalURL(), CAFile: ca.Path(), CertFile: proxy.Path + ".crt", KeyFile: proxy.Path + ".key"}
	if err := kubeconfig.Write(l.KubeProxyConf(), proxyConf, 0o600, 0); err != nil {
		return err
	}

	current := filepath.Join(l.KubeletRoot, "pki", "kubelet-client-current.pem")
	kubelet := pki.Request{CommonName: "system:node:" + o.NodeName, Organization: "system:nodes", Client: true, Lifetime: lifetime}
	if !ca.Fits(current, kubelet) {
		certPEM, keyPEM, err := ca.Issue(kubelet)
		if err != nil {
			return fmt.Errorf("certificate of the kubelet: %w", err)
		}
		if err := pki.StoreKubeletCertificate(current, append(certPEM, keyPEM...)); err != nil {
			return err
		}
	}
	kubeletConf := kubeconfig.Config{Server: api.LocalURL(), CAFile: ca.Path(), CertFile: current, KeyFile: current}
	return kubeconfig.Write(l.KubeletConf(), kubeletConf, 0o600, 0)
}
