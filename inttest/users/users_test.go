// Package users proves that the children run as users of their own where those exist, and that
// k0s lives, and is reset, in a data directory of the user's choice.
package users

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

func TestOwnUsers(t *testing.T) {
	host := testhost.NewNetwork(t).Host(t, "users")
	if err := cluster.Install(host); err != nil {
		t.Fatal(err)
	}
	users := map[string]string{ // process → user
		"etcd":                    "etcd",
		"kube-apiserver":          "kube-apiserver",
		"kube-scheduler":          "kube-scheduler",
		"kube-controller-manager": "kube-apiserver",
		"kubelet":                 "root",
		"containerd":              "root",
		"kube-proxy":              "root",
	}
	uids := map[string]int{"root": 0}
	for _, user := range []string{"etcd", "kube-apiserver", "kube-scheduler"} {
		host.Run(t, "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user)
		uid, err := strconv.Atoi(strings.TrimSpace(host.Run(t, "id", "-u", user)))
		if err != nil {
			t.Fatal(err)
		}
		uids[user] = uid
	}

	const data = "/var/lib/another-place"
	before := cluster.Snapshot(t, host)
	c := cluster.New(host, "--single", "--data-dir", data)
	c.Run(t)
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	for name, user := range users {
		if len(children[name]) != 1 {
			t.Errorf("there are %d processes %s", len(children[name]), name)
			continue
		}
		if got := children[name][0].UID; got != uids[user] {
			t.Errorf("%s runs as user %d, not as %s (%d)", name, got, user, uids[user])
		}
	}
	// No one but its user, and root, reads a component's secrets.
	for _, line := range strings.Split(strings.TrimSpace(host.Run(t, "find", data+"/pki", "-name", "*.key", "-printf", "%m %u %P\n")), "\n") {
		mode, _, _ := strings.Cut(line, " ")
		if !strings.HasSuffix(mode, "00") && !strings.HasSuffix(mode, "40") {
			t.Errorf("a key is open to others: %s", line)
		}
	}

	c.Must(t, "kubectl", "--data-dir", data, "get", "nodes")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "reset", "--data-dir", data)
	cluster.MustBeAsBefore(t, host, before)
}
