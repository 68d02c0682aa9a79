package tunnelserver

import (
	"context"
	"sync"
	"time"
)

// firstAgent is whether any agent is, or was, connected.
type firstAgent struct {
	patience time.Duration
	over     chan struct{} // closed when nobody is to wait any more
	end      func()        // closes it
	asked    sync.Once
}

func newFirstAgent(patience time.Duration) *firstAgent {
	over := make(chan struct{})
	return &firstAgent{patience: patience, over: over, end: sync.OnceFunc(func() { close(over) })}
}

// await has the API server wait.
func (f *firstAgent) await(ctx context.Context) {
	f.asked.Do(func() { time.AfterFunc(f.patience, f.end) })
	select {
	case <-f.over:
	case <-ctx.Done():
	}
}
