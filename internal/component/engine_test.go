package component

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// journal records the order in which things happened.
type journal struct {
	mu     sync.Mutex
	events []string
}

func (j *journal) add(event string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event)
}

func (j *journal) before(t *testing.T, first, second string) {
	t.Helper()
	a, b := slices.Index(j.events, first), slices.Index(j.events, second)
	if a < 0 || b < 0 || a > b {
		t.Errorf("want %q before %q, got %v", first, second, j.events)
	}
}

func (j *journal) component(name string) Component {
	return Component{
		Name:  name,
		Start: func(context.Context) error { j.add("start " + name); return nil },
		Ready: func(context.Context) error { j.add("ready " + name); return nil },
		Stop:  func(context.Context) error { j.add("stop " + name); return nil },
	}
}

func TestOrder(t *testing.T) {
	var j journal
	set := Set{ // deliberately not in the order of needs
		j.component("apiserver").Needs("certificates", "etcd"),
		j.component("etcd").Needs("certificates"),
		j.component("certificates"),
	}
	e, err := NewEngine(set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-e.Ready(); cancel() }()
	if err := e.Run(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	j.before(t, "ready certificates", "start etcd")
	j.before(t, "ready etcd", "start apiserver")
	j.before(t, "stop apiserver", "stop etcd")
	j.before(t, "stop etcd", "stop certificates")
	for _, s := range e.Status() {
		if s.State != Stopped {
			t.Errorf("%s is %s after the stop", s.Name, s.State)
		}
	}
	if got := e.Status()[0].WaitedFor; got != "etcd" {
		t.Errorf("apiserver waited for %q, want etcd", got)
	}
}

func TestIndependentComponentsStartTogether(t *testing.T) {
	var met sync.WaitGroup
	met.Add(2)
	meet := func(context.Context) error { met.Done(); met.Wait(); return nil }
	e, err := NewEngine(Set{{Name: "a", Start: meet}, {Name: "b", Start: meet}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-e.Ready(); cancel() }()
	if err := e.Run(ctx, time.Minute); err != nil { // hangs if one waited for the other
		t.Fatal(err)
	}
}

func TestFailedStartStopsTheRest(t *testing.T) {
	var j journal
	slowStarted := make(chan struct{})
	broken := j.component("etcd").Needs("certificates")
	broken.Ready = func(context.Context) error { <-slowStarted; return errors.New("port 2380 is taken") }
	slow := j.component("containerd")
	slow.Ready = func(ctx context.Context) error { close(slowStarted); <-ctx.Done(); return ctx.Err() }
	set := Set{j.component("certificates"), broken, slow, j.component("apiserver").Needs("etcd")}
	e, err := NewEngine(set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	err = e.Run(context.Background(), time.Minute)
	if err == nil || err.Error() != "etcd: port 2380 is taken" {
		t.Errorf("got error %v", err)
	}
	for _, want := range []string{"stop certificates", "stop etcd", "stop containerd"} {
		if !slices.Contains(j.events, want) {
			t.Errorf("missing %q in %v", want, j.events)
		}
	}
	if slices.Contains(j.events, "start apiserver") || slices.Contains(j.events, "stop apiserver") {
		t.Errorf("apiserver must be left alone: %v", j.events)
	}
}

func TestStopDuringStartIsNotAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	slow := Component{Name: "slow", Ready: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }}
	e, err := NewEngine(Set{slow}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(ctx, time.Minute); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestImpossibleSets(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  Set
		want string
	}{
		{"twice", Set{{Name: "a"}, {Name: "a"}}, "twice"},
		{"unknown need", Set{Component{Name: "a"}.Needs("b")}, `needs "b"`},
		{"circle", Set{Component{Name: "a"}.Needs("b"), Component{Name: "b"}.Needs("a")}, "circle: a → b → a"},
	} {
		if _, err := NewEngine(tc.set, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestWithoutDropsNeeds(t *testing.T) {
	set := Set{{Name: "a"}, Component{Name: "b"}.Needs("a")}.Without("a")
	if _, err := NewEngine(set, slog.New(slog.DiscardHandler)); err != nil || len(set) != 1 {
		t.Errorf("got %v, %v", set, err)
	}
}

func TestReplace(t *testing.T) {
	var mu sync.Mutex
	var events []string
	note := func(event string) { mu.Lock(); events = append(events, event); mu.Unlock() }
	set := func(version string, broken error) Set {
		var s Set
		for _, name := range []string{"a", "b", "c"} {
			c := Component{Name: name,
				Start:   func(context.Context) error { note(name + version + " starts"); return nil },
				Stop:    func(context.Context) error { note(name + version + " stops"); return nil },
				Details: func(context.Context) any { return version },
			}
			if name == "b" && broken != nil {
				c.Start = func(context.Context) error { return broken }
			}
			if name != "a" {
				c = c.Needs("a")
			}
			s = append(s, c)
		}
		return s
	}
	e, err := NewEngine(set("1", nil), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx, time.Minute) }()
	<-e.Ready()
	events = nil
	if err := e.Replace(ctx, set("2", nil), "b", "a"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"b1 stops", "b2 starts", "a1 stops", "a2 starts"}; !slices.Equal(events, want) {
		t.Errorf("got %q, want %q", events, want)
	}
	if AnyNot(e.Status(), Ready) {
		t.Errorf("not all are ready: %+v", e.Status())
	}
	if got := e.Status()[0].Details; got != "2" {
		t.Errorf("the details are %v, not those of the new component", got)
	}
	if err := e.Replace(ctx, set("3", errors.New("no")), "b"); err == nil || err.Error() != "b: no" {
		t.Errorf("got %v", err)
	}
	if s := e.Status()[1]; s.State != Failed || s.Error != "no" {
		t.Errorf("got %+v", s)
	}
	if err := e.Replace(ctx, set("3", nil), "x"); err == nil {
		t.Error("a component that is not there has been replaced")
	}
	events = nil
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	slices.Sort(events[:2]) // at the same time
	if want := []string{"b3 stops", "c1 stops", "a2 stops"}; !slices.Equal(events, want) {
		t.Errorf("at the end: got %q, want %q", events, want)
	}
}
