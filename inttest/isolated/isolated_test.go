// Package isolated runs controllers that can send nothing to anybody but replies. Whatever goes from an API
// server to a node, a pod or a service goes through connections that the workers have made.
package isolated

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/internal/pki"
	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

//go:embed testdata/pods.yaml
var podsYAML []byte

const podsFile = "/tmp/pods.yaml"

func TestIsolated(t *testing.T) {
	hosts := cluster.Hosts(t, testhost.NewNetwork(t), "c0", "c1", "w0", "w1")
	c := cluster.New(hosts[0])
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	isolate(t, hosts[0], hosts[2], hosts[3])
	begin := time.Now()
	workers := c.MustJoin(t, cluster.Worker, hosts[2], hosts[3])
	if err := c.WaitNodes(ctx, workers...); err != nil {
		t.Fatal(err)
	}
	t.Logf("two workers are Ready after %.1f s", time.Since(begin).Seconds())
	if err := c.WaitSystemPods(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("system pods are Ready after %.1f s", time.Since(begin).Seconds())
	image := cluster.PutImage(t, workers[0].Host)
	for _, w := range workers {
		if w != workers[0] {
			cluster.PutImage(t, w.Host)
		}
		w.Host.Run(t, cluster.Program, "ctr", "-n", "k8s.io", "images", "import", image)
	}
	judgeCA := deployPods(t, c)
	judge(t, c, judgeCA)

	t.Run("through the controller", func(t *testing.T) { through(t, &c.Node) })

	t.Run("konnectivity-server is killed", func(t *testing.T) {
		hosts[0].Run(t, "pkill", "-9", "-x", "konnectivity-se")
		begin := time.Now()
		again(t, c, &c.Node)
		t.Logf("logs work again after %.1f s", time.Since(begin).Seconds())
	})
	t.Run("k0s controller is restarted", func(t *testing.T) {
		before := availableSince(t, &c.Node)
		took, err := c.Stop(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("it stopped in %.1f s", took.Seconds())
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitAPI(ctx); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		again(t, c, &c.Node)
		t.Logf("logs work again %.1f s after the API", time.Since(begin).Seconds())
		if after := availableSince(t, &c.Node); after != before {
			t.Errorf("the aggregated API of metrics-server was unavailable for a while: available since %s, before %s", after, before)
		}
	})
	t.Run("a second controller joins", func(t *testing.T) {
		second := c.MustJoin(t, cluster.Controller, hosts[1])[0]
		if err := c.WaitControllers(ctx, second); err != nil {
			t.Fatal(err)
		}
		isolate(t, hosts[1], hosts[2], hosts[3])
		begin := time.Now()
		again(t, c, second)
		t.Logf("logs work through it %.1f s after its API", time.Since(begin).Seconds())
		t.Run("through the second", func(t *testing.T) { through(t, second) })
		t.Run("through the first", func(t *testing.T) { through(t, &c.Node) })
	})
	t.Run("a worker is cut off", func(t *testing.T) {
		if err := hosts[3].CutLink(t.Context()); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		// Whatever agent is chosen: it is one that is there.
		var last, longest time.Duration
		for time.Since(begin) < 20*time.Second {
			asked := time.Now()
			_, err := c.K0s(t.Context(), "kubectl", "create", "configmap", fmt.Sprintf("allowed-%d", asked.UnixNano()))
			if err != nil {
				t.Error(err)
			}
			if took := time.Since(asked); took > 4*time.Second { // the controller waits 3 s for an agent
				last = time.Since(begin)
				longest = max(longest, took)
			}
		}
		t.Logf("the webhook was asked without delay after %.1f s; the longest delay was %.1f s", last.Seconds(), longest.Seconds())
		if last > 15*time.Second {
			t.Error("the agent of a host that is gone is still in use")
		}
	})
}

// isolate lets a controller send nothing to the workers but replies, nor to pods and services.
func isolate(t *testing.T, controller *testhost.Host, workers ...*testhost.Host) {
	t.Helper()
	for _, to := range append(addresses(workers), "10.244.0.0/16", "10.96.0.0/12") {
		if _, err := controller.DropOutgoing(testhost.Traffic{Peer: to, SparesReplies: true}); err != nil {
			t.Fatal(err)
		}
	}
}

func addresses(hosts []*testhost.Host) []string {
	var all []string
	for _, h := range hosts {
		all = append(all, h.IP)
	}
	return all
}

// deployPods runs a web server, and a judge of what may be created whose authority is returned.
func deployPods(t *testing.T, c *cluster.Cluster) []byte {
	t.Helper()
	dir := t.TempDir()
	ca, err := pki.EnsureCA(filepath.Join(dir, "ca"), "judge-ca", time.Hour, pki.Owner{UID: -1})
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(pki.Request{CommonName: "judge", Names: []string{"judge.default.svc"}, Server: true, Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WaitDefaultServiceAccount(t.Context()); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "judge"}, Data: map[string][]byte{"tls.crt": cert, "tls.key": key}}
	if _, err := c.Client.CoreV1().Secrets("default").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Host.WriteFile(podsFile, podsYAML, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "kubectl", "apply", "-f", podsFile)
	c.Pod(t, "web", cluster.Ready)
	c.Pod(t, "judge", cluster.Ready)
	text, err := os.ReadFile(ca.Path())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// judge has the API ask the judge before a ConfigMap is created.
func judge(t *testing.T, c *cluster.Cluster, ca []byte) {
	t.Helper()
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "judge"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "judge.k0s.test", SideEffects: new(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			TimeoutSeconds:    new(int32(10)),
			ClientConfig:      admissionregistrationv1.WebhookClientConfig{CABundle: ca, Service: &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "judge"}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": "default"}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
			}},
		}},
	}
	if _, err := c.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), hook, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

