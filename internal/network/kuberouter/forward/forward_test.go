package forward

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netns"

	"k0s.io/k0s/internal/journal"
)

func TestKeep(t *testing.T) {
	runtime.LockOSThread() // for good: the thread ends with the test's goroutine
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	j, err := journal.Open(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	p := Pods{
		Networks: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00::/108")},
		Tool:     func(name string) string { return "/nonexistent/" + name },
		Journal:  j, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- errors.Join(netns.Set(ns), p.Keep(ctx))
	}()

	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	set := func(policy nftables.ChainPolicy) {
		t.Helper()
		for _, family := range families {
			table := c.AddTable(&nftables.Table{Family: family.family, Name: "filter"})
			c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &policy})
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	rules := func() (all [][]*nftables.Rule) {
		t.Helper()
		for _, family := range families {
			_, rules, err := forwardChain(c, family.family)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rules)
		}
		return all
	}
	eventually := func(when string) {
		t.Helper()
		limit := time.Now().Add(20 * time.Second)
		for all := rules(); len(all[0]) != 2 || len(all[1]) != 2; all = rules() {
			if time.Now().After(limit) {
				t.Fatalf("%s there are %d and %d rules", when, len(all[0]), len(all[1]))
			}
		}
	}
	set(nftables.ChainPolicyAccept)
	if all := rules(); len(all[0])+len(all[1]) > 0 {
		t.Errorf("nothing is dropped, and there are rules")
	}
	set(nftables.ChainPolicyDrop)
	eventually("when all is dropped")
	for _, family := range families {
		c.FlushChain(&nftables.Chain{Name: "FORWARD", Table: &nftables.Table{Family: family.family, Name: "filter"}})
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually("after somebody removed them")
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually("after the end")
	for _, e := range j.Entries() {
		if err := Remove(t.Context(), e.Name); err != nil {
			t.Error(err)
		}
	}
	if all := rules(); len(all[0])+len(all[1]) > 0 {
		t.Errorf("rules are left: %v", all)
	}
}
