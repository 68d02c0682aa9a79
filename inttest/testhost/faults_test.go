package testhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// reach says how an attempt to connect from one host to another ends: nothing listens, so the answer
// "refused" has come all the way back. That is waited for, if it is what is to come.
func reach(t *testing.T, from, to *Host, port int, want string) string {
	t.Helper()
	patience := 0.5
	if want == "refused" {
		patience = 10
	}
	out := from.Run(t, "timeout", "30", "bash", "-c", fmt.Sprintf(
		`timeout %v bash -c '</dev/tcp/%s/%d' 2>&1 | grep -qi refused && echo refused || echo silence`, patience, to.IP, port))
	return strings.TrimSpace(out)
}

func TestCutLink(t *testing.T) {
	n := NewNetwork(t)
	a, b, c := n.Host(t, "a"), n.Host(t, "b"), n.Host(t, "c")
	expect := func(when string, want string) {
		t.Helper()
		for _, pair := range [][2]*Host{{a, b}, {b, a}} {
			if got := reach(t, pair[0], pair[1], 9, want); got != want {
				t.Errorf("%s: %s to %s: %s", when, pair[0].Name, pair[1].Name, got)
			}
		}
		if got := reach(t, b, c, 9, "refused"); got != "refused" {
			t.Errorf("%s: b to c: %s", when, got)
		}
	}
	expect("at first", "refused")
	must(t, a.CutLink(t.Context()))
	expect("cut", "silence")
	must(t, a.Reboot(t.Context()))
	expect("cut and rebooted", "silence")
	must(t, a.JoinLink(t.Context()))
	expect("joined", "refused")
}

func TestSlowLink(t *testing.T) {
	n := NewNetwork(t)
	a := n.Host(t, "a")
	l, err := net.Listen("tcp", net.JoinHostPort(n.Gateway, "0"))
	must(t, err)
	defer l.Close()
	const megabyte = 1 << 20
	// out and in are how long a megabyte takes from the host to the machine, and back.
	measure := func() (out, in time.Duration) {
		t.Helper()
		for took, command := range map[*time.Duration]string{
			&out: "head -c 1048576 /dev/zero >/dev/tcp/%s", &in: "[ $(wc -c </dev/tcp/%s) -eq 1048576 ]",
		} {
			ended := make(chan error, 1)
			go func() {
				c, err := l.Accept()
				if err == nil && took == &out {
					_, err = io.CopyN(io.Discard, c, megabyte)
				} else if err == nil {
					_, err = c.Write(make([]byte, megabyte))
				}
				ended <- errors.Join(err, c.Close())
			}()
			begin := time.Now()
			a.Run(t, "bash", "-c", fmt.Sprintf(command, strings.Replace(l.Addr().String(), ":", "/", 1)))
			must(t, <-ended)
			*took = time.Since(begin)
		}
		return out, in
	}
	out, in := measure()
	must(t, a.SlowLink(t.Context(), 2000)) // a megabyte takes four seconds
	slowOut, slowIn := measure()
	must(t, a.SlowLink(t.Context(), 0))
	againOut, againIn := measure()
	t.Logf("a megabyte takes %v out, %v in; through a slow link %v, %v; then %v, %v", out, in, slowOut, slowIn, againOut, againIn)
	for _, d := range []time.Duration{slowOut, slowIn} {
		if d < 3*time.Second || d > 20*time.Second {
			t.Errorf("a megabyte through 2 Mbit/s took %v", d)
		}
	}
	for _, d := range []time.Duration{out, in, againOut, againIn} {
		if d > 2*time.Second {
			t.Errorf("at full speed a megabyte took %v", d)
		}
	}
}

