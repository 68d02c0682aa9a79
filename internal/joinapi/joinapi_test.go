package joinapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

	"k0s.io/k0s/internal/etcdmembers"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/pkg/token"
)

var (
	right   = token.Secret{ID: "right1", Secret: "0123456789abcdef"}
	worker  = token.Secret{ID: "worker", Secret: "0123456789abcdef"}
	expired = token.Secret{ID: "expire", Secret: "0123456789abcdef"}
	revoked = token.Secret{ID: "revoke", Secret: "0123456789abcdef"}
)

// fakeTokens knows the tokens above; revoked is remembered, but no longer there.
type fakeTokens struct {
	known, current error
	mu             sync.Mutex
	asked          int
}

func (f *fakeTokens) Known(id string) (*corev1.Secret, error) {
	switch id {
	case right.ID:
		return right.Object(token.Controller, time.Time{}), f.known
	case worker.ID:
		return worker.Object(token.Worker, time.Time{}), f.known
	case expired.ID:
		return expired.Object(token.Controller, time.Now().Add(-time.Minute)), f.known
	case revoked.ID:
		return revoked.Object(token.Controller, time.Time{}), f.known
	}
	return nil, f.known
}

func (f *fakeTokens) Current(_ context.Context, id string) (*corev1.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if id == revoked.ID || f.current != nil {
		return nil, f.current
	}
	return f.Known(id)
}

type fakeMembers struct {
	mu    sync.Mutex
	got   []etcdmembers.Learner
	reply error
}

func (f *fakeMembers) AddLearner(_ context.Context, l etcdmembers.Learner) (etcdmembers.Joined, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, l)
	if f.reply != nil {
		return etcdmembers.Joined{}, f.reply
	}
	return etcdmembers.Joined{MemberID: 0xabc, InitialCluster: []string{"c0=https://192.0.2.1:2380", l.Name + "=" + l.PeerURL}}, nil
}

