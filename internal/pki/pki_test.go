package pki

import (
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k0s.io/k0s/internal/host"
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
			os.Remove(dir + "/ca.key")
			EnsureKeyPair(filepath.Join(dir, "ca"), Owner{})
		},
		"put the certificate back": func(dir string) { os.Remove(filepath.Join(dir, "ca.crt")) }, // it has signed server.crt
		"no PEM certificate":       func(dir string) { os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("x"), 0o644) },
	} {
		dir := t.TempDir()
		if err := newCA(t, dir).Ensure(request(dir)); err != nil {
			t.Fatal(err)
		}
		spoil(dir)
		if _, err := EnsureCA(filepath.Join(dir, "ca"), "kubernetes-ca", DefaultCALifetime, Owner{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestDamagedFiles: what can be made anew is, and of what cannot be the error says how to have it again.
func TestDamagedFiles(t *testing.T) {
	for file, anew := range map[string]bool{
		"ca.crt": false, "ca.key": false, "sa.key": false, "sa.pub": true, "server.crt": true, "server.key": true,
	} {
		for name, content := range map[string]string{"empty": "", "zeros": strings.Repeat("\x00", 300), "half": "-----BEGIN CERTIFICATE-----\nMIIB"} {
			t.Run(file+" is "+name, func(t *testing.T) {
				dir := t.TempDir()
				ensure := func() error {
					ca, err := EnsureCA(filepath.Join(dir, "ca"), "kubernetes-ca", DefaultCALifetime, Owner{})
					if err != nil {
						return err
					}
					return errors.Join(ca.Ensure(request(dir)), EnsureKeyPair(filepath.Join(dir, "sa"), Owner{}))
				}
				if err := ensure(); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, file)
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				err := ensure()
				if anew {
					if now, readErr := os.ReadFile(path); err != nil || readErr != nil || !strings.Contains(string(now), "-----END") {
						t.Errorf("it is %q: %v, %v", now, err, readErr)
					}
				} else if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "from a backup") {
					t.Errorf("got %v", err)
				}
			})
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

func TestInterruptedFirstStart(t *testing.T) {
	dir := t.TempDir()
	key := newCA(t, dir).key
	os.Remove(filepath.Join(dir, "ca.crt")) // it was killed between the two
	os.WriteFile(filepath.Join(dir, "other.crt"), []byte("half-writ"), 0o644)
	other, err := EnsureCA(filepath.Join(dir, "front-proxy-ca"), "other", DefaultCALifetime, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	r := request(dir)
	r.Path += "-other"
	if err := other.Ensure(r); err != nil { // signed by another key
		t.Fatal(err)
	}
	ca := newCA(t, dir)
	if !matches(ca.Cert, key) {
		t.Error("the key was replaced")
	}
	if err := ca.Ensure(request(dir)); err != nil {
		t.Error(err)
	}
	if again := newCA(t, dir); !again.Cert.Equal(ca.Cert) {
		t.Error("the certificate was not kept")
	}
}

func TestServiceAccountKeyIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sa")
	if err := EnsureKeyPair(path, Owner{}); err != nil {
		t.Fatal(err)
	}
	pub, _ := os.ReadFile(path + ".pub")

	os.Remove(path + ".pub") // killed between the two
	if err := EnsureKeyPair(path, Owner{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(path + ".pub"); string(again) != string(pub) {
		t.Error("the public key is another")
	}

	rotated := "# the former key\n" + string(pub) + string(pub)
	os.WriteFile(path+".pub", []byte(rotated), 0o644)
	if err := EnsureKeyPair(path, Owner{}); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(path + ".pub"); string(again) != rotated {
		t.Error("the former public key was dropped")
	}

	os.Remove(path + ".key")
	if err := EnsureKeyPair(path, Owner{}); err == nil || !strings.Contains(err.Error(), "put the key back") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path + ".key"); err == nil {
		t.Error("the lost key was replaced")
	}
}

func TestOwnershipDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	r := request(dir)
	if err := newCA(t, dir).Ensure(r); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(dir, "victim")
	if err := os.Rename(r.Path+".key", victim); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, r.Path+".key"); err != nil {
		t.Fatal(err)
	}
	r.Owner.UID = 1
	if err := newCA(t, dir).Ensure(r); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("what the link points to was given to user %d", uid)
	}
}

// TestOnlyTheOwnerReadsAKey reads as an account of its own, with the group that host finds for it.
func TestOnlyTheOwnerReadsAKey(t *testing.T) {
	user, ok, err := host.LookupUser("nobody") // for the scheduler's user
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	ca := newCA(t, dir)
	if err := EnsureKeyPair(filepath.Join(dir, "sa"), Owner{}); err != nil {
		t.Fatal(err)
	}
	for name, uid := range map[string]int{"scheduler": int(user.UID), "admin": 0} {
		r := request(dir)
		r.Path, r.Owner.UID = filepath.Join(dir, name), uid
		if err := ca.Ensure(r); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]bool{
		"scheduler.key": true, "scheduler.crt": true, "admin.crt": true, "ca.crt": true, "sa.pub": true,
		"admin.key": false, "ca.key": false, "sa.key": false,
	} {
		cmd := exec.Command("cat", filepath.Join(dir, file))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user.UID, Gid: user.GID}}
		if err := cmd.Run(); (err == nil) != want {
			t.Errorf("%s: readable is to be %t, got %v", file, want, err)
		}
	}
}
