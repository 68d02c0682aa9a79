package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder stands for the cluster: it remembers what was applied last, and
// fails as it is told.
type recorder struct {
	mu      sync.Mutex
	applied map[string]string // stack → names of its objects
	times   []time.Time
	fail    func(stack string) error
	block   map[string]chan struct{}
}

func (r *recorder) Apply(ctx context.Context, stack Stack) error {
	if wait := r.block[stack.Name]; wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.times = append(r.times, time.Now())
	if r.fail != nil {
		if err := r.fail(stack.Name); err != nil {
			return err
		}
	}
	var names []string
	for _, o := range stack.Objects {
		names = append(names, o.GetName())
	}
	if r.applied == nil {
		r.applied = map[string]string{}
	}
	r.applied[stack.Name] = strings.Join(names, " ")
	return nil
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.times)
}

// is fails unless the stacks applied last are these, as name=objects.
func (r *recorder) is(want ...string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var got []string
	for stack, names := range r.applied {
		got = append(got, stack+"="+names)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		return fmt.Errorf("applied %q, expected %q", got, want)
	}
	return nil
}

// logged collects what is logged.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func deployer(r *recorder, o Options) (*Deployer, *logged) {
	log := &logged{}
	o.Logger = slog.New(slog.NewTextHandler(log, nil))
	d := New(o)
	d.newApplier = func() (applier, error) { return r, nil }
	return d, log
}

// file is a manifest with objects of these names.
func file(names ...string) string {
	var text strings.Builder
	for _, name := range names {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %q\n", name)
	}
	return text.String()
}

func TestDeployerFollowsFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "manifests")
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	write(t, at("one", "a.yaml"), file("a"))
	write(t, at("one", ".#a.yaml"), "{")
	write(t, at("one", "notes.txt"), "{")
	write(t, at(".hidden", "a.yaml"), file("hidden"))
	write(t, at("own", "a.yaml"), file("usurper"))
	write(t, at("wrong name", "a.yaml"), file("misnamed"))
	write(t, at("stray.yaml"), file("stray"))

	r := &recorder{}
	d, log := deployer(r, Options{Dir: dir, Own: []Stack{parsed(t, "own", file("o"))}, Debounce: 20 * time.Millisecond})
	run(t, d)

	for _, step := range []struct {
		name string
		do   func(t *testing.T)
		want []string
		log  string
	}{
		{name: "what is there at the start", want: []string{"one=a", "own=o"}},
		{name: "a new file", do: func(t *testing.T) { write(t, at("one", "b.yml"), file("b")) }, want: []string{"one=a b", "own=o"}},
		{name: "a changed file", do: func(t *testing.T) { write(t, at("one", "b.yml"), file("b", "c")) }, want: []string{"one=a b c", "own=o"}},
		{name: "a new stack", do: func(t *testing.T) {
			write(t, at("two", "z.json"), `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "z"}}`)
		}, want: []string{"one=a b c", "own=o", "two=z"}},
		{name: "a change in a new stack", do: func(t *testing.T) { write(t, at("two", "y.yaml"), file("y")) }, want: []string{"one=a b c", "own=o", "two=y z"}},
		{name: "a stack moved in whole", do: func(t *testing.T) {
			elsewhere := filepath.Join(t.TempDir(), "three")
			write(t, filepath.Join(elsewhere, "t.yaml"), file("t"))
			if err := os.Rename(elsewhere, at("three")); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"one=a b c", "own=o", "three=t", "two=y z"}},
		{name: "a symbolic link", do: func(t *testing.T) {
			target := filepath.Join(filepath.Dir(dir), "linked")
			write(t, target, file("linked"))
			if err := os.Symlink(target, at("three", "u.yaml")); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"one=a b c", "own=o", "three=t linked", "two=y z"}},
		{
			name: "a broken file beside a good change",
			do: func(t *testing.T) {
				write(t, at("two", "y.yaml"), file("y")+"   oops: 1\n")
				write(t, at("one", "b.yml"), file("d"))
			},
			want: []string{"one=a d", "own=o", "three=t linked", "two=y z"},
			log:  at("two", "y.yaml") + ": not valid YAML: line 6:",
		},
		{name: "mended", do: func(t *testing.T) { write(t, at("two", "y.yaml"), file("x")) }, want: []string{"one=a d", "own=o", "three=t linked", "two=x z"}},
		{name: "a removed file", do: func(t *testing.T) { remove(t, at("two", "z.json")) }, want: []string{"one=a d", "own=o", "three=t linked", "two=x"}},
		{name: "a removed stack", do: func(t *testing.T) { remove(t, at("two")) }, want: []string{"one=a d", "own=o", "three=t linked", "two="}},
		{name: "a stack moved away", do: func(t *testing.T) {
			if err := os.Rename(at("three"), filepath.Join(filepath.Dir(dir), "away")); err != nil {
				t.Fatal(err)
			}
		}, want: []string{"one=a d", "own=o", "three=", "two="}},
		{name: "a stack that comes back", do: func(t *testing.T) { write(t, at("two", "y.yaml"), file("y")) }, want: []string{"one=a d", "own=o", "three=", "two=y"}},
		{name: "an own stack replaced", do: func(*testing.T) { d.Set(parsed(t, "own", file("o", "p"))) }, want: []string{"one=a d", "own=o p", "three=", "two=y"}},
		{name: "a stack taken over", do: func(*testing.T) { d.Set(parsed(t, "one", file("ours"))) }, want: []string{"one=ours", "own=o p", "three=", "two=y"}},
		{name: "its directory removed", do: func(t *testing.T) { remove(t, at("one")); write(t, at("two", "y.yaml"), file("y", "x")) }, want: []string{"one=ours", "own=o p", "three=", "two=y x"}},
		{name: "the whole directory removed", do: func(t *testing.T) {
			if err := os.Rename(dir, dir+".gone"); err != nil {
				t.Fatal(err)
			}
			d.Set(parsed(t, "own", file("q")))
		}, want: []string{"one=ours", "own=q", "three=", "two=y x"}, log: "cannot watch " + dir},
		{name: "another in its place", do: func(t *testing.T) { write(t, at("four", "f.yaml"), file("f")) }, want: []string{"four=f", "one=ours", "own=q", "three=", "two="}},
	} {
		if ok := t.Run(step.name, func(t *testing.T) {
			if step.do != nil {
				step.do(t)
			}
			eventually(t, func() error { return r.is(step.want...) })
			eventually(t, func() error {
				if !strings.Contains(log.String(), step.log) {
					return fmt.Errorf("%q is not in the log:\n%s", step.log, log)
				}
				return nil
			})
		}); !ok {
			t.Fatalf("log:\n%s", log)
		}
	}
	for _, once := range []string{"k0s itself deploys a stack of this name", "its name cannot be that of a stack", "stray.yaml is not in a stack"} {
		if got := strings.Count(log.String(), once); got < 1 || got > 2 { // once, and once more in the other directory
			t.Errorf("%q was logged %d times", once, got)
		}
	}
	if got := strings.Count(log.String(), "y.yaml: not valid YAML"); got != 1 {
		t.Errorf("the broken file was logged %d times", got)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// A file that is being written looks for a moment as if objects were gone.
func TestDeployerDoesNotPruneHalfWrittenFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s", "a.yaml")
	write(t, path, file("a", "b", "c"))
	r := &recorder{}
	d, _ := deployer(r, Options{Dir: dir, Debounce: 10 * time.Millisecond})
	run(t, d)
	eventually(t, func() error { return r.is("s=a b c") })

	before := time.Now()
	write(t, path, "")
	for _, part := range []string{file("a"), file("b")} {
		time.Sleep(100 * time.Millisecond) // a slow writer, not synchronisation
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := r.is("s=a b c"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() error { return r.is("s=a b") })
	if took := time.Since(before); took < settle {
		t.Errorf("believed the file after %s", took)
	}
}

func TestDeployerStacksDoNotWaitForEachOther(t *testing.T) {
	r := &recorder{block: map[string]chan struct{}{"slow": make(chan struct{})}}
	d, _ := deployer(r, Options{Own: []Stack{parsed(t, "slow", file("s")), parsed(t, "quick", file("q"))}})
	run(t, d)
	eventually(t, func() error { return r.is("quick=q") })
	close(r.block["slow"])
	eventually(t, func() error { return r.is("quick=q", "slow=s") })
	states := d.States()
	if len(states) != 2 || states[0].Name != "quick" || states[0].Objects != 1 || states[0].Applied.IsZero() || states[0].Err != nil {
		t.Errorf("states are %+v", states)
	}
	if err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "already runs") {
		t.Errorf("a second Run: %v", err)
	}
}

