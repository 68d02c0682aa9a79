package component

import (
	"context"
	"log/slog"
	"sync"
)

// Background is a component that is a goroutine of the supervisor: run goes on until its context
// ends. Its error is logged.
func Background(name string, run func(context.Context) error, log *slog.Logger) Component {
	var (
		wg     sync.WaitGroup
		cancel context.CancelFunc
	)
	return Component{
		Name: name,
		Start: func(ctx context.Context) error {
			runCtx, c := context.WithCancel(context.WithoutCancel(ctx))
			cancel = c
			wg.Go(func() {
				if err := run(runCtx); err != nil && runCtx.Err() == nil {
					log.Error("Has ended", "error", err)
				}
			})
			return nil
		},
		Stop: func(context.Context) error {
			if cancel != nil {
				cancel()
			}
			wg.Wait()
			return nil
		},
	}
}
