package manifests

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "rewrite testdata")

func TestRender(t *testing.T) {
	for name, change := range map[string]func(*Params){
		"default": func(*Params) {},
		"air-gap": func(p *Params) { p.DNSUpstreams = nil },
		"other": func(p *Params) {
			p.ClusterDomain = "k8s.example.org"
			p.DNSIPs = []string{"fd00::a", "10.96.0.10"}
			p.DNSUpstreams = []string{"192.0.2.1", "[2001:db8::1]:53"}
			p.DNSReplicas = 3
			p.CoreDNSImage = "registry.example.org:5000/coredns@sha256:0123"
			p.MetricsServerImage = "registry.example.org:5000/metrics-server:v1"
			p.PullPolicy = "Never"
			p.EtcdMembers = true
		},
		"disabled": func(p *Params) { p.Disabled = []string{CoreDNS, MetricsServer} },
	} {
		t.Run(name, func(t *testing.T) {
			p := DefaultParams()
			change(&p)
			stacks, err := Render(p)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			for _, stack := range stacks {
				got.WriteString("# stack " + stack.Name + "\n")
				for _, object := range stack.Objects {
					text, err := yaml.Marshal(object.Object)
					if err != nil {
						t.Fatal(err)
					}
					got.WriteString("---\n")
					got.Write(text)
				}
			}
			golden := filepath.Join("testdata", "render", name+".yaml")
			if *update {
				write(t, golden, got.String())
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("differs from %s; if that is right, run go test with -update and read the difference.\n%s", golden, got.String())
			}
		})
	}
}

func TestRenderRefuses(t *testing.T) {
	for want, change := range map[string]func(*Params){
		`cluster domain "Cluster Local"`:         func(p *Params) { p.ClusterDomain = "Cluster Local" },
		`address of cluster DNS "10.96.0.256"`:   func(p *Params) { p.DNSIPs = []string{"10.96.0.256"} },
		`upstream name server "1.1.1.1 }\nlog"`:  func(p *Params) { p.DNSUpstreams = []string{"1.1.1.1 }\nlog"} },
		`0 replicas of CoreDNS`:                  func(p *Params) { p.DNSReplicas = 0 },
		`image of CoreDNS: ""`:                   func(p *Params) { p.CoreDNSImage = "" },
		`image of metrics-server: "a b"`:         func(p *Params) { p.MetricsServerImage = "a b" },
		`pull policy "Sometimes"`:                func(p *Params) { p.PullPolicy = "Sometimes" },
		`disabled stack "core-dns" does not exi`: func(p *Params) { p.Disabled = []string{"core-dns"} },
	} {
		p := DefaultParams()
		change(&p)
		stacks, err := Render(p)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, expected %s", err, want)
		}
		if stacks != nil {
			t.Errorf("%s: rendered all the same", want)
		}
	}
}

// What every pod of ours promises, whatever the golden files say.
func TestOwnPods(t *testing.T) {
	stacks, err := Render(DefaultParams())
	if err != nil {
		t.Fatal(err)
	}
	pods := 0
	for _, stack := range stacks {
		for _, object := range stack.Objects {
			if object.GetKind() != "Deployment" {
				continue
			}
			pods++
			spec, _, _ := unstructured.NestedMap(object.Object, "spec", "template", "spec")
			if spec["priorityClassName"] != "system-cluster-critical" {
				t.Errorf("%s: priority is %v", object.GetName(), spec["priorityClassName"])
			}
			containers, _, _ := unstructured.NestedSlice(spec, "containers")
			for _, c := range containers {
				c := c.(map[string]any)
				security, _, _ := unstructured.NestedMap(c, "securityContext")
				if security["readOnlyRootFilesystem"] != true || security["allowPrivilegeEscalation"] != false {
					t.Errorf("%s: not confined: %v", object.GetName(), security)
				}
				drop, _, _ := unstructured.NestedStringSlice(security, "capabilities", "drop")
				if !slices.Equal(drop, []string{"ALL"}) {
					t.Errorf("%s: drops only %v", object.GetName(), drop)
				}
				for _, probe := range []string{"startupProbe", "readinessProbe", "livenessProbe"} {
					if delay, found, _ := unstructured.NestedInt64(c, probe, "initialDelaySeconds"); found || c[probe] == nil {
						t.Errorf("%s: %s is missing or delayed by %d s", object.GetName(), probe, delay)
					}
				}
			}
		}
	}
	if pods != 2 {
		t.Errorf("%d Deployments instead of 2", pods)
	}
}
