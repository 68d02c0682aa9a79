package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const (
	streamTime = 4 * time.Second // of one measurement
	roundTrips = 20000
	port       = 5201
)

// place is where packets come from or go to: the network of a host, or of a pod on it.
type place struct {
	pid     int // a process there, on the machine
	address string
}

// measureNetwork compares what two hosts can send to each other with what pods on them can, taking turns, and
// what packets cost within one.
func measureNetwork(ctx context.Context, o options, r *Report) (err error) {
	if err := measurePacket(ctx, r); err != nil {
		return err
	}
	network, err := testhost.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close()) }()
	var nodes []*cluster.Node
	var c *cluster.Cluster
	for _, name := range []string{"bench1", "bench2"} {
		host, err := network.Boot(ctx, name)
		if err != nil {
			return err
		}
		if err := cluster.Install(host); err != nil {
			return err
		}
		if c == nil {
			c = cluster.New(host, "--enable-worker")
			if err := errors.Join(c.Start(), c.WaitAPI(ctx)); err != nil {
				return err
			}
			nodes = append(nodes, &c.Node)
			continue
		}
		node, err := c.Join(ctx, host, cluster.Worker)
		if err != nil {
			return err
		}
		nodes = append(nodes, node)
	}
	if err := c.WaitNodes(ctx, nodes...); err != nil {
		return err
	}
	var hosts, pods []place
	for _, n := range nodes {
		pod, err := podOn(ctx, c, n)
		if err != nil {
			return err
		}
		pods = append(pods, pod)
		hosts = append(hosts, place{n.Host.Pid(), n.Host.IP})
	}
	// The system pods start meanwhile.
	if err := c.WaitSystemPods(ctx); err != nil {
		return err
	}
	for range o.runs {
		if err := r.compare("throughput", hosts, pods, func(from, to place) (float64, error) { return stream(ctx, from, to) }); err != nil {
			return err
		}
		if err := r.compare("round trip", hosts, pods, roundTrip); err != nil {
			return err
		}
	}
	return nil
}

// compare measures something between hosts and between pods, and adds both and the ratio, in which more is better.
func (r *Report) compare(what string, hosts, pods []place, measure func(from, to place) (float64, error)) error {
	host, err1 := measure(hosts[0], hosts[1])
	pod, err2 := measure(pods[0], pods[1])
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("measuring %s: %w", what, err)
	}
	r.add("network: "+what+", hosts", host)
	r.add("network: "+what+", pods", pod)
	more := pod / host
	if what == "round trip" {
		more = host / pod
	}
	r.add("network: "+what+", pods to hosts", more)
	return nil
}

// stream is how many Gbit/s iperf3 gets through one TCP connection.
func stream(ctx context.Context, from, to place) (float64, error) {
	iperf := func(in place, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--target", strconv.Itoa(in.pid), "--net", "iperf3"}, args...)...)
		cmd.Stderr = os.Stderr
		return cmd
	}
	server := iperf(to, "--server", "--one-off", "--forceflush")
	says, err := server.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := server.Start(); err != nil {
		return 0, fmt.Errorf("%w: apt-get install iperf3", err)
	}
	lines := bufio.NewScanner(says)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening") {
	}
	out, err := iperf(from, "--client", to.address, "--time", fmt.Sprint(streamTime.Seconds()), "--omit", "1", "--json").Output()
	if err != nil {
		_ = server.Process.Kill()
	}
	for lines.Scan() { // or it would wait for somebody to read
	}
	if err := errors.Join(err, server.Wait()); err != nil {
		return 0, fmt.Errorf("iperf3 to %s: %w: %s", to.address, err, out)
	}
	var report struct {
		End struct {
			Received struct {
				BitsPerSecond float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0, fmt.Errorf("what iperf3 says: %w", err)
	}
	return report.End.Received.BitsPerSecond / 1e9, nil
}

// roundTrip is the median time, in µs, until one byte sent by UDP is back.
func roundTrip(from, to place) (float64, error) {
	var server, client net.Conn
	err := errors.Join(
		testhost.InNetwork(to.pid, func() (err error) {
			server, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(to.address), Port: port})
			return err
		}),
		testhost.InNetwork(from.pid, func() (err error) {
			client, err = net.DialUDP("udp", nil, &net.UDPAddr{IP: net.ParseIP(to.address), Port: port})
			return err
		}))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1)
		for {
			_, sender, err := server.(*net.UDPConn).ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = server.(*net.UDPConn).WriteTo(buffer, sender)
		}
	}()
	defer func() { server.Close(); <-done }()
	if err := client.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return 0, err
	}
	var took []float64
	buffer := make([]byte, 1)
	for range roundTrips {
		begin := time.Now()
		if _, err := client.Write(buffer); err != nil {
			return 0, err
		}
		if _, err := client.Read(buffer); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(begin).Nanoseconds())/1000)
	}
	return median(took), nil
}

// podOn starts a pod on a node that does nothing itself.
func podOn(ctx context.Context, c *cluster.Cluster, n *cluster.Node) (place, error) {
	if err := c.WaitDefaultServiceAccount(ctx); err != nil {
		return place{}, err
	}
	pods := c.Client.CoreV1().Pods(metav1.NamespaceDefault)
	name := "on-" + n.Name()
	if _, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{NodeName: n.Name(), TerminationGracePeriodSeconds: new(int64), PriorityClassName: "system-node-critical",
			Containers: []corev1.Container{{Name: "main", Image: pauseImage, ImagePullPolicy: corev1.PullNever}}},
	}, metav1.CreateOptions{}); err != nil {
		return place{}, err
	}
	if err := c.WaitPod(ctx, metav1.NamespaceDefault, name, cluster.Running); err != nil {
		return place{}, err
	}
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return place{}, err
	}
	pid, err := n.PodProcess(pod)
	return place{pid, pod.Status.PodIP}, err
}
