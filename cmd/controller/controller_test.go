package controller

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"k0s.io/k0s/cmd/config"
	"k0s.io/k0s/cmd/internal/cli"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/identity"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// planFor is the plan of a controller with these flags and this k0s.yaml.
func planFor(t *testing.T, f flags, config string) (*plan, error) {
	t.Helper()
	f.config = filepath.Join(t.TempDir(), "k0s.yaml")
	if err := os.WriteFile(f.config, []byte("spec:\n  api:\n    address: 192.0.2.1\n"+config), 0o600); err != nil {
		t.Fatal(err)
	}
	f.thisHost = func(dataDir string) (v1beta1.Host, error) {
		return v1beta1.Host{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, DataDir: dataDir}, nil
	}
	return f.plan(&cobra.Command{}, slog.New(slog.DiscardHandler))
}

func TestTaints(t *testing.T) {
	const taint = "node-role.kubernetes.io/control-plane:NoSchedule"
	for _, tc := range []struct {
		name string
		f    flags
		want []string
	}{
		{"a single node runs everything", flags{single: true}, nil},
		{"a controller that is a node keeps pods off", flags{enableWorker: true}, []string{taint}},
		{"unless told otherwise", flags{enableWorker: true, noTaints: true}, nil},
		{"single wins", flags{single: true, enableWorker: true}, nil},
		{"the user's own stay", flags{enableWorker: true, worker: cli.WorkerFlags{Taints: []string{"a:NoExecute"}}}, []string{"a:NoExecute", taint}},
	} {
		p, err := planFor(t, tc.f, "")
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if !slices.Equal(p.node.Taints, tc.want) {
			t.Errorf("%s: got %q, want %q", tc.name, p.node.Taints, tc.want)
		}
	}
}

func TestComponents(t *testing.T) {
	tunnel := []string{"tunnel", "konnectivity-server"}
	worker := []string{"helpers", "kernel", "containerd", "images", "kubelet", "registration", "kube-proxy", "pod-network", "node-credentials"}
	for _, tc := range []struct {
		name         string
		f            flags
		config       string
		with, absent []string
	}{
		{"controller only", flags{}, "", []string{"etcd", "kube-apiserver", "kube-scheduler", "manifests", "konnectivity-server"}, append(worker, "tunnel")},
		{"single", flags{single: true}, "", append(worker, "etcd"), tunnel},
		{"controller and worker", flags{enableWorker: true}, "", append(worker, tunnel...), nil},
		{"without tunnel", flags{enableWorker: true, disableComponents: []string{"konnectivity-server"}}, "", worker, tunnel},
		{"own network", flags{single: true}, "  network: {provider: custom}\n", []string{"kubelet"}, []string{"pod-network"}},
		{"own proxy", flags{single: true}, "  network: {kubeProxy: {disabled: true}}\n", []string{"kubelet"}, []string{"kube-proxy"}},
		{"disabled by flag", flags{single: true, disableComponents: []string{"kube-proxy", "network-provider", "kube-scheduler", "csr-approver", "autopilot"}}, "",
			[]string{"kubelet"}, []string{"kube-proxy", "pod-network", "kube-scheduler", "csr-approver"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := planFor(t, tc.f, tc.config)
			if err != nil {
				t.Fatal(err)
			}
			p.controller.Identity = &identity.Identity{}
			engine, err := component.NewEngine(p.components(), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err) // it could never start
			}
			var names []string
			for _, s := range engine.Status() {
				names = append(names, s.Name)
			}
			for _, want := range tc.with {
				if !slices.Contains(names, want) {
					t.Errorf("missing %s in %v", want, names)
				}
			}
			for _, not := range tc.absent {
				if slices.Contains(names, not) {
					t.Errorf("unwanted %s in %v", not, names)
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		f      flags
		config string
		want   string
	}{
		{"unknown component", flags{disableComponents: []string{"corends"}}, "", `there is no component "corends"`},
		{"unknown program", flags{worker: cli.WorkerFlags{Logging: map[string]string{"x": "1"}}}, "", `there is no program "x"`},
		{"bad taint", flags{worker: cli.WorkerFlags{Taints: []string{"x"}}}, "", "KEY[=VALUE]:EFFECT"},
		{"bad kubelet arguments", flags{worker: cli.WorkerFlags{KubeletArgs: "v=2"}}, "", "is not a flag"},
		{"unknown field", flags{}, "  netwrok: {}\n", `did you mean "network"`},
	} {
		_, err := planFor(t, tc.f, tc.config)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestHostnameOverrideNamesTheNode(t *testing.T) {
	p, err := planFor(t, flags{single: true, worker: cli.WorkerFlags{KubeletArgs: "--hostname-override=Other"}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if p.node.NodeName != "other" || p.controller.NodeName != "other" {
		t.Errorf("got %q and %q", p.node.NodeName, p.controller.NodeName)
	}
}

// TestPreflightCollisions: whether a controller is a node, too, is not in its k0s.yaml.
func TestPreflightCollisions(t *testing.T) {
	const want = "port 10250 is to be of both kube-apiserver (spec.api.port) and the kubelet: give one of them another port"
	for _, tc := range []struct {
		f    flags
		says bool
	}{{flags{}, false}, {flags{enableWorker: true}, true}} {
		p, err := planFor(t, tc.f, "    port: 10250\n")
		if err != nil {
			t.Fatal(err)
		}
		if err := preflight(t.Context(), p); (err != nil && strings.Contains(err.Error(), want)) != tc.says {
			t.Errorf("node %t: got %v", tc.f.enableWorker, err)
		}
	}
}

// TestSameAsValidate: `k0s config validate` and `k0s controller` say the same of a file, on the same host.
func TestSameAsValidate(t *testing.T) {
	here, err := cli.ThisHost("")
	if err != nil {
		t.Fatal(err)
	}
	own := "spec: {}"
	if len(here.Addresses) > 0 && here.Addresses[0].Is4() {
		own = "spec: {network: {podCIDR: " + netip.PrefixFrom(here.Addresses[0], 24).Masked().String() + "}}"
	}
	for _, content := range []string{
		"", "spec: {}", own,
		"spec: [", "- a", "kind: Cluster", "spec: {}\n---\nspec: {}",
		"spec: {api: {prot: 1, port: many}}",
		"spec: {api: {address: 127.0.0.1}}",
		"spec: {api: {address: 203.0.113.77}}",
		"spec: {api: {address: 203.0.113.77, onlyBindToAddress: true}, storage: {type: kine}}",
		"spec: {api: {address: \"2001:db8::1\"}}",
		"spec: {api: {port: 2379}, network: {podCIDR: 10.96.0.0/16}}",
		"spec: {network: {coreDNS: {patches: [{target: {kind: Deployment, name: no}, patch: {type: MergePatch, content: '{}'}}]}}}",
		"spec: {network: {dualStack: {enabled: true}}}",
		"spec: {installConfig: {users: {etcdUser: no-such-user, kineUser: daemon}}}",
	} {
		file := filepath.Join(t.TempDir(), "k0s.yaml")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		validate := config.Command(nil)
		validate.SetArgs([]string{"validate", "-c", file})
		validate.SetOut(io.Discard)
		validate.SetErr(io.Discard)
		validate.SilenceErrors, validate.SilenceUsage = true, true
		f := flags{config: file, thisHost: cli.ThisHost}
		_, started := f.plan(&cobra.Command{}, slog.New(slog.DiscardHandler))
		if validated := validate.Execute(); fmt.Sprint(validated) != fmt.Sprint(started) {
			t.Errorf("%s:\nvalidate says %v\ncontroller says %v", content, validated, started)
		}
	}
}
