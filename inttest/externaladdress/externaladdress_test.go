// Package externaladdress runs clusters behind a load balancer: workers and their pods can send nothing to the
// controllers, only to the host that passes connections on to them.
package externaladdress

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const (
	configFile = "/etc/k0s/k0s.yaml"
	podFile    = "/tmp/pod.yaml"
	// profile keeps the pods, however full the machine's disk is.
	profile = `
  workerProfiles:
  - name: default
    values: {evictionHard: {nodefs.available: 1Mi, imagefs.available: 1Mi, memory.available: 64Mi}}
`
	// pod asks for the API as pods do, and is to live through all of it.
	pod = `
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: web
    image: k0s.test/tools:1
    imagePullPolicy: Never
    command: [sh, -c, "echo hello from web; exec tester serve :8080"]
`
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// balance has a host pass connections to one of its ports on to a port of the controllers.
func balance(t *testing.T, lb *testhost.Host, from, to string, controllers ...*testhost.Host) *testhost.Process {
	t.Helper()
	args := []string{cluster.Tester, "balance", ":" + from}
	for _, c := range controllers {
		args = append(args, net.JoinHostPort(c.IP, to))
	}
	p, err := lb.Start("balance-"+from, args...)
	must(t, err)
	return p
}

// deploy runs the pod on a worker.
func deploy(t *testing.T, c *cluster.Cluster, w *cluster.Node) {
	t.Helper()
	w.Host.Run(t, cluster.Program, "ctr", "-n", "k8s.io", "images", "import", cluster.PutImage(t, w.Host))
	must(t, c.WaitDefaultServiceAccount(t.Context()))
	must(t, c.Host.WriteFile(podFile, []byte(pod), 0o644))
	c.Must(t, "kubectl", "apply", "-f", podFile)
	c.Pod(t, "web", cluster.Ready)
}

// leads waits until Service kubernetes leads to one address, by both kinds of objects.
func leads(t *testing.T, ctx context.Context, client kubernetes.Interface, to string) {
	t.Helper()
	begin, last := time.Now(), ""
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var found []string
		slices, err := client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=kubernetes"})
		if err == nil {
			for _, s := range slices.Items {
				for _, e := range s.Endpoints {
					for _, a := range e.Addresses {
						found = append(found, net.JoinHostPort(a, fmt.Sprint(*s.Ports[0].Port)))
					}
				}
			}
			found = append(found, "and")
			old, err := client.CoreV1().Endpoints("default").Get(ctx, "kubernetes", metav1.GetOptions{}) //nolint:staticcheck // some still read it
			if err == nil {
				for _, s := range old.Subsets {
					for _, a := range s.Addresses {
						found = append(found, net.JoinHostPort(a.IP, fmt.Sprint(s.Ports[0].Port)))
					}
				}
			}
		}
		if last = strings.Join(found, " "); last == to+" and "+to {
			t.Logf("Service kubernetes leads to %s after %.1f s", to, time.Since(begin).Seconds())
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("Service kubernetes leads to %q, not to %s: %v", last, to, err)
		}
	}
}

// works does, through the API servers of these controllers, what needs a way from there to the worker, and has the
// pod ask for the API.
func works(t *testing.T, c *cluster.Cluster, controllers ...*cluster.Node) {
	t.Helper()
	for _, n := range controllers {
		begin := time.Now()
		must(t, c.Eventually(t.Context(), time.Minute, "kubectl logs through "+n.Host.Name, func(ctx context.Context) error {
			out, err := n.K0s(ctx, "kubectl", "logs", "web")
			if err == nil && out != "hello from web\n" {
				err = fmt.Errorf("logs said %q", out)
			}
			return err
		}))
		t.Logf("kubectl logs works through %s after %.1f s", n.Host.Name, time.Since(begin).Seconds())
	}
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	must(t, c.Eventually(t.Context(), time.Minute, "the pod to reach the API", func(ctx context.Context) error {
		out, err := controllers[0].K0s(ctx, "kubectl", "exec", "web", "--", "tester", "get",
			"-ca", account+"ca.crt", "-token", account+"token", "https://kubernetes.default.svc/version")
		if err == nil && !strings.Contains(out, "gitVersion") {
			err = fmt.Errorf("the API said %q", out)
		}
		return err
	}))
}

