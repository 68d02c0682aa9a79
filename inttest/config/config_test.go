// Package config proves that k0s does what k0s.yaml says: with other networks, names, ports and
// arguments than the default ones; that a changed file changes just what it says at the next start;
// and that what cannot change is refused.
package config

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const file = "/etc/k0s/k0s.yaml"

const custom = `
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
spec:
  api:
    port: 443
    sans: [k0s.example.org, "*.k0s.example.org"]
    extraArgs: {event-ttl: 2h0m0s}
    rawArgs: [--vmodule=one=1, --vmodule=two=2]
  controllerManager:
    extraArgs: {node-cidr-mask-size: "26", terminated-pod-gc-threshold: "77"}
  scheduler:
    rawArgs: [--kube-api-qps=33]
  storage:
    etcd:
      extraArgs: {snapshot-count: "9999"}
  network:
    podCIDR: 172.30.0.0/20
    serviceCIDR: 172.31.0.0/24
    clusterDomain: k8s.example.org
    kubeProxy:
      mode: iptables
      metricsBindAddress: 127.0.0.1:11249
      healthzBindAddress: 127.0.0.1:11256
      iptables: {syncPeriod: 45s}
      extraArgs: {config-sync-period: 14m0s}
    coreDNS:
      patches:
      - target: {kind: Deployment, name: coredns}
        patch: {type: JSON, content: "[{op: add, path: /metadata/annotations, value: {by: patch}}]"}
  installConfig:
    users: {kubeAPIserverUser: api-user}
`

const pod = `
apiVersion: v1
kind: Pod
metadata: {name: tools}
spec:
  containers:
  - {name: main, image: "k0s.test/tools:1", imagePullPolicy: Never, command: [tester, serve, ":8080"]}
`

