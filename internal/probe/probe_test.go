package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/pki"
)

func TestUntil(t *testing.T) {
	refused, broken := errors.New("connection refused"), errors.New("it has ended 5 times")
	for _, tc := range []struct {
		name      string
		failures  int           // of check
		brokenAt  int           // attempt; 0: never
		timeout   time.Duration // of ctx
		want      []error
		wantAfter time.Duration
	}{
		{"at once", 0, 0, time.Second, nil, 0},
		{"in the end", 4, 0, time.Second, nil, 4 * Interval},
		{"never", 1 << 30, 0, time.Second, []error{context.DeadlineExceeded, refused}, time.Second},
		{"it is broken", 1 << 30, 3, time.Second, []error{broken}, 2 * Interval},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), tc.timeout)
				defer cancel()
				begin, attempts := time.Now(), 0
				err := Until(ctx, func(context.Context) error {
					if attempts++; attempts > tc.failures {
						return nil
					}
					return refused
				}, func() error {
					if attempts == tc.brokenAt {
						return broken
					}
					return nil
				})
				if (err != nil) != (len(tc.want) > 0) {
					t.Errorf("got %v", err)
				}
				for _, want := range tc.want {
					if !errors.Is(err, want) {
						t.Errorf("got %v, want %v in it", err, want)
					}
				}
				if took := time.Since(begin); took != tc.wantAfter {
					t.Errorf("took %v, want %v", took, tc.wantAfter)
				}
			})
		})
	}
}

func TestAttemptThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempts := 0
		err := Until(t.Context(), func(ctx context.Context) error {
			if attempts++; attempts == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}, nil)
		if err != nil || attempts != 2 {
			t.Errorf("got %v after %d attempts", err, attempts)
		}
	})
}

func TestStatusTellsOfTheLastAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := component.NewEngine(component.Set{{Name: "api", Ready: func(ctx context.Context) error {
			return Until(ctx, func(context.Context) error { return errors.New("connection refused") }, nil)
		}}}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- e.Run(ctx, time.Minute) }()
		time.Sleep(time.Second)
		if s := e.Status()[0]; s.State != component.Starting || s.Error != "waiting: connection refused" {
			t.Errorf("got %s, %q", s.State, s.Error)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// serve answers with status on address, whose port is 0, and returns the port it got.
func serve(t *testing.T, address string, status int) (port string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, "etcd is not ready")
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	_, port, err = net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestPlainHTTP(t *testing.T) {
	port := serve(t, ":0", http.StatusOK)
	for _, host := range []string{"127.0.0.1", "0.0.0.0", ""} {
		if err := PlainHTTP("http://" + host + ":" + port + "/livez")(t.Context()); err != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	ill := serve(t, "127.0.0.1:0", http.StatusServiceUnavailable)
	err := PlainHTTP("http://127.0.0.1:" + ill + "/livez")(t.Context())
	if err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "etcd is not ready") {
		t.Errorf("got %v", err)
	}
}

// TestProxyIsNotUsed runs this test binary anew: Go reads the environment's proxy only once.
func TestProxyIsNotUsed(t *testing.T) {
	if url := os.Getenv("PROBE_URL"); url != "" {
		if err := PlainHTTP(url)(t.Context()); err != nil {
			t.Fatal(err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestProxyIsNotUsed$")
	proxy := "http://127.0.0.1:" + serve(t, "127.0.0.1:0", http.StatusBadGateway)
	cmd.Env = append(os.Environ(), "HTTP_PROXY="+proxy, "NO_PROXY=", "PROBE_URL=http://0.0.0.0:"+serve(t, "0.0.0.0:0", http.StatusOK))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestHTTP(t *testing.T) {
	dir := t.TempDir()
	ca, err := pki.EnsureCA(filepath.Join(dir, "ca"), "test-ca", time.Hour, pki.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	pair := filepath.Join(dir, "pair")
	check := func(url string) func(context.Context) error { return HTTP(url, ca.Path(), pair+".crt", pair+".key") }
	early := check("https://127.0.0.1:1/")
	if err := early(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without its certificate: got %v", err)
	}

	request := pki.Request{Path: pair, CommonName: "etcd", Names: []string{"127.0.0.1"}, Server: true, Client: true, Lifetime: time.Hour}
	if err := ca.Ensure(request); err != nil {
		t.Fatal(err)
	}
	cert, err := tls.LoadX509KeyPair(pair+".crt", pair+".key")
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.Cert)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	server.StartTLS()
	defer server.Close()
	if err := check(server.URL)(t.Context()); err != nil {
		t.Error(err)
	}
}
