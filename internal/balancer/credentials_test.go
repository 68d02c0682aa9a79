package balancer

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"

	"k0s.io/k0s/internal/kubeconfig"
)

func TestCredentials(t *testing.T) {
	w := newWorld(t, isWell)
	dir := t.TempDir()
	joining, own, current := filepath.Join(dir, "bootstrap.conf"), filepath.Join(dir, "kubelet.conf"), filepath.Join(dir, "current.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.ca.cert.Raw})
	o := w.options(t)
	o.TLS = Credentials(own, joining)
	w.balance(t, o, quick)
	w.health(t, w.servers[0], Answers) // nothing is there yet

	write := func(file string, c kubeconfig.Config) {
		t.Helper()
		c.Server, c.CAData = "https://127.0.0.1:7443", ca
		if err := kubeconfig.Write(file, c, 0o600, -1); err != nil {
			t.Fatal(err)
		}
	}
	write(joining, kubeconfig.Config{})
	if config, err := o.TLS(); err != nil || config.RootCAs == nil {
		t.Fatalf("joining: %v", err)
	}
	writePair(t, current, w.ca.issue(t, &x509.Certificate{})) // not for clients
	write(own, kubeconfig.Config{CertFile: current, KeyFile: current})
	w.health(t, w.servers[0], Answers)
	writePair(t, current, w.ca.client(t)) // renewed
	w.health(t, w.servers[0], Ready)

	if err := os.WriteFile(current, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.TLS(); err == nil {
		t.Error("a damaged certificate is no error")
	}
}

func writePair(t *testing.T, file string, pair tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	content := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
