// Package profile proves that worker profiles and feature gates reach the programs they are for, that
// a changed profile changes the kubelet only, and that nothing starts with one the programs refuse.
package profile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k0s.io/k0s/inttest/cluster"
	"k0s.io/k0s/inttest/testhost"
)

const (
	configFile = "/etc/k0s/k0s.yaml"
	config     = `
spec:
  scheduler:
    extraArgs: {feature-gates: OpportunisticBatching=false}
  workerProfiles:
  - name: default
    values: {maxPods: 33}
  - name: dense
    values:
      maxPods: 42
      evictionHard: {memory.available: 64Mi, nodefs.available: 1Mi}
      featureGates: {EnvFiles: false}
      healthzPort: 11248
      podLogsDir: /srv/k0s-test/logs
      volumePluginDir: /srv/k0s-test/plugins
  featureGates:
  - {name: OpenAPIEnums, enabled: false}
  - {name: ContainerCheckpoint, enabled: false, components: [kubelet]}
  - {name: KubeProxyIPVS, enabled: true, components: [kube-proxy]}
`
	// pod is to live through all of it.
	pod = `
apiVersion: v1
kind: Pod
metadata: {name: lasting}
spec:
  containers: [{name: main, image: "k0s.test/tools:1", imagePullPolicy: Never, command: [sh, -c, "sleep 100000"]}]
`
)

func TestProfile(t *testing.T) {
	host := testhost.NewNetwork(t).Host(t, "a")
	if err := cluster.Install(host); err != nil {
		t.Fatal(err)
	}
	image := cluster.PutImage(t, host)
	host.Run(t, "mkdir", "-p", "/etc/k0s")
	write(t, host, "/tmp/pod.yaml", pod)
	t.Run("Refused", func(t *testing.T) { testRefused(t, host) })
	write(t, host, configFile, config)
	before := cluster.Snapshot(t, host)

	c := cluster.New(host, "--single", "--profile", "dense")
	c.Run(t)
	isEffective(t, c, "42", map[string]any{
		"maxPods":      42.0,
		"evictionHard": map[string]any{"memory.available": "64Mi", "nodefs.available": "1Mi"},
		"featureGates": map[string]any{"ContainerCheckpoint": false, "EnvFiles": false, "OpenAPIEnums": false},
		"healthzPort":  11248.0,
		"podLogsDir":   "/srv/k0s-test/logs",
		"cgroupDriver": nil, // this and more is still there
	})
	c.Must(t, "ctr", "-n", "k8s.io", "images", "import", image)
	c.Must(t, "kubectl", "apply", "-f", "/tmp/pod.yaml")
	c.Pod(t, "lasting", cluster.Running)
	containers, args := containerIDs(t, c), gates(t, c)
	for child, want := range map[string]string{
		"kube-apiserver": "OpenAPIEnums=false", "kube-controller-manager": "OpenAPIEnums=false",
		"kube-scheduler": "OpenAPIEnums=false,OpportunisticBatching=false", "kube-proxy": "KubeProxyIPVS=true,OpenAPIEnums=false",
	} {
		if !slices.Contains(args[child], "--feature-gates="+want) {
			t.Errorf("%s runs with %q, not the feature gates %s", child, args[child], want)
		}
	}
	if got := c.Must(t, "kubectl", "get", "--raw", "/metrics"); !strings.Contains(got, `kubernetes_feature_enabled{name="OpenAPIEnums",stage="BETA"} 0`) {
		t.Error("kube-apiserver has OpenAPIEnums on")
	}

	// Only the kubelet has another life after a change of its profile.
	restart(t, c, strings.Replace(config, "maxPods: 42", "maxPods: 43", 1))
	isEffective(t, c, "43", map[string]any{"maxPods": 43.0})
	if after := containerIDs(t, c); !slices.Equal(after, containers) {
		t.Errorf("the containers were\n%s\nand are\n%s", strings.Join(containers, "\n"), strings.Join(after, "\n"))
	}
	for child, was := range args {
		if now := gates(t, c)[child]; !slices.Equal(now, was) {
			t.Errorf("%s ran as %q, and runs as %q", child, was, now)
		}
	}

	// Another profile, and gates that are gone.
	stop(t, c)
	head, _, _ := strings.Cut(config, "  featureGates:\n  -")
	write(t, host, configFile, head)
	c = cluster.New(host, "--single")
	c.Run(t)
	isEffective(t, c, "33", map[string]any{"maxPods": 33.0, "featureGates": nil, "healthzPort": 10248.0})
	if now := gates(t, c)["kube-apiserver"]; len(now) != 0 {
		t.Errorf("kube-apiserver still runs with %q", now)
	}
	if after := containerIDs(t, c); !slices.Equal(after, containers) {
		t.Errorf("the containers were\n%s\nand are\n%s", strings.Join(containers, "\n"), strings.Join(after, "\n"))
	}
	stop(t, c)
	c.Must(t, "reset")
	write(t, host, configFile, config)
	cluster.MustBeAsBefore(t, host, before)
}

