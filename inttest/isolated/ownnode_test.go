package isolated

import (
	"context"
	"strings"
	"testing"
	"time"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// A controller that is a node, too, reaches it through the tunnel like any other. The server of the tunnel is
// a user without any rights.
func TestOwnNode(t *testing.T) {
	host := testhost.NewNetwork(t).Host(t, "a")
	if err := cluster.Install(host); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"konnectivity-server", "kube-apiserver"} {
		host.Run(t, "useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", user)
	}
	c := cluster.New(host, "--enable-worker", "--no-taints")
	c.Run(t)
	logs := func(ctx context.Context) error {
		_, err := c.K0s(ctx, "kubectl", "logs", "-n", "kube-system", "deployment/coredns")
		return err
	}
	if err := c.Eventually(t.Context(), 10*time.Second, "kubectl logs", logs); err != nil {
		t.Fatal(err)
	}
	if got := host.Run(t, "sh", "-c", "stat -c '%U %G %a %F' /run/k0s/konnectivity-server /run/k0s/konnectivity-server/*; ps -o user:32= -p $(cat /run/k0s/konnectivity-server.pid | grep -o '[0-9]*' | head -1)"); got !=
		"konnectivity-server kube-apiserver 2710 directory\nkonnectivity-server kube-apiserver 660 socket\nkonnectivity-server root 600 regular file\nkonnectivity-server\n" {
		t.Errorf("the server of the tunnel and its socket: %s", got)
	}
	for user, want := range map[string]bool{"kube-apiserver": true, "nobody": false} {
		_, err := host.Output(t.Context(), "setpriv", "--reuid", user, "--regid", strings.ReplaceAll(user, "nobody", "nogroup"), "--clear-groups",
			"test", "-w", "/run/k0s/konnectivity-server/konnectivity-server.sock")
		if (err == nil) != want {
			t.Errorf("%s may write to the API server's socket: %v", user, err)
		}
	}
	if out := c.Must(t, "status", "components"); !strings.Contains(out, "tunnel") || !strings.Contains(out, "konnectivity-server") {
		t.Errorf("k0s status components says nothing of the tunnel: %s", out)
	}

	if _, err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitAPI(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("after a restart, the API is ready after %.1f s", time.Since(c.Started).Seconds())

	if _, err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	c = cluster.New(host, "--enable-worker", "--no-taints", "--disable-components=konnectivity-server")
	c.Run(t)
	if err := c.Eventually(t.Context(), 10*time.Second, "kubectl logs", logs); err != nil {
		t.Error(err)
	}
	if out := c.Must(t, "status", "components"); strings.Contains(out, "tunnel") || strings.Contains(out, "konnectivity-server") {
		t.Errorf("k0s status components says something of a tunnel that was disabled: %s", out)
	}
	if _, err := c.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