var figures = regexp.MustCompile(`(?m)\s[1-9]\d*m\s.*\s[1-9]\d*Mi`)

// through does, by one controller's API server, all that needs a way to the nodes.
func through(t *testing.T, controller *cluster.Node) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	begin := time.Now()
	if conn, err := shortDial(ctx, controller, workerAddress(t, controller)); err == nil {
		conn()
		t.Fatal("the controller reaches a worker directly: this would prove nothing")
	}
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := controller.K0s(ctx, append([]string{"kubectl"}, args...)...)
		if err != nil {
			t.Error(err)
		}
		return out
	}
	if got := kubectl("logs", "web"); got != "hello from web\n" {
		t.Errorf("logs said %q", got)
	}
	if got := kubectl("exec", "web", "--", "hostname"); got != "web\n" {
		t.Errorf("exec said %q", got)
	}
	for _, path := range []string{
		"/api/v1/namespaces/default/pods/web:8080/proxy/", servicePath,
	} {
		if got := kubectl("get", "--raw", path); !strings.HasPrefix(got, "web answers") {
			t.Errorf("%s said %q", path, got)
		}
	}
	for _, node := range strings.Fields(kubectl("get", "nodes", "-o", "name")) {
		if got := kubectl("get", "--raw", "/api/v1/nodes/"+strings.TrimPrefix(node, "node/")+"/proxy/healthz"); got != "ok" {
			t.Errorf("the kubelet of %s said %q", node, got)
		}
	}
	if got := portForward(ctx, controller); !strings.HasPrefix(got, "web answers") {
		t.Errorf("through a forwarded port: %q", got)
	}
	name := fmt.Sprintf("allowed-%d", time.Now().UnixNano())
	kubectl("create", "configmap", name)
	if _, err := controller.K0s(ctx, "kubectl", "create", "configmap", "forbidden"); err == nil || !strings.Contains(err.Error(), "judge has refused forbidden") {
		t.Errorf("the admission webhook was not asked: %v", err)
	}
	for !strings.HasPrefix(available(t, controller), "True ") { // one that has just joined asks by and by
		if ctx.Err() != nil {
			t.Fatalf("the aggregated API of metrics-server is available: %s", available(t, controller))
		}
		time.Sleep(100 * time.Millisecond)
	}
	for {
		out, err := controller.K0s(ctx, "kubectl", "top", "nodes", "--no-headers")
		if err == nil && figures.MatchString(out) {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("kubectl top: %q, %v", out, err)
		}
		time.Sleep(time.Second)
	}
	t.Logf("all of it took %.1f s", time.Since(begin).Seconds())
}

// availableSince is since when the aggregated API of metrics-server has been available without a break.
func availableSince(t *testing.T, controller *cluster.Node) string {
	t.Helper()
	out := available(t, controller)
	status, since, _ := strings.Cut(out, " ")
	if status != "True" {
		t.Errorf("the aggregated API of metrics-server is available: %s", out)
	}
	return since
}

// available is whether the aggregated API of metrics-server is available, and since when that is so.
func available(t *testing.T, controller *cluster.Node) string {
	t.Helper()
	out, err := controller.K0s(t.Context(), "kubectl", "get", "apiservice", "v1beta1.metrics.k8s.io",
		"-o", `jsonpath={range .status.conditions[?(@.type=="Available")]}{.status} {.lastTransitionTime}{end}`)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const servicePath = "/api/v1/namespaces/default/services/http:web:http/proxy/"

// workerAddress is where a node's kubelet listens.
func workerAddress(t *testing.T, controller *cluster.Node) string {
	t.Helper()
	ip, err := controller.K0s(t.Context(), "kubectl", "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	if err != nil {
		t.Fatal(err)
	}
	return ip + ":10250"
}

func shortDial(ctx context.Context, n *cluster.Node, address string) (closeConn func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := n.Host.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return func() { conn.Close() }, nil
}

// portForward asks the web server through a port that is forwarded on the controller's host.
func portForward(ctx context.Context, controller *cluster.Node) string {
	const script = `"$1" kubectl port-forward pod/web 18080:8080 >/tmp/forward.log 2>&1 & forward=$!
		trap 'kill $forward' EXIT
		for i in $(seq 100); do grep -q Forwarding /tmp/forward.log && break; sleep 0.1; done
		exec 3<>/dev/tcp/127.0.0.1/18080
		printf 'GET / HTTP/1.0\r\n\r\n' >&3
		timeout 10 sed '1,/^\r$/d' <&3`
	out, err := controller.Host.Output(ctx, "bash", "-c", script, "bash", cluster.Program)
	if err != nil {
		return err.Error()
	}
	return out
}

// again waits until logs work through a controller.
func again(t *testing.T, c *cluster.Cluster, controller *cluster.Node) {
	t.Helper()
	err := c.Eventually(t.Context(), 30*time.Second, "kubectl logs", func(ctx context.Context) error {
		_, err := controller.K0s(ctx, "kubectl", "logs", "web")
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