// dropDirect lets a worker and its pods send nothing to the controllers.
func dropDirect(t *testing.T, worker *testhost.Host, controllers ...*testhost.Host) (mend func()) {
	t.Helper()
	var drops []*testhost.Drop
	for _, c := range controllers {
		d, err := worker.DropOutgoing(testhost.Traffic{Peer: c.IP})
		must(t, err)
		drops = append(drops, d)
	}
	return func() {
		for _, d := range drops {
			must(t, d.Mend())
		}
	}
}

func TestExternalAddress(t *testing.T) {
	const config = `
spec:
  api: {externalAddress: k8s.example.test}
  konnectivity: {externalAddress: "tunnel.example.test:9132"}` + profile
	hosts := cluster.Hosts(t, testhost.NewNetwork(t), "lb", "c0", "c1", "c2", "w0")
	lb, controllers, worker := hosts[0], hosts[1:4], hosts[4]
	cluster.PutImage(t, lb)
	for _, h := range hosts {
		names, err := h.ReadFile("/etc/hosts")
		must(t, err)
		must(t, h.WriteFile("/etc/hosts", fmt.Appendf(names, "\n%s k8s.example.test tunnel.example.test\n", lb.IP), 0o644))
		must(t, h.WriteFile(configFile, []byte(config), 0o644))
	}
	balance(t, lb, "6443", "6443", controllers...)
	balance(t, lb, "9443", "9443", controllers...)
	balance(t, lb, "9132", "8132", controllers...)
	dropDirect(t, worker, controllers...)

	ctx := deadline(t)
	c := cluster.New(controllers[0])
	must(t, c.Start())
	must(t, c.WaitAPI(ctx))
	leads(t, ctx, c.Client, lb.IP+":6443")
	if out := c.Must(t, "kubeconfig", "admin"); !strings.Contains(out, "server: https://k8s.example.test:6443\n") {
		t.Errorf("the administrator's kubeconfig does not name the external address:\n%s", out)
	}
	begin := time.Now()
	w := c.MustJoin(t, cluster.Worker, worker)[0]
	must(t, c.WaitNodes(ctx, w))
	t.Logf("the worker is Ready after %.1f s", time.Since(begin).Seconds())
	others := c.MustJoin(t, cluster.Controller, controllers[1:]...)
	deploy(t, c, w)
	must(t, c.WaitControllers(ctx, others...))
	must(t, c.CheckOneCluster(ctx))
	all := append([]*cluster.Node{&c.Node}, others...)
	works(t, c, all...)
	leads(t, ctx, c.Client, lb.IP+":6443")

	t.Run("a controller loses its power", func(t *testing.T) {
		ctx := deadline(t)
		client, err := c.ThroughBalancer(w)
		must(t, err)
		must(t, c.Host.Kill())
		begin := time.Now()
		must(t, c.Eventually(ctx, time.Minute, "writes", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "written-"}}, metav1.CreateOptions{})
			return err
		}))
		t.Logf("writes through the worker's balancer resume after %.1f s", time.Since(begin).Seconds())
		works(t, c, others...)
		must(t, c.WaitAnyAPI(ctx))
		leads(t, ctx, c.Client, lb.IP+":6443")
		// Restarted now, the worker finds the API all the same.
		_, err = w.Stop(ctx)
		must(t, err)
		w.Token = ""
		must(t, w.Start())
		must(t, c.WaitNodes(ctx, w))
		works(t, c, others...)
	})
}

