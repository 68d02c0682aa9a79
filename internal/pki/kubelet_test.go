package pki

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMendKubeletCertificate: a power cut has left some of the kubelet's certificates empty.
func TestMendKubeletCertificate(t *testing.T) {
	for _, tc := range []struct {
		name string
		// files, by what the date in their names is; the current one first. True: it is whole.
		files   []string
		whole   map[string]bool
		current string // afterwards; empty: none
	}{
		{"none", nil, nil, ""},
		{"all whole", []string{"2", "1", "3"}, map[string]bool{"1": true, "2": true, "3": true}, "2"},
		{"the newest is empty", []string{"3", "1", "2"}, map[string]bool{"1": true, "2": true}, "2"},
		{"two are empty", []string{"3", "1", "2"}, map[string]bool{"1": true}, "1"},
		{"the only one is empty", []string{"1"}, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			ca := newCA(t, dir)
			cert, key, err := ca.Issue(Request{CommonName: "system:node:n", Server: true, Lifetime: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			name := func(date string) string { return "kubelet-server-" + date + ".pem" }
			for _, date := range tc.files {
				var content []byte
				if tc.whole[date] {
					content = append(cert, key...)
				}
				if err := os.WriteFile(filepath.Join(dir, name(date)), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			current := filepath.Join(dir, name("current"))
			if len(tc.files) > 0 {
				if err := os.Symlink(name(tc.files[0]), current); err != nil {
					t.Fatal(err)
				}
			}
			if err := MendKubeletCertificate(current); err != nil {
				t.Fatal(err)
			}
			got, err := os.Readlink(current)
			if (tc.current == "") != os.IsNotExist(err) || tc.current != "" && got != name(tc.current) {
				t.Errorf("the current one is %q, %v; want %q", got, err, tc.current)
			}
		})
	}
	plain := filepath.Join(t.TempDir(), "kubelet-server-current.pem")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MendKubeletCertificate(plain); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(plain); err != nil {
		t.Errorf("what is no link is somebody else's: %v", err)
	}
}
