package storage

import (
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

func TestSQLite(t *testing.T) {
	host := newHost(t, testhost.NewNetwork(t), "sqlite")
	host.Run(t, "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "kube-apiserver")
	uid, err := strconv.Atoi(strings.TrimSpace(host.Run(t, "id", "-u", "kube-apiserver")))
	if err != nil {
		t.Fatal(err)
	}
	configure(t, host, "{type: kine}")
	const data = "/var/lib/some where" // it is in a URL, too
	before := cluster.Snapshot(t, host)
	c := cluster.New(host, "--single", "--data-dir", data)
	c.Run(t)

	kine := process(t, host, "kine")
	if kine.UID != uid {
		t.Errorf("kine runs as user %d, not as kube-apiserver (%d)", kine.UID, uid)
	}
	for _, flag := range []string{"--listen-address=unix:///run/k0s/kine/kine.sock", "--metrics-bind-address=127.0.0.1:2380", "--compact-interval=0s"} {
		if !slices.Contains(kine.Args, flag) {
			t.Errorf("%s is not among kine's arguments: %q", flag, kine.Args)
		}
	}
	noProcess(t, host, "etcd")
	for file, want := range map[string]string{"/db": "700 kube-apiserver", "/db/state.db": "644 kube-apiserver"} {
		if got := strings.TrimSpace(host.Run(t, "stat", "-c", "%a %U", data+file)); got != want {
			t.Errorf("%s is %s, not %s", file, got, want)
		}
	}
	if out := strings.TrimSpace(host.Run(t, "find", data+"/pki", "-name", "*etcd*")); out != "" {
		t.Errorf("there are certificates of an etcd that is not there: %s", out)
	}
	if out := host.Run(t, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:2380/metrics"); !strings.Contains(out, "kine_sql_total") {
		t.Errorf("kine's metrics are: %.200s", out)
	}

	remember(t, c, "before-stop")
	stop(t, c)
	noProcess(t, host, "kine")
	start(t, c)
	remembered(t, c, "before-stop")

	remember(t, c, "before-kill-of-kine")
	if err := syscall.Kill(process(t, host, "kine").Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	remember(t, c, "after-kill-of-kine")
	remembered(t, c, "before-kill-of-kine")

	if err := c.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = c.Process.Wait(t.Context()) // it was killed
	start(t, c)
	remembered(t, c, "before-stop", "before-kill-of-kine", "after-kill-of-kine")

	stop(t, c)
	host.Run(t, "mv", data+"/db", "/tmp/db")
	refused(t, c, "its data is gone from "+data+"/db/state.db")
	host.Run(t, "mv", "/tmp/db", data+"/db")
	c.Must(t, "reset", "--data-dir", data)
	cluster.MustBeAsBefore(t, host, before)
}
