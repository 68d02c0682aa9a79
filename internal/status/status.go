// Package status answers `k0s status` from memory, over a socket that only root can open.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
)

// Status is the answer to GET /status.
type Status struct {
	Version string
	Pid     int
	PPid    int
	Role    string
	// SysInit is the init system, where it is one we know: systemd.
	SysInit    string `json:",omitempty"`
	Workloads  bool
	SingleNode bool
	Args       []string
	DataDir    string
	ClusterID  string
	// Ready: every component is ready.
	Ready      bool
	Started    time.Time
	Warnings   []string `json:",omitempty"`
	Components []component.Status
}

// Serve answers on socket until ctx ends. current is called for each request.
func Serve(ctx context.Context, socket string, current func() Status) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return err
	}
	if err := removeSocket(socket); err != nil {
		return fmt.Errorf("status socket: %w", err)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("status socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	sysInit := ""
	if host.HasSystemd() {
		sysInit = "systemd"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := current()
		s.SysInit = sysInit
		reply(w, s)
	})
	mux.HandleFunc("GET /components", func(w http.ResponseWriter, _ *http.Request) { reply(w, current().Components) })
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// removeSocket removes what a k0s that was killed has left, and nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is no socket: give --status-socket a path of its own", path)
	}
	return os.Remove(path)
}

func reply(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// Get asks the k0s behind socket.
func Get(ctx context.Context, socket string) (*Status, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://k0s/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("only root may ask %s: use sudo", socket)
	case err != nil:
		return nil, fmt.Errorf("no k0s answers on %s: it is not running, or runs with another --status-socket (%w)", socket, err)
	}
	defer resp.Body.Close()
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return nil, fmt.Errorf("%s gave an answer that is not ours: %w", socket, err)
	}
	return &s, nil
}