// fixture is a service with keys.
type fixture struct {
	Options
	tokens  *fakeTokens
	members *fakeMembers
	logged  *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	dir := t.TempDir()
	l := host.Layout{DataDir: dir, RunDir: dir}
	for _, d := range []string{l.PKI(), l.PKI("etcd")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"sa.key", "sa.pub", "front-proxy-ca.key", "front-proxy-ca.crt", "etcd/ca.key", "etcd/ca.crt"} {
		if err := os.WriteFile(l.PKI(file), []byte("content of "+file), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := pki.EnsureCA(l.PKI("ca"), "kubernetes-ca", time.Hour, pki.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Ensure(pki.Request{Path: l.PKI("k0s-api"), CommonName: "k0s-api", Names: []string{"127.0.0.1"}, Server: true, Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	logged := &syncBuffer{}
	return &fixture{
		Options: Options{
			Layout: l, CertFile: l.PKI("k0s-api.crt"), KeyFile: l.PKI("k0s-api.key"), ClusterID: func() string { return "cluster-1" }, Founded: map[string]string{"spec.a": "b"},
			CipherSuites: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"},
			Log:          slog.New(slog.NewTextHandler(logged, nil)),
		},
		tokens: &fakeTokens{}, members: &fakeMembers{}, logged: logged,
	}
}

func (f *fixture) handler() http.Handler { return newHandler(f.Options, f.tokens, f.members) }

func (f *fixture) file(t testing.TB, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(f.Layout.PKI(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// request that is right, except for what change does to it.
func request(method, target, body string, secret token.Secret) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+secret.Bearer())
	return r
}

const goodBody = `{"node":"c1","peerAddress":"192.0.2.11"}`

func TestAuthentication(t *testing.T) {
	for _, tc := range []struct {
		name   string
		header string
		status int
		body   string
		log    string
	}{
		{"right", "Bearer " + right.Bearer(), 200, "", "A controller joins"},
		{"none", "", 401, "go away\n", "there is no bearer token"},
		{"basic", "Basic cmlnaHQxOjAxMjM=", 401, "go away\n", "there is no bearer token"},
		{"empty", "Bearer ", 401, "go away\n", "not of the form"},
		{"garbage", "Bearer \x00../../x", 401, "go away\n", "not of the form"},
		{"long", "Bearer " + strings.Repeat("a", 5000), 401, "go away\n", "not of the form"},
		{"unknown", "Bearer abcdef.0123456789abcdef", 401, "go away\n", "no token has this id"},
		{"wrong secret", "Bearer " + right.ID + ".0123456789abcdee", 401, "go away\n", "the secret is wrong"},
		{"worker's", "Bearer " + worker.Bearer(), 401, "go away\n", "it is a worker token"},
		{"expired", "Bearer " + expired.Bearer(), 401, "go away\n", "it expired on"},
		{"revoked a moment ago", "Bearer " + revoked.Bearer(), 401, "go away\n", "no token has this id"},
		{"two spaces", "Bearer  " + right.Bearer(), 401, "go away\n", "not of the form"},
	} {
		for _, target := range []struct{ method, path, body string }{{"GET", caPath, ""}, {"POST", membersPath, goodBody}} {
			f := newFixture(t)
			r := request(target.method, target.path, target.body, right)
			r.Header.Set("Authorization", tc.header)
			if tc.header == "" {
				r.Header.Del("Authorization")
			}
			w := httptest.NewRecorder()
			f.handler().ServeHTTP(w, r)
			if w.Code != tc.status || tc.body != "" && w.Body.String() != tc.body {
				t.Errorf("%s: %s: got %d %q", tc.name, target.path, w.Code, w.Body)
			}
			if log := f.logged.String(); !strings.Contains(log, tc.log) || strings.Contains(log, "0123456789abcde") || strings.Count(log, "\n") != 1 {
				t.Errorf("%s: logged %s", tc.name, log)
			}
			if n := len(f.members.got); n > 0 && tc.status != 200 {
				t.Errorf("%s: %d members were added", tc.name, n)
			}
		}
	}
}

// The API server is asked only about tokens that are right as far as is known.
func TestWrongTokensAskNobody(t *testing.T) {
	f := newFixture(t)
	h := f.handler()
	for _, secret := range []token.Secret{{ID: "abcdef", Secret: right.Secret}, {ID: right.ID, Secret: "0000000000000000"}, worker, expired} {
		h.ServeHTTP(httptest.NewRecorder(), request("GET", caPath, "", secret))
	}
	if f.tokens.asked != 0 {
		t.Errorf("asked %d times", f.tokens.asked)
	}
}

func TestTokensUnknown(t *testing.T) {
	for _, tokens := range []*fakeTokens{{known: errors.New("not yet")}, {current: errors.New("no API")}} {
		f := newFixture(t)
		f.tokens = tokens
		w := httptest.NewRecorder()
		f.handler().ServeHTTP(w, request("GET", caPath, "", right))
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("got %d %v", w.Code, w.Header())
		}
	}
}

func TestRefusesOtherRequests(t *testing.T) {
	for _, tc := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/", 404}, {"GET", "/v1beta1", 404}, {"GET", caPath + "/", 404}, {"GET", "//v1beta1/ca", 404}, {"GET", "/v1beta1/../v1beta1/ca", 404},
		{"GET", "/v1beta1/etcd/member", 404}, {"GET", "/api", 404}, {"OPTIONS", "*", 404}, {"TRACE", "/", 404},
		{"POST", caPath, 405}, {"HEAD", caPath, 405}, {"OPTIONS", caPath, 405}, {"DELETE", caPath, 405}, {"get", caPath, 405},
		{"GET", membersPath, 405}, {"PUT", membersPath, 405}, {"DELETE", membersPath, 405},
	} {
		f := newFixture(t)
		w := httptest.NewRecorder()
		f.handler().ServeHTTP(w, request(tc.method, tc.target, goodBody, right))
		if w.Code != tc.status {
			t.Errorf("%s %s: got %d", tc.method, tc.target, w.Code)
		}
		if strings.Contains(w.Body.String(), "content of") || len(f.members.got) > 0 {
			t.Errorf("%s %s has had an effect", tc.method, tc.target)
		}
	}
}

func TestCA(t *testing.T) {
	f := newFixture(t)
	w := httptest.NewRecorder()
	f.handler().ServeHTTP(w, request("GET", caPath, "", right))
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"clusterID": "cluster-1", "founded": map[string]any{"spec.a": "b"}}
	for key, file := range map[string]string{"key": "ca.key", "cert": "ca.crt", "saKey": "sa.key", "saPub": "sa.pub", "frontProxyKey": "front-proxy-ca.key", "frontProxyCert": "front-proxy-ca.crt"} {
		encoded, err := json.Marshal([]byte(f.file(t, file)))
		if err != nil {
			t.Fatal(err)
		}
		want[key] = strings.Trim(string(encoded), `"`)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("got %v", got)
	}
	if log := f.logged.String(); strings.Contains(log, "PRIVATE") || !strings.Contains(log, "client=192.0.2.1:1234") || !strings.Contains(log, "token=right1") {
		t.Errorf("logged %s", log)
	}

	if err := os.Remove(f.Layout.PKI("ca.key")); err != nil {
		t.Fatal(err)
	}
	w = httptest.NewRecorder()
	f.handler().ServeHTTP(w, request("GET", caPath, "", right))
	if w.Code != 500 || !strings.Contains(w.Body.String(), "this controller cannot let others join") || strings.Contains(w.Body.String(), "content of") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestMembers(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		reply      error
		status     int
		answer     string
		got        etcdmembers.Learner
	}{
		{name: "good", body: goodBody, status: 200, got: etcdmembers.Learner{Name: "c1", PeerURL: "https://192.0.2.11:2380"},
			answer: `{"ca":{"key":"Y29udGVudCBvZiBldGNkL2NhLmtleQ==","cert":"Y29udGVudCBvZiBldGNkL2NhLmNydA==","saKey":null,"saPub":null},"initialCluster":["c0=https://192.0.2.1:2380","c1=https://192.0.2.11:2380"],"memberID":"abc"}`},
		{name: "URL", body: `{"node":"c1.example.org","peerAddress":"https://[2001:db8::1]:2380"}`, status: 200, got: etcdmembers.Learner{Name: "c1.example.org", PeerURL: "https://[2001:db8::1]:2380"}},
		{name: "its data", body: `{"node":"c1","peerAddress":"192.0.2.11","memberID":"ff"}`, status: 200, got: etcdmembers.Learner{Name: "c1", PeerURL: "https://192.0.2.11:2380", MemberID: 255}},
		{name: "a newer client", body: `{"node":"c1","peerAddress":"192.0.2.11","more":{}}`, status: 200, got: etcdmembers.Learner{Name: "c1", PeerURL: "https://192.0.2.11:2380"}},
		{name: "empty", body: "", status: 400, answer: "the body is not"},
		{name: "no JSON", body: "node=c1", status: 400, answer: "the body is not"},
		{name: "list", body: "[]", status: 400, answer: "the body is not"},
		{name: "null", body: "null", status: 400, answer: "is no node name"},
		{name: "two", body: goodBody + goodBody, status: 400, answer: "something follows"},
		{name: "large", body: `{"node":"` + strings.Repeat("a", maxBody) + `"}`, status: 400, answer: "too large"},
		{name: "name", body: `{"node":"c1=https://192.0.2.66:2380,c2","peerAddress":"192.0.2.11"}`, status: 400, answer: "is no node name"},
		{name: "capitals", body: `{"node":"C1","peerAddress":"192.0.2.11"}`, status: 400, answer: "is no node name"},
		{name: "loopback", body: `{"node":"c1","peerAddress":"127.0.0.1"}`, status: 400, answer: "cannot be reached from other hosts"},
		{name: "member id", body: `{"node":"c1","peerAddress":"192.0.2.11","memberID":"x"}`, status: 400, answer: "is no member id"},
		{name: "conflict", body: goodBody, reply: fmt.Errorf("no: %w", &etcdmembers.Conflict{}), status: 409, answer: "no: ", got: etcdmembers.Learner{Name: "c1", PeerURL: "https://192.0.2.11:2380"}},
		{name: "busy", body: goodBody, reply: fmt.Errorf("%w: another controller is joining", etcdmembers.ErrBusy), status: 503, answer: "another controller is joining", got: etcdmembers.Learner{Name: "c1", PeerURL: "https://192.0.2.11:2380"}},
		{name: "broken", body: goodBody, reply: errors.New("disk on fire"), status: 500, answer: "disk on fire", got: etcdmembers.Learner{Name: "c1", PeerURL: "https://192.0.2.11:2380"}},
	} {
		f := newFixture(t)
		f.members.reply = tc.reply
		w := httptest.NewRecorder()
		f.handler().ServeHTTP(w, request("POST", membersPath, tc.body, right))
		if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.answer) {
			t.Errorf("%s: got %d %s", tc.name, w.Code, w.Body)
		}
		var got etcdmembers.Learner
		if len(f.members.got) > 0 {
			got = f.members.got[0]
		}
		if got != tc.got {
			t.Errorf("%s: asked etcd for %+v", tc.name, got)
		}
		if after := w.Header().Get("Retry-After"); (after != "") != (tc.status == 503) {
			t.Errorf("%s: Retry-After %q", tc.name, after)
		}
		if log := f.logged.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, fmt.Sprintf("status=%d", tc.status)) || tc.got.Name != "" && !strings.Contains(log, "node="+tc.got.Name) {
			t.Errorf("%s: logged %s", tc.name, log)
		}
	}
}

// Where k0s does not run etcd there is nothing to join.
func TestWithoutEtcd(t *testing.T) {
	f := newFixture(t)
	h := newHandler(f.Options, f.tokens, nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("POST", membersPath, goodBody, right))
	if w.Code != 404 {
		t.Errorf("got %d", w.Code)
	}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", caPath, "", right))
	if w.Code != 200 {
		t.Errorf("got %d", w.Code)
	}
}

// A member is not added when what it needs to start cannot be told.
func TestNoMemberWithoutKeys(t *testing.T) {
	f := newFixture(t)
	if err := os.Remove(f.Layout.PKI("etcd", "ca.key")); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	f.handler().ServeHTTP(w, request("POST", membersPath, goodBody, right))
	if w.Code != 500 || len(f.members.got) > 0 {
		t.Errorf("got %d, %v", w.Code, f.members.got)
	}
}

func TestFailuresAreLimited(t *testing.T) {
	f := newFixture(t)
	h := f.handler()
	wrong := token.Secret{ID: "abcdef", Secret: "0123456789abcdef"}
	counts := map[int]int{}
	for range 100 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, request("GET", caPath, "", wrong))
		counts[w.Code]++
		if w.Header().Get("Connection") != "close" {
			t.Fatal("the connection is kept")
		}
	}
	if counts[401] != failuresAtOnce || counts[429] != 100-failuresAtOnce {
		t.Errorf("got %v", counts)
	}
	// Others are not concerned, nor is who has a right token.
	other := request("GET", caPath, "", wrong)
	other.RemoteAddr = "192.0.2.2:1"
	for _, tc := range []struct {
		r      *http.Request
		status int
	}{{other, 401}, {request("GET", caPath, "", right), 200}} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, tc.r)
		if w.Code != tc.status {
			t.Errorf("got %d, want %d", w.Code, tc.status)
		}
	}
	if lines := strings.Count(f.logged.String(), "Refused"); lines != failuresLoggedAtOnce {
		t.Errorf("%d lines logged", lines)
	}
}

