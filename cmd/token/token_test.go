package token

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/internal/kubeconfig"
	"k0s.io/k0s/pkg/token"
)

// api is as much of the Kubernetes API as tokens need.
type api struct {
	mu      sync.Mutex
	secrets map[string]corev1.Secret
	broken  atomic.Bool
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken.Load() {
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	name, one := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/kube-system/secrets/")
	switch {
	case r.Method == http.MethodPost:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		var s corev1.Secret
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.secrets[s.Name] = s
		_ = json.NewEncoder(w).Encode(s)
	case r.Method == http.MethodDelete && one:
		if _, ok := a.secrets[name]; !ok {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
			return
		}
		delete(a.secrets, name)
		_, _ = io.WriteString(w, `{"apiVersion":"v1","kind":"Status","status":"Success"}`)
	case r.Method == http.MethodGet && r.URL.Query().Get("fieldSelector") == "type=bootstrap.kubernetes.io/token":
		list := corev1.SecretList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "SecretList"}}
		for _, s := range a.secrets {
			list.Items = append(list.Items, s)
		}
		_ = json.NewEncoder(w).Encode(list)
	default:
		http.Error(w, "not expected: "+r.Method+" "+r.URL.String(), http.StatusTeapot)
	}
}

// newController returns one whose API answers, and what it says of itself.
func newController(t *testing.T) (*controller, *instance.RuntimeSpec, *api) {
	t.Helper()
	a := &api{secrets: map[string]corev1.Secret{}}
	server := httptest.NewTLSServer(a)
	t.Cleanup(server.Close)
	dir := t.TempDir()
	spec := &instance.RuntimeSpec{DataDir: dir, Role: "controller", APIURL: "https://192.0.2.1:6443", JoinURL: "https://192.0.2.1:9443"}
	writeAdminConf(t, dir, server)
	return &controller{running: func() (*instance.RuntimeSpec, error) { return spec, nil }, attempt: 10 * time.Second}, spec, a
}

func writeAdminConf(t *testing.T, dir string, server *httptest.Server) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "pki"), 0o755); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := kubeconfig.Write(filepath.Join(dir, "pki", "admin.conf"), kubeconfig.Config{Server: server.URL, CAData: ca}, 0o600, -1); err != nil {
		t.Fatal(err)
	}
}

