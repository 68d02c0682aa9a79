// Package probe waits for what k0s has started to answer.
package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"k0s.io/k0s/internal/component"
)

// Interval between two attempts: start-up time is made of these.
const Interval = 50 * time.Millisecond

// attemptTimeout bounds one attempt.
const attemptTimeout = 5 * time.Second

// Until calls check until it succeeds. It gives up when ctx ends or broken says that it never will;
// the error then holds what the last attempt got. Meanwhile that is reported to the engine.
func Until(ctx context.Context, check func(context.Context) error, broken func() error) error {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := check(attempt)
		cancel()
		if err == nil {
			return nil
		}
		if broken != nil {
			if reason := broken(); reason != nil {
				return reason
			}
		}
		if ctx.Err() == nil {
			component.Report(ctx, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (last attempt: %w)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// HTTP returns a check that gets url with a client certificate and wants the answer 200.
func HTTP(url, caFile, certFile, keyFile string) func(context.Context) error {
	var client *http.Client
	return func(ctx context.Context) error {
		if client == nil {
			c, err := tlsClient(caFile, certFile, keyFile)
			if err != nil {
				return err
			}
			client = c
		}
		return get(ctx, client, url)
	}
}

// PlainHTTP returns a check that gets url and wants the answer 200. An unspecified address (0.0.0.0,
// [::] or none) stands for this host.
func PlainHTTP(url string) func(context.Context) error {
	client := newClient(nil)
	return func(ctx context.Context) error { return get(ctx, client, url) }
}

func get(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return err
}

func tlsClient(caFile, certFile, keyFile string) (*http.Client, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New(caFile + " holds no certificate")
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return newClient(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), nil
}

// newClient goes straight to the server: what is probed is on this host, whatever HTTP_PROXY says.
// (Go's dialer takes an unspecified address for loopback.)
func newClient(config *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:           nil,
		TLSClientConfig: config,
		DialContext:     (&net.Dialer{Timeout: attemptTimeout}).DialContext,
		IdleConnTimeout: time.Second,
	}}
}