// Whatever number of addresses fail, what is kept of them is bounded.
func TestFloodFromManyAddresses(t *testing.T) {
	f := newFixture(t)
	h := f.handler()
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			r := request("GET", caPath, "", token.Secret{ID: fmt.Sprintf("%06x", i%0xffffff), Secret: "0123456789abcdef"})
			r.RemoteAddr = fmt.Sprintf("[2001:db8:%x:%x::1]:1000", i>>16, i&0xffff)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != 401 {
				t.Fatalf("got %d", w.Code)
			}
		}
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	flood(0, maxAddresses)
	before := heap()
	flood(maxAddresses, 200_000)
	after := heap()
	if after > before+256<<10 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	if size := len(f.logged.String()); size > 64<<10 {
		t.Errorf("%d bytes were logged", size)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request("GET", caPath, "", right))
	if w.Code != 200 {
		t.Errorf("a right token gets %d", w.Code)
	}
	t.Logf("heap after %d addresses: %d KiB, after 200000: %d KiB", maxAddresses, before>>10, after>>10)
}

func TestAddressOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1:99": "192.0.2.1", "[::ffff:192.0.2.1]:99": "192.0.2.1", "[2001:db8:1:2:3:4:5:6]:99": "2001:db8:1:2::",
		"[fe80::1%eth0]:99": "fe80::", "nonsense": "invalid IP", "": "invalid IP",
	} {
		if got := addressOf(in).String(); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

// start serves until the test ends, and returns the address.
func (f *fixture) start(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, f.Options, listener, f.handler()) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// client of the service at address, with this token.
func (f *fixture) client(t testing.TB, address string, secret token.Secret, progress func(error)) *Client {
	t.Helper()
	c, err := NewClient(&token.Join{Role: token.Controller, URL: "https://" + address, CA: []byte(f.file(t, "ca.crt")), Secret: secret}, progress)
	if err != nil {
		t.Fatal(err)
	}
	c.backoff = time.Millisecond
	return c
}

// Hundreds of connections that say nothing, and as many that say nonsense, over and over again from a few
// addresses, do not keep a right token out.
func TestFloodOfConnections(t *testing.T) {
	f := newFixture(t)
	address := f.start(t)
	ctx, cancel := context.WithCancel(context.Background())
	var flood sync.WaitGroup
	for i := range 300 {
		flood.Go(func() {
			for ctx.Err() == nil {
				dialer := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%4))}}
				conn, err := dialer.DialContext(ctx, "tcp", address)
				if err != nil {
					continue
				}
				if i%2 == 0 {
					_, _ = conn.Write([]byte("GET / HTTP/1.0\r\n"))
				}
				stop := context.AfterFunc(ctx, func() { conn.Close() })
				_, _ = io.Copy(io.Discard, conn) // until it is closed by the other side
				stop()
				conn.Close()
			}
		})
	}
	attempts := 0
	c := f.client(t, address, right, func(err error) { attempts++; t.Log(err) })
	time.Sleep(time.Second) // until they are all there
	begin := time.Now()
	waitCtx, stopWaiting := context.WithTimeout(ctx, time.Minute)
	defer stopWaiting()
	ca, err := c.CA(waitCtx)
	cancel()
	flood.Wait()
	if err != nil || string(ca.SAKey) != "content of sa.key" || attempts > 0 {
		t.Errorf("got %v, %v", ca, err)
	}
	t.Logf("got through after %s and %d more attempts", time.Since(begin).Round(time.Millisecond), attempts)
}

