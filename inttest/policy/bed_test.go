// Package policy proves that NetworkPolicy objects are obeyed: what passes between pods is compared with what
// an oracle says of the objects.
package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/policy/oracle"
	"k0s.io/k0s/inttest/testhost"
	"k0s.io/k0s/inttest/testimage"
)

// bed is a cluster with pods that probe each other.
type bed struct {
	*cluster.Cluster
	workers    []*cluster.Node
	namespaces map[string]labels.Set
	places     []*place
}

// place is a pod that runs the tester's probe server. One in its node's network stands for that node.
type place struct {
	name   string // NAMESPACE/NAME
	pod    *corev1.Pod
	node   *cluster.Node
	socket string // to ask it by, from this machine
	ends   []oracle.End
	// services are the addresses of a service that leads to the pod alone.
	services []netip.Addr
}

// probed are the ports that every place listens to, by TCP and by UDP.
var probed = []int32{8000, 8001, 8005}

// servedPort is the one of them that services have.
const servedPort = 8001

// socketDir is where places have their sockets, on their host.
const socketDir = "/tmp/probes"

// newBed starts a controller and workers on hosts with these families; network is spec.network of their k0s.yaml.
func newBed(t *testing.T, families testhost.Families, network string, names ...string) *bed {
	t.Helper()
	hosts := testhost.NewNetwork(t)
	if err := hosts.Use(t.Context(), families); err != nil {
		t.Fatal(err)
	}
	// The machine's disk, which may be full of other things, is all of the hosts'.
	const profile = "spec:\n  workerProfiles: [{name: default, values: {evictionHard: {imagefs.available: 1%, nodefs.available: 1%}}}]\n"
	b := &bed{Cluster: cluster.WithWorkers(t, hosts, profile+"  network: "+network+"\n", names...), namespaces: map[string]labels.Set{}}
	b.workers = slices.SortedFunc(slices.Values(b.Workers()), func(a, b *cluster.Node) int { return strings.Compare(a.Name(), b.Name()) })
	return b
}

// namespace creates a namespace in which pods can be created.
func (b *bed) namespace(t *testing.T, name string, label map[string]string) {
	t.Helper()
	ns, err := b.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: label}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.namespaces[name] = ns.Labels
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	defer cancel()
	err = cluster.Watch(ctx, b.Client.CoreV1().RESTClient(), "serviceaccounts", name, func(all map[string]*corev1.ServiceAccount) error {
		if all["default"] == nil {
			return errors.New("there is no ServiceAccount default")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// image is a container of the test image.
func image(command ...string) corev1.Container {
	return corev1.Container{Name: "main", Image: testimage.Name, ImagePullPolicy: corev1.PullNever, Command: command}
}

// newPod is a pod bound to a node that needs nothing and ends at once.
func newPod(namespace, name, node string, label map[string]string, container corev1.Container) *corev1.Pod {
	no, none := false, int64(0)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: label},
		Spec: corev1.PodSpec{
			NodeName: node, AutomountServiceAccountToken: &no, EnableServiceLinks: &no, TerminationGracePeriodSeconds: &none,
			Containers: []corev1.Container{container},
		},
	}
}

// place creates a pod that probes; ports are those that it has names for.
func (b *bed) place(t *testing.T, node *cluster.Node, namespace, name string, label map[string]string, ports ...corev1.ContainerPort) {
	t.Helper()
	command := []string{"tester", "probe", "/probes/" + namespace + "-" + name}
	for _, port := range probed {
		command = append(command, strconv.Itoa(int(port)))
	}
	container := image(command...)
	container.Ports = ports
	container.VolumeMounts = []corev1.VolumeMount{{Name: "probes", MountPath: "/probes"}}
	pod := newPod(namespace, name, node.Name(), label, container)
	kind := corev1.HostPathDirectoryOrCreate
	pod.Spec.Volumes = []corev1.Volume{{Name: "probes", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: socketDir, Type: &kind}}}}
	pod.Spec.HostNetwork = strings.HasPrefix(name, "host")
	pod, err := b.Client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p := b.find(namespace + "/" + name)
	if p == nil {
		p = &place{name: namespace + "/" + name}
		b.places = append(b.places, p)
	}
	p.pod, p.node = pod, node
	p.socket = filepath.Join(fmt.Sprintf("/proc/%d/root", node.Host.Pid()), socketDir, namespace+"-"+name)
}

// serve makes a service of the pod in a namespace that is labelled so.
func (b *bed) serve(t *testing.T, namespace, pod string) {
	t.Helper()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"pod": pod}, IPFamilyPolicy: new(corev1.IPFamilyPolicyPreferDualStack),
	}}
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: strings.ToLower(string(protocol)), Protocol: protocol, Port: servedPort})
	}
	s, err := b.Client.CoreV1().Services(namespace).Create(t.Context(), s, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range s.Spec.ClusterIPs {
		p := b.find(namespace + "/" + pod)
		p.services = append(p.services, netip.MustParseAddr(ip))
	}
}

// waitPlaces waits until all places run, and learns their addresses.
func (b *bed) waitPlaces(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Patience)
	defer cancel()
	for _, p := range b.places {
		err := b.WaitPod(ctx, p.pod.Namespace, p.pod.Name, func(pod *corev1.Pod) error {
			p.pod = pod
			return cluster.Ready(pod)
		})
		if err != nil {
			t.Fatal(err)
		}
		p.ends = nil
		for _, ip := range p.pod.Status.PodIPs {
			p.ends = append(p.ends, oracle.End{Node: p.node.Name(), Addr: netip.MustParseAddr(ip.IP), Pod: p.pod})
		}
	}
}

func (b *bed) find(name string) *place {
	i := slices.IndexFunc(b.places, func(p *place) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return b.places[i]
}

// end is the place's address of a family.
func (p *place) end(v6 bool) (oracle.End, bool) {
	i := slices.IndexFunc(p.ends, func(e oracle.End) bool { return e.Addr.Is6() == v6 })
	if i < 0 {
		return oracle.End{}, false
	}
	return p.ends[i], true
}

// nine are pods a, b and c in each of the namespaces red, green and blue, over three nodes such that each node
// has two of one namespace and one of another; and one in each node's own network.
func (b *bed) nine(t *testing.T) {
	t.Helper()
	tcp := func(name string, port int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: name, ContainerPort: port}
	}
	udp := func(name string, port int32) corev1.ContainerPort {
		return corev1.ContainerPort{Name: name, ContainerPort: port, Protocol: corev1.ProtocolUDP}
	}
	for i, ns := range []struct{ name, tier string }{{"red", "front"}, {"green", "back"}, {"blue", ""}} {
		label := map[string]string{"colour": ns.name}
		if ns.tier != "" {
			label["tier"] = ns.tier
		}
		b.namespace(t, ns.name, label)
		here, there := b.workers[i], b.workers[(i+1)%len(b.workers)]
		b.place(t, here, ns.name, "a", map[string]string{"pod": "a", "role": "web"}, tcp("web", 8000), udp("dns", 8005))
		b.place(t, here, ns.name, "b", map[string]string{"pod": "b", "role": "db", "env": "prod"}, tcp("web", 8001), udp("dns", 8000))
		b.place(t, there, ns.name, "c", map[string]string{"pod": "c", "role": "web", "env": "test"}, tcp("web", 8005))
	}
	for _, p := range b.places {
		b.serve(t, p.pod.Namespace, p.pod.Name)
	}
	for _, w := range b.workers {
		b.place(t, w, "red", "host-"+w.Name(), map[string]string{"pod": "host", "role": "web"})
	}
	b.waitPlaces(t)
}
