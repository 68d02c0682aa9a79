package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"k0s.io/k0s/internal/network/kuberouter/settings"
)

// patience is how long an answer of the speaker is waited for.
const patience = 2 * time.Second

// Serve has handler answer at path, on at, until ctx ends. It asks for no password: by default it is on loopback.
func Serve(ctx context.Context, at settings.Endpoint, path string, handler http.Handler) error {
	address := net.JoinHostPort(at.Address.String(), strconv.Itoa(int(at.Port)))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening on %s for GET %s (metrics and health settings in spec.network.kuberouter): %w", address, path, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+path, handler)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