// The number of connections is bounded: the oldest strangers have to go, who has a right token stays.
func TestConnectionLimit(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	l := limitConnections(inner, 3).(*limitedListener)
	dial := func() (client net.Conn, server *limitedConn) {
		t.Helper()
		client, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return client, accepted.(*limitedConn)
	}
	closed := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, io.EOF)
	}
	trusted, trustedServer := dial()
	trustConn(withConn(context.Background(), trustedServer))
	first, _ := dial()
	second, _ := dial()
	third, thirdServer := dial()
	if closed(trusted) || !closed(first) || closed(second) || closed(third) {
		t.Error("not the oldest stranger was closed")
	}
	thirdServer.Close()
	thirdServer.Close() // counts once
	fourth, fourthServer := dial()
	if closed(second) || closed(fourth) {
		t.Error("there was room")
	}
	fifth, fifthServer := dial()
	if !closed(second) || l.open != 3 {
		t.Errorf("%d are open", l.open)
	}
	for _, server := range []*limitedConn{fourthServer, fifthServer} {
		trustConn(withConn(context.Background(), server))
	}
	if _, ok := l.add(&limitedConn{}); ok {
		t.Error("there is room beside as many as there may be with right tokens")
	}
	if closed(trusted) || closed(fourth) || closed(fifth) {
		t.Error("one with a right token was closed")
	}
}

