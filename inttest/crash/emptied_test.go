package crash

import (
	"context"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// What a disk that was full, or was repaired, may have done to files that k0s has written. The stores of etcd,
// containerd and kubelet are theirs.
const listOwn = `find /var/lib/k0s /etc/cni -type f -size +0 ! -path '*/etcd/member/*' ! -path '*/containerd/*' ! -path '/var/lib/k0s/kubelet/*' -print
	find /var/lib/k0s/kubelet/pki -type f`

// TestEmptiedFiles: what can be made anew is; of what cannot, k0s says how to have it again, and ends.
func TestEmptiedFiles(t *testing.T) {
	t.Run("Controller", func(t *testing.T) {
		c := cluster.New(newHost(t), "--single")
		c.Run(t)
		reboot(t, c.Host)
		empty(t, &c.Node, "identity.json", "ca.crt", "ca.key", "front-proxy-ca.*", "sa.key")
		c.Run(t)
		kill(t, &c.Node)
		for _, file := range []string{"identity.json", "pki/ca.crt", "pki/ca.key", "pki/sa.key", "pki/front-proxy-ca.key", "pki/etcd/ca.crt"} {
			tells(t, &c.Node, c.DataDir+"/"+file, c.DataDir+"/"+file, "from a backup")
		}
	})
	t.Run("Worker", func(t *testing.T) {
		hosts := cluster.Hosts(t, testhost.NewNetwork(t), "c", "w")
		c := cluster.New(hosts[0])
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := c.WaitAPI(ctx); err != nil {
			t.Fatal(err)
		}
		w := c.MustJoin(t, cluster.Worker, hosts[1])[0]
		ready := func() {
			t.Helper()
			if err := c.WaitNodes(ctx, w); err != nil {
				t.Fatal(err)
			}
		}
		ready()
		reboot(t, w.Host)
		token := w.Token
		w.Token = ""
		empty(t, w, "identity.json", "ca.crt", "*.pem")
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		ready()
		kill(t, w)
		tells(t, w, w.DataDir+"/identity.json", w.DataDir+"/identity.json", "k0s reset")
		credentials := []string{w.DataDir + "/pki/ca.crt", w.DataDir + "/kubelet/pki/kubelet-client-current.pem"}
		for _, file := range credentials {
			tells(t, w, file, "k0s token create --role worker")
		}
		for _, file := range credentials {
			w.Host.Run(t, "truncate", "--size=0", file)
			w.Token = token
			if err := w.Start(); err != nil {
				t.Fatal(err)
			}
			ready()
			kill(t, w)
		}
	})
}

// empty empties all that k0s has written on the host, but for files with these names.
func empty(t *testing.T, n *cluster.Node, but ...string) {
	t.Helper()
	filter := ""
	for _, name := range but {
		filter += " ! -name '" + name + "'"
	}
	files := n.Host.Run(t, "sh", "-c", strings.ReplaceAll(listOwn, " -type f", " -type f"+filter))
	if strings.Count(files, "\n") < 20 { // the helpers alone are more
		t.Fatalf("there is too little to empty: %s", files)
	}
	for _, file := range strings.Fields(files) {
		if !strings.Contains(file, "/bin/") {
			t.Log("emptied: ", file)
		}
	}
	n.Host.Run(t, append([]string{"truncate", "--size=0"}, strings.Fields(files)...)...)
}

// tells starts k0s with an empty file, and puts back what was in it when k0s has ended, saying all this.
func tells(t *testing.T, n *cluster.Node, file string, want ...string) {
	t.Helper()
	n.Host.Run(t, "cp", "-p", file, "/tmp/kept")
	n.Host.Run(t, "truncate", "--size=0", file)
	if err := n.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := n.Process.Wait(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("without %s k0s runs: %v", file, err)
		kill(t, n)
	}
	for _, text := range want {
		if last := n.LogTail(1); !strings.Contains(last, text) {
			t.Errorf("of an empty %s k0s says %s\nnothing about %q", file, last, text)
		}
	}
	n.Host.Run(t, "cp", "-p", "/tmp/kept", file)
}

func kill(t *testing.T, n *cluster.Node) {
	t.Helper()
	if err := n.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
}
