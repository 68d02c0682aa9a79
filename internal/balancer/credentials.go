package balancer

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// apiServerName is what every API server's certificate is valid for, and nobody else's: nodes get none for it.
const apiServerName = "kubernetes.default.svc"

// Credentials returns an Options.TLS with the authorities, and the client certificate if any, of the first
// of these kubeconfigs that there is. They are read each time: certificates may be renewed, and the
// kubelet's kubeconfig takes the place of the one it joins by.
func Credentials(kubeconfigs ...string) func() (*tls.Config, error) {
	return func() (*tls.Config, error) {
		for _, file := range kubeconfigs {
			if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			config, err := clientcmd.BuildConfigFromFlags("", file)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", file, err)
			}
			// Or they would be read in the middle of a handshake, and trouble taken for the server's.
			if err := rest.LoadTLSFiles(config); err != nil {
				return nil, fmt.Errorf("reading the certificates of %s: %w", file, err)
			}
			verify, err := rest.TLSConfigFor(config)
			if err != nil {
				return nil, fmt.Errorf("reading the certificates of %s: %w", file, err)
			}
			if verify == nil || verify.RootCAs == nil {
				return nil, fmt.Errorf("%s names no authority to know the API servers by", file)
			}
			// Also behind a load balancer, whose address may be in no certificate.
			verify.ServerName = apiServerName
			return verify, nil
		}
		return nil, fmt.Errorf("there is no kubeconfig yet: looked for %v", kubeconfigs)
	}
}
