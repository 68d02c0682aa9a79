package bgp

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const (
	password   = "geheim"
	balancerIP = "203.0.113.200"
	routerASN  = 64513
)

// TestRouter: BIRD on a host outside of the cluster learns from the nodes where pods and services are, and
// they from it what is behind it.
func TestRouter(t *testing.T) {
	network := testhost.NewNetwork(t)
	router := bird{network.Host(t, "r0")}
	spec := fmt.Sprintf(`    kuberouter:
      peerRouterIPs: %s
      peerRouterASNs: "%d"
      extraArgs:
        peer-router-passwords-file: /etc/bgp-passwords
        advertise-cluster-ip: "true"
        advertise-loadbalancer-ip: "true"
        enable-pod-egress: "false"
        nodes-full-mesh: "false"
`, router.IP, routerASN)
	s := start(t, network, spec, func(h *testhost.Host) {
		if err := h.WriteFile("/etc/bgp-passwords", []byte("Z2VoZWlt\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	workers := s.Workers()
	if err := router.Copy(testerOf(t, workers[0]), cluster.Tester); err != nil {
		t.Fatal(err)
	}
	router.configure(t, workers, birdSays{password: password})
	process, err := router.Start("bird", "bird", "-f", "-c", birdConfig, "-s", birdSocket)
	if err != nil {
		t.Fatal(err)
	}
	monitor, err := router.Start("routes", "ip", "-ts", "monitor", "route")
	if err != nil {
		t.Fatal(err)
	}
	established := func(names ...string) func(context.Context) error {
		return func(context.Context) error { return router.established(t, names...) }
	}
	s.eventually(t, 30*time.Second, "sessions with BIRD", established("w0", "w1", "w2"))

	cidrs := s.podCIDRs(t)
	service := s.createService(t)
	byNodes := func(prefix string, nodes ...*cluster.Node) {
		t.Helper()
		s.eventually(t, 20*time.Second, "BIRD to know of "+prefix, func(context.Context) error { return router.knows(t, prefix, nodes...) })
	}
	for _, w := range workers {
		byNodes(cidrs[w.Name()], w)
	}
	byNodes("10.96.0.1/32", workers...)
	byNodes(service.Spec.ClusterIP+"/32", workers...)
	// Its pods are on two nodes, and traffic from outside is to stay where it arrives.
	byNodes(balancerIP+"/32", workers[:2]...)
	router.Host.Run(t, cluster.Tester, "get", "http://"+s.podIP(t, "p2")+":8080")
	router.Host.Run(t, cluster.Tester, "get", "http://"+service.Spec.ClusterIP)
	router.Host.Run(t, cluster.Tester, "get", "http://"+balancerIP)

	if _, err := router.Start("server", cluster.Tester, "serve", ":8080"); err != nil {
		t.Fatal(err)
	}
	s.eventually(t, 10*time.Second, "an answer of the router's host", func(ctx context.Context) error {
		out, err := s.Exec(ctx, "p2", "tester", "get", "http://"+router.IP+":8080")
		if want := "r0 answers " + s.podIP(t, "p2"); err == nil && out != want {
			err = fmt.Errorf("got %q, want %q", out, want)
		}
		return err
	})

	t.Run("what the router says", func(t *testing.T) {
		for _, w := range workers {
			s.eventually(t, 10*time.Second, "the route by BIRD", func(ctx context.Context) error {
				out, err := w.Host.Output(ctx, "ip", "route", "show", "198.51.100.0/25")
				if err == nil && !strings.HasPrefix(out, "198.51.100.0/25 via "+router.IP+" dev eth0 proto 107") {
					err = fmt.Errorf("%s has %q", w.Name(), out)
				}
				return err
			})
			for _, unwanted := range []string{"default", "10.96.0.0/24"} {
				if out := w.Host.Run(t, "ip", "route", "show", unwanted, "proto", "107"); out != "" {
					t.Errorf("%s has what it should not take from a router: %s", w.Name(), out)
				}
			}
		}
	})
	t.Run("what is gone is withdrawn", func(t *testing.T) {
		if err := s.Client.CoreV1().Pods(metav1.NamespaceDefault).Delete(t.Context(), "p1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		byNodes(balancerIP+"/32", workers[0])
		s.annotateService(t, service.Name, "kube-router.io/service.advertise.clusterip", "false")
		byNodes(service.Spec.ClusterIP + "/32")
		if err := s.Client.CoreV1().Services(metav1.NamespaceDefault).Delete(t.Context(), service.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		byNodes(balancerIP + "/32")
	})
	t.Run("attributes by annotations", func(t *testing.T) {
		s.annotate(t, "w0", map[string]any{
			"kube-router.io/node.bgp.communities": "64512:77", "kube-router.io/path-prepend.as": "64512", "kube-router.io/path-prepend.repeat-n": "3",
		})
		s.eventually(t, 20*time.Second, "the attributes", func(context.Context) error {
			out := router.ask(t, "show", "route", "all", cidrs["w0"])
			if !strings.Contains(out, "BGP.as_path: 64512 64512 64512 64512\n") || !strings.Contains(out, "(64512,77)") {
				return fmt.Errorf("BIRD has %s", out)
			}
			return nil
		})
	})
	t.Run("the router keeps what it knows while k0s restarts", func(t *testing.T) {
		if err := workers[2].Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.eventually(t, 20*time.Second, "the session to end", established("w0", "w1"))
		byNodes(cidrs["w2"], workers[2])
		if err := workers[2].Start(); err != nil {
			t.Fatal(err)
		}
		s.eventually(t, 60*time.Second, "sessions with BIRD", established("w0", "w1", "w2"))
		if err := monitor.Signal(15); err != nil {
			t.Fatal(err)
		}
		<-monitor.Gone()
		text, err := os.ReadFile(monitor.Log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "Deleted") && strings.Contains(line, cidrs["w2"]) {
				t.Errorf("the router forgot: %s", line)
			}
		}
	})
	t.Run("a wrong password", func(t *testing.T) {
		router.configure(t, workers, birdSays{password: "falsch"})
		if err := process.Signal(15); err != nil {
			t.Fatal(err)
		}
		<-process.Gone()
		if process, err = router.Start("bird", "bird", "-f", "-c", birdConfig, "-s", birdSocket); err != nil {
			t.Fatal(err)
		}
		// Longer than a session takes: what is to be seen is that there is none.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := s.Eventually(ctx, time.Minute, "a session", func(context.Context) error {
			for _, w := range workers {
				if router.established(t, w.Name()) == nil {
					return nil
				}
			}
			return fmt.Errorf("there is none")
		})
		if err == nil {
			t.Error("there is a session with the wrong password")
		}
		for _, w := range workers {
			for _, text := range []string{w.LogTail(100000), w.Host.Run(t, "ps", "axww")} {
				if strings.Contains(text, password) || strings.Contains(text, "Z2VoZWlt") {
					t.Errorf("the password shows on %s", w.Name())
				}
			}
		}
	})
	// Nodes with an AS number each have no sessions with each other, nor have clients of a reflector that is no node.
	passesOn := func(t *testing.T, says birdSays, annotations func(i int) map[string]any) {
		for i, w := range workers {
			s.annotate(t, w.Name(), annotations(i))
		}
		// One that knows of no routes from before: what it has, it has by BIRD.
		fresh := workers[0]
		if err := fresh.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		fresh.Host.Run(t, "ip", "route", "flush", "proto", "107")
		says.password, says.passesOn = password, true
		router.configure(t, workers, says)
		router.ask(t, "configure")
		if err := fresh.Start(); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for _, w := range workers {
			s.sessions(t, w, &cluster.Node{Host: router.Host})
			s.routes(t, w, others(workers, w)...)
		}
		s.eventually(t, 10*time.Second, "p0 to reach p2", func(ctx context.Context) error {
			_, err := s.Exec(ctx, "p0", "tester", "get", "http://"+s.podIP(t, "p2")+":8080")
			return err
		})
		t.Logf("all pods are known by BIRD alone after %.1f s", time.Since(begin).Seconds())
	}
	t.Run("no mesh, a router of another AS", func(t *testing.T) {
		passesOn(t, birdSays{asn: routerASN, nodeASN: func(i int) int { return 64601 + i }}, func(i int) map[string]any {
			return map[string]any{"kube-router.io/node.asn": fmt.Sprint(64601 + i)}
		})
	})
	t.Run("no mesh, a router that reflects", func(t *testing.T) {
		peer := fmt.Sprintf("- {remoteip: %s, remoteasn: 64512, password: Z2VoZWlt}", router.IP)
		passesOn(t, birdSays{asn: 64512}, func(int) map[string]any {
			return map[string]any{"kube-router.io/node.asn": nil, "kube-router.io/rr.client": "42", "kube-router.io/peers": peer}
		})
	})
}

// createService creates a service of pods p0 and p1 with a load balancer's address.
func (s scenario) createService(t *testing.T) *corev1.Service {
	t.Helper()
	services := s.Client.CoreV1().Services(metav1.NamespaceDefault)
	service, err := services.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
			Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: balancerIP}}
	if service, err = services.UpdateStatus(t.Context(), service, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	return service
}

func (s scenario) annotateService(t *testing.T, name, annotation, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, annotation, value)
	if _, err := s.Client.CoreV1().Services(metav1.NamespaceDefault).Patch(t.Context(), name, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// bird is a host with Debian's BIRD.
type bird struct{ *testhost.Host }

const (
	birdConfig = "/etc/bird.conf"
	birdSocket = "/run/bird.ctl"
)

// birdSays is what its configuration is to be.
type birdSays struct {
	password string
	// passesOn tells each node what the others say, instead of routes of its own; those of one AS as their reflector.
	passesOn bool
	asn      int             // default: routerASN
	nodeASN  func(i int) int // default: 64512
}

func (b bird) configure(t *testing.T, nodes []*cluster.Node, says birdSays) {
	t.Helper()
	if says.nodeASN == nil {
		says.nodeASN = func(int) int { return 64512 }
	}
	source, role := "RTS_STATIC", ""
	if says.passesOn {
		source = "RTS_BGP"
	}
	if says.asn == says.nodeASN(0) {
		role = "rr client;"
	}
	var text strings.Builder
	fmt.Fprintf(&text, `log stderr all;
router id %s;
protocol device {}
protocol direct { ipv4; }
protocol kernel { ipv4 { export where source = RTS_BGP; }; merge paths on; }
protocol static {
	ipv4;
	route 198.51.100.0/25 blackhole;
	route 0.0.0.0/0 blackhole;
	route 10.96.0.0/24 blackhole;
}
`, b.IP)
	for i, n := range nodes {
		fmt.Fprintf(&text, `protocol bgp %s {
	local as %d;
	neighbor %s as %d;
	%s
	password "%s";
	connect delay time 1;
	connect retry time 2;
	error wait time 1, 2;
	ipv4 { import all; export where source = %s; };
}
`, n.Name(), cmp.Or(says.asn, routerASN), n.Host.IP, says.nodeASN(i), role, says.password, source)
	}
	if err := b.WriteFile(birdConfig, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (b bird) ask(t *testing.T, question ...string) string {
	t.Helper()
	return b.Run(t, append([]string{"birdc", "-s", birdSocket}, question...)...)
}

// established tells whether it has sessions with these nodes, and with no others.
func (b bird) established(t *testing.T, names ...string) error {
	t.Helper()
	out, err := b.Output(t.Context(), "birdc", "-s", birdSocket, "show", "protocols")
	if err != nil {
		return err // it may not have started yet
	}
	var found []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 5 && fields[1] == "BGP" && fields[5] == "Established" {
			found = append(found, fields[0])
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, names) {
		return fmt.Errorf("BIRD has sessions with %v", found)
	}
	return nil
}

// knows tells whether it has heard of a prefix from these nodes, and from no others.
func (b bird) knows(t *testing.T, prefix string, nodes ...*cluster.Node) error {
	t.Helper()
	found, wanted := map[string]bool{}, map[string]bool{}
	for _, n := range nodes {
		wanted[n.Host.IP] = true
	}
	out, err := b.Output(t.Context(), "birdc", "-s", birdSocket, "show", "route", prefix)
	if err != nil && len(nodes) > 0 {
		return err
	}
	for line := range strings.Lines(out) {
		if _, by, ok := strings.Cut(line, "\tvia "); ok {
			found[strings.Fields(by)[0]] = true
		}
	}
	if !maps.Equal(found, wanted) {
		return fmt.Errorf("BIRD knows it from %v, not from %v", slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(wanted)))
	}
	return nil
}

// testerOf is the Tester of a node's host, as a file of the machine.
func testerOf(t *testing.T, node *cluster.Node) string {
	t.Helper()
	data, err := node.Host.ReadFile(cluster.Tester)
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/tester"
	if err := os.WriteFile(file, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}