// The parts are in the order of a cluster's life; each goes on where the one before ended.
func TestConfig(t *testing.T) {
	host := testhost.NewNetwork(t).Host(t, "config")
	if err := cluster.Install(host); err != nil {
		t.Fatal(err)
	}
	host.Run(t, "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "api-user")
	image := cluster.PutImage(t, host)
	put(t, host, "/tmp/pod.yaml", pod)
	put(t, host, file, custom)
	before := cluster.Snapshot(t, host)

	c := cluster.New(host, "--single")
	c.Run(t)
	c.Must(t, "ctr", "-n", "k8s.io", "images", "import", image)
	c.Must(t, "kubectl", "apply", "-f", "/tmp/pod.yaml")
	c.Pod(t, "tools", cluster.Ready)

	t.Run("Custom", func(t *testing.T) { testCustom(t, c) })
	c = testChange(t, c)
	c = testWithout(t, c)
	t.Run("Fixed", func(t *testing.T) { testFixed(t, c) })
	host.Run(t, cluster.Program, "reset")
	cluster.MustBeAsBefore(t, host, before)
}

func put(t *testing.T, h *testhost.Host, name, content string) {
	t.Helper()
	h.Run(t, "mkdir", "-p", "/etc/k0s")
	if err := h.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// args is the command line of a child, which must run once.
func args(t *testing.T, c *cluster.Cluster, name string) []string {
	t.Helper()
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	if len(children[name]) != 1 {
		t.Fatalf("there are %d processes %s", len(children[name]), name)
	}
	return children[name][0].Args
}

// has checks the command line of a child.
func has(t *testing.T, c *cluster.Cluster, name string, want ...string) {
	t.Helper()
	line := args(t, c, name)
	for _, arg := range want {
		if !slices.Contains(line, arg) {
			t.Errorf("%s has no %s: %q", name, arg, line)
		}
	}
}

func testCustom(t *testing.T, c *cluster.Cluster) {
	has(t, c, "kube-apiserver", "--secure-port=443", "--service-cluster-ip-range=172.31.0.0/24", "--event-ttl=2h0m0s", "--vmodule=one=1", "--vmodule=two=2")
	has(t, c, "kube-controller-manager", "--cluster-cidr=172.30.0.0/20", "--node-cidr-mask-size=26", "--terminated-pod-gc-threshold=77")
	has(t, c, "kube-scheduler", "--kube-api-qps=33")
	has(t, c, "etcd", "--snapshot-count=9999")
	has(t, c, "kube-proxy", "--proxy-mode=iptables", "--metrics-bind-address=127.0.0.1:11249", "--iptables-sync-period=45s", "--config-sync-period=14m0s")

	// The privileged port is bound by somebody without privileges.
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(strings.TrimSpace(c.Host.Run(t, "id", "-u", "api-user")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager"} {
		if got := children[name][0].UID; got != uid {
			t.Errorf("%s runs as user %d, not as api-user (%d)", name, got, uid)
		}
	}

	for _, name := range []string{"k0s.example.org", "any.k0s.example.org", "kubernetes.default.svc.k8s.example.org", "172.31.0.1", c.Host.IP} {
		if err := serverCertificate(t, c).VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}

	node, err := c.Client.CoreV1().Nodes().Get(t.Context(), "config", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(node.Spec.PodCIDR, "/26") || !strings.HasPrefix(node.Spec.PodCIDR, "172.30.") {
		t.Errorf("the node's pod CIDR is %s", node.Spec.PodCIDR)
	}
	for name, want := range map[string]string{
		"kubernetes.default.svc.k8s.example.org":   "172.31.0.1",
		"kube-dns.kube-system.svc.k8s.example.org": "172.31.0.10",
		"kubernetes.default":                       "172.31.0.1",
	} {
		if err := c.Eventually(t.Context(), 30*time.Second, "the name "+name, func(ctx context.Context) error {
			got, err := c.Exec(ctx, "tools", "tester", "lookup", name)
			if err == nil && got != want {
				err = fmt.Errorf("it is %q, not %q", got, want)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	if out, err := c.Exec(t.Context(), "tools", "tester", "lookup", "kubernetes.default.svc.cluster.local"); err == nil {
		t.Errorf("the default domain is there, too: %s", out)
	}
	if got := annotation(t, c); got != "patch" {
		t.Errorf("CoreDNS has not been patched: %q", got)
	}
	if got := c.Must(t, "kubeconfig", "admin"); !strings.Contains(got, "https://"+c.Host.IP+":443\n") {
		t.Errorf("k0s kubeconfig admin does not lead to port 443:\n%s", got)
	}
}

func serverCertificate(t *testing.T, c *cluster.Cluster) *x509.Certificate {
	t.Helper()
	// Who it is, is what is to be found out.
	conn, err := tls.Dial("tcp", net.JoinHostPort(c.Host.IP, "443"), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // see above
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func annotation(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	return c.Must(t, "kubectl", "get", "deployment", "coredns", "-n", "kube-system", "-o", "jsonpath={.metadata.annotations.by}")
}

// restart stops k0s, if it runs, and starts it anew with another file and other arguments.
func restart(t *testing.T, c *cluster.Cluster, config string, args ...string) *cluster.Cluster {
	t.Helper()
	stop(t, c)
	put(t, c.Host, file, config)
	next := cluster.New(c.Host, append([]string{"--single"}, args...)...)
	if err := next.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	defer cancel()
	if err := next.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	if err := next.WaitNode(ctx); err != nil {
		t.Fatal(err)
	}
	if err := next.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return next
}

func stop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// keys are the sums of what must not change without a reason.
func keys(t *testing.T, c *cluster.Cluster) map[string]string {
	t.Helper()
	sums := map[string]string{}
	for line := range strings.Lines(c.Host.Run(t, "find", cluster.DataDir+"/pki", "-type", "f", "-exec", "sha256sum", "{}", "+")) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		sums[strings.TrimPrefix(name, cluster.DataDir+"/pki/")] = sum
	}
	return sums
}

func container(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	var id string
	c.Pod(t, "tools", func(p *corev1.Pod) error {
		if err := cluster.Ready(p); err != nil {
			return err
		}
		id = p.Status.ContainerStatuses[0].ContainerID
		if n := p.Status.ContainerStatuses[0].RestartCount; n != 0 {
			return fmt.Errorf("it was started %d times more", n)
		}
		return nil
	})
	return id
}

// testChange: a changed file changes what it says, and nothing else.
func testChange(t *testing.T, c *cluster.Cluster) *cluster.Cluster {
	keysBefore, containerBefore := keys(t, c), container(t, c)
	changed := strings.NewReplacer(
		"sans: [k0s.example.org,", "sans: [other.example.org,",
		"--vmodule=two=2", "--vmodule=three=3",
		"[--kube-api-qps=33]", "[--kube-api-qps=34]",
		"mode: iptables", "mode: nftables",
		"value: {by: patch}", "value: {by: change}",
	).Replace(custom)
	c = restart(t, c, changed, "--disable-components=metrics-server")

	has(t, c, "kube-apiserver", "--vmodule=one=1", "--vmodule=three=3", "--event-ttl=2h0m0s")
	has(t, c, "kube-scheduler", "--kube-api-qps=34")
	has(t, c, "kube-proxy", "--proxy-mode=nftables")
	var renewed []string
	for name, sum := range keys(t, c) {
		if keysBefore[name] != sum {
			renewed = append(renewed, name)
		}
	}
	slices.Sort(renewed)
	if want := []string{"server.crt", "server.key"}; !slices.Equal(renewed, want) {
		t.Errorf("changed below pki: %q, want only %q", renewed, want)
	}
	if err := serverCertificate(t, c).VerifyHostname("other.example.org"); err != nil {
		t.Error(err)
	}
	if serverCertificate(t, c).VerifyHostname("k0s.example.org") == nil {
		t.Error("the certificate is still valid for the name that is gone")
	}
	if got := container(t, c); got != containerBefore {
		t.Errorf("the pod's container is %s, and was %s", got, containerBefore)
	}
	for what, ask := range map[string]func(context.Context) error{
		"the patch to change": func(ctx context.Context) error {
			out, err := c.K0s(ctx, "kubectl", "get", "deployment", "coredns", "-n", "kube-system", "-o", "jsonpath={.metadata.annotations.by}")
			if err == nil && out != "change" {
				err = fmt.Errorf("it is %q", out)
			}
			return err
		},
		"metrics-server to go": func(ctx context.Context) error {
			out, err := c.K0s(ctx, "kubectl", "get", "deployments,apiservices", "-A", "-o", "name")
			if err == nil && strings.Contains(out, "metrics") {
				err = errors.New(out)
			}
			return err
		},
		"the chains of the other mode to go": func(context.Context) error {
			return mustNotHave(t, c, "iptables-save", "KUBE-SVC-", "KUBE-SERVICES")
		},
		"a service to answer": func(ctx context.Context) error {
			_, err := c.Exec(ctx, "tools", "tester", "lookup", "kubernetes.default")
			return err
		},
	} {
		if err := c.Eventually(t.Context(), 30*time.Second, what, ask); err != nil {
			t.Error(err)
		}
	}
	return c
}

// mustNotHave runs one of k0s' packet filter tools.
func mustNotHave(t *testing.T, c *cluster.Cluster, command string, words ...string) error {
	t.Helper()
	fields := strings.Fields(command)
	fields[0] = cluster.DataDir + "/bin/" + fields[0]
	out := c.Host.Run(t, fields...)
	for _, word := range words {
		if strings.Contains(out, word) {
			return fmt.Errorf("%s still shows %s", command, word)
		}
	}
	return nil
}

// testWithout leaves components out, and lets them come back.
func testWithout(t *testing.T, c *cluster.Cluster) *cluster.Cluster {
	containerBefore := container(t, c)
	c = restart(t, c, strings.Replace(custom, "mode: iptables", "disabled: true", 1), "--disable-components=kube-scheduler,coredns")
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kube-proxy", "kube-scheduler"} {
		if n := len(children[name]); n != 0 {
			t.Errorf("%d processes %s run although it is disabled", n, name)
		}
	}
	if err := c.Eventually(t.Context(), 30*time.Second, "kube-proxy's rules to go", func(context.Context) error {
		return errors.Join(mustNotHave(t, c, "nft list tables", "kube-proxy"), mustNotHave(t, c, "iptables-save", "KUBE-SVC-", "KUBE-SERVICES"))
	}); err != nil {
		t.Error(err)
	}
	if err := c.Eventually(t.Context(), 30*time.Second, "CoreDNS to go", func(ctx context.Context) error {
		out, err := c.K0s(ctx, "kubectl", "get", "deployments", "-A", "-o", "name")
		if err == nil && strings.Contains(out, "coredns") {
			err = errors.New(out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if got := container(t, c); got != containerBefore {
		t.Errorf("the pod's container is %s, and was %s", got, containerBefore)
	}

	c = restart(t, c, custom)
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	defer cancel()
	if err := c.WaitSystemPods(ctx); err != nil {
		t.Error(err)
	}
	if got := annotation(t, c); got != "patch" {
		t.Errorf("CoreDNS has come back without its patch: %q", got)
	}
	return c
}

// testFixed: what was fixed when the cluster was founded is refused, before anything starts; with the
// old file the cluster is there again.
func testFixed(t *testing.T, c *cluster.Cluster) {
	stop(t, c)
	for change, want := range map[[2]string]string{
		{"  network:\n", "  network:\n    provider: custom\n"}: `spec.network.provider: invalid value "custom": this cluster was founded with "kuberouter"`,
		{"172.30.0.0/20", "172.29.0.0/20"}:                     `spec.network.podCIDR: invalid value "172.29.0.0/20": this cluster was founded with "172.30.0.0/20"`,
		{"  storage:\n", "  storage:\n    type: kine\n"}:       `spec.storage.type: invalid value "kine": this cluster was founded with "etcd"`,
	} {
		put(t, c.Host, file, strings.Replace(custom, change[0], change[1], 1))
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		_, err := c.Host.Output(ctx, cluster.Program, "controller", "--single")
		cancel()
		failed := new(testhost.CommandError)
		if !errors.As(err, &failed) || !strings.Contains(failed.Stderr, want) {
			t.Errorf("%q in place of %q: got %v, want %s", change[1], change[0], err, want)
		}
	}
	put(t, c.Host, file, custom)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	defer cancel()
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	stop(t, c)
}
