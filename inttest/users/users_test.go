// Package users proves what a host's owner can choose: that the children run as users of their
// own where those exist, that k0s lives, and is reset, in another data directory, and that a
// pod reaches itself through its service where k0s.yaml says so.
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

const config = `
apiVersion: k0s.k0sproject.io/v1beta1
kind: ClusterConfig
spec: {network: {kuberouter: {hairpin: Enabled}}}
`

const podFile = "/tmp/pod.yaml"

// pod is the only one behind its service, so that what it asks of that it asks of itself.
const pod = `
apiVersion: v1
kind: Service
metadata: {name: mirror}
spec: {selector: {app: alone}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: alone}}
spec:
  containers:
  - {name: main, image: "k0s.test/tools:1", imagePullPolicy: Never, command: [tester, serve, ":8080"]}
`

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

	image := cluster.PutImage(t, host)
	for name, content := range map[string]string{"/etc/k0s/k0s.yaml": config, podFile: pod} {
		if err := host.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
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
	for user, own := range map[string]string{"kube-scheduler": "scheduler.key", "kube-apiserver": "ca.key", "etcd": "etcd/server.key"} {
		as := func(file string) error {
			_, err := host.Output(t.Context(), "setpriv", "--reuid", user, "--regid", user, "--clear-groups", "cat", data+"/pki/"+file)
			return err
		}
		if err := as(own); err != nil {
			t.Errorf("%s cannot read its own key %s: %v", user, own, err)
		}
		for _, file := range []string{"admin.key", "admin.conf", "front-proxy-ca.key", "etcd/ca.key"} {
			if as(file) == nil {
				t.Errorf("%s can read %s", user, file)
			}
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(host.Run(t, "find", data+"/pki", "-name", "*.key", "-printf", "%m %u %P\n")), "\n") {
		mode, _, _ := strings.Cut(line, " ")
		if !strings.HasSuffix(mode, "00") && !strings.HasSuffix(mode, "40") {
			t.Errorf("a key is open to others: %s", line)
		}
	}

	c.Must(t, "ctr", "-n", "k8s.io", "images", "import", image)
	c.Must(t, "kubectl", "--data-dir", data, "apply", "-f", podFile)
	c.Pod(t, "alone", cluster.Ready)
	ask := func(ctx context.Context) error {
		_, err := c.K0s(ctx, "kubectl", "--data-dir", data, "exec", "alone", "--", "timeout", "15", "tester", "get", "http://mirror/")
		return err
	}
	if err := c.Eventually(t.Context(), cluster.Patience, "the pod to reach itself", ask); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := ask(t.Context()); err != nil {
			t.Fatalf("the pod reached itself once, and then not: %v", err)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "reset", "--data-dir", data)
	cluster.MustBeAsBefore(t, host, before)
}
