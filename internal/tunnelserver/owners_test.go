package tunnelserver

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Who is asked for an address is for the API to say, not for the agents.
func TestCandidates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "nodes.json")
	s := newAgents(0, file, slog.New(slog.DiscardHandler))
	w0 := &agent{node: "w0", addresses: []string{"192.0.2.1", "w0"}}
	// It claims to be everybody, and its connection is the newest.
	bad := &agent{node: "bad", addresses: []string{"192.0.2.1", "w0", "192.0.2.2", "w1", "10.244.0.7", "192.0.2.3", "10.96.0.1"}}
	w1 := &agent{node: "w1", addresses: []string{"192.0.2.2", "w1"}}
	s.all = []*agent{bad, w0, w1}
	expect := func(when, host string, want ...string) {
		t.Helper()
		var got []string
		for _, a := range s.candidates(host) {
			got = append(got, a.node)
		}
		if len(got) != len(s.all) || !slices.Equal(got[:len(want)], want) {
			t.Errorf("%s: for %s the agents are %q, want first %q", when, host, got, want)
		}
	}
	// That one of three is never first, by chance, happens once in 10^17 times.
	anyOrder := func(when, host string) {
		t.Helper()
		first := map[string]bool{}
		for range 100 {
			first[s.candidates(host)[0].node] = true
		}
		if len(first) < len(s.all) {
			t.Errorf("%s: for %s only %v come first", when, host, first)
		}
	}
	expect("without a file", "192.0.2.1", "bad", "w0")
	write := func(content string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	write(`{"services": ["10.96.0.0/12"],
		"nodes": [{"name": "w0", "addresses": ["192.0.2.1", "w0"], "podCIDRs": ["10.244.0.0/24"]}, {"name": "w1", "addresses": ["192.0.2.2", "w1"]},
		{"name": "bad", "addresses": ["192.0.2.1", "192.0.2.9"], "podCIDRs": ["10.244.2.0/24"]}]}`, begin)
	for host, owner := range map[string]string{
		"192.0.2.1": "w0", "w0": "w0", "192.0.2.2": "w1", "w1": "w1", "10.244.0.7": "w0", "192.0.2.9": "bad", "10.244.2.1": "bad",
	} {
		expect("with a file", host, owner)
	}
	expect("not known to the API", "192.0.2.3", "bad")
	anyOrder("claimed by an agent", "10.96.0.1")
	anyOrder("claimed by no agent", "10.96.0.2")

	write(`damaged`, begin.Add(time.Second))
	expect("a damaged file", "192.0.2.1", "w0")
	write(`{"nodes": [{"name": "w1", "addresses": ["192.0.2.1"]}]}`, begin.Add(2*time.Second))
	expect("another file", "192.0.2.1", "w1")
	s.all = []*agent{bad, w0}
	anyOrder("the owner is away", "192.0.2.1")
}
