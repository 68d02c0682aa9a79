package journal

import (
	"os"
	"path/filepath"
	"slices"
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