func TestTLS(t *testing.T) {
	f := newFixture(t)
	address := f.start(t)
	for _, tc := range []struct {
		name   string
		config *tls.Config
		ok     bool
	}{
		{"1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
		{"1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"1.2, suite not listed", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
	} {
		tc.config.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", address, tc.config)
		if (err == nil) != tc.ok {
			t.Errorf("%s: got %v", tc.name, err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

func TestSlowRequestsEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	address := f.start(t)
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /v1beta1/ca HTTP/1.1\r\nHost: x\r\n")
	begin := time.Now()
	_ = conn.SetReadDeadline(begin.Add(2 * readTimeout))
	if _, err := io.ReadAll(conn); err != nil || time.Since(begin) > readTimeout+time.Second {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
}

func TestLongHeaders(t *testing.T) {
	f := newFixture(t)
	address := f.start(t)
	c := f.client(t, address, right, nil)
	r, err := http.NewRequest("GET", "https://"+address+caPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Long", strings.Repeat("a", 2*maxHeader))
	resp, err := c.http.Do(r)
	if err != nil || resp.StatusCode != 431 {
		t.Errorf("got %v, %v", resp, err)
	}
}

func TestClient(t *testing.T) {
	f := newFixture(t)
	address := f.start(t)
	ctx := context.Background()
	c := f.client(t, address, right, func(err error) { t.Error(err) })
	ca, err := c.CA(ctx)
	if err != nil || string(ca.Key) != f.file(t, "ca.key") || string(ca.Cert) != f.file(t, "ca.crt") || string(ca.SAKey) != f.file(t, "sa.key") ||
		string(ca.SAPub) != f.file(t, "sa.pub") || string(ca.FrontProxyKey) != f.file(t, "front-proxy-ca.key") || ca.ClusterID != "cluster-1" || ca.Founded["spec.a"] != "b" {
		t.Errorf("got %+v, %v", ca, err)
	}
	got, err := c.JoinEtcd(ctx, EtcdRequest{Node: "c1", PeerAddress: "192.0.2.11", MemberID: 0xff})
	if err != nil || string(got.CAKey) != f.file(t, "etcd", "ca.key") || string(got.CACert) != f.file(t, "etcd", "ca.crt") || got.MemberID != 0xabc ||
		strings.Join(got.InitialCluster, ",") != "c0=https://192.0.2.1:2380,c1=https://192.0.2.11:2380" {
		t.Errorf("got %+v, %v", got, err)
	}
	if l := f.members.got[0]; l.MemberID != 0xff || l.Name != "c1" {
		t.Errorf("asked for %+v", l)
	}
}

func TestClientErrors(t *testing.T) {
	f := newFixture(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	page := func(status int, body string) string { // of something else, with a certificate that is right
		cert, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	foreign := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(foreign.Close)
	address := f.start(t)
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, address string
		secret        token.Secret
		kind          error
		want          string
	}{
		{"wrong token", address, token.Secret{ID: "abcdef", Secret: right.Secret}, ErrToken, "make a new one with `k0s token create --role controller`"},
		{"another authority", foreign.Listener.Addr().String(), right, ErrCertificate, "not signed by the authority in the join token"},
		{"another name", "localhost:" + port, right, ErrCertificate, "spec.api.sans"},
		{"no TLS", plain.Listener.Addr().String(), right, ErrNotJoinAPI, "does not speak TLS"},
		{"no such page", page(404, "404 page not found"), right, ErrNotJoinAPI, "404: 404 page not found"},
		{"forbidden", page(403, `{"kind":"Status"}`), right, ErrNotJoinAPI, "403"},
		{"redirect", page(302, ""), right, ErrNotJoinAPI, "302"},
		{"a web page", page(200, "<html>"), right, ErrNotJoinAPI, "<html>"},
		{"other JSON", page(200, "{}"), right, ErrNotJoinAPI, "a key is missing"},
		{"conflict", page(409, "etcd has a member named c1 already\x1b[2J\n"), right, ErrRefused, "the controller refuses this host: etcd has a member named c1 already [2J"},
	} {
		c := f.client(t, tc.address, tc.secret, func(err error) { t.Errorf("%s: tries again: %v", tc.name, err) })
		_, err := c.CA(context.Background())
		if !errors.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "https://"+tc.address+caPath) {
			t.Errorf("%s: got %v", tc.name, err)
		}
		if err != nil && strings.Contains(err.Error(), right.Secret) {
			t.Errorf("%s: the error gives the token away: %v", tc.name, err)
		}
	}
	if _, err := NewClient(&token.Join{Role: token.Worker, CA: []byte(f.file(t, "ca.crt"))}, nil); err == nil {
		t.Error("a worker token must be refused")
	}
}

// What may pass is tried again, and told.
func TestClientPersists(t *testing.T) {
	f := newFixture(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	replies := make(chan error, 2)
	replies <- fmt.Errorf("%w: another controller is joining", etcdmembers.ErrBusy)
	replies <- errors.New("disk on fire")
	started := false
	var told []string
	c := f.client(t, address, right, nil)
	c.progress = func(err error) {
		told = append(told, err.Error())
		if !started { // it was not there at first
			started = true
			listener, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = serve(ctx, f.Options, listener, newHandler(f.Options, f.tokens, failing{f.members, replies}))
			}()
			t.Cleanup(func() { cancel(); <-done })
		}
	}
	if _, err := c.JoinEtcd(context.Background(), EtcdRequest{Node: "c1", PeerAddress: "192.0.2.11"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"connection refused", "503: etcd can take no member in right now: another controller is joining; trying again in 1s", "500: disk on fire"}
	if len(told) != len(want) {
		t.Fatalf("told %q", told)
	}
	for i := range want {
		if !strings.Contains(told[i], want[i]) {
			t.Errorf("told %q, want %q", told[i], want[i])
		}
	}
}

type failing struct {
	*fakeMembers
	replies chan error
}

func (f failing) AddLearner(ctx context.Context, l etcdmembers.Learner) (etcdmembers.Joined, error) {
	select {
	case err := <-f.replies:
		return etcdmembers.Joined{}, err
	default:
		return f.fakeMembers.AddLearner(ctx, l)
	}
}

func TestClientGivesUp(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	c := f.client(t, "127.0.0.1:1", right, func(error) { cancel(errors.New("told to stop")) })
	_, err := c.CA(ctx)
	if err == nil || !strings.Contains(err.Error(), "told to stop") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %v", err)
	}
}

func TestTokens(t *testing.T) {
	object := right.Object(token.Controller, time.Time{})
	client := fake.NewClientset(object)
	gets := 0
	client.PrependReactor("get", "secrets", func(k8stesting.Action) (bool, apiruntime.Object, error) { gets++; return false, nil, nil })
	tokens := NewTokens(client)
	if _, err := tokens.Known(right.ID); err == nil {
		t.Error("nothing is known yet")
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); tokens.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if !tokens.WaitReady(ctx) {
		t.Fatal("not ready")
	}
	if got, err := tokens.Known(right.ID); err != nil || got == nil || right.Check(got, token.Controller, time.Now()) != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := tokens.Known("abcdef"); err != nil || got != nil || gets != 0 {
		t.Errorf("got %v, %v, after %d requests", got, err, gets)
	}
	secrets := client.CoreV1().Secrets(token.Namespace)
	if _, err := secrets.Create(ctx, revoked.Object(token.Controller, time.Time{}), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := secrets.Delete(ctx, object.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool {
		old, err1 := tokens.Known(right.ID)
		added, err2 := tokens.Known(revoked.ID)
		return err1 == nil && err2 == nil && old == nil && added != nil
	})
	if got, err := tokens.Current(ctx, right.ID); err != nil || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := tokens.Current(ctx, revoked.ID); err != nil || got == nil {
		t.Errorf("got %v, %v", got, err)
	}
	client.PrependReactor("get", "secrets", func(k8stesting.Action) (bool, apiruntime.Object, error) {
		return true, nil, apierrors.NewServiceUnavailable("no")
	})
	if _, err := tokens.Current(ctx, revoked.ID); err == nil {
		t.Error("an API that does not answer is not an answer")
	}
}

func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("it never came to be")
		}
	}
}

func TestComponent(t *testing.T) {
	f := newFixture(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	f.Address, f.Port = "127.0.0.1", listener.Addr().(*net.TCPAddr).Port
	f.Client = func() (kubernetes.Interface, error) {
		return fake.NewClientset(right.Object(token.Controller, time.Time{})), nil
	}
	c := Component(f.Options)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return c.Trouble() != nil }) // its port is taken
	if err := c.Trouble(); err == nil || !strings.Contains(err.Error(), "spec.api.k0sApiPort") {
		t.Errorf("got %v", err)
	}
	listener.Close()
	if err := c.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client(t, address, right, nil).CA(ctx); err != nil {
		t.Error(err)
	}
	begin := time.Now()
	if err := c.Stop(ctx); err != nil || time.Since(begin) > 2*stopTimeout {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("it listens still")
	}
}

// A renewed certificate is served without a restart, and never half of one.
func TestCertificateChanges(t *testing.T) {
	f := newFixture(t)
	address := f.start(t)
	ca, err := pki.EnsureCA(f.Layout.PKI("ca"), "kubernetes-ca", time.Hour, pki.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	renewed := f.Layout.PKI("renewed")
	if err := ca.Ensure(pki.Request{Path: renewed, CommonName: "renewed", Names: []string{"127.0.0.1"}, Server: true, Lifetime: time.Hour}); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	for _, tc := range []struct{ name, from, to, want string }{
		{"at first", "", "", "k0s-api"},
		{"only the key is new", renewed + ".key", f.KeyFile, "k0s-api"},
		{"both are new", renewed + ".crt", f.CertFile, "renewed"},
		{"gone", f.CertFile, f.CertFile + ".away", "renewed"},
	} {
		if tc.from != "" {
			if err := os.Rename(tc.from, tc.to); err != nil {
				t.Fatal(err)
			}
		}
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; got != tc.want {
			t.Errorf("%s: the certificate is %s, want %s", tc.name, got, tc.want)
		}
		conn.Close()
	}
}

func TestUnknownCipherSuite(t *testing.T) {
	f := newFixture(t)
	f.CipherSuites = []string{"TLS_NONE"}
	if _, err := tlsConfig(f.Options); err == nil {
		t.Error("must be refused")
	}
	f.CertFile = filepath.Join(t.TempDir(), "none")
	if _, err := tlsConfig(f.Options); err == nil {
		t.Error("must be refused")
	}
}

func FuzzHandler(f *testing.F) {
	fix := newFixture(f)
	fix.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	f.Add("GET", caPath, "Bearer "+right.Bearer(), "", "192.0.2.1:1")
	f.Add("POST", membersPath, "Bearer "+right.Bearer(), goodBody, "[2001:db8::1]:1")
	f.Add("POST", membersPath, "Bearer "+worker.Bearer(), `{"node":"c1","peerAddress":"https://[::1]:x","memberID":"ffffffffffffffff"}`, "")
	f.Add("OPTIONS", "/../", "Basic x", "[[[[", "x")
	keys := []string{fix.file(f, "ca.key"), fix.file(f, "sa.key"), fix.file(f, "etcd", "ca.key")}
	f.Fuzz(func(t *testing.T, method, path, authorization, body, remote string) {
		handler := fix.handler()
		for _, header := range []string{authorization, "Bearer " + right.Bearer()} { // random bytes never find the token
			r := httptest.NewRequest("GET", "/", strings.NewReader(body))
			r.Method, r.URL.Path, r.RemoteAddr = method, path, remote
			r.Header["Authorization"] = []string{header}
			w := httptest.NewRecorder()
			before := len(fix.members.got)
			handler.ServeHTTP(w, r)
			served := method == "GET" && path == caPath || method == "POST" && path == membersPath
			switch w.Code {
			case 200:
				if header != "Bearer "+right.Bearer() || !served {
					t.Fatalf("%s %q with %q was served", method, path, header)
				}
				if !json.Valid(w.Body.Bytes()) {
					t.Fatalf("answered %q", w.Body)
				}
			case 400, 401, 404, 405, 429:
				for _, key := range keys {
					if strings.Contains(w.Body.String(), key) {
						t.Fatalf("answered %q", w.Body)
					}
				}
				if len(fix.members.got) != before {
					t.Fatal("a member was added")
				}
			default:
				t.Fatalf("answered %d", w.Code)
			}
		}
		for _, l := range fix.members.got {
			if _, err := etcdmembers.PeerURL(l.PeerURL); err != nil || l.Name == "" || strings.ContainsAny(l.Name, "=, ") {
				t.Fatalf("asked etcd for %+v", l)
			}
		}
		fix.members.got = nil
	})
}
