package token

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	"sigs.k8s.io/yaml"
)

func testCA(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func testJoin(t testing.TB, role Role) Join {
	return Join{Role: role, URL: "https://192.0.2.1:9443", CA: testCA(t), Secret: Secret{"abc123", "0123456789abcdef"}}
}

func encode(t testing.TB, j Join) string {
	t.Helper()
	s, err := j.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pack makes a token of any content.
func pack(content string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(content))
	_ = w.Close()
	return base64.StdEncoding.EncodeToString(b.Bytes())
}

func TestRoundTrip(t *testing.T) {
	for _, role := range []Role{Worker, Controller} {
		want := testJoin(t, role)
		got, err := DecodeFor(role, encode(t, want))
		if err != nil {
			t.Fatal(err)
		}
		if got.Role != want.Role || got.URL != want.URL || !bytes.Equal(got.CA, want.CA) || got.Secret != want.Secret {
			t.Errorf("%s: got %+v", role, got)
		}
	}
}

// What others read in our tokens: names, and the way they are packed.
func TestFormat(t *testing.T) {
	for role, user := range map[Role]string{Worker: "kubelet-bootstrap", Controller: "controller-bootstrap"} {
		raw, err := base64.StdEncoding.Strict().DecodeString(encode(t, testJoin(t, role)))
		if err != nil {
			t.Fatal(err)
		}
		unzipper, err := gzip.NewReader(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		var content bytes.Buffer
		if _, err := content.ReadFrom(unzipper); err != nil {
			t.Fatal(err)
		}
		var config struct {
			APIVersion, Kind string
			Clusters         []struct {
				Name    string
				Cluster map[string]string
			}
			Contexts []struct {
				Name    string
				Context map[string]string
			}
			CurrentContext string `json:"current-context"`
			Users          []struct {
				Name string
				User map[string]string
			}
		}
		if err := yaml.Unmarshal(content.Bytes(), &config); err != nil {
			t.Fatal(err)
		}
		if config.Kind != "Config" || config.CurrentContext != "k0s" || len(config.Clusters) != 1 || len(config.Contexts) != 1 || len(config.Users) != 1 ||
			config.Clusters[0].Name != "k0s" || config.Clusters[0].Cluster["server"] != "https://192.0.2.1:9443" || config.Clusters[0].Cluster["certificate-authority-data"] == "" ||
			config.Contexts[0].Name != "k0s" || config.Contexts[0].Context["cluster"] != "k0s" || config.Contexts[0].Context["user"] != user ||
			config.Users[0].Name != user || config.Users[0].User["token"] != "abc123.0123456789abcdef" {
			t.Errorf("%s: got\n%s", role, content.String())
		}
	}
}

func TestDecode(t *testing.T) {
	good := encode(t, testJoin(t, Worker))
	kubeconfig, err := testJoin(t, Worker).Kubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	changed := func(old, by string) string {
		if !bytes.Contains(kubeconfig, []byte(old)) {
			t.Fatalf("no %q in\n%s", old, kubeconfig)
		}
		return pack(strings.ReplaceAll(string(kubeconfig), old, by))
	}
	raw, err := base64.StdEncoding.DecodeString(good)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(raw)
	flipped[len(flipped)/2] ^= 0x10
	for _, tc := range []struct {
		name, in, want string // want is part of the error; "" for none
	}{
		{"good", good, ""},
		{"with white space", " \n" + good[:70] + "\r\n" + good[70:] + "\n", ""},
		{"empty", " \n", "the join token is empty"},
		{"random words", "please let me in", "this is no join token:"},
		{"path", "/etc/k0s/token", "it looks like a path: use --token-file"},
		{"kubeconfig", string(kubeconfig), "it looks like a kubeconfig"},
		{"random base64", base64.StdEncoding.EncodeToString(make([]byte, 300)), "this is no join token:"},
		{"bare secret", "abc123.0123456789abcdef", "this is no join token:"},
		{"cut by one", good[:len(good)-1], "cut off"},
		{"cut in half", good[:len(good)/2/4*4], "cut off"},
		{"cut to the header", good[:8], "cut off"},
		{"cut to the magic", good[:4], "cut off"},
		{"foreign character", good[:100] + "!" + good[101:], "its character 101 cannot be there"},
		{"flipped bit", base64.StdEncoding.EncodeToString(flipped), "damaged"},
		{"twice", base64.StdEncoding.EncodeToString(append(bytes.Clone(raw), raw...)), "something follows its end"},
		{"huge", strings.Repeat("A", maxEncoded+1), "a token has at most"},
		{"bomb", pack(strings.Repeat("\x00", 8<<20)), "unpacks to more than"},
		{"not YAML", pack("{{{"), "this is no join token of k0s: what is in it is no kubeconfig"},
		{"empty kubeconfig", pack("{}"), "no current context"},
		{"nobody's", changed("kubelet-bootstrap", "admin"), `it is for the user "admin"`},
		{"secret", changed("abc123.0123456789abcdef", "abc123.0123456789abcde"), "not of the right form"},
		{"http", changed("https://", "http://"), `"http://192.0.2.1:9443" is not a URL of the form`},
		{"no CA", changed("certificate-authority-data", "x-data"), "no certificate of the cluster's authority"},
		{"no cluster", changed("clusters:", "x-clusters:"), "lacks the cluster or the user"},
	} {
		_, err := Decode(tc.in)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: want an error with %q, got %v", tc.name, tc.want, err)
		case err != nil && strings.Contains(err.Error(), "0123456789abcde"):
			t.Errorf("%s: the error gives the secret away: %v", tc.name, err)
		}
	}
}

func TestDecodeForWrongRole(t *testing.T) {
	_, err := DecodeFor(Controller, encode(t, testJoin(t, Worker)))
	const want = "this is a worker token, which is for `k0s worker`: a controller needs one made by `k0s token create --role controller` on a controller"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*Join){
		"role":        func(j *Join) { j.Role = "king" },
		"http":        func(j *Join) { j.URL = "http://192.0.2.1" },
		"no URL":      func(j *Join) { j.URL = "" },
		"no CA":       func(j *Join) { j.CA = nil },
		"key as CA":   func(j *Join) { j.CA = append(j.CA, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})...) },
		"password":    func(j *Join) { j.URL = "https://a:b@192.0.2.1" },
		"no real URL": func(j *Join) { j.URL = "192.0.2.1:6443" },
	} {
		j := testJoin(t, Worker)
		change(&j)
		if s, err := j.Encode(); err == nil {
			t.Errorf("%s: got %s", name, s)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, role := range []Role{Worker, Controller} {
		good := encode(f, testJoin(f, role))
		f.Add(good, "")
		f.Add(good[:len(good)/2], "")
		kubeconfig, err := testJoin(f, role).Kubeconfig()
		if err != nil {
			f.Fatal(err)
		}
		f.Add("", string(kubeconfig))
	}
	f.Add("H4sIAAAA", "a: &a [*a]")
	f.Fuzz(func(t *testing.T, encoded, content string) {
		// Half of the work goes past the packing, which random bytes never do.
		for _, in := range []string{encoded, pack(content)} {
			j, err := Decode(in)
			if (err == nil) == (j == nil) {
				t.Fatalf("got %v and %v", j, err)
			}
			if j == nil {
				continue
			}
			again, err := j.Encode()
			if err != nil {
				t.Fatalf("was read, but cannot be written: %v", err)
			}
			if k, err := Decode(again); err != nil || k.URL != j.URL || k.Secret != j.Secret || !bytes.Equal(k.CA, j.CA) || k.Role != j.Role {
				t.Fatalf("%+v became %+v, %v", j, k, err)
			}
		}
	})
}

func TestObject(t *testing.T) {
	s := Secret{"abc123", "0123456789abcdef"}
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	for _, tc := range []struct {
		role    Role
		expires time.Time
		want    map[string]string
	}{
		{Worker, time.Time{}, map[string]string{
			"token-id": "abc123", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
			"description": "Worker bootstrap token generated by k0s",
		}},
		{Controller, at, map[string]string{
			"token-id": "abc123", "token-secret": "0123456789abcdef", "usage-bootstrap-controller-join": "true", "usage-controller-join": "true",
			"description": "Controller bootstrap token generated by k0s", "expiration": "2030-01-02T02:04:05Z",
		}},
	} {
		o := s.Object(tc.role, tc.expires)
		if o.Name != "bootstrap-token-abc123" || o.Namespace != "kube-system" || o.Type != "bootstrap.kubernetes.io/token" || len(o.Data) != len(tc.want) {
			t.Errorf("got %+v", o)
		}
		for key, want := range tc.want {
			if got := string(o.Data[key]); got != want {
				t.Errorf("%s: %s: got %q, want %q", tc.role, key, got, want)
			}
		}
		info, err := FromObject(o)
		if err != nil || info.ID != "abc123" || info.Role != tc.role || !info.Expires.Equal(tc.expires.Truncate(time.Second)) {
			t.Errorf("%s: got %+v, %v", tc.role, info, err)
		}
	}
}

func TestCheck(t *testing.T) {
	now := time.Now()
	right := Secret{"abc123", "0123456789abcdef"}
	for _, tc := range []struct {
		name   string
		sent   Secret
		object *corev1.Secret
		change func(*corev1.Secret)
		want   string
	}{
		{"right", right, right.Object(Controller, time.Time{}), nil, ""},
		{"right in time", right, right.Object(Controller, now.Add(time.Minute)), nil, ""},
		{"legacy usage", right, right.Object(Controller, time.Time{}), func(o *corev1.Secret) { delete(o.Data, usageControllerJoin) }, ""},
		{"unknown", right, nil, nil, "no token has this id"},
		{"empty secret", Secret{"abc123", ""}, nil, nil, "no token has this id"},
		{"wrong secret", Secret{"abc123", "0123456789abcdee"}, right.Object(Controller, time.Time{}), nil, "the secret is wrong"},
		{"prefix of the secret", Secret{"abc123", "0123456789abcde"}, right.Object(Controller, time.Time{}), nil, "the secret is wrong"},
		{"expired", right, right.Object(Controller, now.Add(-time.Second)), nil, "it expired on"},
		{"other role", right, right.Object(Worker, time.Time{}), nil, "it is a worker token"},
		{"other id", Secret{"abc124", right.Secret}, right.Object(Controller, time.Time{}), nil, "another id"},
		{"no usage", right, right.Object(Controller, time.Time{}), func(o *corev1.Secret) {
			o.Data[usageControllerJoin], o.Data[usageControllerJoinLegacy] = []byte("false"), nil
		}, "neither role"},
		{"bad expiry", right, right.Object(Controller, now), func(o *corev1.Secret) { o.Data["expiration"] = []byte("tomorrow") }, "no good expiry"},
		{"other type", right, right.Object(Controller, time.Time{}), func(o *corev1.Secret) { o.Type = corev1.SecretTypeOpaque }, "not the Secret of a bootstrap token"},
		{"other namespace", right, right.Object(Controller, time.Time{}), func(o *corev1.Secret) { o.Namespace = "default" }, "not the Secret of a bootstrap token"},
	} {
		if tc.change != nil {
			tc.change(tc.object)
		}
		err := tc.sent.Check(tc.object, Controller, now)
		if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want %q, got %v", tc.name, tc.want, err)
		}
	}
}

