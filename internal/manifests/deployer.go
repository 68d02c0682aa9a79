package manifests

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
)

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Minute
	// burst bounds how long a stream of changes can put off their reading.
	burst = 2 * time.Second
	// settle is how long files must have rested before an object missing from
	// them is believed to be gone, rather than not yet written.
	settle = time.Second
	// patience is how long a stack may fail before that is worth a warning:
	// a young cluster lacks namespaces for a moment.
	patience = time.Second
)

// Options says what a Deployer deploys, and where.
type Options struct {
	// Config leads to the cluster, with the rights of an administrator.
	Config *rest.Config
	// Dir holds one directory per user stack, <data-dir>/manifests. It is
	// created if need be. Empty: no stacks are read from disk.
	Dir string
	// Own are the stacks that do not come from Dir. They win over a directory
	// of the same name.
	Own []Stack
	// Logger receives what happens. Default: slog.Default().
	Logger *slog.Logger
	// Debounce is how long files must rest before they are read.
	// Default: 200 ms.
	Debounce time.Duration
	// Reapply is how often everything is applied again, which repairs what
	// was changed in the cluster behind our back. Default: 10 min.
	Reapply time.Duration
}

// Deployer keeps stacks applied.
type Deployer struct {
	options    Options
	newApplier func() (applier, error)

	mu     sync.Mutex
	own    map[string]Stack
	active *deployment // while Run runs
}

type applier interface {
	Apply(context.Context, Stack) error
}

// New returns a Deployer. It does nothing until Run.
func New(o Options) *Deployer {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Debounce == 0 {
		o.Debounce = 200 * time.Millisecond
	}
	if o.Reapply == 0 {
		o.Reapply = 10 * time.Minute
	}
	d := &Deployer{options: o, own: map[string]Stack{}}
	d.newApplier = func() (applier, error) { return NewApplier(o.Config, o.Logger) }
	for _, stack := range o.Own {
		d.own[stack.Name] = stack
	}
	return d
}

// Set adds a stack to our own, or replaces it; one without objects is removed
// from the cluster. It takes effect at once if the Deployer runs.
func (d *Deployer) Set(stack Stack) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own[stack.Name] = stack
	if d.active != nil {
		d.active.push(stack)
	}
}

// State is how far a stack has come.
type State struct {
	Name    string
	Objects int
	// Applied is when the stack was last applied without an error; zero if
	// that has not happened yet.
	Applied time.Time
	// Err is what the latest attempt ended with.
	Err error
}

// States returns the state of every stack, by name; none while Run does not
// run.
func (d *Deployer) States() []State {
	d.mu.Lock()
	active := d.active
	d.mu.Unlock()
	if active == nil {
		return nil
	}
	return active.states()
}

// Run applies every stack at once and keeps them applied until ctx ends. It
// changes nothing when it ends, and may be called again afterwards. Only one
// process of a cluster should run it at a time. The error says that the
// cluster cannot be talked to with this configuration, or that it already
// runs; the end of ctx is none.
func (d *Deployer) Run(ctx context.Context) error {
	applier, err := d.newApplier()
	if err != nil {
		return err
	}
	run := &deployment{ctx: ctx, options: d.options, applier: applier, workers: map[string]*worker{}}

	d.mu.Lock()
	if d.active != nil {
		d.mu.Unlock()
		return errors.New("manifests: the deployer already runs")
	}
	d.active = run
	for _, stack := range d.own {
		run.push(stack)
	}
	d.mu.Unlock()
	defer func() {
		run.wait.Wait()
		d.mu.Lock()
		d.active = nil
		d.mu.Unlock()
	}()

	if d.options.Dir == "" {
		<-ctx.Done()
		return nil
	}
	files := &follower{
		dir:     filepath.Clean(d.options.Dir),
		options: d.options,
		reserved: func(name string) bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			_, ok := d.own[name]
			return ok
		},
		push: func(stack Stack) {
			d.mu.Lock()
			defer d.mu.Unlock()
			if _, own := d.own[stack.Name]; !own {
				run.push(stack)
			}
		},
		known: map[string]Stack{},
		said:  map[string]string{},
	}
	files.run(ctx)
	return nil
}

// deployment is one Run: a worker for each stack, so that none waits for
// another.
type deployment struct {
	ctx     context.Context
	options Options
	applier applier
	wait    sync.WaitGroup

	mu      sync.Mutex
	workers map[string]*worker
}

