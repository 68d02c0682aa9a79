package single

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
)

// addresses are the addresses of the pods with a label, sorted.
func addresses(t *testing.T, c *cluster.Cluster, label string) []string {
	t.Helper()
	pods, err := c.Client.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{LabelSelector: label})
	if err != nil {
		t.Fatal(err)
	}
	var ips []string
	for _, pod := range pods.Items {
		ips = append(ips, pod.Status.PodIP)
	}
	slices.Sort(ips)
	return ips
}

func service(t *testing.T, c *cluster.Cluster, namespace, name string) *corev1.Service {
	t.Helper()
	s, err := c.Client.CoreV1().Services(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testDNS(t *testing.T, c *cluster.Cluster) {
	db := addresses(t, c, "app=db")
	web := service(t, c, "default", "web").Spec.ClusterIP
	first, err := c.Client.CoreV1().Pods("default").Get(t.Context(), "db-0", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"web":                                    web,
		"web.default":                            web,
		"web.default.svc.cluster.local":          web,
		"kubernetes.default":                     service(t, c, "default", "kubernetes").Spec.ClusterIP,
		"db":                                     strings.Join(db, "\n"),
		"db-0.db.default.svc.cluster.local":      first.Status.PodIP,
		"kube-dns.kube-system.svc.cluster.local": service(t, c, "kube-system", "kube-dns").Spec.ClusterIP,
	} {
		within(t, c, 30*time.Second, "the name "+name, func(ctx context.Context) error {
			got, err := c.Exec(ctx, "tools", "tester", "lookup", name)
			if err == nil && got != want {
				err = fmt.Errorf("it is %q, not %q", got, want)
			}
			return err
		})
	}
	if out, err := c.Exec(t.Context(), "tools", "tester", "lookup", "nothing.default.svc.cluster.local"); err == nil {
		t.Errorf("a name that is not there is %q", out)
	}
}

func testServices(t *testing.T, c *cluster.Cluster) {
	web := service(t, c, "default", "web").Spec.ClusterIP
	t.Run("ClusterIP", func(t *testing.T) {
		answered := map[string]bool{}
		within(t, c, 30*time.Second, "both pods to answer at the service's name", func(ctx context.Context) error {
			out, err := c.Exec(ctx, "tools", "tester", "get", "http://web/")
			if err != nil {
				return err
			}
			pod, _, _ := strings.Cut(out, " answers ")
			answered[pod] = true
			if len(answered) < 2 {
				return fmt.Errorf("only %s has", pod)
			}
			return nil
		})
	})
	t.Run("FromHost", func(t *testing.T) {
		if out := c.Host.Run(t, cluster.Tester, "get", "http://"+web+"/"); !strings.HasPrefix(out, "web-") {
			t.Errorf("the service answers its node with %q", out)
		}
	})
	t.Run("NodePort", func(t *testing.T) { answers(t, "http://"+c.Host.IP+":30080/", "web-") })
	t.Run("HostPort", func(t *testing.T) {
		c.Pod(t, "hostport", cluster.Ready)
		answers(t, "http://"+c.Host.IP+":8088/", "hostport answers ")
		out, err := c.Exec(t.Context(), "tools", "tester", "get", "http://"+c.Host.IP+":8088/")
		if err != nil || !strings.HasPrefix(out, "hostport answers ") {
			t.Errorf("from a pod: %q, %v", out, err)
		}
	})
	t.Run("NoWayOut", func(t *testing.T) {
		out, err := c.Exec(t.Context(), "tools", "timeout", "1", "tester", "get", "http://198.51.100.1/")
		if err == nil {
			t.Errorf("something outside answered %q", out)
		}
	})
}

// answers asks from outside the cluster, as a neighbour on the host's network.
func answers(t *testing.T, url, prefix string) {
	t.Helper()
	body, err := get(t.Context(), url)
	if err != nil || !strings.HasPrefix(body, prefix) {
		t.Errorf("GET %s: %q, %v", url, body, err)
	}
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func testAPI(t *testing.T, c *cluster.Cluster) {
	const account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	out, err := c.Exec(t.Context(), "tools", "tester", "get", "-ca", account+"ca.crt", "-token", account+"token", "https://kubernetes.default/version")
	if err != nil || !strings.Contains(out, `"gitVersion"`) {
		t.Errorf("a pod asks the API for its version: %q, %v", out, err)
	}
}

func testCopy(t *testing.T, c *cluster.Cluster) {
	content := bytes.Repeat([]byte("0123456789abcdef\n"), 1<<16)
	if err := c.Host.WriteFile("/tmp/there", content, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Must(t, "kubectl", "cp", "/tmp/there", "tools:/tmp/copied")
	c.Must(t, "kubectl", "cp", "tools:/tmp/copied", "/tmp/back")
	back, err := c.Host.ReadFile("/tmp/back")
	if err != nil || !bytes.Equal(back, content) {
		t.Errorf("%d of %d bytes came back, %v", len(back), len(content), err)
	}
	c.Host.Run(t, "rm", "/tmp/there", "/tmp/back")
}

func testPortForward(t *testing.T, c *cluster.Cluster) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := c.Host.Command(ctx, cluster.Program, "kubectl", "port-forward", "--address", "0.0.0.0", "pod/hostport", "9999:8080")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
	}()
	within(t, c, 10*time.Second, "the forwarded port", func(ctx context.Context) error {
		connection, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Host.IP+":9999")
		if err != nil {
			return err
		}
		return connection.Close()
	})
	answers(t, "http://"+c.Host.IP+":9999/", "hostport answers 127.0.0.1")
	answers(t, "http://"+c.Host.IP+":9999/", "hostport answers 127.0.0.1")
}
