// Package kubeconfig writes kubeconfig files.
package kubeconfig

import (
	"fmt"
	"os"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"k0s.io/k0s/internal/file"
)

// Config says which server to talk to, and as whom: by certificate files or by their content.
type Config struct {
	Server           string
	CAFile           string
	CAData           []byte
	CertFile         string
	KeyFile          string
	CertData         []byte
	KeyData          []byte
	Context, Cluster string // defaults: Default, local
	User             string // default: user
}

// Encode returns the kubeconfig as YAML.
func Encode(c Config) ([]byte, error) {
	context, cluster, user := or(c.Context, "Default"), or(c.Cluster, "local"), or(c.User, "user")
	return clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{cluster: {Server: c.Server, CertificateAuthority: c.CAFile, CertificateAuthorityData: c.CAData}},
		AuthInfos:      map[string]*api.AuthInfo{user: {ClientCertificate: c.CertFile, ClientKey: c.KeyFile, ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}},
		Contexts:       map[string]*api.Context{context: {Cluster: cluster, AuthInfo: user}},
		CurrentContext: context,
	})
}

// Write writes the kubeconfig to path, readable by uid (and group root where mode says so) only.
func Write(path string, c Config, mode os.FileMode, uid int) error {
	content, err := Encode(c)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return file.Write(path, content, mode, file.Options{UID: uid})
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
