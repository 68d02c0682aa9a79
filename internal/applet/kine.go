package applet

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/k3s-io/kine/pkg/app"
	"google.golang.org/grpc/grpclog"

	"k0s.io/k0s/internal/applet/name"
)

func kine() int {
	// gRPC would warn of each of hundreds of watches that an API server gives up when it ends.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr))
	err := app.New().Run(os.Args)
	if errors.Is(err, context.Canceled) { // told to stop
		return 0
	}
	return report(name.Kine, err)
}
