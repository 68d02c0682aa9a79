// Package services proves what services promise, with kube-proxy in mode nftables and in mode iptables, by both
// families; and that changed settings of the pod network reach running workers and pods.
package services

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// config has a profile that lets pods run on a machine whose disk is rather full.
const config = `
spec:
  workerProfiles: [{name: default, values: {evictionHard: {imagefs.available: 1%%, nodefs.available: 1%%}}}]
  network:
    kubeProxy: {mode: %s}
    kuberouter: {%s}
    dualStack: {enabled: true, IPv6podCIDR: "fd00:10:244::/56", IPv6serviceCIDR: "fd00:10:96::/112"}
`

// pod is web-0 on w0, web-1 on w1, with a port of their nodes.
const pod = `
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, labels: {app: web, pod: %[1]s}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: "k0s.test/tools:1", imagePullPolicy: Never, command: [tester, serve, ":8080"],
     ports: [{name: tcp, containerPort: 8080, hostPort: %[3]d}, {name: udp, containerPort: 8080, hostPort: %[3]d, protocol: UDP}]}
`

const hostPort = 8081

const service = `
---
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {selector: {%s}, ipFamilyPolicy: RequireDualStack, %s,
  ports: [{name: tcp, port: 80, targetPort: 8080}, {name: udp, protocol: UDP, port: 80, targetPort: 8080}]}
`

// The addresses that somebody's load balancer would have.
var balanced = []string{"198.51.100.7", "2001:db8:100::7"}

type scenario struct {
	*cluster.Cluster
	t      *testing.T
	ctx    context.Context
	w0, w1 *cluster.Node
}

func TestNFTables(t *testing.T) { test(t, "nftables") }

func TestIPTables(t *testing.T) { test(t, "iptables") }

func test(t *testing.T, mode string) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	network := testhost.NewNetwork(t)
	must(t, network.Use(ctx, testhost.DualStack))
	c := cluster.WithWorkers(t, network, fmt.Sprintf(config, mode, ""), "w0", "w1")
	s := &scenario{c, t, ctx, c.Workers()[0], c.Workers()[1]}
	c.Apply(t, fmt.Sprintf(pod, "web-0", "w0", hostPort)+fmt.Sprintf(pod, "web-1", "w1", hostPort)+
		fmt.Sprintf(service, "web", "app: web", "type: NodePort")+
		fmt.Sprintf(service, "own", "pod: web-0", "type: ClusterIP")+
		fmt.Sprintf(service, "sticky", "app: web", "sessionAffinity: ClientIP")+
		fmt.Sprintf(service, "inside", "pod: web-0", "internalTrafficPolicy: Local")+
		fmt.Sprintf(service, "outside", "pod: web-0", "type: LoadBalancer, externalTrafficPolicy: Local")+
		fmt.Sprintf(service, "balanced", "app: web", "type: LoadBalancer"))
	for _, name := range []string{"web-0", "web-1"} {
		c.Pod(t, name, cluster.Ready)
	}
	for _, w := range c.Workers() {
		if got := w.Host.Run(t, "ps", "-C", "kube-proxy", "-o", "args="); !strings.Contains(got, "--proxy-mode="+mode) {
			t.Errorf("kube-proxy runs as %s", got)
		}
	}
	for family := range 2 {
		s.clusterIP(family)
		s.nodePort(family)
		s.datagrams(family)
		s.hostPort(family)
		s.affinity(family)
		s.internal(family)
		s.external(family)
		s.loadBalancer(family)
	}
	s.settings(mode)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *scenario) service(name string) *corev1.Service {
	s.t.Helper()
	service, err := s.Client.CoreV1().Services("default").Get(s.ctx, name, metav1.GetOptions{})
	must(s.t, err)
	return service
}

func (s *scenario) clusterURL(name string, family int) string {
	s.t.Helper()
	return "http://" + net.JoinHostPort(s.service(name).Spec.ClusterIPs[family], "80") + "/"
}

func (s *scenario) nodeURL(w *cluster.Node, name string, family int) string {
	s.t.Helper()
	return "http://" + net.JoinHostPort(address(w.Host, family), fmt.Sprint(s.service(name).Spec.Ports[0].NodePort)) + "/"
}

func address(h *testhost.Host, family int) string { return []string{h.IP, h.IPv6}[family] }

// asker asks an URL once, within a second, on a connection of its own.
type asker func(ctx context.Context, url string) (string, error)

func (s *scenario) host(h *testhost.Host) asker {
	return func(ctx context.Context, url string) (string, error) {
		out, err := h.Output(ctx, "timeout", "1", cluster.Tester, "get", url)
		return strings.TrimSpace(out), err
	}
}

func (s *scenario) pod(name string) asker {
	return func(ctx context.Context, url string) (string, error) {
		return s.Exec(ctx, name, "timeout", "1", "tester", "get", url)
	}
}

