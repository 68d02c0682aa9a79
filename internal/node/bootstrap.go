package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/certificate/csr"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/kubeconfig"
	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/pkg/token"
)

// Bootstrap says how a worker comes by its credentials.
type Bootstrap struct {
	NodeName string
	Layout   host.Layout
	// Token is needed only while there are no credentials; nil if none was given.
	Token *token.Join
	// Server is the URL by which the credentials are to reach the API.
	Server string
	Log    *slog.Logger
}

// currentCertificate is where the kubelet keeps its client certificate with its key.
func currentCertificate(l host.Layout) string {
	return filepath.Join(l.KubeletRoot, "pki", "kubelet-client-current.pem")
}

// Component is the bootstrap as a part of a worker: once it has started, the kubeconfigs of kubelet and
// kube-proxy are there. It asks for a certificate for as long as the API cannot be reached, and fails
// when the API refuses the token.
func (b Bootstrap) Component() component.Component {
	return component.Component{Name: "bootstrap", Start: b.run}
}

func (b Bootstrap) run(ctx context.Context) error {
	if err := pki.MendKubeletCertificate(currentCertificate(b.Layout)); err != nil {
		return err
	}
	reason := b.unfit(time.Now())
	if reason != nil {
		if b.Token == nil {
			return fmt.Errorf("this worker cannot prove who it is (%w) and was given no join token: make one with `k0s token create --role worker` "+
				"on a controller, and start `k0s worker TOKEN`", reason)
		}
		b.Log.Info("Asking for this node's certificate", "server", b.Token.URL, "node", b.NodeName)
		if err := b.join(ctx); err != nil {
			return err
		}
	} else if b.Token != nil {
		b.Log.Info("This worker has joined before: the token is not needed")
	}
	return b.writeKubeconfigs()
}

// unfit tells why this worker needs a token; nil if it does not.
func (b Bootstrap) unfit(now time.Time) error {
	ca, err := os.ReadFile(b.Layout.PKI("ca.crt"))
	if err != nil {
		return err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s holds no certificate", b.Layout.PKI("ca.crt"))
	}
	pair, err := tls.LoadX509KeyPair(currentCertificate(b.Layout), currentCertificate(b.Layout))
	if err != nil {
		return err
	}
	switch cert := pair.Leaf; {
	case now.After(cert.NotAfter):
		return fmt.Errorf("its certificate expired on %s", cert.NotAfter.Format(time.RFC3339))
	case cert.Subject.CommonName != "system:node:"+b.NodeName:
		return fmt.Errorf("its certificate is that of %s, and this host is node %s", cert.Subject.CommonName, b.NodeName)
	}
	return nil
}

// join asks for a certificate until it has one, or the token is refused.
func (b Bootstrap) join(ctx context.Context) error {
	config := &rest.Config{
		Host: b.Token.URL, BearerToken: b.Token.Secret.Bearer(), TLSClientConfig: rest.TLSClientConfig{CAData: b.Token.CA},
		Timeout: 10 * time.Second, UserAgent: "k0s",
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("joining by the token: %w", err)
	}
	var backoff component.Backoff
	for {
		begin := time.Now()
		content, err := b.request(ctx, client)
		if err == nil {
			return b.store(content)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if final := refusal(b.Token.URL, err); final != nil {
			return final
		}
		err = fmt.Errorf("asking %s for this node's certificate: %w", b.Token.URL, withoutPath(err))
		component.Report(ctx, err)
		wait := backoff.Next(time.Since(begin))
		b.Log.Warn("Cannot join yet, trying again", "error", err, "after", wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// withoutPath leaves out of an error the URL that was asked, which says nothing to a user.
func withoutPath(err error) error {
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// refusal is what cannot be mended by trying again; nil if it can.
func refusal(server string, err error) error {
	unknown, wrongName := new(x509.UnknownAuthorityError), new(x509.HostnameError)
	status := new(apierrors.StatusError)
	switch {
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s does not accept this join token: it has expired, was invalidated, or is of another cluster: "+
			"make a new one with `k0s token create --role worker` on a controller", server)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("%s does not let this join token ask for a node's certificate: is it a worker's? %w", server, err)
	case errors.As(err, unknown):
		return fmt.Errorf("%s is not the cluster that this join token is for: its certificate was not made by that cluster's authority. "+
			"Make a new token on a controller of the cluster, or mend the address (spec.api.externalAddress)", server)
	case errors.As(err, wrongName):
		return fmt.Errorf("%s has a certificate for other addresses than its own: add this one to spec.api.sans on the controllers: %w", server, err)
	case errors.As(err, &status) && status.ErrStatus.Code == http.StatusNotFound:
		return fmt.Errorf("%s is not a Kubernetes API: does the token name the right address and port? %w", server, err)
	}
	return nil
}

// request makes a key and asks for a certificate of it. The result is both, as PEM.
func (b Bootstrap) request(ctx context.Context, client kubernetes.Interface) ([]byte, error) {
	// The errors of a request for a certificate do not tell what was wrong with the connection.
	if err := client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error(); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + b.NodeName, Organization: []string{"system:nodes"}}}
	request, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, err
	}
	name, uid, err := csr.RequestCertificateWithContext(ctx, client, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}),
		"", certificatesv1.KubeAPIServerClientKubeletSignerName, nil, []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth}, key)
	if err != nil {
		return nil, err
	}
	component.Report(ctx, errors.New("the controller manager has not signed this node's certificate"))
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cert, err := csr.WaitForCertificate(limited, client, name, uid)
	if err != nil {
		return nil, fmt.Errorf("the request %s was not signed: %w", name, err)
	}
	return append(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), nil
}

// store keeps what the worker needs from now on in place of the token.
func (b Bootstrap) store(certificate []byte) error {
	for dir, mode := range map[string]fs.FileMode{b.Layout.PKI(): 0o751, filepath.Dir(currentCertificate(b.Layout)): 0o700} {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return err
		}
		if err := host.MakeDir(dir, mode, 0); err != nil {
			return err
		}
	}
	// First: without the certificate, the authority alone makes nobody a member.
	if err := file.Write(b.Layout.PKI("ca.crt"), b.Token.CA, 0o644, file.Options{Durable: true}); err != nil {
		return err
	}
	return pki.StoreKubeletCertificate(currentCertificate(b.Layout), certificate)
}

func (b Bootstrap) writeKubeconfigs() error {
	current := currentCertificate(b.Layout)
	config := kubeconfig.Config{Server: b.Server, CAFile: b.Layout.PKI("ca.crt"), CertFile: current, KeyFile: current}
	for _, path := range []string{b.Layout.KubeletConf(), b.Layout.KubeProxyConf()} {
		if err := kubeconfig.Write(path, config, 0o600, 0); err != nil {
			return err
		}
	}
	return nil
}
