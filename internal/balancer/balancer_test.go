package balancer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// What a client sees when its server fails, with the timing of real life.
func TestFailover(t *testing.T) {
	for _, test := range []struct {
		how   mode
		limit time.Duration // from the failure to an answer of another server
	}{
		{isDead, 300 * time.Millisecond},
		{isNotReady, busyInterval + firstRetry + 2*time.Second},
		{isHung, busyInterval + 2*checkTimeout + firstRetry + time.Second},
	} {
		t.Run(test.how.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, isWell, isWell, isWell)
			w.balance(t, w.options(t), timing{})
			if err := w.SetServers(w.addresses()); err != nil {
				t.Fatal(err)
			}
			w.settled(t)
			watching, err := w.connect()
			if err != nil {
				t.Fatal(err)
			}
			defer watching.Close()
			name, err := watching.get("/watch")
			if err != nil {
				t.Fatal(err)
			}
			server := w.named(name)

			failed := time.Now()
			server.set(t, test.how)
			_ = watching.SetReadDeadline(time.Now().Add(20 * time.Second))
			_, err = watching.r.ReadByte()
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("the watch goes on for %v (%v)", time.Since(failed), err)
			}
			closed := time.Since(failed)
			other := w.who(t)
			answered := time.Since(failed)
			t.Logf("%s: the watch ended after %v, another server answered after %v", test.how, closed.Round(time.Millisecond), answered.Round(time.Millisecond))
			if other == name {
				t.Errorf("the second connection went to the failed server %s, too", name)
			}
			if answered > test.limit {
				t.Errorf("it took %v, more than %v", answered, test.limit)
			}
			for range 10 {
				if again := w.who(t); again == name {
					t.Fatalf("a connection went to the failed server %s", name)
				}
			}
			w.health(t, server, Unhealthy)
			server.set(t, isWell)
			back := w.health(t, server, Ready)
			t.Logf("%s: well again after %v", test.how, back.Round(time.Millisecond))
			if back > lastRetry+time.Second {
				t.Errorf("a server that came back was ignored for %v", back)
			}
			seen := map[string]bool{}
			for range 10 {
				seen[w.who(t)] = true
			}
			if !seen[name] {
				t.Errorf("connections go to %v, not to %s that is well again", seen, name)
			}
		})
	}
}

func TestBestServerIsChosen(t *testing.T) {
	stranger := newWorld(t, isWell)
	for _, test := range []struct {
		name  string
		modes []mode
		local string
		want  []string // may answer; all of them do
	}{
		{"all are well", []mode{isWell, isWell, isWell}, "", []string{"a", "b", "c"}},
		{"one is local", []mode{isWell, isWell, isWell}, "c", []string{"c"}},
		{"the local one is not well", []mode{isWell, isDead, isWell}, "b", []string{"a", "c"}},
		{"one is well", []mode{isDead, isHung, isWell}, "", []string{"c"}},
		{"none is well: all are tried", []mode{isDead, isNotReady, isDead}, "", []string{"b"}},
		{"none is well: all that answer are used", []mode{isNotReady, isNotReady}, "", []string{"a", "b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, test.modes...)
			o := w.options(t)
			if test.local != "" {
				o.Local = w.named(test.local).address
			}
			w.balance(t, o, quick)
			if err := w.SetServers(w.addresses()); err != nil {
				t.Fatal(err)
			}
			for _, s := range w.servers {
				want := Ready
				if m, _, _ := s.state(); m != isWell {
					want = Unhealthy
				}
				w.health(t, s, want)
			}
			seen := map[string]bool{}
			for range 12 {
				seen[w.who(t)] = true
			}
			for name := range seen {
				if !slices.Contains(test.want, name) {
					t.Errorf("%s answered", name)
				}
			}
			if len(seen) != len(test.want) {
				t.Errorf("%v answered, want %v", seen, test.want)
			}
		})
	}
	// Whoever has the address now, without a certificate of the cluster it is not its API.
	t.Run("another cluster's server", func(t *testing.T) {
		w := newWorld(t, isWell)
		w.servers = append(w.servers, stranger.servers...)
		w.balance(t, w.options(t), quick)
		if err := w.SetServers(w.addresses()); err != nil {
			t.Fatal(err)
		}
		w.health(t, stranger.servers[0], Unhealthy)
		w.until(t, func(s Status) error {
			for _, one := range s.Servers {
				if one.Address == stranger.servers[0].address && strings.Contains(one.LastError, "certificate signed by unknown authority") {
					return nil
				}
			}
			return errors.New("no word of the wrong authority")
		})
	})
}

