package tunnel

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/proto/client"
)

// server is a controller, or all behind one address.
type server struct {
	ctx    context.Context // of the connections
	cancel context.CancelFunc
	log    *slog.Logger
	giveUp *time.Timer // of the Tunnel: what is to end it; nil while it is listed

	mu      sync.Mutex
	streams int   // connections that stand
	err     error // what went wrong last, since one stood
}

// state tells whether it is connected, and if not, what is known of why.
func (s *server) state() (connected bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams > 0, s.err
}

// intercept ties a connection to the life of the server, and takes note of how it goes.
func (s *server) intercept(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	md, _ := metadata.FromOutgoingContext(ctx)
	stream, err := streamer(metadata.NewOutgoingContext(s.ctx, md), desc, conn, method, opts...)
	if err != nil {
		s.failed(err)
		return nil, err
	}
	return &watched{ClientStream: stream, server: s}, nil
}

// watched is a connection that tells how it goes.
type watched struct {
	grpc.ClientStream
	server *server
	opened sync.Once
}

// Header is the controller's first answer: with it, the node is admitted.
func (w *watched) Header() (metadata.MD, error) {
	md, err := w.ClientStream.Header()
	if err == nil && len(md) == 0 { // refused: why, comes where messages come
		err = w.ClientStream.RecvMsg(&client.Packet{})
	}
	if err != nil {
		w.server.failed(err)
		return nil, err
	}
	w.opened.Do(func() {
		w.server.opened()
		context.AfterFunc(w.Context(), w.server.closed)
	})
	return md, nil
}

func (w *watched) RecvMsg(m any) error {
	err := w.ClientStream.RecvMsg(m)
	if err != nil {
		w.server.failed(err)
	}
	return err
}

func (s *server) opened() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == 0 {
		s.log.Info("Connected: the control plane reaches this node through the controller")
	}
	s.streams++
	s.err = nil
}

func (s *server) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams--
}

// failed notes, and says once, that a connection did not come about or has ended.
func (s *server) failed(err error) {
	if s.ctx.Err() != nil { // it was to end
		return
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the controller has ended the connection")
	} else if st, ok := status.FromError(err); ok {
		err = errors.New(st.Message())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	level := slog.LevelWarn
	if s.err != nil {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, "No connection to the controller, trying again", "error", err)
	s.err = err
}
