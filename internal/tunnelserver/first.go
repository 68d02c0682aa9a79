package tunnelserver

import (
	"sync"
	"time"

	"google.golang.org/grpc"
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

// await has a connection of the API server wait.
func (f *firstAgent) await(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	f.asked.Do(func() { time.AfterFunc(f.patience, f.end) })
	select {
	case <-f.over:
	case <-stream.Context().Done():
	}
	return handle(srv, stream)
}

// notice looks out for the first agent.
func (f *firstAgent) notice(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(srv, &noticed{stream, f})
}

// noticed is an agent's connection. From when it is read from, it is in use.
type noticed struct {
	grpc.ServerStream
	first *firstAgent
}

func (n *noticed) RecvMsg(m any) error {
	n.first.end()
	return n.ServerStream.RecvMsg(m)
}
