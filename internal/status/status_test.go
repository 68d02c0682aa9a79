package status

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/internal/component"
)

var want = Status{
	Version: "v1", Pid: 7, Role: "controller", Started: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC), Warnings: []string{"old kernel"},
	Components: []component.Status{{Name: "etcd", State: component.Ready, Process: &component.Process{PID: 8}}},
}

// serve serves on socket until stop is called, which returns what Serve did.
func serve(t *testing.T, socket string) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, socket, func() Status { return want }) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it never serves")
		}
	}
	return func() error { cancel(); return <-done }
}

func TestServeAndGet(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "run", "status.sock") // its directory is made
	stop := serve(t, socket)
	got, err := Get(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	got.SysInit = "" // depends on the host
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v", *got)
	}
	if err := stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}
}

func TestComponents(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "status.sock")
	defer serve(t, socket)()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://k0s/components")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got []component.Status
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || !reflect.DeepEqual(got, want.Components) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestOnlyRootMayAsk(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "status.sock")
	stop := serve(t, socket)
	// Once it has answered, the permissions are what they will be.
	if _, err := Get(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(socket)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the socket's mode is %o", mode)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestServeRemovesOnlySockets(t *testing.T) {
	dir := t.TempDir()
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "old.sock")})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false) // as if it had been killed
	old.Close()
	if err := serve(t, filepath.Join(dir, "old.sock"))(); err != nil {
		t.Errorf("a socket left by a predecessor: %v", err)
	}

	file, link := filepath.Join(dir, "precious"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("data"), 0o600), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, link, dir} {
		if err := Serve(t.Context(), path, nil); err == nil || !strings.Contains(err.Error(), "is no socket") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if content, err := os.ReadFile(link); string(content) != "data" {
		t.Errorf("the file is gone: %v", err)
	}
}

func TestGetWithoutK0s(t *testing.T) {
	if _, err := Get(t.Context(), filepath.Join(t.TempDir(), "status.sock")); err == nil || !strings.Contains(err.Error(), "not running") {
		t.Errorf("got %v", err)
	}
}