func TestDeployerRunsAgain(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "s", "a.yaml"), file("a"))
	r := &recorder{}
	d, _ := deployer(r, Options{Dir: dir})
	for i := range 2 {
		stop := run(t, d)
		eventually(t, func() error {
			if r.count() != i+1 {
				return fmt.Errorf("applied %d times", r.count())
			}
			return nil
		})
		stop()
		if d.States() != nil {
			t.Error("there are states though it does not run")
		}
	}
	d.newApplier = func() (applier, error) { return nil, errors.New("no such key") }
	if err := d.Run(t.Context()); err == nil {
		t.Error("runs without a client")
	}
}

func TestDeployerTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		failing := true
		r := &recorder{fail: func(string) error {
			if failing {
				return errors.New("refused")
			}
			return nil
		}}
		d, log := deployer(r, Options{Own: []Stack{parsed(t, "s", file("a"))}, Reapply: 10 * time.Minute})
		start := time.Now()
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()

		time.Sleep(time.Hour)
		synctest.Wait()
		var pauses []time.Duration
		for i, at := range r.times[:14] {
			if i > 0 {
				pauses = append(pauses, at.Sub(r.times[i-1]))
			}
		}
		want := []time.Duration{
			100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond,
			1600 * time.Millisecond, 3200 * time.Millisecond, 6400 * time.Millisecond, 12800 * time.Millisecond,
			25600 * time.Millisecond, 51200 * time.Millisecond, time.Minute, time.Minute, time.Minute,
		}
		if r.times[0] != start || !slices.Equal(pauses, want) {
			t.Errorf("first after %s, then pauses of %v, expected %v", r.times[0].Sub(start), pauses, want)
		}
		if n := r.count(); n < 60 {
			t.Errorf("only %d attempts in an hour", n)
		}
		if got := strings.Count(log.String(), "refused"); got != 1 {
			t.Errorf("the same error was logged %d times:\n%s", got, log)
		}

		// A change is tried at once, and with fresh patience.
		before := r.count()
		d.Set(parsed(t, "s", file("a", "b")))
		synctest.Wait()
		if r.count() != before+1 {
			t.Error("the change waited")
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if r.count() != before+2 {
			t.Error("the pauses did not start from the beginning")
		}

		r.mu.Lock()
		failing = false
		r.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := r.is("s=a b"); err != nil {
			t.Error(err)
		}
		if state := d.States()[0]; state.Err != nil || state.Applied.IsZero() {
			t.Errorf("state is %+v", state)
		}

		// And from then on again from time to time.
		before = r.count()
		time.Sleep(time.Hour)
		synctest.Wait()
		if again := r.count() - before; again != 6 {
			t.Errorf("applied again %d times in an hour instead of 6", again)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