// The external address has another port than the API, the balancer in the worker too; both change while it runs.
func TestPorts(t *testing.T) {
	hosts := cluster.Hosts(t, testhost.NewNetwork(t), "lb", "c0", "w0")
	lb, controller, worker := hosts[0], hosts[1], hosts[2]
	cluster.PutImage(t, lb)
	cluster.PutImage(t, worker)
	configure := func(port int, enabled bool) {
		t.Helper()
		must(t, controller.WriteFile(configFile, fmt.Appendf(nil, `
spec:
  api: {externalAddress: "%s:8443"}
  network: {nodeLocalLoadBalancing: {enabled: %t, type: Traefik, traefik: {apiServerBindPort: %d}}}%s`, lb.IP, enabled, port, profile), 0o644))
	}
	configure(7555, false)
	api := balance(t, lb, "8443", "6443", controller)
	balance(t, lb, "8132", "8132", controller)
	mend := dropDirect(t, worker, controller)
	worker.Run(t, "cp", cluster.Tester, "/tmp/taken")
	_, err := worker.Start("taken", "/tmp/taken", "serve", "127.0.0.1:7443") // the default port
	must(t, err)

	ctx := deadline(t)
	c := cluster.New(controller)
	must(t, c.Start())
	must(t, c.WaitAPI(ctx))
	w := c.MustJoin(t, cluster.Worker, worker)[0]
	must(t, c.WaitNodes(ctx, w))
	leads(t, ctx, c.Client, lb.IP+":8443")
	deploy(t, c, w)
	works(t, c, &c.Node)
	goesBy(t, ctx, c, w, "7555")
	before, err := c.Client.CoreV1().Pods("default").Get(ctx, "web", metav1.GetOptions{})
	must(t, err)

	restart := func() {
		t.Helper()
		_, err := c.Stop(ctx)
		must(t, err)
		must(t, c.Start())
		must(t, c.WaitAPI(ctx))
	}
	t.Run("the balancer gets another port", func(t *testing.T) {
		configure(7556, false)
		w.Started = time.Now()
		restart()
		begin := time.Now()
		goesBy(t, ctx, c, w, "7556")
		must(t, c.WaitNodes(ctx, w))
		works(t, c, &c.Node)
		t.Logf("all follow %.1f s after the API is back", time.Since(begin).Seconds())
	})
	t.Run("workers go to the controllers themselves", func(t *testing.T) {
		mend()
		configure(7556, true)
		restart()
		leads(t, ctx, c.Client, controller.IP+":6443")
		known := func(ctx context.Context) error {
			servers, err := worker.ReadFile(cluster.DataDir + "/api-servers.json")
			if err == nil && !strings.Contains(string(servers), controller.IP+":6443") {
				err = fmt.Errorf("the worker knows %s", servers)
			}
			return err
		}
		must(t, c.Eventually(ctx, time.Minute, "the worker to know the controller", known))
		must(t, api.Signal(9))
		works(t, c, &c.Node)
		client, err := c.ThroughPort(w, "7556")
		must(t, err)
		_, err = client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		must(t, err)
	})
	after, err := c.Client.CoreV1().Pods("default").Get(ctx, "web", metav1.GetOptions{})
	must(t, err)
	if after.UID != before.UID || after.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod did not live through it: %+v", after.Status)
	}
}

// goesBy waits until the programs of a worker are connected to the API by a port on loopback.
func goesBy(t *testing.T, ctx context.Context, c *cluster.Cluster, w *cluster.Node, port string) {
	t.Helper()
	must(t, c.Eventually(ctx, time.Minute, "kubelet and kube-proxy to use port "+port, func(ctx context.Context) error {
		out, err := w.Host.Output(ctx, "ss", "-Htnp", "state", "established", "dst", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		for _, program := range []string{"kubelet", "kube-proxy"} {
			if !strings.Contains(out, `("`+program+`"`) {
				return fmt.Errorf("%s is not connected to port %s: %s", program, port, out)
			}
		}
		return nil
	}))
	for _, conf := range []string{"kubelet.conf", "kube-proxy.conf"} {
		out := w.Host.Run(t, "sh", "-c", "grep -rh server: "+cluster.DataDir+" --include="+conf+" | sort -u")
		if got := strings.Fields(out); !slices.Contains(got, "https://127.0.0.1:"+port) {
			t.Errorf("%s names %q", conf, got)
		}
	}
}