func TestManager(t *testing.T) {
	ctx := context.Background()
	m := NewManager(fake.NewClientset(&corev1.Secret{Type: corev1.SecretTypeOpaque}))
	worker, err := m.Create(ctx, Worker, 0)
	if err != nil {
		t.Fatal(err)
	}
	controller, err := m.Create(ctx, Controller, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create(ctx, Worker, -time.Second); err == nil {
		t.Error("a negative expiry must be refused")
	}
	for role, want := range map[Role][]string{"": {worker.ID, controller.ID}, Worker: {worker.ID}, Controller: {controller.ID}} {
		list, err := m.List(ctx, role)
		if err != nil || len(list) != len(want) {
			t.Fatalf("%q: got %v, %v", role, list, err)
		}
		for i, info := range list {
			if i > 0 && list[i-1].ID > info.ID {
				t.Errorf("out of order: %v", list)
			}
			if info.Role == Controller && time.Until(info.Expires).Round(time.Minute) != time.Hour || info.Role == Worker && !info.Expires.IsZero() {
				t.Errorf("got %+v", info)
			}
		}
	}
	for _, tc := range []struct {
		id    string
		found bool
		ok    bool
	}{{worker.ID, true, true}, {worker.ID, false, true}, {"../abc", false, false}, {"", false, false}} {
		if found, err := m.Invalidate(ctx, tc.id); found != tc.found || (err == nil) != tc.ok {
			t.Errorf("%q: got %t, %v", tc.id, found, err)
		}
	}
	if list, err := m.List(ctx, ""); err != nil || len(list) != 1 || list[0].ID != controller.ID {
		t.Errorf("got %v, %v", list, err)
	}
}

// Two tokens may not share an id: the second is made anew.
func TestCreateAvoidsTakenIDs(t *testing.T) {
	client := fake.NewClientset()
	var first *corev1.Secret
	client.PrependReactor("create", "secrets", func(action k8stesting.Action) (bool, runtime.Object, error) {
		object := action.(k8stesting.CreateAction).GetObject().(*corev1.Secret)
		if first == nil { // take the name just before
			first = object.DeepCopy()
			if err := client.Tracker().Add(first); err != nil {
				t.Error(err)
			}
		}
		return false, nil, nil
	})
	s, err := NewManager(client).Create(context.Background(), Worker, 0)
	if err != nil || first == nil || first.Name == "bootstrap-token-"+s.ID {
		t.Errorf("got %s, %v", s, err)
	}
}

func TestNewSecretsDiffer(t *testing.T) {
	seen := map[Secret]bool{}
	for range 100 {
		s, err := NewSecret()
		if err != nil || seen[s] {
			t.Fatalf("got %s, %v", s, err)
		}
		seen[s] = true
	}
}

func TestPreShared(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, testCA(t), 0o600); err != nil {
		t.Fatal(err)
	}
	p := PreShared{Role: Controller, URL: "https://192.0.2.1:9443", CAFile: ca, ValidFor: time.Hour}
	manifestFile, tokenFile, err := p.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	joinToken, err := os.ReadFile(tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	j, err := DecodeFor(Controller, string(joinToken))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(manifestFile)
	if err != nil {
		t.Fatal(err)
	}
	var object corev1.Secret
	if err := yaml.UnmarshalStrict(manifest, &object); err != nil {
		t.Fatal(err)
	}
	if err := j.Secret.Check(&object, Controller, time.Now()); err != nil {
		t.Errorf("%v:\n%s", err, manifest)
	}
	if err := j.Secret.Check(&object, Controller, time.Now().Add(61*time.Minute)); err == nil {
		t.Error("it must expire")
	}
	if object.APIVersion != "v1" || object.Kind != "Secret" || filepath.Base(manifestFile) != "bootstrap-token-"+j.Secret.ID+".yaml" || filepath.Base(tokenFile) != "token_"+j.Secret.ID {
		t.Errorf("got %s, %s:\n%s", manifestFile, tokenFile, manifest)
	}
	for _, file := range []string{manifestFile, tokenFile} {
		if st, err := os.Stat(file); err != nil || st.Mode() != 0o600 {
			t.Errorf("got %v, %v", st.Mode(), err)
		}
	}
	p.CAFile = filepath.Join(dir, "none.crt")
	if _, _, err := p.Write(dir); err == nil {
		t.Error("a missing certificate must be refused")
	}
}