// push has stack applied, instead of what its worker was given before.
func (d *deployment) push(stack Stack) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ctx.Err() != nil {
		return
	}
	w := d.workers[stack.Name]
	if w == nil {
		w = &worker{
			applier: d.applier,
			reapply: d.options.Reapply,
			log:     d.options.Logger.With("stack", stack.Name),
			changed: make(chan struct{}, 1),
			state:   State{Name: stack.Name},
		}
		d.workers[stack.Name] = w
		d.wait.Go(func() { w.run(d.ctx) })
	}
	w.want(stack)
}

func (d *deployment) states() []State {
	d.mu.Lock()
	defer d.mu.Unlock()
	var states []State
	for _, w := range d.workers {
		w.mu.Lock()
		states = append(states, w.state)
		w.mu.Unlock()
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Name, b.Name) })
	return states
}

// worker keeps one stack applied.
type worker struct {
	applier applier
	reapply time.Duration
	log     *slog.Logger
	changed chan struct{} // holds one token when stack is newer than what run took

	mu    sync.Mutex
	stack Stack
	state State
}

func (w *worker) want(stack Stack) {
	w.mu.Lock()
	w.stack = stack
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// run applies the stack whenever it changes, again with growing pauses while
// that fails, and every now and then when it did not.
func (w *worker) run(ctx context.Context) {
	var failures int
	var failing time.Time // since when
	var warned string
	news := true // the next success is worth telling
	next := time.NewTimer(w.reapply)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed: // at the beginning, too
			failures, failing, warned, news = 0, time.Time{}, "", true
		case <-next.C:
		}
		w.mu.Lock()
		stack := w.stack
		w.mu.Unlock()

		start := time.Now()
		err := w.applier.Apply(ctx, stack)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		w.state.Objects, w.state.Err = len(stack.Objects), err
		if err == nil {
			w.state.Applied = time.Now()
		}
		w.mu.Unlock()

		if err == nil {
			if news || failures > 0 {
				w.log.Info("stack applied", "objects", len(stack.Objects), "took", time.Since(start).Round(time.Millisecond), "failed attempts", failures)
			}
			failures, failing, warned, news = 0, time.Time{}, "", false
			next.Reset(w.reapply)
			continue
		}
		pause := retryAfter(failures)
		failures++
		if failing.IsZero() {
			failing = start
		}
		level := slog.LevelDebug
		if time.Since(failing) >= patience && err.Error() != warned {
			level, warned = slog.LevelWarn, err.Error()
		}
		w.log.Log(ctx, level, "stack not fully applied, will try again", "error", err, "in", pause, "attempt", failures)
		next.Reset(pause)
	}
}

// retryAfter is the pause after so many earlier failures in a row.
func retryAfter(failures int) time.Duration {
	if failures > 20 {
		return lastRetry
	}
	return min(firstRetry<<failures, lastRetry)
}

// follower turns a directory of stack directories into pushed stacks, and
// follows changes to it.
type follower struct {
	dir      string
	options  Options
	reserved func(name string) bool
	push     func(Stack)

	known map[string]Stack  // as pushed last
	said  map[string]string // last complaint about a stack, so as not to repeat it
}

// run returns when ctx ends. If the kernel cannot tell us about changes, the
// directory is read again at every attempt to make it.
func (f *follower) run(ctx context.Context) {
	// Only made here: if it vanishes later, that is no order to delete every
	// stack of the cluster.
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		f.complain("", err.Error())
	}
	for failures := 0; ctx.Err() == nil; failures++ {
		start := time.Now()
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > lastRetry {
			failures = 0
		}
		f.complain("", fmt.Sprintf("cannot watch %s, it is looked at again at times: %v", f.dir, err))
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter(failures)):
		}
	}
}