// neighbour asks from outside the cluster, on the hosts' network.
func neighbour(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var answer strings.Builder
	if err := response.Write(&answer); err != nil {
		return "", err
	}
	_, body, _ := strings.Cut(answer.String(), "\r\n\r\n")
	return strings.TrimSpace(body), nil
}

// answers asks until each of wants was the beginning of an answer.
func (s *scenario) answers(what string, ask asker, url string, wants ...string) {
	s.t.Helper()
	answered := map[string]bool{}
	if err := s.Eventually(s.ctx, 30*time.Second, what+" at "+url, func(ctx context.Context) error {
		out, err := ask(ctx, url)
		if err != nil {
			return err
		}
		for _, want := range wants {
			if strings.HasPrefix(out+" ", want+" ") {
				answered[want] = true
			}
		}
		if len(answered) < len(wants) {
			return fmt.Errorf("it said %q; of %q only %v were said", out, wants, answered)
		}
		return nil
	}); err != nil {
		s.t.Error(err)
	}
}

// silent complains of an answer. What it is about works from elsewhere already, so that it is not too early.
func (s *scenario) silent(what string, ask asker, url string) {
	s.t.Helper()
	for range 2 {
		if out, err := ask(s.ctx, url); err == nil {
			s.t.Errorf("%s: %s says %q", what, url, out)
		}
	}
}

func (s *scenario) clusterIP(family int) {
	url := s.clusterURL("web", family)
	s.answers("a service from a host", s.host(s.w0.Host), url, "web-0", "web-1")
	s.answers("a service from the other host", s.host(s.w1.Host), url, "web-0", "web-1")
	// Of itself a pod would be answered with hairpin only.
	s.answers("a service from a pod", s.pod("web-1"), s.clusterURL("own", family), "web-0")
	s.answers("a service's name from a pod", s.pod("web-1"), "http://own/", "web-0")
}

func (s *scenario) nodePort(family int) {
	for _, w := range s.Workers() {
		url := s.nodeURL(w, "web", family)
		s.answers("a NodePort from outside", neighbour, url, "web-0", "web-1")
		s.answers("a NodePort from a host that is no node", s.host(s.Host), url, "web-0", "web-1")
		s.answers("a NodePort from a node", s.host(s.w1.Host), url, "web-0", "web-1")
	}
}

// datagrams: by UDP, services and NodePorts answer as by TCP.
func (s *scenario) datagrams(family int) {
	own, web := s.service("own"), s.service("web")
	url := func(host string, port int32) string { return "udp://" + net.JoinHostPort(host, fmt.Sprint(port)) }
	s.answers("a UDP service from a host", s.host(s.w1.Host), url(web.Spec.ClusterIPs[family], 80), "web-0", "web-1")
	s.answers("a UDP service from a pod", s.pod("web-1"), url(own.Spec.ClusterIPs[family], 80), "web-0")
	for _, w := range s.Workers() {
		s.answers("a UDP NodePort from outside", s.host(s.Host), url(address(w.Host, family), web.Spec.Ports[1].NodePort), "web-0", "web-1")
	}
}

// hostPort: a pod answers at its node's addresses, to all.
func (s *scenario) hostPort(family int) {
	for _, scheme := range []string{"http", "udp"} {
		url := func(host string) string { return scheme + "://" + net.JoinHostPort(host, fmt.Sprint(hostPort)) }
		there := address(s.w0.Host, family)
		s.answers("a hostPort from outside", s.host(s.Host), url(there), "web-0 answers "+address(s.Host, family))
		s.answers("a hostPort from a pod of another node", s.pod("web-1"), url(there), "web-0")
		s.answers("a hostPort from its own node", s.host(s.w0.Host), url(there), "web-0")
		if family == 0 { // kernels do not do that with ::1
			s.answers("a hostPort from its own node, by loopback", s.host(s.w0.Host), url("127.0.0.1"), "web-0")
		}
	}
}

// affinity: all requests of a client go to the pod that the first one went to.
func (s *scenario) affinity(family int) {
	url := s.clusterURL("sticky", family)
	ask := func(ctx context.Context, url string) (string, error) { // each must answer: no time limit but the tester's
		return s.w1.Host.Output(ctx, cluster.Tester, "get", url)
	}
	s.answers("a service with affinity", ask, url)
	var first string
	for i := range 12 {
		out, err := ask(s.ctx, url)
		pod, _, _ := strings.Cut(out, " ")
		switch {
		case err != nil:
			s.t.Errorf("a service with affinity: %v", err)
		case i == 0:
			first = pod
		case pod != first:
			s.t.Errorf("a service with affinity: %s answered, and then %s", first, pod)
		}
	}
}

