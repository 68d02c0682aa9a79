package single

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

//go:embed testdata/workloads.yaml
var workloadsYAML []byte

const workloadsFile = "/tmp/workloads.yaml"

// workloads puts the pods to run on the host.
func workloads(t *testing.T, h *testhost.Host) {
	t.Helper()
	if err := h.WriteFile(workloadsFile, workloadsYAML, 0o644); err != nil {
		t.Fatal(err)
	}
}

func testStatus(t *testing.T, c *cluster.Cluster) {
	var status map[string]any
	text := c.Must(t, "status", "-o", "json")
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for field, want := range map[string]any{"Role": "controller", "SingleNode": true, "Workloads": true} {
		if status[field] != want {
			t.Errorf("status says %s is %v, not %v: %s", field, status[field], want, text)
		}
	}
	begin := time.Now()
	c.Must(t, "status")
	t.Logf("k0s status took %.2f s", time.Since(begin).Seconds())
}

func testCommands(t *testing.T, c *cluster.Cluster) {
	config, err := clientcmd.Load([]byte(c.Must(t, "kubeconfig", "admin")))
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range config.Clusters {
		if want := "https://" + c.Host.IP + ":6443"; server.Server != want {
			t.Errorf("the administrator's kubeconfig, for use elsewhere, names the API %s, not %s", server.Server, want)
		}
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"version"}, []string{"v1."}},
		{[]string{"version", "--all"}, []string{"kubernetes", "etcd", "containerd", "runc", "coredns"}},
		{[]string{"status"}, []string{"controller"}},
		{[]string{"status", "-o", "yaml"}, []string{"Version: v"}},
		{[]string{"completion", "bash"}, []string{"k0s"}},
		{[]string{"ctr", "-n", "k8s.io", "containers", "list"}, []string{"k0s.test/tools:1"}},
		{[]string{"kubectl", "get", "--raw", "/readyz"}, []string{"ok"}},
	} {
		out := c.Must(t, test.args...)
		for _, want := range test.want {
			if !strings.Contains(out, want) {
				t.Errorf("k0s %s does not say %q: %s", strings.Join(test.args, " "), want, out)
			}
		}
	}
	var versions map[string]any
	if text := c.Must(t, "version", "--all", "--json"); json.Unmarshal([]byte(text), &versions) != nil {
		t.Errorf("k0s version --all --json is no JSON object: %s", text)
	}
}

func testPod(t *testing.T, c *cluster.Cluster) {
	c.Pod(t, "tools", cluster.Ready)
	if out, err := c.Exec(t.Context(), "tools", "sh", "-c", "echo $((6*7)); hostname"); err != nil || out != "42\ntools" {
		t.Errorf("exec said %q, %v", out, err)
	}
	if _, err := c.Exec(t.Context(), "tools", "sh", "-c", "exit 3"); err == nil {
		t.Error("exec of `exit 3` did not fail")
	}
	if out := c.Must(t, "kubectl", "logs", "tools"); out != "hello from tools\n" {
		t.Errorf("logs said %q", out)
	}
}

func testInit(t *testing.T, c *cluster.Cluster) {
	c.Pod(t, "init", cluster.Succeeded)
}

func testMounts(t *testing.T, c *cluster.Cluster) {
	c.Pod(t, "mounts", cluster.Ready)
	out, err := c.Exec(t.Context(), "mounts", "sh", "-c", "cat /settings/colour /key/word; echo; echo $COLOUR $WORD")
	if err != nil || out != "bluesesame\nblue sesame" {
		t.Errorf("a ConfigMap and a Secret are seen as %q, %v", out, err)
	}
	token, err := c.Exec(t.Context(), "mounts", "cat", "/token/token")
	if err != nil {
		t.Fatal(err)
	}
	review, err := c.Client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{"treasury"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user := review.Status.User
	if !review.Status.Authenticated || user.Username != "system:serviceaccount:default:default" ||
		strings.Join(user.Extra["authentication.kubernetes.io/pod-name"], "") != "mounts" {
		t.Errorf("the projected token is reviewed as %+v", review.Status)
	}
}

func testDeployment(t *testing.T, c *cluster.Cluster) {
	c.Must(t, "kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
	c.Must(t, "kubectl", "set", "env", "deployment/web", "VERSION=2")
	c.Must(t, "kubectl", "rollout", "status", "deployment/web", "--timeout=60s")
	within(t, c, time.Minute, "the old pods to go", func(ctx context.Context) error {
		pods, err := c.Client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=web"})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			if len(pod.Spec.Containers[0].Env) == 0 {
				return fmt.Errorf("%s is still there", pod.Name)
			}
		}
		if len(pods.Items) != 2 {
			return fmt.Errorf("there are %d pods", len(pods.Items))
		}
		return nil
	})
}

func testStatefulSet(t *testing.T, c *cluster.Cluster) {
	c.Must(t, "kubectl", "rollout", "status", "statefulset/db", "--timeout=60s")
}

func testJob(t *testing.T, c *cluster.Cluster) {
	c.Must(t, "kubectl", "wait", "--for=condition=complete", "--timeout=60s", "job/job")
}

func testCronJob(t *testing.T, c *cluster.Cluster) {
	within(t, c, 100*time.Second, "a CronJob's job to complete", func(ctx context.Context) error {
		jobs, err := c.Client.BatchV1().Jobs("default").List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, job := range jobs.Items {
			if !strings.HasPrefix(job.Name, "cron-") {
				continue
			}
			for _, condition := range job.Status.Conditions {
				if condition.Type == batchv1.JobComplete && condition.Status == corev1.ConditionTrue {
					return nil
				}
			}
		}
		return errors.New("none has")
	})
}

func testLiveness(t *testing.T, c *cluster.Cluster) {
	c.Pod(t, "sickly", func(pod *corev1.Pod) error {
		if err := cluster.Ready(pod); err != nil {
			return err
		}
		if n := pod.Status.ContainerStatuses[0].RestartCount; n != 1 {
			return fmt.Errorf("it was restarted %d times", n)
		}
		return nil
	})
}

var figures = regexp.MustCompile(`(?m)\s[1-9]\d*m\s.*\s[1-9]\d*Mi`)

func testTop(t *testing.T, c *cluster.Cluster) {
	for _, what := range []string{"nodes", "pods --namespace=kube-system"} {
		begin := time.Now()
		within(t, c, 100*time.Second, "kubectl top "+what, func(ctx context.Context) error {
			out, err := c.K0s(ctx, append([]string{"kubectl", "top"}, strings.Fields(what+" --no-headers")...)...)
			if err != nil {
				return err
			}
			if !figures.MatchString(out) {
				return fmt.Errorf("no figures in %q", out)
			}
			return nil
		})
		t.Logf("`kubectl top %s` had figures after %.1f s", what, time.Since(begin).Seconds())
	}
}
