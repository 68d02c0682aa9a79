package single

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

// stopLimit is what stopping k0s may take on a machine that is busy; the bench has the budget.
const stopLimit = 15 * time.Second

// containers says of every long-running container which one it is: it changes when, and
// only when, something restarts or replaces a pod.
func containers(ctx context.Context, c *cluster.Cluster) (map[string]string, error) {
	pods, err := c.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, pod := range pods.Items {
		if pod.Status.Phase != corev1.PodRunning {
			continue
		}
		for _, s := range pod.Status.ContainerStatuses {
			if s.State.Running == nil {
				return nil, fmt.Errorf("the container %s of %s does not run", s.Name, pod.Name)
			}
			all[pod.Namespace+"/"+pod.Name+"/"+s.Name] = fmt.Sprintf("%s restarted %d times, started %s",
				s.ContainerID, s.RestartCount, s.State.Running.StartedAt.UTC())
		}
	}
	return all, nil
}

// same fails the test when a container is not the one it was.
func same(t *testing.T, c *cluster.Cluster, before map[string]string) {
	t.Helper()
	within(t, c, 30*time.Second, "the containers to be the same", func(ctx context.Context) error {
		after, err := containers(ctx, c)
		if err != nil {
			return err
		}
		for name, was := range before {
			if after[name] != was {
				return fmt.Errorf("%s was %s and is %q", name, was, after[name])
			}
		}
		if len(after) != len(before) {
			return fmt.Errorf("there were %d containers, and are %d", len(before), len(after))
		}
		return nil
	})
}

func now(t *testing.T, c *cluster.Cluster) map[string]string {
	t.Helper()
	all, err := containers(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 8 {
		t.Fatalf("only these containers run: %v", all)
	}
	return all
}

// onePerChild says which child is missing or there twice.
func onePerChild(c *cluster.Cluster) (map[string]testhost.ProcessInfo, error) {
	children, err := c.ChildProcesses()
	if err != nil {
		return nil, err
	}
	one := map[string]testhost.ProcessInfo{}
	for _, name := range cluster.Children() {
		if len(children[name]) != 1 {
			return nil, fmt.Errorf("there are %d processes %s", len(children[name]), name)
		}
		one[name] = children[name][0]
	}
	return one, nil
}

// works proves that the cluster does all it has to for a new pod: it is scheduled, started,
// reached by name, and taken away.
func works(t *testing.T, c *cluster.Cluster, after string) {
	t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.WaitAPI(ctx); err != nil {
		t.Fatal(err)
	}
	name := "after-" + regexp.MustCompile(`[^a-z]+`).ReplaceAllString(strings.ToLower(after), "-")
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64),
			Containers: []corev1.Container{{
				Name: "main", Image: "k0s.test/tools:1", ImagePullPolicy: corev1.PullNever,
				Command: []string{"sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do tester get http://web/ && exit 0; sleep 1; done; exit 1"},
			}},
		},
	}
	within(t, c, time.Minute, "a new pod to be accepted", func(ctx context.Context) error {
		_, err := c.Client.CoreV1().Pods("default").Create(ctx, pod, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // by a request whose answer was lost
			return nil
		}
		return err
	})
	c.Pod(t, name, cluster.Succeeded)
	if err := c.Client.CoreV1().Pods("default").Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, c, time.Minute, "the new pod to go", func(ctx context.Context) error {
		_, err := c.Client.CoreV1().Pods("default").Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("it is still there")
		}
		return nil
	})
	t.Logf("after %s a new pod came and went in %.1f s", after, time.Since(begin).Seconds())
}

func testKillChildren(t *testing.T, c *cluster.Cluster) {
	before := now(t, c)
	for _, name := range cluster.Children() {
		t.Run(name, func(t *testing.T) {
			children, err := onePerChild(c)
			if err != nil {
				t.Fatal(err)
			}
			killed := children[name]
			begin := time.Now()
			if err := syscall.Kill(killed.Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			within(t, c, 30*time.Second, name+" to be started again", func(context.Context) error {
				children, err := onePerChild(c)
				if err == nil && children[name].Pid == killed.Pid {
					err = fmt.Errorf("it has not ended")
				}
				return err
			})
			t.Logf("%s was back after %.1f s", name, time.Since(begin).Seconds())
			works(t, c, "killing "+name)
		})
	}
	same(t, c, before)
	if _, err := onePerChild(c); err != nil {
		t.Error(err)
	}
}

func testKillSupervisor(t *testing.T, c *cluster.Cluster) {
	before := now(t, c)
	if err := c.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = c.Process.Wait(t.Context()) // it was killed
	timings := c.Run(t)
	if timings.Node > 30*time.Second {
		t.Errorf("the node took %.1f s to be ready again", timings.Node.Seconds())
	}
	works(t, c, "killing k0s")
	same(t, c, before)
	if _, err := onePerChild(c); err != nil {
		t.Error(err)
	}
}

func testRestart(t *testing.T, c *cluster.Cluster, cold cluster.Timings) {
	before := now(t, c)
	stop(t, c)
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range children {
		t.Errorf("left after the stop: %v", left)
	}
	warm := c.Run(t)
	if warm.SystemPods >= cold.SystemPods {
		t.Errorf("the second start was not faster: all was ready after %.1f s, at first after %.1f s",
			warm.SystemPods.Seconds(), cold.SystemPods.Seconds())
	}
	works(t, c, "a restart")
	same(t, c, before)
}

func stop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	took, err := c.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("k0s was gone %.1f s after SIGTERM", took.Seconds())
	if took > stopLimit {
		t.Errorf("stopping took %.1f s, more than %v", took.Seconds(), stopLimit)
	}
}

func testReset(t *testing.T, c *cluster.Cluster, before testhost.Snapshot) {
	if _, err := c.K0s(t.Context(), "reset"); err == nil {
		t.Fatal("reset did not refuse to work under a running k0s")
	}
	stop(t, c)
	begin := time.Now()
	c.Must(t, "reset")
	t.Logf("k0s reset took %.1f s", time.Since(begin).Seconds())
	cluster.MustBeAsBefore(t, c.Host, before)
}
