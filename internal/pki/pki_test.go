package pki

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func newCA(t *testing.T, dir string) *CA {
	t.Helper()
	ca, err := EnsureCA(filepath.Join(dir, "ca"), "kubernetes-ca", DefaultCALifetime, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func request(dir string) Request {
	return Request{
		Path: filepath.Join(dir, "server"), CommonName: "kubernetes", Organization: "kubernetes",
		Names: []string{"localhost", "10.96.0.1"}, Server: true, Lifetime: DefaultLeafLifetime,
	}
}

func TestIssuedCertificateVerifies(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, dir)
	if err := ca.Ensure(request(dir)); err != nil {
		t.Fatal(err)
	}
	cert, err := readCert(filepath.Join(dir, "server.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	for _, name := range []string{"localhost", "10.96.0.1"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("a server's certificate must not do for a client")
	}
	if !cert.NotBefore.Before(time.Now().Add(-time.Minute)) {
		t.Error("the certificate is not backdated")
	}
	for file, mode := range map[string]os.FileMode{"ca.key": 0o640, "server.key": 0o640, "ca.crt": 0o644, "server.crt": 0o644} {
		st, err := os.Stat(filepath.Join(dir, file))
		if err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", file, st.Mode(), err)
		}
	}
}

func TestWhenACertificateIsMadeAnew(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, dir string, r *Request)
		anew   bool
	}{
		{"nothing changed", func(*testing.T, string, *Request) {}, false},
		{"a name less is wanted", func(_ *testing.T, _ string, r *Request) { r.Names = r.Names[:1] }, false},
		{"a DNS name more", func(_ *testing.T, _ string, r *Request) { r.Names = append(r.Names, "k0s.example") }, true},
		{"an address more", func(_ *testing.T, _ string, r *Request) { r.Names = append(r.Names, "fd00::1") }, true},
		{"another user", func(_ *testing.T, _ string, r *Request) { r.CommonName = "other" }, true},
		{"another group", func(_ *testing.T, _ string, r *Request) { r.Organization = "other" }, true},
		{"another use", func(_ *testing.T, _ string, r *Request) { r.Client = true }, true},
		{"its key is gone", func(t *testing.T, dir string, _ *Request) { os.Remove(filepath.Join(dir, "server.key")) }, true},
		{"another authority", func(t *testing.T, dir string, _ *Request) {
			os.Remove(filepath.Join(dir, "ca.crt"))
			os.Remove(filepath.Join(dir, "ca.key"))
		}, true},
		{"it is garbage", func(t *testing.T, dir string, _ *Request) {
			os.WriteFile(filepath.Join(dir, "server.crt"), []byte("x"), 0o644)
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			r := request(dir)
			if err := newCA(t, dir).Ensure(r); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(filepath.Join(dir, "server.crt"))
			tc.change(t, dir, &r)
			if err := newCA(t, dir).Ensure(r); err != nil {
				t.Fatal(err)
			}
			after, _ := os.ReadFile(filepath.Join(dir, "server.crt"))
			if anew := string(before) != string(after); anew != tc.anew {
				t.Errorf("made anew: %v", anew)
			}
		})
	}
}

func TestExpiringCertificateIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	ca, r := newCA(t, dir), request(dir)
	r.Lifetime = 20 * time.Minute // less than a third of it is left: it is backdated by an hour
	if err := ca.Ensure(r); err != nil {
		t.Fatal(err)
	}
	if ca.Fits(r.Path+".crt", r) {
		t.Error("a certificate near its end must not fit")
	}
}

func TestAuthorityWithoutKey(t *testing.T) {
	dir := t.TempDir()
	r := request(dir)
	if err := newCA(t, dir).Ensure(r); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(dir, "ca.key"))
	if err := newCA(t, dir).Ensure(r); err != nil {
		t.Errorf("a certificate that fits must be kept: %v", err)
	}
	r.CommonName = "other"
	if err := newCA(t, dir).Ensure(r); err == nil || !strings.Contains(err.Error(), "authority's key") {
		t.Errorf("got %v", err)
	}
}

func TestMismatchesAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(dir string){
		"does not belong": func(dir string) {
			EnsureKeyPair(filepath.Join(dir, "ca"), Owner{})
			os.Remove(dir + "/ca.key")
			EnsureKeyPair(filepath.Join(dir, "ca"), Owner{})
		},
		"put the certificate back": func(dir string) { os.Remove(filepath.Join(dir, "ca.crt")) },
		"no PEM certificate":       func(dir string) { os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("x"), 0o644) },
	} {
		dir := t.TempDir()
		newCA(t, dir)
		spoil(dir)
		if _, err := EnsureCA(filepath.Join(dir, "ca"), "kubernetes-ca", DefaultCALifetime, Owner{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestServiceAccountKeyIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sa")
	for range 2 {
		if err := EnsureKeyPair(path, Owner{}); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := os.ReadFile(path + ".key")
	if err := EnsureKeyPair(path, Owner{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(path + ".key"); string(again) != string(first) {
		t.Error("the key was replaced: every token would be void")
	}
}
