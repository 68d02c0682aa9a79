package component

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// State of a component, as shown by `k0s status`.
type State string

// The states a component goes through.
const (
	Waiting  State = "waiting"  // for its needs
	Starting State = "starting" // started, not ready yet
	Ready    State = "ready"
	Failed   State = "failed"
	// Restarting is a component that has ended and is about to be started again.
	Restarting State = "restarting"
	Stopping   State = "stopping"
	Stopped    State = "stopped"
)

// Status is what the engine knows of one component. Durations count from the engine's start.
type Status struct {
	Name      string        `json:"name"`
	State     State         `json:"state"`
	Needs     []string      `json:"needs,omitempty"`
	StartedAt time.Duration `json:"startedAtNanoseconds,omitempty"`
	ReadyAt   time.Duration `json:"readyAtNanoseconds,omitempty"`
	// WaitedFor is the need that became ready last, i.e. what start-up waited for.
	WaitedFor string `json:"waitedFor,omitempty"`
	// Error is why the component failed or is not running; while it is starting, what it waits for.
	Error string `json:"error,omitempty"`

	Process *Process `json:"process,omitempty"`
	// Details is what else the component tells of itself.
	Details any `json:"details,omitempty"`
}

// Engine runs one Set, once.
type Engine struct {
	set   Set
	log   *slog.Logger
	begin time.Time
	ready chan struct{} // closed when every component is ready

	mu     sync.Mutex
	status map[string]*Status
}

// NewEngine returns an engine for set, or why the set could never start.
func NewEngine(set Set, log *slog.Logger) (*Engine, error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	e := &Engine{set: set, log: log, begin: time.Now(), ready: make(chan struct{}), status: map[string]*Status{}}
	for _, c := range set {
		e.status[c.Name] = &Status{Name: c.Name, State: Waiting, Needs: c.needs}
	}
	return e, nil
}

// Ready is closed once every component is ready.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// Status returns the components' states in the order of the set.
func (e *Engine) Status() []Status {
	all, details := e.states()
	ctx, cancel := context.WithTimeout(context.Background(), detailsTimeout)
	defer cancel()
	for i, tell := range details { // which may take a while: without the lock
		all[i].Details = tell(ctx)
	}
	return all
}

// detailsTimeout is how long all components together may take to tell of themselves.
const detailsTimeout = time.Second

// states are all but the details, and those who tell them, by their place.
func (e *Engine) states() ([]Status, map[int]func(context.Context) any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all, details := make([]Status, 0, len(e.set)), map[int]func(context.Context) any{}
	for i, c := range e.set {
		s := *e.status[c.Name]
		if c.Details != nil && s.State == Ready {
			details[i] = c.Details
		}
		if s.State == Ready || s.State == Starting {
			addPresent(&s, c)
		}
		all = append(all, s)
	}
	return all, details
}

// addPresent adds to the status of a component that was started how it is right now.
func addPresent(s *Status, c Component) {
	if c.Process != nil {
		p := c.Process()
		s.Process = &p
		if p.PID == 0 && !p.Since.IsZero() { // it has run before
			s.State = Restarting
		}
	}
	if c.Trouble != nil {
		if err := c.Trouble(); err != nil {
			s.State, s.Error = Restarting, err.Error()
		}
	}
}

