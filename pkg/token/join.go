package token

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Join is what a join token says.
type Join struct {
	Role Role
	// URL is that of the Kubernetes API for workers, of the join API for controllers.
	URL string
	// CA are the certificates, as PEM, that the server's is signed by.
	CA     []byte
	Secret Secret
}

// Limits of what is taken for a token: tokens have some 2 KiB, more only with many authorities.
const (
	maxEncoded = 256 << 10
	maxDecoded = 256 << 10
)

const (
	clusterName = "k0s"
	contextName = "k0s"
)

// Encode returns the token.
func (j Join) Encode() (string, error) {
	if err := j.check(); err != nil {
		return "", fmt.Errorf("making a join token: %w", err)
	}
	kubeconfig, err := j.Kubeconfig()
	if err != nil {
		return "", err
	}
	var encoded bytes.Buffer
	base64er := base64.NewEncoder(base64.StdEncoding, &encoded)
	zipper, err := gzip.NewWriterLevel(base64er, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	_, err = zipper.Write(kubeconfig)
	if err := errors.Join(err, zipper.Close(), base64er.Close()); err != nil {
		return "", err
	}
	return encoded.String(), nil
}

// Kubeconfig returns the kubeconfig that is in the token.
func (j Join) Kubeconfig() ([]byte, error) {
	user := j.Role.user()
	return clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{clusterName: {Server: j.URL, CertificateAuthorityData: j.CA}},
		AuthInfos:      map[string]*api.AuthInfo{user: {Token: j.Secret.Bearer()}},
		Contexts:       map[string]*api.Context{contextName: {Cluster: clusterName, AuthInfo: user}},
		CurrentContext: contextName,
	})
}

func (j Join) check() error {
	if _, err := ParseRole(string(j.Role)); err != nil {
		return err
	}
	if u, err := url.Parse(j.URL); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return fmt.Errorf("%q is not a URL of the form https://HOST:PORT", j.URL)
	}
	return checkCertificates(j.CA)
}

// checkCertificates wants PEM blocks of certificates, at least one.
func checkCertificates(content []byte) error {
	found := false
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("there is a %s where only certificates should be", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("the certificate of the cluster's authority: %w", err)
		}
		found = true
	}
	if !found {
		return errors.New("there is no certificate of the cluster's authority")
	}
	return nil
}

// DecodeFor reads a join token and makes sure that it is for this role.
func DecodeFor(role Role, encoded string) (*Join, error) {
	j, err := Decode(encoded)
	if err != nil {
		return nil, err
	}
	if j.Role != role {
		return nil, fmt.Errorf("this is a %s token, which is for `k0s %s`: a %s needs one made by `k0s token create --role %s` on a controller",
			j.Role, j.Role, role, role)
	}
	return j, nil
}

// Decode reads a join token. White space in it does no harm. Errors do not repeat the token.
func Decode(encoded string) (*Join, error) {
	encoded = strings.Join(strings.Fields(encoded), "")
	switch {
	case encoded == "":
		return nil, errors.New("the join token is empty")
	case len(encoded) > maxEncoded:
		return nil, fmt.Errorf("this is no join token: it has %d characters, a token has at most %d", len(encoded), maxEncoded)
	}
	kubeconfig, err := unpack(encoded)
	if err != nil {
		return nil, err
	}
	j, err := fromKubeconfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("this is no join token of k0s: %w", err)
	}
	return j, nil
}

// begin is how every token begins: what gzip files begin with, encoded.
const begin = "H4sI"

func unpack(encoded string) ([]byte, error) {
	if !strings.HasPrefix(encoded, begin) {
		hint := ""
		switch {
		case strings.HasPrefix(encoded, "/") || strings.HasPrefix(encoded, "./"):
			hint = " (it looks like a path: use --token-file)"
		case strings.HasPrefix(encoded, "apiVersion:"):
			hint = " (it looks like a kubeconfig)"
		}
		return nil, fmt.Errorf("this is no join token%s: a token begins with %s; `k0s token create` on a controller makes one", hint, begin)
	}
	compressed, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		var at base64.CorruptInputError
		if errors.As(err, &at) && int64(at) < int64(len(encoded)-4) {
			return nil, fmt.Errorf("the join token is damaged: its character %d cannot be there: copy it anew", int64(at)+1)
		}
		return nil, errCutOff
	}
	source := bytes.NewReader(compressed)
	unzipper, err := gzip.NewReader(source)
	if err != nil {
		return nil, damaged(err)
	}
	unzipper.Multistream(false)
	content, err := io.ReadAll(io.LimitReader(unzipper, maxDecoded+1))
	switch {
	case err != nil:
		return nil, damaged(err)
	case len(content) > maxDecoded:
		return nil, fmt.Errorf("this is no join token: it unpacks to more than %d bytes", maxDecoded)
	case source.Len() > 0:
		return nil, errors.New("the join token is damaged: something follows its end: copy it anew")
	}
	return content, nil
}

var errCutOff = errors.New("the join token is cut off: copy it whole (with all of its end, = signs included)")

func damaged(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errCutOff
	}
	return fmt.Errorf("the join token is damaged (%w): copy it anew", err)
}

func fromKubeconfig(content []byte) (*Join, error) {
	config, err := clientcmd.Load(content)
	if err != nil {
		return nil, fmt.Errorf("what is in it is no kubeconfig: %w", withoutContent(err))
	}
	context := config.Contexts[config.CurrentContext]
	if context == nil {
		return nil, errors.New("its kubeconfig has no current context")
	}
	cluster, user := config.Clusters[context.Cluster], config.AuthInfos[context.AuthInfo]
	if cluster == nil || user == nil {
		return nil, errors.New("its kubeconfig lacks the cluster or the user of its current context")
	}
	role, ok := roleOfUser(context.AuthInfo)
	if !ok {
		return nil, fmt.Errorf("it is for the user %.40q, not for %s or %s", context.AuthInfo, Worker.user(), Controller.user())
	}
	secret, err := ParseSecret(user.Token)
	if err != nil {
		return nil, fmt.Errorf("the secret in it is not of the right form: %w", err)
	}
	j := &Join{Role: role, URL: cluster.Server, CA: cluster.CertificateAuthorityData, Secret: secret}
	return j, j.check()
}

// withoutContent keeps what a parser says short: it may repeat what it read.
func withoutContent(err error) error {
	const limit = 80
	text, _, _ := strings.Cut(err.Error(), "\n")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return errors.New(text)
}
