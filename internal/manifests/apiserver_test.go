//go:build apiserver

// Tests against a real API server, which is run from the k0s executable named
// by the environment variable K0S_BINARY:
//
//	K0S_BINARY=... go test -tags apiserver ./internal/manifests
package manifests

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func TestRealAPIServer(t *testing.T) {
	outer := t
	config := startAPIServer(t)
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	get := func(gvr schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
		if namespace == "" {
			return dyn.Resource(gvr).Get(ctx, name, metav1.GetOptions{})
		}
		return dyn.Resource(gvr).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	}
	configMaps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deployments := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}

	dir := t.TempDir()
	own, err := Render(DefaultParams())
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	start := time.Now()
	stop := run(t, New(Options{Config: config, Dir: dir, Own: own, Logger: log}))

	t.Run("our own stacks", func(t *testing.T) {
		eventually(t, func() error {
			_, err := get(deployments, "kube-system", "coredns")
			_, err2 := get(deployments, "kube-system", "metrics-server")
			_, err3 := get(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}, "", "v1beta1.metrics.k8s.io")
			_, err4 := get(schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, "", "kubelet-bootstrap")
			return errors.Join(err, err2, err3, err4)
		})
		t.Logf("own stacks there after %s", time.Since(start))
	})

	const user = `
apiVersion: example.org/v1
kind: Widget
metadata: {name: w}
spec: {size: 1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cm, namespace: users}
data: {a: "1"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: nowhere}
data: {a: "1"}
---
apiVersion: v1
kind: Namespace
metadata: {name: users}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.org}
spec:
  group: example.org
  names: {kind: Widget, plural: widgets, singular: widget}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}}}
`
	widgets := schema.GroupVersionResource{Group: "example.org", Version: "v1", Resource: "widgets"}
	t.Run("a directory with everything in the wrong order", func(t *testing.T) {
		start := time.Now()
		write(t, filepath.Join(dir, "mine", "all.yaml"), user)
		eventually(t, func() error {
			_, err := get(widgets, "default", "w")
			_, err2 := get(configMaps, "users", "cm")
			_, err3 := get(configMaps, "default", "nowhere")
			return errors.Join(err, err2, err3)
		})
		t.Logf("applied after %s", time.Since(start))
	})
	t.Run("drift is repaired by the next application", func(t *testing.T) {
		patch := []byte(`{"data":{"a":"changed"}}`)
		if _, err := dyn.Resource(configMaps).Namespace("users").Patch(ctx, "cm", "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "mine", "all.yaml"), user) // touch
		eventually(t, func() error {
			cm, err := get(configMaps, "users", "cm")
			if err != nil {
				return err
			}
			if v, _, _ := unstructured.NestedString(cm.Object, "data", "a"); v != "1" {
				return fmt.Errorf("a is %q", v)
			}
			return nil
		})
	})
	t.Run("immutable field", func(t *testing.T) {
		a, err := NewApplier(config, log)
		if err != nil {
			t.Fatal(err)
		}
		deployment := func(app string) Stack {
			return parsed(t, "frozen", strings.ReplaceAll(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {app: APP}},
template: {metadata: {labels: {app: APP}}, spec: {containers: [{name: c, image: i}]}}}}`, "APP", app))
		}
		if err := a.Apply(ctx, deployment("one")); err != nil {
			t.Fatal(err)
		}
		err = a.Apply(ctx, deployment("two"))
		if err == nil || !strings.Contains(err.Error(), "k0s kubectl delete deployment.apps d") {
			t.Errorf("unhelpful: %v", err)
		}
		err = a.Apply(ctx, parsed(t, "frozen", `{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, dtaa: {a: b}}`))
		if err == nil || !strings.Contains(err.Error(), ".dtaa") || !strings.Contains(err.Error(), "correct the manifest") {
			t.Errorf("unhelpful: %v", err)
		}
		err = a.Apply(ctx, parsed(t, "frozen", `{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: no-such}}`))
		if err == nil || !strings.Contains(err.Error(), "add the Namespace") {
			t.Errorf("unhelpful: %v", err)
		}
		err = a.Apply(ctx, parsed(t, "frozen", `{apiVersion: nobody.example/v1, kind: Nothing, metadata: {name: x}}`))
		if err == nil || !strings.Contains(err.Error(), "add the CustomResourceDefinition") {
			t.Errorf("unhelpful: %v", err)
		}
		if err := a.Apply(ctx, Stack{Name: "frozen"}); err != nil {
			t.Fatal(err)
		}
		if _, err := get(deployments, "default", "d"); !apierrors.IsNotFound(err) {
			t.Errorf("not pruned: %v", err)
		}
	})
	t.Run("pruned by a later process", func(t *testing.T) {
		stop()
		write(t, filepath.Join(dir, "mine", "all.yaml"), strings.Split(user, "---\n")[3])
		disabled := DefaultParams()
		disabled.Disabled = []string{MetricsServer}
		own, err := Render(disabled)
		if err != nil {
			t.Fatal(err)
		}
		stop = run(outer, New(Options{Config: config, Dir: dir, Own: own, Logger: log}))
		eventually(t, func() error {
			for _, gone := range []func() (*unstructured.Unstructured, error){
				func() (*unstructured.Unstructured, error) { return get(widgets, "default", "w") },
				func() (*unstructured.Unstructured, error) { return get(configMaps, "users", "cm") },
				func() (*unstructured.Unstructured, error) { return get(configMaps, "default", "nowhere") },
				func() (*unstructured.Unstructured, error) { return get(deployments, "kube-system", "metrics-server") },
			} {
				if object, err := gone(); !apierrors.IsNotFound(err) {
					return fmt.Errorf("still there: %v %v", object.GetName(), err)
				}
			}
			return nil
		})
		if _, err := get(deployments, "kube-system", "coredns"); err != nil {
			t.Error(err)
		}
	})
	t.Run("removing the directory prunes the stack", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(dir, "mine")); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			ns, err := get(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "", "users")
			if err == nil && ns.GetDeletionTimestamp() == nil {
				return errors.New("namespace is still there")
			}
			return nil
		})
	})
	stop()
}

// startAPIServer runs etcd and kube-apiserver on loopback for the test.
func startAPIServer(t *testing.T) *rest.Config {
	t.Helper()
	k0s := os.Getenv("K0S_BINARY")
	if k0s == "" {
		t.Fatal("K0S_BINARY must name a k0s executable")
	}
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile, tokens := filepath.Join(dir, "sa.key"), filepath.Join(dir, "tokens")
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	write(t, tokens, "secret,admin,1,system:masters\n")

	client, peer, api := freePort(t), freePort(t), freePort(t)
	start := func(name string, args ...string) {
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(k0s, args...)
		cmd.Args[0], cmd.Dir, cmd.Stdout, cmd.Stderr = name, dir, log, log
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = log.Close()
			if t.Failed() {
				text, _ := os.ReadFile(log.Name())
				t.Logf("%s:\n%s", name, text[max(0, len(text)-2000):])
			}
		})
	}
	start("etcd", "--data-dir", filepath.Join(dir, "etcd"),
		"--listen-client-urls", "http://127.0.0.1:"+client, "--advertise-client-urls", "http://127.0.0.1:"+client,
		"--listen-peer-urls", "http://127.0.0.1:"+peer, "--initial-advertise-peer-urls", "http://127.0.0.1:"+peer,
		"--initial-cluster", "default=http://127.0.0.1:"+peer, "--unsafe-no-fsync")
	start("kube-apiserver", "--etcd-servers", "http://127.0.0.1:"+client, "--secure-port", api,
		"--bind-address", "127.0.0.1", "--cert-dir", filepath.Join(dir, "certs"), "--token-auth-file", tokens,
		"--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/12",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", keyFile, "--service-account-signing-key-file", keyFile)

	config := &rest.Config{
		Host:            "https://127.0.0.1:" + api,
		BearerToken:     "secret",
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	}
	set, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := set.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		return err
	})
	return config
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
