package cli

import (
	"context"
	"log/slog"
	"runtime"
	"strings"

	"k8s.io/klog/v2"
)

// noisy begins the names of functions that take for an error, once a second or so, what their user k0s
// reports itself.
const noisy = "sigs.k8s.io/apiserver-network-proxy/"

// redirectKlog has what the libraries of Kubernetes say go where all else goes.
func redirectKlog(log *slog.Logger) { klog.SetSlogLogger(slog.New(klogHandler{log.Handler()})) }

// klogHandler takes what noisy libraries say for what it is: of use only to those who look for faults.
type klogHandler struct{ slog.Handler }

func (h klogHandler) Handle(ctx context.Context, r slog.Record) error {
	frame, _ := runtime.CallersFrames([]uintptr{r.PC}).Next()
	if strings.HasPrefix(frame.Function, noisy) {
		r.Level = slog.LevelDebug
		if !h.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup keep the handler around the one that they are for.
func (h klogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return klogHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup: see WithAttrs.
func (h klogHandler) WithGroup(name string) slog.Handler {
	return klogHandler{h.Handler.WithGroup(name)}
}
