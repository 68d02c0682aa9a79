package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/pki"
)

// TestUnfit: a worker whose credentials are damaged needs a token, and so joins anew.
func TestUnfit(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(l host.Layout) error
		want  string
	}{
		"as it was":               {func(host.Layout) error { return nil }, ""},
		"no authority":            {func(l host.Layout) error { return os.Remove(l.PKI("ca.crt")) }, "ca.crt: no such file"},
		"empty authority":         {func(l host.Layout) error { return os.Truncate(l.PKI("ca.crt"), 0) }, "ca.crt holds no certificate"},
		"no certificate":          {func(l host.Layout) error { return os.Remove(currentCertificate(l)) }, "no such file"},
		"empty certificate":       {func(l host.Layout) error { return os.Truncate(currentCertificate(l), 0) }, "PEM"},
		"certificate without key": {func(l host.Layout) error { return os.Truncate(currentCertificate(l), 300) }, "PEM"},
	} {
		t.Run(name, func(t *testing.T) {
			l := host.Layout{DataDir: t.TempDir(), KubeletRoot: t.TempDir()}
			if err := os.MkdirAll(l.PKI(), 0o755); err != nil {
				t.Fatal(err)
			}
			ca, err := pki.EnsureCA(l.PKI("ca"), "kubernetes-ca", time.Hour, pki.Owner{})
			if err != nil {
				t.Fatal(err)
			}
			cert, key, err := ca.Issue(pki.Request{CommonName: "system:node:n", Client: true, Lifetime: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			if err := pki.StoreKubeletCertificate(currentCertificate(l), append(cert, key...)); err != nil {
				t.Fatal(err)
			}
			if entries, err := os.ReadDir(filepath.Dir(currentCertificate(l))); err != nil || len(entries) != 2 {
				t.Errorf("there are %v: %v", entries, err)
			}
			if err := tc.spoil(l); err != nil {
				t.Fatal(err)
			}
			got := Bootstrap{NodeName: "n", Layout: l}.unfit(time.Now())
			if (got == nil) != (tc.want == "") || got != nil && !strings.Contains(got.Error(), tc.want) {
				t.Errorf("got %v, want %q", got, tc.want)
			}
		})
	}
}
