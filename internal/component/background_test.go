package component

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// output is a buffer for two at a time.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// run runs set until the test ends; under synctest, so that time is free.
func run(t *testing.T, set Set, log *slog.Logger) *Engine {
	t.Helper()
	e, err := NewEngine(set, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, time.Minute) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return e
}

func TestFailedBackgroundIsRunAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		var (
			mu       sync.Mutex
			contexts []context.Context // one of each run
		)
		runs := func() []context.Context {
			mu.Lock()
			defer mu.Unlock()
			return contexts
		}
		e := run(t, Set{Background("manifests", func(ctx context.Context) error {
			mu.Lock()
			contexts = append(contexts, ctx)
			mu.Unlock()
			if len(runs()) <= 2 {
				return errors.New("no such kind")
			}
			<-ctx.Done()
			return ctx.Err()
		}, log)}, log)
		want := func(runsWanted int, state State, reason string) {
			t.Helper()
			synctest.Wait()
			if s := e.Status()[0]; len(runs()) != runsWanted || s.State != state || s.Error != reason {
				t.Errorf("after %d runs it is %s (%q); want %d, %s (%q)", len(runs()), s.State, s.Error, runsWanted, state, reason)
			}
		}
		want(1, Restarting, "no such kind")
		time.Sleep(200 * time.Millisecond)
		want(2, Restarting, "no such kind")
		time.Sleep(399 * time.Millisecond)
		want(2, Restarting, "no such kind")
		time.Sleep(time.Millisecond)
		want(3, Ready, "")
		if all := runs(); all[0].Err() == nil || all[2].Err() != nil {
			t.Error("the context of a failed run must have ended, that of the present one not")
		}
	})
}

func TestBackgroundThatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		runs := 0
		e := run(t, Set{Background("once", func(context.Context) error { runs++; return nil }, nil)}, slog.New(slog.DiscardHandler))
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := e.Status()[0]; runs != 1 || s.State != Ready {
			t.Errorf("ran %d times and is %s", runs, s.State)
		}
	})
}

func TestStopOfStubbornBackgroundIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ever := make(chan struct{})
		defer close(ever)
		c := Background("stubborn", func(context.Context) error { <-ever; return nil }, slog.New(slog.DiscardHandler))
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := c.Stop(ctx); err == nil || !strings.Contains(err.Error(), "stubborn goes on") {
			t.Errorf("got %v", err)
		}
	})
}

func TestStopOfBackgroundThatNeverStarted(t *testing.T) {
	if err := Background("never", nil, nil).Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLongStartIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out output
		begin, ready := time.Now(), make(chan struct{})
		slow := Component{Name: "apiserver", Ready: func(ctx context.Context) error {
			Report(ctx, errors.New("connection refused"))
			<-ready
			return nil
		}}
		e := run(t, Set{slow, {Name: "quick"}}, slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
		if s := e.Status()[0]; s.State != Starting || s.Error != "waiting: connection refused" {
			t.Errorf("got %s, %q", s.State, s.Error)
		}
		for _, want := range []struct {
			at       time.Duration // since the start
			warnings int
		}{{9 * time.Second, 0}, {11 * time.Second, 1}, {69 * time.Second, 1}, {71 * time.Second, 2}, {131 * time.Second, 3}} {
			time.Sleep(want.at - time.Since(begin))
			synctest.Wait()
			if got := strings.Count(out.String(), "\n"); got != want.warnings {
				t.Errorf("after %v there are %d warnings, want %d:\n%s", want.at, got, want.warnings, out.String())
			}
		}
		if !strings.Contains(out.String(), `component=apiserver after=10s reason="waiting: connection refused"`) {
			t.Errorf("got %s", out.String())
		}
		close(ready)
		synctest.Wait()
		if s := e.Status()[0]; s.State != Ready || s.Error != "" {
			t.Errorf("got %s, %q", s.State, s.Error)
		}
		before := out.String()
		time.Sleep(time.Hour)
		synctest.Wait()
		if after := out.String(); after != before {
			t.Errorf("it is ready, but there are warnings: %s", after[len(before):])
		}
	})
}

func TestReportFromTheBackgroundDoesNotStick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		e := run(t, Set{Background("b", func(ctx context.Context) error {
			time.Sleep(time.Minute) // by now it is ready
			Report(ctx, errors.New("connection refused"))
			<-ctx.Done()
			return nil
		}, log)}, log)
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := e.Status()[0]; s.State != Ready || s.Error != "" {
			t.Errorf("got %s, %q", s.State, s.Error)
		}
	})
}

func TestProcessIsRestartingOnlyIfItHasRun(t *testing.T) {
	for _, tc := range []struct {
		name string
		p    Process
		want State
	}{
		{"not forked yet", Process{}, Starting},
		{"runs", Process{PID: 7, Since: time.Now()}, Starting},
		{"has ended", Process{Since: time.Now()}, Restarting},
		{"has ended again", Process{Since: time.Now(), Restarts: 3}, Restarting},
	} {
		s := Status{State: Starting}
		addPresent(&s, Component{Process: func() Process { return tc.p }})
		if s.State != tc.want || s.Process == nil || *s.Process != tc.p {
			t.Errorf("%s: got %+v", tc.name, s)
		}
	}
}