// Run starts the set, keeps it until ctx ends, and stops it. When a component cannot be started,
// what was started is stopped again and the reason returned; trouble while stopping is logged.
// stopTimeout bounds the whole stop.
func (e *Engine) Run(ctx context.Context, stopTimeout time.Duration) error {
	err := e.start(ctx)
	if err == nil {
		<-ctx.Done()
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if stopErr := e.stop(stopCtx); stopErr != nil {
		e.log.Warn("Not everything stopped as it should", "error", stopErr)
	}
	return err
}

// start returns nil when all is ready or ctx has ended, else the first failure.
func (e *Engine) start(ctx context.Context) error {
	startCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	readies := map[string]chan struct{}{}
	for _, c := range e.set {
		readies[c.Name] = make(chan struct{})
	}
	var wg sync.WaitGroup
	for _, c := range e.set {
		wg.Go(func() {
			if err := e.startOne(startCtx, c, readies); err != nil && startCtx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", c.Name, err))
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil // asked to stop while starting: not a failure
	}
	if err := context.Cause(startCtx); err != nil {
		return err
	}
	close(e.ready)
	return nil
}

func (e *Engine) startOne(ctx context.Context, c Component, readies map[string]chan struct{}) error {
	for _, need := range c.needs {
		select {
		case <-readies[need]:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e.update(c.Name, func(s *Status) {
		s.State, s.StartedAt, s.WaitedFor = Starting, time.Since(e.begin), e.lastReady(c.needs)
	})
	stepCtx := withReporter(ctx, func(err error) {
		e.update(c.Name, func(s *Status) {
			if s.State == Starting { // what runs on in the background has ctx for longer
				s.Error = "waiting: " + err.Error()
			}
		})
	})
	stopWarning := e.warnOfLongStart(c.Name)
	defer stopWarning()
	for _, step := range []func(context.Context) error{c.Start, c.Ready} {
		if step == nil {
			continue
		}
		if err := step(stepCtx); err != nil {
			if ctx.Err() == nil {
				e.update(c.Name, func(s *Status) { s.State, s.Error = Failed, err.Error() })
			}
			return err
		}
	}
	e.update(c.Name, func(s *Status) { s.State, s.ReadyAt, s.Error = Ready, time.Since(e.begin), "" })
	e.log.Debug("Component is ready", "component", c.Name, "after", time.Since(e.begin).Round(time.Millisecond))
	close(readies[c.Name])
	return nil
}

// A component that is still not ready is warned of after longStart, and then again and again.
const (
	longStart    = 10 * time.Second
	warnInterval = time.Minute
)

// warnOfLongStart logs what a component waits for if it is not ready soon, until stop is called.
func (e *Engine) warnOfLongStart(name string) (stop func()) {
	begin, done := time.Now(), make(chan struct{})
	go func() {
		for next := longStart; ; next = warnInterval {
			select {
			case <-done:
				return
			case <-time.After(next):
			}
			reason := ""
			e.update(name, func(s *Status) { reason = s.Error })
			e.log.Warn("Component is not ready yet", "component", name, "after", time.Since(begin).Round(time.Second), "reason", reason)
		}
	}()
	return func() { close(done) }
}

// lastReady is the one of needs that became ready last. The caller holds the lock.
func (e *Engine) lastReady(needs []string) string {
	last := ""
	for _, need := range needs {
		if last == "" || e.status[need].ReadyAt > e.status[last].ReadyAt {
			last = need
		}
	}
	return last
}

// stop stops every component that was started as soon as all that need it have stopped.
func (e *Engine) stop(ctx context.Context) error {
	set := e.current()
	stopped := map[string]chan struct{}{}
	dependants := map[string][]string{}
	for _, c := range set {
		stopped[c.Name] = make(chan struct{})
		for _, need := range c.needs {
			dependants[need] = append(dependants[need], c.Name)
		}
	}
	errs := make([]error, len(set))
	var wg sync.WaitGroup
	for i, c := range set {
		wg.Go(func() {
			defer close(stopped[c.Name])
			for _, d := range dependants[c.Name] {
				<-stopped[d]
			}
			if !e.wasStarted(c.Name) {
				return
			}
			begin := time.Now()
			if c.Stop != nil {
				if err := c.Stop(ctx); err != nil {
					errs[i] = fmt.Errorf("stopping %s: %w", c.Name, err)
				}
			}
			e.update(c.Name, func(s *Status) { s.State = Stopped })
			e.log.Debug("Component has stopped", "component", c.Name, "took", time.Since(begin).Round(time.Millisecond))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Replace stops the named components, one after the other, and starts those of the same names in set in
// their place; what needs them goes on meanwhile. It is for an engine that is ready. The first that cannot
// be started ends it: that component has failed, the ones after it are as before.
func (e *Engine) Replace(ctx context.Context, set Set, names ...string) error {
	for _, name := range names {
		i := slices.IndexFunc(set, func(c Component) bool { return c.Name == name })
		if i < 0 {
			return fmt.Errorf("there is no component %q to take the old one's place", name)
		}
		if err := e.replace(ctx, set[i]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (e *Engine) replace(ctx context.Context, next Component) error {
	e.mu.Lock()
	i := slices.IndexFunc(e.set, func(c Component) bool { return c.Name == next.Name })
	if i < 0 {
		e.mu.Unlock()
		return errors.New("there was none before")
	}
	old := e.set[i]
	e.status[next.Name].State = Stopping
	e.mu.Unlock()
	if old.Stop != nil {
		if err := old.Stop(ctx); err != nil {
			e.log.Warn("Did not stop as it should", "component", next.Name, "error", err)
		}
	}
	e.mu.Lock()
	next.needs = old.needs
	set := slices.Clone(e.set)
	set[i] = next
	e.set = set
	e.status[next.Name].State = Starting
	e.mu.Unlock()
	for _, step := range []func(context.Context) error{next.Start, next.Ready} {
		if step == nil {
			continue
		}
		if err := step(ctx); err != nil {
			e.update(next.Name, func(s *Status) { s.State, s.Error = Failed, err.Error() })
			return err
		}
	}
	e.update(next.Name, func(s *Status) { s.State, s.Error = Ready, "" })
	return nil
}

// current is the set as it is now.
func (e *Engine) current() Set {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.set
}

func (e *Engine) wasStarted(name string) bool {
	started := false
	e.update(name, func(s *Status) {
		if started = s.State != Waiting; started {
			s.State = Stopping
		}
	})
	return started
}

func (e *Engine) update(name string, change func(*Status)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(e.status[name])
}

// AnyNot tells whether any component is in another state than state.
func AnyNot(all []Status, state State) bool {
	return slices.ContainsFunc(all, func(s Status) bool { return s.State != state })
}
