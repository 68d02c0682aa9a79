package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

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
		if err := storeKubeletCertificate(current, append(certPEM, keyPEM...)); err != nil {
			return err
		}
	}
	kubeletConf := kubeconfig.Config{Server: api.LocalURL(), CAFile: ca.Path(), CertFile: current, KeyFile: current}
	return kubeconfig.Write(l.KubeletConf(), kubeletConf, 0o600, 0)
}

// storeKubeletCertificate puts a certificate with its key where the kubelet looks for it, in the way of
// client-go's certificate.FileStore: current is a link, which the kubelet sets anew when it has renewed
// its certificate. It refuses to replace a file.
func storeKubeletCertificate(current string, content []byte) error {
	dir := filepath.Dir(current)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := fmt.Sprintf("kubelet-client-%s.pem", time.Now().Format("2006-01-02-15-04-05"))
	if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
		return err
	}
	link := current + ".new"
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(file, link); err != nil {
		return err
	}
	return os.Rename(link, current)
}