func TestCreateListInvalidate(t *testing.T) {
	ctx := context.Background()
	c, spec, _ := newController(t)
	ids := map[token.Role]string{}
	for role, url := range map[token.Role]string{token.Worker: spec.APIURL, token.Controller: spec.JoinURL} {
		joinToken, err := c.create(ctx, role, time.Hour, false, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		j, err := token.DecodeFor(role, joinToken)
		if err != nil || j.URL != url || len(j.CA) == 0 {
			t.Fatalf("got %v, %v", j, err)
		}
		ids[role] = j.Secret.ID
	}
	for role, want := range map[token.Role]int{"": 2, token.Worker: 1, token.Controller: 1} {
		infos, err := c.list(ctx, role)
		if err != nil || len(infos) != want {
			t.Errorf("%q: got %v, %v", role, infos, err)
		}
	}
	var out bytes.Buffer
	if err := c.invalidate(ctx, []string{ids[token.Worker], "abcdef"}, &out); err != nil {
		t.Fatal(err)
	}
	if want := "Invalidated the token " + ids[token.Worker] + "\nThere is no token abcdef\n"; out.String() != want {
		t.Errorf("said %q", out.String())
	}
	if infos, err := c.list(ctx, ""); err != nil || len(infos) != 1 || infos[0].ID != ids[token.Controller] {
		t.Errorf("got %v, %v", infos, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		role   token.Role
		change func(*controller, *instance.RuntimeSpec)
		want   string
		passes bool // --wait waits for it
	}{
		{"not root", token.Worker, func(c *controller, _ *instance.RuntimeSpec) { c.uid = 1000 }, "only root may manage tokens: use sudo", false},
		{"none runs", token.Worker, func(c *controller, _ *instance.RuntimeSpec) {
			c.running = func() (*instance.RuntimeSpec, error) { return nil, nil }
		}, "no k0s runs on this host: start it with `k0s controller`", true},
		{"unknown", token.Worker, func(c *controller, _ *instance.RuntimeSpec) {
			c.running = func() (*instance.RuntimeSpec, error) { return nil, errors.New("bad YAML") }
		}, "bad YAML", false},
		{"worker", token.Worker, func(_ *controller, s *instance.RuntimeSpec) { s.Role = "worker" }, "the k0s on this host is a worker: tokens are managed on a controller", false},
		{"single", token.Worker, func(_ *controller, s *instance.RuntimeSpec) { s.SingleNode = true }, "this k0s runs with --single, so nobody can join", false},
		{"store of one host", token.Controller, func(_ *controller, s *instance.RuntimeSpec) { s.JoinURL = "" }, "no other controller can join: the cluster's data is in a database of this host alone", false},
		{"no API URL", token.Worker, func(_ *controller, s *instance.RuntimeSpec) { s.APIURL = "" }, "restart it", false},
		{"other data", token.Worker, func(c *controller, _ *instance.RuntimeSpec) { c.dataDir = "/elsewhere" }, "not in /elsewhere: leave --data-dir out", false},
		{"no admin.conf", token.Worker, func(_ *controller, s *instance.RuntimeSpec) { s.DataDir += "/none" }, "the k0s on this host is starting", true},
	} {
		c, spec, a := newController(t)
		tc.change(c, spec)
		_, err := c.create(context.Background(), tc.role, 0, false, io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, new(notYet)) != tc.passes {
			t.Errorf("%s: got %v", tc.name, err)
		}
		if !tc.passes {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			if _, err := c.create(ctx, tc.role, 0, true, io.Discard); err == nil || ctx.Err() != nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: with --wait: %v", tc.name, err)
			}
			cancel()
		}
		if len(a.secrets) > 0 {
			t.Errorf("%s: a token was made", tc.name)
		}
	}
	// Workers join a controller whose store is its own.
	c, spec, _ := newController(t)
	spec.JoinURL = ""
	if _, err := c.create(context.Background(), token.Worker, 0, false, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestCreateWaits(t *testing.T) {
	c, spec, a := newController(t)
	a.broken.Store(true)
	var asked atomic.Int32
	admin := filepath.Join(spec.DataDir, "pki", "admin.conf")
	if err := os.Rename(admin, admin+".later"); err != nil {
		t.Fatal(err)
	}
	c.running = func() (*instance.RuntimeSpec, error) {
		switch asked.Add(1) {
		case 1, 2, 3:
			return nil, nil
		case 6:
			return spec, os.Rename(admin+".later", admin)
		case 8:
			a.broken.Store(false)
		}
		return spec, nil
	}
	var progress bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	joinToken, err := c.create(ctx, token.Worker, 0, true, &progress)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.DecodeFor(token.Worker, joinToken); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(progress.String()), "\n")
	want := []string{"Waiting for k0s to run on this host", "Waiting for k0s to make its certificates", "Waiting for the API ("}
	if len(lines) != len(want) {
		t.Fatalf("said %q", lines)
	}
	for i := range want {
		if !strings.HasPrefix(lines[i], want[i]) {
			t.Errorf("said %q", lines[i])
		}
	}
}

func TestCreateStopsWaiting(t *testing.T) {
	c, _, _ := newController(t)
	c.running = func() (*instance.RuntimeSpec, error) { return nil, nil }
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := c.create(ctx, token.Worker, 0, true, io.Discard); err == nil || !strings.Contains(err.Error(), "no longer waiting for k0s to run on this host") {
		t.Errorf("got %v", err)
	}
}

func TestWriteList(t *testing.T) {
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		infos []token.Info
		want  string
	}{
		{nil, "No k0s join tokens found\n"},
		{[]token.Info{{ID: "abc123", Role: token.Worker}, {ID: "def456", Role: token.Controller, Expires: at}},
			"ID      ROLE        EXPIRES AT\nabc123  worker      never\ndef456  controller  2030-01-02T03:04:05Z\n"},
	} {
		var out strings.Builder
		if err := writeList(&out, tc.infos); err != nil || out.String() != tc.want {
			t.Errorf("got %v:\n%s", err, out.String())
		}
	}
}

func TestArguments(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"create", "--role", "king"}, `--role: there is no role "king": want worker or controller`},
		{[]string{"create", "--expiry", "-1s"}, "--expiry: -1s has passed"},
		{[]string{"create", "token"}, "takes no arguments"},
		{[]string{"list", "--role", "king"}, `--role: there is no role "king"`},
		{[]string{"invalidate"}, "which tokens?"},
		{[]string{"invalidate", "abc123", "nope"}, `"nope" is not the id of a token`},
		{[]string{"invalidate", "abc123.0123456789abcdef"}, "is not the id of a token"},
		{[]string{"pre-shared"}, `required flag(s) "cert", "url" not set`},
		{[]string{"pre-shared", "--cert", "/none", "--url", "https://192.0.2.1:6443"}, "the certificate of the cluster's authority"},
	} {
		cmd := Command()
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs(tc.args)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: got %v", tc.args, err)
		}
	}
}

func TestPreShared(t *testing.T) {
	c, spec, _ := newController(t)
	_, ca, err := connect(spec)
	if err != nil {
		t.Fatal(err)
	}
	_ = c
	dir := t.TempDir()
	cert := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(cert, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := Command()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"pre-shared", "--cert", cert, "--url", "https://192.0.2.1:9443", "--role", "controller", "--out", dir, "--valid", "1h"})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(out.String())
	if len(files) != 2 {
		t.Fatalf("said %q", out.String())
	}
	content, err := os.ReadFile(files[1])
	if err != nil {
		t.Fatal(err)
	}
	if j, err := token.DecodeFor(token.Controller, string(content)); err != nil || filepath.Base(files[0]) != "bootstrap-token-"+j.Secret.ID+".yaml" {
		t.Errorf("got %v, %v, %q", j, err, files)
	}
}