// testRefused: what is wrong is said in full, and nothing is touched.
func testRefused(t *testing.T, h *testhost.Host) {
	const file = "/tmp/refused.yaml"
	before := cluster.Snapshot(t, h)
	for _, test := range []struct{ name, config, profile, want string }{
		{"unknown profile", config, "dens", `--profile: there is no worker profile "dens"; there are: default, dense (spec.workerProfiles)`},
		{"no profiles", "", "dense", `--profile: there is no worker profile "dense"; there are: default (spec.workerProfiles)`},
		{"flag", "spec:\n  api:\n    extraArgs:\n      audit-log-pth: /tmp/audit\n", "default",
			file + `:4: spec.api.extraArgs[audit-log-pth]: kube-apiserver has no such flag: did you mean "audit-log-path"?`},
		{"gate", "spec:\n  featureGates:\n  - {name: OpenAPIEnum, enabled: false}\n  - {name: NodeSwap, enabled: false}\n", "default",
			file + `:3: spec.featureGates[0].name: invalid value "OpenAPIEnum": Kubernetes has no such feature: did you mean "OpenAPIEnums"?` + "\n" +
				file + ":4: spec.featureGates[1].enabled: invalid value false: is locked: Kubernetes has it always on, leave it out"},
		{"locked gate", "spec:\n  featureGates:\n  - {name: NodeSwap, enabled: false}\n", "default",
			file + `:3: spec.featureGates[0].enabled: invalid value false: is locked: Kubernetes has it always on, leave it out`},
		{"kubelet", "spec:\n  workerProfiles:\n  - name: dense\n    values:\n      maxPod: 1\n      failSwapOn: maybe\n      clusterDNS: [192.0.2.1]\n", "dense",
			file + `:5: spec.workerProfiles[0].values.maxPod: unknown field: did you mean "maxPods"?` + "\n" +
				file + ":6: spec.workerProfiles[0].values.failSwapOn: must be true or false, not a string\n" +
				file + ":7: spec.workerProfiles[0].values.clusterDNS: is for k0s to set: it follows from spec.network.serviceCIDR"},
		{"kubelet's rules", "spec:\n  workerProfiles:\n  - name: dense\n    values:\n      evictionHard: {memory: 5%}\n      maxPods: -1\n", "default",
			file + ":5: spec.workerProfiles[0].values.evictionHard: unsupported eviction signal memory\n" +
				file + ":6: spec.workerProfiles[0].values.maxPods: -1 must not be a negative number"},
	} {
		write(t, h, file, test.config)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := h.Output(ctx, cluster.Program, "controller", "--single", "--config", file, "--profile", test.profile)
		cancel()
		failed := new(testhost.CommandError)
		if !errors.As(err, &failed) {
			t.Errorf("%s: it was not refused: %v", test.name, err)
		} else if got := strings.TrimSpace(failed.Stderr); got != "Error: "+test.want {
			t.Errorf("%s:\n got %s\nwant Error: %s", test.name, got, test.want)
		}
	}
	h.Run(t, "rm", file)
	cluster.MustBeAsBefore(t, h, before)
}

// isEffective tells whether the node has room for so many pods, and the kubelet says that it runs
// with these settings; nil is for a setting that must be there or, of feature gates, not be there.
func isEffective(t *testing.T, c *cluster.Cluster, pods string, settings map[string]any) {
	t.Helper()
	if err := c.Eventually(t.Context(), cluster.Patience, "the node to have room for "+pods+" pods", func(ctx context.Context) error {
		nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, node := range nodes.Items {
			if got := node.Status.Capacity.Pods().String(); got != pods {
				return fmt.Errorf("it has for %s", got)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		KubeletConfig map[string]any `json:"kubeletconfig"`
	}
	node := strings.TrimSpace(c.Must(t, "kubectl", "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	if err := json.Unmarshal([]byte(c.Must(t, "kubectl", "get", "--raw", "/api/v1/nodes/"+node+"/proxy/configz")), &answer); err != nil {
		t.Fatal(err)
	}
	for name, want := range settings {
		got, there := answer.KubeletConfig[name]
		switch {
		case want == nil && there == (name != "featureGates"):
		case want == nil || fmt.Sprint(got) != fmt.Sprint(want):
			t.Errorf("the kubelet runs with %s: %v, not %v", name, got, want)
		}
	}
}

// gates are the children's feature gates.
func gates(t *testing.T, c *cluster.Cluster) map[string][]string {
	t.Helper()
	children, err := c.ChildProcesses()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, name := range cluster.Children() {
		if len(children[name]) != 1 {
			t.Fatalf("there are %d processes %s", len(children[name]), name)
		}
		all[name] = slices.DeleteFunc(children[name][0].Args, func(arg string) bool { return !strings.HasPrefix(arg, "--feature-gates") })
	}
	return all
}

// containerIDs lists the containers, and when they were started.
func containerIDs(t *testing.T, c *cluster.Cluster) []string {
	t.Helper()
	pods, err := c.Client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, pod := range pods.Items {
		for _, s := range pod.Status.ContainerStatuses {
			if s.State.Running == nil {
				t.Fatalf("%s of %s does not run", s.Name, pod.Name)
			}
			ids = append(ids, fmt.Sprintf("%s/%s: %s since %s", pod.Name, s.Name, s.ContainerID, s.State.Running.StartedAt.UTC()))
		}
	}
	slices.Sort(ids)
	return ids
}

func restart(t *testing.T, c *cluster.Cluster, config string) {
	t.Helper()
	stop(t, c)
	write(t, c.Host, configFile, config)
	c.Run(t)
}

func stop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, h *testhost.Host, file, content string) {
	t.Helper()
	if err := h.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
