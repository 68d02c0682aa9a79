package journal

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []Entry{{Sysctl, "net/ipv4/ip_forward", "0"}, {File, "/etc/x", ""}, {Sysctl, "net/ipv4/ip_forward", "1"}} {
		if err := j.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	// A crash tears the last line; the journal stays readable and writable.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"kind":"file","na`)
	f.Close()
	if j, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if err := j.Add(Entry{Kind: Link, Name: "kube-bridge"}); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(path); err != nil {
		t.Fatal(err)
	}
	want := []Entry{{Link, "kube-bridge", ""}, {File, "/etc/x", ""}, {Sysctl, "net/ipv4/ip_forward", "0"}}
	if got := j.Entries(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAddUnlessThere(t *testing.T) {
	dir := t.TempDir()
	j, err := Open(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	if err := j.AddUnlessThere(Dir, dir, missing); err != nil {
		t.Fatal(err)
	}
	if got, want := j.Entries(), []Entry{{Dir, missing, ""}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAddKubeletRoot(t *testing.T) {
	path, root := filepath.Join(t.TempDir(), "journal"), t.TempDir()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "thesis.tex")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := j.AddKubeletRoot(root); err == nil || !strings.Contains(err.Error(), "--kubelet-root-dir") {
		t.Errorf("somebody's files were taken for the kubelet's: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := j.AddKubeletRoot(root); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err = Open(path); err != nil {
		t.Fatal(err)
	}
	if err := j.AddKubeletRoot(root); err != nil { // by now it is the kubelet's
		t.Error(err)
	}
	if got := j.KubeletRoots(); !slices.Equal(got, []string{root}) {
		t.Errorf("got %v", got)
	}
}
