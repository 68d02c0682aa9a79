package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// pauseImage is one that every node has.
const pauseImage = "k0s.io/pause:3.10.2"

// pod is one that does nothing itself: the test does it in its network.
type pod struct {
	name    string
	node    *cluster.Node
	network netip.Prefix     // that its node is on
	address netip.AddrPort   // that of the primary family
	others  []netip.AddrPort // those of the other family
	pid     int
	// listeners are the test's, and keep the pod's network until they are closed.
	listeners []io.Closer
}

// network24 is the node's pod CIDR.
func (p *pod) network24() netip.Prefix { return netip.PrefixFrom(p.address.Addr(), 24).Masked() }

// startPods starts a pod on each node that answers what it is sent, by TCP and UDP.
func startPods(ctx context.Context, t *testing.T, c *cluster.Cluster, nodes ...*cluster.Node) []*pod {
	t.Helper()
	must(t, c.WaitDefaultServiceAccount(ctx))
	api := c.Client.CoreV1().Pods(metav1.NamespaceDefault)
	for _, n := range nodes {
		_, err := api.Create(ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "on-" + n.Name()},
			// Critical, so that it does not matter here how full the machine's disk is.
			Spec: corev1.PodSpec{NodeName: n.Name(), TerminationGracePeriodSeconds: new(int64), PriorityClassName: "system-node-critical",
				Containers: []corev1.Container{{Name: "main", Image: pauseImage, ImagePullPolicy: corev1.PullNever}}},
		}, metav1.CreateOptions{})
		must(t, err)
	}
	var pods []*pod
	for _, n := range nodes {
		name := "on-" + n.Name()
		c.Pod(t, name, cluster.Running)
		object, err := api.Get(ctx, name, metav1.GetOptions{})
		must(t, err)
		pid, err := n.PodProcess(object)
		must(t, err)
		host := netip.MustParseAddr(n.Host.IP)
		p := &pod{name: name, node: n, network: netip.PrefixFrom(host, 24).Masked(),
			address: netip.AddrPortFrom(netip.MustParseAddr(object.Status.PodIP), 7), pid: pid}
		for _, ip := range object.Status.PodIPs[1:] {
			p.others = append(p.others, netip.AddrPortFrom(netip.MustParseAddr(ip.IP), 7))
		}
		must(t, p.in(p.serve))
		t.Cleanup(func() { p.close(t) })
		pods = append(pods, p)
	}
	return pods
}

// in does something in the pod's network.
func (p *pod) in(do func() error) error {
	if err := testhost.InNetwork(p.pid, do); err != nil {
		return fmt.Errorf("in the pod %s: %w", p.name, err)
	}
	return nil
}

// serve sends back what arrives, by TCP and UDP, until close.
func (p *pod) serve() error {
	for _, address := range append(p.others, p.address) {
		if err := p.serveAt(address); err != nil {
			return err
		}
	}
	return nil
}

func (p *pod) serveAt(address netip.AddrPort) error {
	listener, err := net.Listen("tcp", address.String())
	if err != nil {
		return err
	}
	p.listeners = append(p.listeners, listener)
	datagrams, err := net.ListenPacket("udp", address.String())
	if err != nil {
		return err
	}
	p.listeners = append(p.listeners, datagrams)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // until the other end has ended, or the test
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, from, err := datagrams.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = datagrams.WriteTo(buffer[:n], from)
		}
	}()
	return nil
}

func (p *pod) close(t *testing.T) {
	t.Helper()
	for _, l := range p.listeners {
		must(t, l.Close())
	}
	p.listeners = nil
}

// exchange has the pod send to another one, and get the same back.
func (p *pod) exchange(ctx context.Context, to *pod) error {
	return p.in(func() error {
		for _, address := range append(to.others, to.address) {
			if err := exchange(ctx, address); err != nil {
				return err
			}
		}
		return nil
	})
}

// The largest datagrams that are not cut into pieces on an Ethernet: behind the headers of IPv4 and UDP, of IPv6 and UDP.
const largest4, largest6 = 1500 - 20 - 8, 1500 - 40 - 8

// exchange sends a MiB, and datagrams of many sizes. Before it come some that nobody waits for: by losing the
// first that is too large for the tunnel, each end learns how large they may be, as on any way with a narrower part.
func exchange(ctx context.Context, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for range 3 { // lost on the way there, on the way back, and nowhere
		conn, err := dial(ctx, "udp", to)
		if err != nil {
			return err
		}
		if to.Addr().Is4() {
			_, _ = conn.Write(make([]byte, largest4))
		} else {
			_, _ = conn.Write(make([]byte, largest6))
		}
		conn.Close()
	}
	if err := stream(ctx, to); err != nil {
		return fmt.Errorf("a MiB by TCP to %s and back: %w", to, err)
	}
	for _, size := range []int{1, 1000, 1372, 1373, 1400, 1422, 1423, largest6, largest6 + 1, largest4, largest4 + 1, 8000, 60000} {
		if err := datagram(ctx, to, size); err != nil {
			return fmt.Errorf("%d bytes by UDP to %s and back: %w", size, to, err)
		}
	}
	return nil
}

func stream(ctx context.Context, to netip.AddrPort) error {
	conn, err := dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		written <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return errors.New("something else came back")
	}
	return <-written
}

func datagram(ctx context.Context, to netip.AddrPort, size int) error {
	conn, err := dial(ctx, "udp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	sent := bytes.Repeat([]byte{byte(size)}, size)
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	got := make([]byte, 1<<16)
	n, err := conn.Read(got)
	if err != nil {
		return err
	}
	if !bytes.Equal(got[:n], sent) {
		return errors.New("something else came back")
	}
	return nil
}

func dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	limit, _ := ctx.Deadline()
	return conn, conn.SetDeadline(limit)
}

// exchangeAll waits until each pod can exchange with each.
func exchangeAll(ctx context.Context, t *testing.T, c *cluster.Cluster, pods []*pod) {
	t.Helper()
	begin := time.Now()
	for _, from := range pods {
		for _, to := range pods {
			must(t, c.Eventually(ctx, cluster.Patience, "packets to get from "+from.name+" to "+to.name, func(ctx context.Context) error {
				return from.exchange(ctx, to)
			}))
		}
	}
	t.Logf("%d pods have exchanged with each other after %.2f s", len(pods), time.Since(begin).Seconds())
}