func TestDrop(t *testing.T) {
	n := NewNetwork(t)
	a, b, c := n.Host(t, "a"), n.Host(t, "b"), n.Host(t, "c")
	type attempt struct {
		from, to *Host
		port     int
	}
	everybody := []attempt{{a, b, 9}, {a, b, 10}, {b, a, 9}, {b, a, 10}, {a, c, 9}, {c, a, 9}, {b, c, 9}}
	for _, test := range []struct {
		name string
		drop func() (*Drop, error)
		lost []attempt
	}{
		{"one port in", func() (*Drop, error) { return a.DropIncoming(Traffic{Port: 9}) }, []attempt{{b, a, 9}, {c, a, 9}}},
		{"one port in, of one peer", func() (*Drop, error) { return a.DropIncoming(Traffic{Port: 9, Peer: b.IP}) }, []attempt{{b, a, 9}}},
		{"one port out", func() (*Drop, error) { return a.DropOutgoing(Traffic{Port: 9}) }, []attempt{{a, b, 9}, {a, c, 9}}},
		{"replies of one port", func() (*Drop, error) { return a.DropOutgoing(Traffic{SourcePort: 9}) }, []attempt{{b, a, 9}, {c, a, 9}}},
		{"another protocol", func() (*Drop, error) { return a.DropIncoming(Traffic{Port: 9, Protocol: "udp"}) }, nil},
		{"all to one peer", func() (*Drop, error) { return a.DropOutgoing(Traffic{Peer: b.IP}) }, []attempt{{a, b, 9}, {a, b, 10}, {b, a, 9}, {b, a, 10}}},
		{"all to one peer but replies", func() (*Drop, error) { return a.DropOutgoing(Traffic{Peer: b.IP, SparesReplies: true}) }, []attempt{{a, b, 9}, {a, b, 10}}},
		{"all from one peer but replies", func() (*Drop, error) { return a.DropIncoming(Traffic{Peer: b.IP, SparesReplies: true}) }, []attempt{{b, a, 9}, {b, a, 10}}},
		{"a prefix", func() (*Drop, error) { return a.DropOutgoing(Traffic{Peer: b.IP + "/24", Port: 9}) }, []attempt{{a, b, 9}, {a, c, 9}}},
	} {
		before := snapshot(t, a)
		d, err := test.drop()
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		for _, try := range everybody {
			want := "refused"
			for _, lost := range test.lost {
				if lost == try {
					want = "silence"
				}
			}
			if got := reach(t, try.from, try.to, try.port, want); got != want {
				t.Errorf("%s: %s to %s:%d: %s, not %s", test.name, try.from.Name, try.to.Name, try.port, got, want)
			}
		}
		must(t, d.Mend())
		if left := before.Added(snapshot(t, a)); len(left) > 0 {
			t.Errorf("%s: left behind: %v", test.name, left)
		}
		if got := reach(t, a, b, 9, "refused") + " " + reach(t, b, a, 9, "refused"); got != "refused refused" {
			t.Errorf("%s: mended, but %s", test.name, got)
		}
	}
	d, err := a.DropIncoming(Traffic{})
	must(t, err)
	must(t, a.Reboot(t.Context()))
	if got := reach(t, b, a, 9, "refused"); got != "refused" {
		t.Errorf("after a reboot: %s", got)
	}
	must(t, d.Mend())
	for _, bad := range []Traffic{{Peer: "b"}, {Peer: "::1"}, {Peer: "0.0.0.0/0"}, {Protocol: "icmp"}} {
		if _, err := a.DropIncoming(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestChangeAddress(t *testing.T) {
	n := NewNetwork(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	old := &Host{IP: a.IP}
	must(t, a.ChangeAddress(t.Context()))
	later := n.Host(t, "c")
	if a.IP == old.IP || a.IP == b.IP || a.IP == later.IP {
		t.Fatalf("the address was %s and is %s", old.IP, a.IP)
	}
	expect := func(when string) {
		t.Helper()
		got := []string{reach(t, b, a, 9, "refused"), reach(t, a, b, 9, "refused"), reach(t, b, old, 9, "silence"), a.Run(t, "ip", "route", "show", "default")}
		want := []string{"refused", "refused", "silence", "default via " + n.Gateway + " dev eth0 \n"}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("%s: %q", when, got)
		}
	}
	expect("changed")
	must(t, a.Reboot(t.Context()))
	expect("rebooted")
}

func TestDisk(t *testing.T) {
	before := loops(t)
	t.Run("host", func(t *testing.T) {
		h := NewNetwork(t).Host(t, "a")
		const dir = "/var/lib/k0s/etcd"
		if err := h.FillDisk(t.Context(), "/var/lib"); err == nil {
			t.Fatal("the machine's disk was filled")
		}
		must(t, h.AddDisk(t.Context(), dir, 32))
		h.Run(t, "sh", "-c", "echo kept >"+dir+"/f")
		try := func() string {
			return strings.TrimSpace(h.Run(t, "sh", "-c", "cd "+dir+"; (cat f >g; cat g; sync -f g; cat f) 2>&1 || true"))
		}
		must(t, h.FillDisk(t.Context(), dir))
		if got := try(); !strings.Contains(got, "No space left on device") || !strings.HasSuffix(got, "kept") {
			t.Errorf("on a full disk: %q", got)
		}
		must(t, h.Reboot(t.Context()))
		if got := try(); !strings.Contains(got, "No space left on device") || !strings.HasSuffix(got, "kept") {
			t.Errorf("on a full disk, after a reboot: %q", got)
		}
		must(t, h.FreeDisk(t.Context(), dir))
		if got := try(); got != "kept\nkept" {
			t.Errorf("on a disk with room again: %q", got)
		}
	})
	for end := time.Now().Add(10 * time.Second); loops(t) != before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("loop devices before: %s\nafter: %s", before, loops(t))
		}
	}
}

// loops are the loop devices of the machine that show a file of a test host of this process.
func loops(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	var used []string
	for _, file := range files {
		image, _ := os.ReadFile(file)
		if strings.Contains(string(image), filepath.Join(stateDir(), fmt.Sprint(os.Getpid()))) {
			used = append(used, file)
		}
	}
	return strings.Join(used, " ")
}

func TestFreeze(t *testing.T) {
	n := NewNetwork(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	clock, err := a.Start("clock", "sh", "-c", "while :; do echo tick; sleep 0.02; done")
	must(t, err)
	ticks := func() int64 {
		t.Helper()
		before, err := os.Stat(clock.Log)
		must(t, err)
		time.Sleep(300 * time.Millisecond)
		after, err := os.Stat(clock.Log)
		must(t, err)
		return after.Size() - before.Size()
	}
	must(t, a.Freeze())
	if ticks() != 0 {
		t.Error("a frozen host's clock goes on")
	}
	if got := reach(t, b, a, 9, "refused"); got != "refused" {
		t.Errorf("the kernel of a frozen host: %s", got)
	}
	command := make(chan error, 1)
	go func() {
		_, err := a.Output(context.Background(), "true")
		command <- err
	}()
	select {
	case err := <-command:
		t.Errorf("a frozen host runs commands: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	must(t, a.Thaw())
	if err := <-command; err != nil {
		t.Error(err)
	}
	if ticks() == 0 {
		t.Error("a thawed host's clock stands still")
	}
	must(t, a.Freeze())
	must(t, a.Reboot(t.Context()))
	a.Run(t, "true")
	must(t, a.Freeze()) // Close copes with that
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestDial(t *testing.T) {
	n := NewNetwork(t)
	a, b := n.Host(t, "a"), n.Host(t, "b")
	// What listens on the machine's loopback only is not the host's.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	if _, err := a.Dial(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the machine's loopback is the host's: %v", err)
	}
	outside, err := net.Listen("tcp", net.JoinHostPort(n.Gateway, "0"))
	must(t, err)
	defer outside.Close()
	for _, h := range []*Host{a, b, a} {
		c, err := h.Dial(t.Context(), "tcp", outside.Addr().String())
		must(t, err)
		if from, _, _ := net.SplitHostPort(c.LocalAddr().String()); from != h.IP {
			t.Errorf("%s came from %s", h.Name, from)
		}
		must(t, c.Close())
	}
	if _, err := a.Dial(t.Context(), "tcp", "localhost:80"); err == nil || !strings.Contains(err.Error(), "numeric") {
		t.Errorf("a name was looked up: %v", err)
	}
}

func TestRouter(t *testing.T) {
	n, other := NewNetwork(t), NewNetwork(t)
	a := n.Host(t, "a")
	Router(t, "r", n, other)
	b := other.Host(t, "b")
	expect := func(when, want string) {
		t.Helper()
		for _, way := range [][2]*Host{{a, b}, {b, a}} {
			if got := reach(t, way[0], way[1], 9, want); got != want {
				t.Errorf("%s, from %s to %s: %s", when, way[0].Name, way[1].Name, got)
			}
		}
	}
	expect("joined", "refused")
	must(t, a.Reboot(t.Context()))
	must(t, b.ChangeAddress(t.Context()))
	expect("with another address, and after a reboot", "refused")

	// An address that is no host's is neither forwarded to nor from.
	pod := &Host{IP: "10.244.1.1"}
	b.Run(t, "ip", "addr", "add", pod.IP+"/32", "dev", "lo")
	a.Run(t, "ip", "route", "replace", pod.IP, "via", strings.Fields(a.Run(t, "ip", "route", "show", other.Prefix()))[2])
	if got := reach(t, a, pod, 9, "silence"); got == "refused" {
		t.Errorf("the router knows the way to pods")
	}
	a.Run(t, "ip", "addr", "add", "10.244.2.1/32", "dev", "lo")
	a.Run(t, "ip", "route", "replace", b.IP, "via", strings.Fields(a.Run(t, "ip", "route", "show", other.Prefix()))[2], "src", "10.244.2.1")
	if got := reach(t, a, b, 9, "silence"); got != "silence" {
		t.Errorf("the router lets packets of pods pass: %s", got)
	}
}
