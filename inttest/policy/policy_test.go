package policy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"k0s.io/k0s/inttest/testhost"
)

// dualStack is spec.network with both families.
const dualStack = `{dualStack: {enabled: true, IPv6podCIDR: "fd00:10:244::/56", IPv6serviceCIDR: "fd00:10:96::/112"}}`

func TestMatrixIPv4(t *testing.T) { testMatrix(t, testhost.IPv4, "{}") }

func TestMatrixDualStack(t *testing.T) {
	testMatrix(t, testhost.DualStack, dualStack)
}

// testMatrix compares under each policy alone, each group, and mixtures, while labels change and pods come and
// go; then with k0s down, killed and up again on one node.
func testMatrix(t *testing.T, families testhost.Families, network string) {
	b := newBed(t, families, network, "w0", "w1", "w2")
	b.nine(t)
	for _, p := range b.places {
		if _, v6 := p.end(true); v6 != (families != testhost.IPv4) {
			t.Fatalf("%s has the addresses %v", p.name, p.pod.Status.PodIPs)
		}
	}
	m := newMatrix(t, b)
	begin := time.Now()
	defer func() {
		m.figures(t)
		t.Logf("the comparisons took %.1f s", time.Since(begin).Seconds())
	}()

	t.Run("none", func(t *testing.T) { m.compare(t, nil) })
	for _, group := range m.names() {
		t.Run(group, func(t *testing.T) {
			// With both families there is twice as much to ask: what is together has to do.
			for _, name := range slices.Sorted(maps.Keys(m.groups[group])) {
				if families == testhost.DualStack && group != "IPv6 blocks" {
					break
				}
				t.Run(name, func(t *testing.T) {
					m.compare(t, map[string]networkingv1.NetworkPolicySpec{name: m.groups[group][name]})
				})
			}
			t.Run("together", func(t *testing.T) { m.compare(t, m.groups[group]) })
		})
	}
	t.Run("all", func(t *testing.T) { m.compare(t, m.all()) })
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("mixture %d", seed), func(t *testing.T) { m.compare(t, m.mixture(seed, 6+4*int(seed))) })
	}
	t.Run("labels", func(t *testing.T) {
		m.compare(t, map[string]networkingv1.NetworkPolicySpec{
			"red/roles":    m.groups["one direction each"]["red/in"],
			"green/tiers":  m.groups["one peer and two"]["blue/one-out"],
			"blue/colours": m.groups["namespaces"]["red/from-green"],
			"red/web":      m.groups["one adds to another"]["red/web-in"],
		})
		for _, change := range []struct{ what, key, before, after string }{
			{"red/a", "role", "web", "db"}, {"red/b", "role", "db", ""}, {"green/c", "role", "web", "none"},
			{"green", "tier", "back", ""}, {"blue", "colour", "blue", "green"}, {"red", "colour", "red", "green"},
		} {
			for _, value := range []string{change.after, change.before} {
				t.Run(fmt.Sprintf("%s of %s is %s", change.key, change.what, value), func(t *testing.T) {
					m.label(t, change.what, change.key, value)
					m.settle(t, time.Now())
					m.check(t)
				})
			}
		}
	})

	t.Run("pods", func(t *testing.T) {
		m.compare(t, m.mixture(102, 12))
		m.replace(t, "red/a", m.workers[2], map[string]string{"pod": "a", "role": "db"})
		m.replace(t, "green/b", m.workers[0], map[string]string{"pod": "b", "env": "prod"})
		m.replace(t, "red/a", m.workers[0], map[string]string{"pod": "a", "role": "web"})
	})
	t.Run("restart", func(t *testing.T) {
		m.compare(t, m.mixture(100, 12))
		restart(t, m, "stopped", func(ctx context.Context) error {
			_, err := m.workers[0].Stop(ctx)
			return err
		})
		restart(t, m, "killed", m.workers[0].Kill)
		t.Run("changes after it", func(t *testing.T) { m.compare(t, m.mixture(101, 12)) })
	})
	t.Run("none again", func(t *testing.T) { m.compare(t, nil) })
}

// restart compares while k0s is down on the first worker, and when it is back, with policies that were changed
// meanwhile.
func restart(t *testing.T, m *matrix, how string, end func(context.Context) error) {
	t.Helper()
	w := m.workers[0]
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := end(ctx); err != nil {
		t.Fatal(err)
	}
	t.Run(how, func(t *testing.T) { m.check(t) })
	t.Run("back after it was "+how, func(t *testing.T) {
		want := m.mixture(uint64(len(how)), 12)
		m.apply(t, want)
		w.Token = "" // it has joined
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := w.WaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("it is ready after %.1f s", time.Since(begin).Seconds())
		m.settle(t, time.Now())
		m.check(t)
	})
}
