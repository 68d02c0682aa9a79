package component

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// Background is a component that is a goroutine of the supervisor: run goes on until its context
// ends, or until it returns nil because there is nothing left to do. When it fails it is logged and
// run again, after the time that Backoff gives.
func Background(name string, run func(context.Context) error, log *slog.Logger) Component {
	var (
		cancel  context.CancelFunc
		done    chan struct{}
		trouble atomic.Pointer[error] // why run is not running right now
	)
	keepRunning := func(ctx context.Context) {
		var backoff Backoff
		for {
			begin := time.Now()
			err := runOnce(ctx, run)
			if ctx.Err() != nil || err == nil {
				return
			}
			wait := backoff.Next(time.Since(begin))
			log.Error("Has failed, running it again", "error", err, "after", wait)
			trouble.Store(&err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			trouble.Store(nil)
		}
	}
	return Component{
		Name: name,
		Start: func(ctx context.Context) error {
			ctx, cancel = context.WithCancel(context.WithoutCancel(ctx))
			done = make(chan struct{})
			go func() {
				defer close(done)
				keepRunning(ctx)
			}()
			return nil
		},
		Trouble: func() error {
			if err := trouble.Load(); err != nil {
				return *err
			}
			return nil
		},
		Stop: func(ctx context.Context) error {
			if cancel == nil {
				return nil
			}
			cancel()
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return fmt.Errorf("%s goes on although it was told to stop: %w", name, context.Cause(ctx))
			}
		},
	}
}

// runOnce gives run a context of its own, so that what a failed run has left in the background ends.
func runOnce(ctx context.Context, run func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return run(ctx)
}