// internal: with internalTrafficPolicy Local, a service is there only on the nodes of its pods.
func (s *scenario) internal(family int) {
	url := s.clusterURL("inside", family)
	s.answers("internalTrafficPolicy Local on the pod's node", s.host(s.w0.Host), url, "web-0")
	s.silent("internalTrafficPolicy Local on the other node's host", s.host(s.w1.Host), url)
	s.silent("internalTrafficPolicy Local on the other node", s.pod("web-1"), url)
}

// external: with externalTrafficPolicy Local, pods see their clients' own addresses, and only their own nodes
// let clients in.
func (s *scenario) external(family int) {
	client := address(s.Host, family)
	s.answers("externalTrafficPolicy Local on the pod's node", s.host(s.Host), s.nodeURL(s.w0, "outside", family), "web-0 answers "+client)
	s.silent("externalTrafficPolicy Local on the other node", s.host(s.Host), s.nodeURL(s.w1, "outside", family))
	s.answers("a service with externalTrafficPolicy Local, from inside", s.host(s.w1.Host), s.clusterURL("outside", family), "web-0")
}

// loadBalancer: the addresses in a service's status answer in the cluster, and on nodes that packets for them
// are brought to.
func (s *scenario) loadBalancer(family int) {
	vip := balanced[family]
	url := "http://" + net.JoinHostPort(vip, "80") + "/"
	patch, err := json.Marshal(map[string]any{"status": corev1.ServiceStatus{LoadBalancer: corev1.LoadBalancerStatus{
		Ingress: []corev1.LoadBalancerIngress{{IP: vip}},
	}}})
	must(s.t, err)
	name := "balanced"
	_, err = s.Client.CoreV1().Services("default").Patch(s.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	must(s.t, err)
	s.answers("a load balancer's address from a node", s.host(s.w1.Host), url, "web-0", "web-1")
	for _, w := range s.Workers() {
		s.Host.Run(s.t, "ip", "route", "replace", vip, "via", address(w.Host, family))
		s.answers("a load balancer's address from outside, by "+w.Name(), s.host(s.Host), url, "web-0", "web-1")
	}
}

// settings: changes of the pod network's settings reach workers that run, and what can be changed of pods that run.
func (s *scenario) settings(mode string) {
	for family := range 2 {
		s.answers("a pod from the other one", s.pod("web-1"), s.clusterURL("own", family), "web-0")
		s.silent("a pod from itself, without hairpin", s.pod("web-0"), s.clusterURL("own", family))
		s.answers("a pod of another node", s.pod("web-1"), s.podURL("web-0", family), "web-0 answers "+s.podIP("web-1", family))
	}
	s.change(mode, "hairpin: Enabled, autoMTU: false, mtu: 1380, ipMasq: true")
	for family := range 2 {
		s.answers("a pod from itself, with hairpin", s.pod("web-0"), s.clusterURL("own", family), "web-0")
		s.answers("a pod of another node, with ipMasq", s.pod("web-1"), s.podURL("web-0", family), "web-0 answers "+address(s.w1.Host, family))
	}
	s.Apply(s.t, fmt.Sprintf(pod, "web-2", "w0", hostPort+1))
	s.Pod(s.t, "web-2", cluster.Ready)
	for pod, want := range map[string]string{"web-0": "1500", "web-2": "1380"} {
		if mtu, err := s.Exec(s.ctx, pod, "cat", "/sys/class/net/eth0/mtu"); err != nil || mtu != want {
			s.t.Errorf("the MTU of %s is %q, %v; want %s", pod, mtu, err, want)
		}
	}
	for family := range 2 {
		s.answers("a new pod from itself, with hairpin", s.pod("web-2"), s.clusterURL("web", family), "web-2", "web-0", "web-1")
	}
}

// change starts the controller anew with other settings, and waits until both workers have them.
func (s *scenario) change(mode, settings string) {
	s.t.Helper()
	_, err := s.Stop(s.ctx)
	must(s.t, err)
	must(s.t, s.Host.WriteFile("/etc/k0s/k0s.yaml", fmt.Appendf(nil, config, mode, settings), 0o600))
	must(s.t, s.Start())
	must(s.t, s.WaitAPI(s.ctx))
	for _, w := range s.Workers() {
		must(s.t, s.Eventually(s.ctx, time.Minute, "the settings to reach "+w.Name(), func(context.Context) error {
			content, err := w.Host.ReadFile("/etc/cni/net.d/10-kuberouter.conflist")
			if err == nil && !strings.Contains(string(content), "1380") {
				err = fmt.Errorf("it has %s", content)
			}
			return err
		}))
	}
}

func (s *scenario) podIP(name string, family int) string {
	s.t.Helper()
	pod, err := s.Client.CoreV1().Pods("default").Get(s.ctx, name, metav1.GetOptions{})
	must(s.t, err)
	return pod.Status.PodIPs[family].IP
}

func (s *scenario) podURL(name string, family int) string {
	s.t.Helper()
	return "http://" + net.JoinHostPort(s.podIP(name, family), "8080") + "/"
}
