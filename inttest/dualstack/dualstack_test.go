// Package dualstack proves that pods and services talk by IPv4, by IPv6, and by both, across nodes.
package dualstack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const (
	podCIDR, podCIDR6         = "10.244.0.0/16", "fd00:10:244::/56"
	serviceCIDR, serviceCIDR6 = "10.96.0.0/12", "fd00:10:96::/112"
)

// profile lets pods run on a machine whose disk is rather full.
const profile = "  workerProfiles: [{name: default, values: {evictionHard: {imagefs.available: 1%, nodefs.available: 1%}}}]\n"

// manifests are a pod per worker behind a service that takes the families it gets, and one that prefers both;
// and a pod for questions on each host's own network.
const manifests = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: main, image: "k0s.test/tools:1", imagePullPolicy: Never, command: [tester, serve, ":8080"],
         ports: [{name: tcp, containerPort: 8080, hostPort: 8081}, {name: udp, containerPort: 8080, hostPort: 8081, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: plain}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: both}
spec:
  {type: NodePort, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [
    {name: tcp, port: 80, targetPort: 8080, nodePort: 30080}, {name: udp, protocol: UDP, port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {app: web}, ports: [{port: 8080}]}
`

// scenario is a cluster of a controller and two workers.
type scenario struct {
	*cluster.Cluster
	network *testhost.Network
	t       *testing.T
	ctx     context.Context
	workers []*cluster.Node
	// families that the cluster has, the primary one first.
	families []corev1.IPFamily
	pods     []corev1.Pod
}

func start(t *testing.T, hosts testhost.Families, config string, families ...corev1.IPFamily) *scenario {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	network := testhost.NewNetwork(t)
	must(t, network.Use(ctx, hosts))
	s := &scenario{Cluster: cluster.WithWorkers(t, network, "spec:\n"+profile+"  network: "+config, "w0", "w1"), network: network, t: t, ctx: ctx, families: families}
	s.workers = s.Workers()
	s.Apply(t, manifests)
	must(t, cluster.Watch(ctx, s.Client.CoreV1().RESTClient(), "pods", "default", func(all map[string]*corev1.Pod) error {
		s.pods = nil
		for _, pod := range all {
			if err := cluster.Ready(pod); err != nil {
				return err
			}
			s.pods = append(s.pods, *pod)
		}
		if len(s.pods) != len(s.workers) {
			return fmt.Errorf("there are %d pods on %d workers", len(s.pods), len(s.workers))
		}
		return nil
	}))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func familyOf(address string) corev1.IPFamily {
	if ip, err := netip.ParseAddr(address); err == nil && ip.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// hasFamilies complains unless these are one address, or network, of each family that the cluster has, in order.
func (s *scenario) hasFamilies(what string, addresses []string) {
	s.t.Helper()
	var families []corev1.IPFamily
	for _, address := range addresses {
		address, _, _ = strings.Cut(address, "/")
		families = append(families, familyOf(address))
	}
	if !slices.Equal(families, s.families) {
		s.t.Errorf("%s: has %v, not one of each of %v", what, addresses, s.families)
	}
}

func ips(pod *corev1.Pod) []string {
	var all []string
	for _, ip := range pod.Status.PodIPs {
		all = append(all, ip.IP)
	}
	return all
}

func (s *scenario) service(namespace, name string) *corev1.Service {
	s.t.Helper()
	service, err := s.Client.CoreV1().Services(namespace).Get(s.ctx, name, metav1.GetOptions{})
	must(s.t, err)
	return service
}

// objects checks the addresses that the API tells of.
func (s *scenario) objects() {
	nodes, err := s.Client.CoreV1().Nodes().List(s.ctx, metav1.ListOptions{})
	must(s.t, err)
	for _, node := range nodes.Items {
		var addresses []string
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				addresses = append(addresses, address.Address)
			}
		}
		s.hasFamilies("node "+node.Name, addresses)
		s.hasFamilies("node "+node.Name+"'s pod CIDRs", node.Spec.PodCIDRs)
	}
	for _, pod := range s.pods {
		s.hasFamilies("pod "+pod.Name, ips(&pod))
	}
	for name, service := range map[string]*corev1.Service{
		"both": s.service("default", "both"), "headless": s.service("default", "headless"), "cluster DNS": s.service("kube-system", "kube-dns"),
	} {
		if !slices.Equal(service.Spec.IPFamilies, s.families) {
			s.t.Errorf("service %s has the families %v, not %v", name, service.Spec.IPFamilies, s.families)
		}
	}
	for name, service := range map[string]*corev1.Service{"plain": s.service("default", "plain"), "kubernetes": s.service("default", "kubernetes")} {
		if !slices.Equal(service.Spec.IPFamilies, s.families[:1]) || familyOf(service.Spec.ClusterIP) != s.families[0] {
			s.t.Errorf("service %s has %s of %v, not an address of %s", name, service.Spec.ClusterIP, service.Spec.IPFamilies, s.families[0])
		}
	}
}

func url(host, port string) string { return "http://" + net.JoinHostPort(host, port) + "/" }

// asks has a host and its pod ask until both have had an answer that begins with one of these.
func (s *scenario) asks(w *cluster.Node, url string, wants ...string) {
	s.t.Helper()
	askers := map[string]func(context.Context) (string, error){
		"host " + w.Name(): func(ctx context.Context) (string, error) {
			return w.Host.Output(ctx, "timeout", "2", cluster.Tester, "get", url)
		},
	}
	for _, pod := range s.pods {
		if pod.Spec.NodeName == w.Name() {
			askers["pod "+pod.Name+" on "+w.Name()] = func(ctx context.Context) (string, error) {
				return s.Exec(ctx, pod.Name, "timeout", "2", "tester", "get", url)
			}
		}
	}
	for asker, ask := range askers {
		answered := map[string]bool{}
		if err := s.Eventually(s.ctx, 20*time.Second, url+" to answer "+asker, func(ctx context.Context) error {
			out, err := ask(ctx)
			if err != nil {
				return err
			}
			for _, want := range wants {
				if strings.HasPrefix(out, want+" ") {
					answered[want] = true
				}
			}
			if len(answered) < len(wants) {
				return fmt.Errorf("it said %q; of %v only %v have answered", out, wants, answered)
			}
			return nil
		}); err != nil {
			s.t.Error(err)
		}
	}
}

// talk has every host and pod reach every pod and service by all of their addresses.
func (s *scenario) talk() {
	var names []string
	for _, pod := range s.pods {
		names = append(names, pod.Name)
	}
	for _, w := range s.workers {
		for _, pod := range s.pods {
			for _, ip := range ips(&pod) {
				s.asks(w, url(ip, "8080"), pod.Name)
			}
		}
		for _, ip := range s.service("default", "both").Spec.ClusterIPs {
			s.asks(w, url(ip, "80"), names...)
		}
		s.asks(w, url(s.service("default", "plain").Spec.ClusterIP, "80"), names...)
		for _, host := range s.hostAddresses(s.workers[0].Host) {
			s.asks(w, url(host, "30080"), names...)
		}
	}
}

// datagrams has every host and pod reach services, NodePorts and hostPorts by UDP, and hostPorts by TCP, too.
func (s *scenario) datagrams() {
	udp := func(host, port string) string { return "udp://" + net.JoinHostPort(host, port) }
	there := s.workers[0]
	var names, ports []string // of all pods, and of that with the host's port there
	for _, pod := range s.pods {
		names = append(names, pod.Name)
		if pod.Spec.NodeName == there.Name() {
			ports = append(ports, pod.Name)
		}
	}
	for _, w := range s.workers {
		for _, ip := range s.service("default", "both").Spec.ClusterIPs {
			s.asks(w, udp(ip, "80"), names...)
		}
		for _, host := range s.hostAddresses(there.Host) {
			s.asks(w, udp(host, "30080"), names...)
			s.asks(w, udp(host, "8081"), ports...)
			s.asks(w, url(host, "8081"), ports...)
		}
	}
}

// hostAddresses are those of the families that the cluster has.
func (s *scenario) hostAddresses(h *testhost.Host) []string {
	var all []string
	for _, address := range []string{h.IP, h.IPv6} {
		if address != "" && slices.Contains(s.families, familyOf(address)) {
			all = append(all, address)
		}
	}
	return all
}

// names has pods look names up, and use them.
func (s *scenario) names() {
	for _, pod := range s.pods {
		var pods []string
		for _, other := range s.pods {
			pods = append(pods, ips(&other)...)
		}
		for name, want := range map[string][]string{
			"both": s.service("default", "both").Spec.ClusterIPs, "plain": s.service("default", "plain").Spec.ClusterIPs, "headless": pods,
			"kubernetes.default.svc.cluster.local": s.service("default", "kubernetes").Spec.ClusterIPs,
		} {
			want := slices.Sorted(slices.Values(want))
			if err := s.Eventually(s.ctx, 20*time.Second, "the name "+name, func(ctx context.Context) error {
				out, err := s.Exec(ctx, pod.Name, "tester", "lookup", name)
				if err == nil && out != strings.Join(want, "\n") {
					err = fmt.Errorf("it is %q, not %q", out, want)
				}
				return err
			}); err != nil {
				s.t.Error(err)
			}
		}
		const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
		out, err := s.Exec(s.ctx, pod.Name, "tester", "get", "-ca", account+"ca.crt", "-token", account+"token", "https://kubernetes.default/version")
		if err != nil || !strings.Contains(out, `"gitVersion"`) {
			s.t.Errorf("a pod asks the API for its version: %q, %v", out, err)
		}
	}
}

// outside has pods talk to a host that is no node: it sees the address of their node.
func (s *scenario) outside() {
	server, err := s.Host.Start("outside", cluster.Tester, "serve", ":8888")
	must(s.t, err)
	defer func() {
		if err := server.Signal(9); err != nil {
			s.t.Error(err)
		}
	}()
	for _, w := range s.workers {
		for i, outside := range s.hostAddresses(s.Host) {
			want := "c answers " + s.hostAddresses(w.Host)[i]
			for _, pod := range s.pods {
				if pod.Spec.NodeName != w.Name() {
					continue
				}
				if err := s.Eventually(s.ctx, 20*time.Second, "the outside to answer", func(ctx context.Context) error {
					out, err := s.Exec(ctx, pod.Name, "timeout", "2", "tester", "get", url(outside, "8888"))
					if err == nil && out != want {
						err = fmt.Errorf("it says %q, not %q", out, want)
					}
					return err
				}); err != nil {
					s.t.Error(err)
				}
			}
		}
	}
}

func (s *scenario) all() {
	s.objects()
	s.talk()
	s.names()
	s.outside()
}

// dual has hairpin, because pods ask services whose pods they are.
const dual = `{kuberouter: {hairpin: Enabled}, primaryAddressFamily: %s, podCIDR: ` + podCIDR + `, serviceCIDR: ` + serviceCIDR +
	`, dualStack: {enabled: true, IPv6podCIDR: "` + podCIDR6 + `", IPv6serviceCIDR: "` + serviceCIDR6 + `"}}`

func TestIPv4First(t *testing.T) {
	start(t, testhost.DualStack, fmt.Sprintf(dual, `""`), corev1.IPv4Protocol, corev1.IPv6Protocol).all()
}

func TestIPv6First(t *testing.T) {
	start(t, testhost.DualStack, fmt.Sprintf(dual, "IPv6"), corev1.IPv6Protocol, corev1.IPv4Protocol).all()
}

// TestIPv6 is on hosts that have no IPv4 address. A second controller joins, and workers can do with it alone.
func TestIPv6(t *testing.T) {
	config := `{kuberouter: {hairpin: Enabled}, podCIDR: "` + podCIDR6 + `", serviceCIDR: "` + serviceCIDR6 + `"}`
	s := start(t, testhost.IPv6, config, corev1.IPv6Protocol)
	s.all()
	s.datagrams()

	h := cluster.Hosts(t, s.network, "c1")[0]
	h.Run(t, "mkdir", "-p", "/etc/k0s")
	must(t, h.WriteFile("/etc/k0s/k0s.yaml", []byte("spec:\n"+profile+"  network: "+config), 0o600))
	second, err := s.Join(s.ctx, h, cluster.Controller)
	must(t, err)
	must(t, s.WaitControllers(s.ctx, second))
	must(t, second.WaitReady(s.ctx))
	must(t, s.CheckOneCluster(s.ctx))

	w := s.workers[0]
	must(t, s.Eventually(s.ctx, 30*time.Second, "the worker to know both controllers", func(context.Context) error {
		servers, err := w.Host.ReadFile(w.DataDir + "/api-servers.json")
		if err == nil && !strings.Contains(string(servers), "["+h.IP+"]:6443") {
			err = fmt.Errorf("it knows %s", servers)
		}
		return err
	}))
	s.forwarding(w)
}

// forwarding: a host that forwards goes on heeding router advertisements where it had a route of one, and has
// its settings back after a reset.
func (s *scenario) forwarding(w *cluster.Node) {
	const accept, forward = "/proc/sys/net/ipv6/conf/eth0/accept_ra", "/proc/sys/net/ipv6/conf/all/forwarding"
	read := func() string { return strings.Join(strings.Fields(w.Host.Run(s.t, "cat", accept, forward)), " ") }
	if got := read(); got != "1 1" {
		s.t.Errorf("accept_ra and forwarding are %s on a host without router", got)
	}
	_, err := w.Stop(s.ctx)
	must(s.t, err)
	w.Host.Run(s.t, "ip", "-6", "route", "replace", "default", "via", s.network.Gateway6(), "dev", "eth0", "proto", "ra")
	must(s.t, w.Start())
	must(s.t, w.WaitReady(s.ctx))
	if got := read(); got != "2 1" {
		s.t.Errorf("accept_ra and forwarding are %s on a host with a router", got)
	}
	_, err = w.Stop(s.ctx)
	must(s.t, err)
	w.Host.Run(s.t, cluster.Program, "reset")
	if got := read(); got != "1 0" {
		s.t.Errorf("accept_ra and forwarding are %s after a reset", got)
	}
	if left := w.Host.Run(s.t, "ip", "-6", "route", "show", "table", "all", "proto", "107"); left != "" {
		s.t.Errorf("after a reset there are the routes %s", left)
	}
}
