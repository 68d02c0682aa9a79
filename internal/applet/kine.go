package applet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/k3s-io/kine/pkg/app"
	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/server"
	"google.golang.org/grpc/grpclog"

	"k0s.io/k0s/internal/applet/name"
)

func kine() int {
	// gRPC would warn of each of hundreds of watches that an API server gives up when it ends.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	for _, scheme := range []string{"sqlite", "mysql", "postgres", "postgresql"} {
		if open, known := drivers.Get(scheme); known {
			drivers.Register(scheme, verified(open))
		}
	}
	err := app.New().Run(os.Args)
	if errors.Is(err, context.Canceled) { // told to stop
		return 0
	}
	return report(name.Kine, err)
}

// verified has what is created looked for.
func verified(open drivers.Constructor) drivers.Constructor {
	return func(ctx context.Context, wg *sync.WaitGroup, config *drivers.Config) (bool, server.Backend, error) {
		elects, backend, err := open(ctx, wg, config)
		if err != nil {
			return elects, backend, err
		}
		return elects, verifiedBackend{backend}, nil
	}
}

// verifiedBackend is one of kine's. As of kine 0.17.5, Create of a key that does not exist says that it has succeeded
// when writing failed and reading did not: a connection that broke since it was last used, as when the
// database restarts, loses an object that way that the API has confirmed.
type verifiedBackend struct{ server.Backend }

// Create fails if the key is not there, at the revision that it is said to have been created at.
func (b verifiedBackend) Create(ctx context.Context, key string, value []byte, lease int64) (int64, error) {
	revision, err := b.Backend.Create(ctx, key, value, lease)
	if err != nil {
		return revision, err
	}
	_, stored, err := b.Get(ctx, key, revision, true)
	if err != nil {
		return 0, fmt.Errorf("%s may not have been stored: %w", key, err)
	}
	if stored == nil || stored.ModRevision != revision {
		return 0, fmt.Errorf("%s was not stored: the database did not answer in time", key)
	}
	return revision, nil
}