func TestConnectionsAreSpread(t *testing.T) {
	w := newWorld(t, isWell, isWell, isWell)
	w.balance(t, w.options(t), quick)
	if err := w.SetServers(w.addresses()); err != nil {
		t.Fatal(err)
	}
	w.settled(t)
	for range 9 {
		c, err := w.connect()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.get("/watch"); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range w.Status().Servers {
		if s.Connections != 3 {
			t.Errorf("%s has %d of 9 connections", s.Address, s.Connections)
		}
	}
}

// Before its node certificate is there, and after it has expired, a worker can reach the API.
func TestServerThatDoesNotAcceptTheCertificate(t *testing.T) {
	w := newWorld(t, isWell, isWell)
	good, err := w.options(t).TLS()
	if err != nil {
		t.Fatal(err)
	}
	var config atomic.Pointer[tls.Config]
	o := w.options(t)
	o.TLS = func() (*tls.Config, error) {
		if c := config.Load(); c != nil {
			return c, nil
		}
		return nil, errors.New("no file yet")
	}
	w.balance(t, o, quick)
	if err := w.SetServers(w.addresses()); err != nil {
		t.Fatal(err)
	}
	for _, s := range w.servers {
		w.health(t, s, Answers)
	}
	w.who(t)
	if err := w.Component().Ready(t.Context()); err != nil {
		t.Error(err)
	}

	config.Store(&tls.Config{RootCAs: w.ca.pool})
	w.until(t, func(s Status) error {
		for _, one := range s.Servers {
			if one.Health != Answers || !strings.Contains(one.LastError, "401 Unauthorized") {
				return errors.New("401 is not told")
			}
		}
		return nil
	})
	w.who(t)

	config.Store(good) // renewed
	for _, s := range w.servers {
		w.health(t, s, Ready)
	}
}

func TestRestartWithAnyOneAlive(t *testing.T) {
	w := newWorld(t, isWell, isWell, isWell)
	o := w.options(t)
	o.File = filepath.Join(t.TempDir(), "servers.json")
	o.Fallback = []string{w.servers[0].address}
	first, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.SetServers(w.addresses()); err != nil {
		t.Fatal(err)
	}
	w.servers[0].set(t, isDead) // the one it joined by
	w.servers[1].set(t, isHung)
	w.balance(t, o, timing{})
	begin := time.Now()
	if err := w.Component().Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if name := w.who(t); name != "c" {
		t.Errorf("%s answered", name)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestForgottenServers(t *testing.T) {
	for _, test := range []struct{ name, content, problem string }{
		{"garbage", "\x00\x00", "is damaged"},
		{"half", `{"servers": ["10.0.0.1:64`, "is damaged"},
		{"not addresses", `{"servers": ["10.0.0.1"]}`, `"10.0.0.1" is not the address of an API server`},
		{"empty", `{}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, isWell)
			o := w.options(t)
			var log strings.Builder
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			o.File = filepath.Join(t.TempDir(), "servers.json")
			o.Fallback = w.addresses()
			if err := os.WriteFile(o.File, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			b, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			if servers := b.Status().Servers; len(servers) != 1 || !servers[0].Fallback {
				t.Errorf("it begins with %v", servers)
			}
			if said := log.String(); (test.problem == "") != (said == "") || !strings.Contains(strings.ReplaceAll(said, `\"`, `"`), test.problem) {
				t.Errorf("it says %s", said)
			}
			if err := b.SetServers([]string{"10.0.0.2:6443", "10.0.0.1:6443", "10.0.0.2:6443"}); err != nil {
				t.Fatal(err)
			}
			if known, err := recall(o.File); err != nil || !slices.Equal(known.Servers, []string{"10.0.0.1:6443", "10.0.0.2:6443"}) {
				t.Errorf("it remembers %v, %v", known, err)
			}
		})
	}
}

func TestSetServers(t *testing.T) {
	w := newWorld(t, isWell, isWell, isWell)
	o := w.options(t)
	o.File = filepath.Join(t.TempDir(), "servers.json")
	w.balance(t, o, quick)
	for _, bad := range [][]string{nil, {"10.0.0.1"}, {"10.0.0.1:0"}, {":6443"}, {"10.0.0.1:http"}, {w.servers[1].address, "x"}} {
		if err := w.SetServers(bad); err == nil {
			t.Errorf("%q is taken for a list of servers", bad)
		}
	}
	if err := w.SetServers([]string{w.servers[1].address}); err != nil {
		t.Fatal(err)
	}
	w.health(t, w.servers[1], Ready)
	c, err := w.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if name, err := c.get("/watch"); err != nil || name != "b" {
		t.Fatalf("the fallback is used although there is a better one: %q, %v", name, err)
	}
	if err := w.SetServers([]string{w.servers[2].address}); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a connection to a server that is no more goes on")
	}
	w.health(t, w.servers[2], Ready)
	if name := w.who(t); name != "c" {
		t.Errorf("%s answered", name)
	}
	w.servers[2].set(t, isDead)
	if name := w.who(t); name != "a" && name != "b" {
		t.Errorf("%s answered, neither the fallback nor the server before", name)
	}
	if err := os.RemoveAll(filepath.Dir(o.File)); err != nil {
		t.Fatal(err)
	}
	if err := w.SetServers([]string{w.servers[1].address}); err == nil {
		t.Error("nothing tells that the servers are not remembered")
	}
	if name := w.who(t); name != "b" && name != "a" { // a until b was checked
		t.Errorf("%s answered", name)
	}
}

// TestFormerServers: when the only server that is told of is lost, those told of before are there still.
func TestFormerServers(t *testing.T) {
	w := newWorld(t, isWell, isWell, isWell)
	o := w.options(t)
	o.Fallback = []string{w.servers[0].address}
	o.File = filepath.Join(t.TempDir(), "servers.json")
	w.balance(t, o, quick)
	for _, known := range [][]string{w.addresses(), {w.servers[0].address}} {
		if err := w.SetServers(known); err != nil {
			t.Fatal(err)
		}
	}
	w.health(t, w.servers[0], Ready)
	if name := w.who(t); name != "a" {
		t.Errorf("%s answered, which is told of no more", name)
	}
	w.servers[0].set(t, isDead)
	if name := w.who(t); name != "b" && name != "c" {
		t.Errorf("%s answered", name)
	}
	remembered, err := recall(o.File)
	if want := []string{w.servers[1].address, w.servers[2].address}; err != nil || len(remembered.Former) != 2 ||
		!slices.Contains(want, remembered.Former[0]) || !slices.Contains(want, remembered.Former[1]) {
		t.Errorf("it remembers %+v, %v", remembered, err)
	}
}

// Bytes and the ends of streams arrive as they were sent; nothing here is TLS.
// A connection from an address that the host has lost is ended, so that the client makes another one.
func TestCloseFrom(t *testing.T) {
	w := newWorld(t, isWell)
	w.balance(t, w.options(t), quick)
	w.settled(t)
	c, err := w.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	asked := netip.Addr{}
	w.CloseFrom(func(a netip.Addr) bool { asked = a; return false })
	if _, err := c.get("/who"); err != nil || asked != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("asked for %v, a connection from an address that is there: %v", asked, err)
	}
	w.CloseFrom(func(netip.Addr) bool { return true })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.get("/who"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection from an address that is gone: %v", err)
	}
	w.who(t)
}

func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		t.Run(first+" ends first", func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			w := newWorld(t)
			o := w.options(t)
			o.Fallback = []string{l.Addr().String()}
			o.TLS = func() (*tls.Config, error) { return nil, errors.New("none") }
			w.balance(t, o, quick)
			connection, err := net.Dial("tcp", w.Address())
			if err != nil {
				t.Fatal(err)
			}
			client := connection.(*net.TCPConn)
			defer client.Close()
			if _, err := client.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			var server *net.TCPConn
			hello := make([]byte, 5)
			for server == nil { // the checks come here, too
				c, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := io.ReadFull(c, hello); err == nil {
					server = c.(*net.TCPConn)
				}
			}
			one, other := client, server
			if first == "server" {
				one, other = server, client
			}
			_ = other.SetDeadline(time.Now().Add(5 * time.Second))
			_ = one.SetDeadline(time.Now().Add(5 * time.Second))
			if err := one.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(other); err != nil || len(rest) > 0 {
				t.Fatalf("instead of the end there came %q, %v", rest, err)
			}
			long := strings.Repeat("k0s", 1<<20)
			go func() {
				_, _ = io.WriteString(other, long)
				other.CloseWrite()
			}()
			if rest, err := io.ReadAll(one); err != nil || string(rest) != long {
				t.Errorf("after one end there came %d bytes of %d, %v", len(rest), len(long), err)
			}
			w.until(t, func(s Status) error {
				if s.Servers[0].Connections != 0 {
					return errors.New("the connection is still there")
				}
				return nil
			})
		})
	}
}

// A balancer must cost next to nothing, whatever happens.
func TestChecksAreFew(t *testing.T) {
	for _, test := range []struct {
		name  string
		modes []mode
		most  int // checks of server a in 3 s
	}{
		{"all is well", []mode{isWell, isWell}, 2},
		{"one is not", []mode{isNotReady, isWell}, 7},
		{"none is", []mode{isNotReady, isNotReady}, 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, test.modes...)
			w.balance(t, w.options(t), timing{})
			if err := w.SetServers(w.addresses()); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			if got := w.servers[0].checkCount(); got > test.most || got == 0 {
				t.Errorf("%d checks in 3 s", got)
			}
		})
	}
	t.Run("clients that never give up", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, isNotReady)
		w.balance(t, w.options(t), timing{})
		end := time.Now().Add(2 * time.Second)
		for time.Now().Before(end) {
			if c, err := w.connect(); err == nil {
				_, _ = c.get("/who")
				c.Close()
			}
		}
		if got := w.servers[0].checkCount(); got > 25 {
			t.Errorf("%d checks in 2 s", got)
		}
	})
}

func TestClientLearnsThatNoServerIsThere(t *testing.T) {
	w := newWorld(t, isDead)
	w.balance(t, w.options(t), quick)
	c, err := net.Dial("tcp", w.Address())
	if err == nil {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client is told %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := w.Component().Ready(ctx); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("it is ready: %v", err)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := newWorld(t, isWell)
	o := w.options(t)
	o.Listen, o.Fallback = l.Addr().String(), w.addresses()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c := b.Component()
	if err := c.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "nodeLocalLoadBalancing") {
		t.Errorf("got %v", err)
	}
	if err := c.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNoServerIsKnown(t *testing.T) {
	if _, err := New(Options{Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("a balancer between nothing")
	}
}

// Stopping ends connections, whatever state they are in, and all goroutines.
func TestNothingIsLeft(t *testing.T) {
	t.Run("run", func(t *testing.T) {
		w := newWorld(t, isWell, isHung, isDead)
		w.balance(t, w.options(t), quick)
		if err := w.SetServers(w.addresses()); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			c, err := net.Dial("tcp", w.Address())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		w.health(t, w.servers[1], Unhealthy)
		c, err := w.connect()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.get("/watch"); err != nil {
			t.Fatal(err)
		}
	})
	noneLeft(t)
}

func noneLeft(t *testing.T) {
	t.Helper()
	end := time.Now().Add(5 * time.Second)
	for left := stacks(); left != ""; left = stacks() {
		if time.Now().After(end) {
			t.Fatalf("still running:\n%s", left)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