// follow reads the directory and follows changes until ctx ends or watching
// fails.
func (f *follower) follow(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		f.scan(nil, nil)
		return fmt.Errorf("%w (if there are too many watches, raise sysctl fs.inotify.max_user_instances)", err)
	}
	defer watcher.Close()
	if err := watcher.Add(f.dir); err != nil {
		f.scan(nil, nil)
		return err
	}

	var began time.Time // of the changes not yet read
	touched := map[string]bool{}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	scan := func() {
		began = time.Time{}
		if unsettled := f.scan(watcher, touched); unsettled > 0 {
			timer.Reset(unsettled) // what was touched remains so
			return
		}
		clear(touched)
		// Where a symbolic link leads is not watched, so look at times.
		timer.Reset(f.options.Reapply)
	}
	scan()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			scan()
		case event, ok := <-watcher.Events:
			if !ok {
				return errors.New("the watch was closed")
			}
			if filepath.Clean(event.Name) == f.dir && event.Has(fsnotify.Remove|fsnotify.Rename) {
				return fmt.Errorf("%s was removed", f.dir)
			}
			if stack := filepath.Dir(event.Name); stack != f.dir && isManifest(filepath.Base(event.Name)) {
				touched[filepath.Base(stack)] = true
			}
			if began.IsZero() {
				began = time.Now()
			}
			timer.Reset(min(f.options.Debounce, time.Until(began.Add(burst))))
		case err, ok := <-watcher.Errors:
			if !ok {
				return errors.New("the watch was closed")
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
			timer.Reset(f.options.Debounce)
		}
	}
}

// scan reads every stack directory and pushes the stacks that are new, have
// changed, were touched or are gone. It returns how long to wait before
// reading once more because a file may be half written, or 0.
func (f *follower) scan(watcher *fsnotify.Watcher, touched map[string]bool) (unsettled time.Duration) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		f.complain("", fmt.Sprintf("cannot read the manifests, so all stacks stay as they were: %v", err))
		return 0
	}
	delete(f.said, "")
	present := map[string]bool{}
	for _, entry := range entries {
		name, dir := entry.Name(), filepath.Join(f.dir, entry.Name())
		if strings.HasPrefix(name, ".") {
			continue
		}
		present[name] = true
		info, err := os.Stat(dir)
		if err != nil {
			f.complain(name, err.Error())
			continue
		}
		if !info.IsDir() {
			if isManifest(name) {
				f.complain(name, fmt.Sprintf("%s is not in a stack and is not applied: move it into a directory, for example %s",
					dir, filepath.Join(f.dir, strings.TrimSuffix(name, filepath.Ext(name)))+"/"))
			}
			delete(present, name)
			continue
		}
		if f.reserved(name) {
			f.complain(name, fmt.Sprintf("%s is not applied because k0s itself deploys a stack of this name: rename the directory", dir))
			delete(present, name)
			continue
		}
		if problems := validation.IsValidLabelValue(name); len(problems) > 0 {
			f.complain(name, fmt.Sprintf("%s is not applied because its name cannot be that of a stack: %s", dir, strings.Join(problems, "; ")))
			continue
		}
		if watcher != nil {
			if err := watcher.Add(dir); err != nil {
				f.complain(name, fmt.Sprintf("cannot watch %s, changes are seen late: %v", dir, err))
			}
		}
		unsettled = max(unsettled, f.read(dir, touched[name]))
	}
	for name := range f.known {
		if !present[name] {
			delete(f.known, name)
			if f.reserved(name) {
				continue
			}
			f.options.Logger.Info("the directory of a stack is gone, its objects will be deleted", "stack", name)
			delete(f.said, name)
			if watcher != nil {
				_ = watcher.Remove(filepath.Join(f.dir, name)) // usually gone with the directory
			}
			f.push(Stack{Name: name})
		}
	}
	return unsettled
}

// read pushes the stack in dir if it is to be applied now.
func (f *follower) read(dir string, touched bool) (unsettled time.Duration) {
	name := filepath.Base(dir)
	files, err := readStack(dir)
	if err != nil {
		f.complain(name, err.Error())
		return 0
	}
	last, seen := f.known[name]
	if seen && !touched && reflect.DeepEqual(last, files.stack) {
		return 0
	}
	if wait := time.Until(files.written.Add(settle)); seen && wait > 0 && wait <= settle && lacks(files.stack, last) {
		return wait
	}
	if len(files.warnings) > 0 {
		f.complain(name, strings.Join(files.warnings, "; "))
	} else {
		delete(f.said, name)
	}
	f.known[name] = files.stack
	f.push(files.stack)
	return 0
}

// complain logs a problem with a stack (or with the whole directory, if stack
// is empty) unless it is the one already logged.
func (f *follower) complain(stack, problem string) {
	if f.said[stack] != problem {
		f.said[stack] = problem
		f.options.Logger.Warn(problem, "stack", stack)
	}
}
