package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/util/validation"

	"k0s.io/k0s/static"
)

// Names of our own stacks.
const (
	SystemRBAC    = "system-rbac"
	CoreDNS       = "coredns"
	MetricsServer = "metrics-server"
	EtcdMembers   = "etcd-members"
)

// ownStacks lists our own stacks in the order Render returns them.
func ownStacks() []string { return []string{SystemRBAC, CoreDNS, MetricsServer, EtcdMembers} }

// Params is what our own stacks depend on. Start from DefaultParams.
type Params struct {
	// ClusterDomain is the DNS domain of the cluster. Default: cluster.local.
	ClusterDomain string
	// DNSIPs are the fixed addresses of the Service kube-dns, one of each family
	// that services have, the primary one first. They must lie in the service
	// CIDRs. Default: 10.96.0.10, for 10.96.0.0/12.
	DNSIPs []string
	// DNSUpstreams is where CoreDNS sends what is not of the cluster: name
	// servers as address or address:port, or the path of a resolv.conf as
	// seen in the pod. Empty: nothing is forwarded, which is what a host
	// without name servers needs, because CoreDNS would not start otherwise.
	// Default: /etc/resolv.conf, which in this pod is the kubelet's.
	DNSUpstreams []string
	// DNSReplicas is the number of CoreDNS pods. With more than one, they run
	// on different nodes and a PodDisruptionBudget guards them. Default: 1.
	DNSReplicas int
	// CoreDNSImage and MetricsServerImage are the images of the pods.
	CoreDNSImage       string
	MetricsServerImage string
	// PullPolicy is Always, IfNotPresent or Never. Default: IfNotPresent.
	PullPolicy string
	// EtcdMembers: the cluster has an etcd with members that k0s runs. Default: false.
	EtcdMembers bool
	// Disabled names stacks that shall not be in the cluster. They are still
	// rendered, without objects, so that applying them removes what was there.
	Disabled []string
}

// DefaultParams returns the defaults stated at the fields of Params.
func DefaultParams() Params {
	return Params{
		ClusterDomain:      "cluster.local",
		DNSIPs:             []string{"10.96.0.10"},
		DNSUpstreams:       []string{"/etc/resolv.conf"},
		DNSReplicas:        1,
		CoreDNSImage:       "k0s.io/coredns:v1.14.7",
		MetricsServerImage: "k0s.io/metrics-server:v0.9.0",
		PullPolicy:         "IfNotPresent",
	}
}

// Render returns our own stacks for the given parameters. It fails, naming
// every wrong parameter, rather than render what cannot work.
func Render(p Params) ([]Stack, error) {
	if err := p.validate(); err != nil {
		return nil, err
	}
	var stacks []Stack
	for _, name := range ownStacks() {
		if name == EtcdMembers && !p.EtcdMembers {
			continue
		}
		stack := Stack{Name: name}
		if !slices.Contains(p.Disabled, name) {
			objects, err := renderDir(path.Join("manifests", name), p)
			if err != nil {
				return nil, err
			}
			stack.Objects = objects
		}
		stacks = append(stacks, stack)
	}
	return stacks, nil
}

func renderDir(dir string, p Params) ([]Object, error) {
	files, err := fs.Glob(static.Manifests, dir+"/*.yaml")
	if err != nil {
		return nil, err
	}
	var objects []Object
	for _, file := range files {
		text, err := static.Manifests.ReadFile(file)
		if err != nil {
			return nil, err
		}
		tmpl, err := template.New(file).Funcs(template.FuncMap{"quote": strconv.Quote}).Parse(string(text))
		if err != nil {
			return nil, err
		}
		var rendered bytes.Buffer
		if err := tmpl.Execute(&rendered, p); err != nil {
			return nil, err
		}
		found, warnings, err := Parse("static/"+file, rendered.Bytes())
		if err != nil {
			return nil, err
		}
		if len(warnings) > 0 {
			return nil, errors.New(strings.Join(warnings, "; "))
		}
		objects = append(objects, found...)
	}
	return objects, nil
}

// upstream is what may stand in a Corefile as a target of forward: nothing
// that would end the word or open a block.
var upstream = regexp.MustCompile(`^[A-Za-z0-9._:/%@\[\]-]+$`)

func (p Params) validate() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("system manifests: "+format, args...))
	}

	if problems := validation.IsDNS1123Subdomain(p.ClusterDomain); len(problems) > 0 {
		wrong("cluster domain %q: %s", p.ClusterDomain, strings.Join(problems, "; "))
	}
	if len(p.DNSIPs) == 0 {
		wrong("cluster DNS has no address")
	}
	for _, ip := range p.DNSIPs {
		if _, err := netip.ParseAddr(ip); err != nil {
			wrong("address of cluster DNS %q is not an IP address", ip)
		}
	}
	for _, u := range p.DNSUpstreams {
		if !upstream.MatchString(u) {
			wrong("upstream name server %q is neither an address, nor address:port, nor a path", u)
		}
	}
	if p.DNSReplicas < 1 {
		wrong("%d replicas of CoreDNS: at least 1 is needed; to have none, disable %s", p.DNSReplicas, CoreDNS)
	}
	for what, image := range map[string]string{"CoreDNS": p.CoreDNSImage, "metrics-server": p.MetricsServerImage} {
		if image == "" || strings.ContainsAny(image, " \t\r\n\"\\") {
			wrong("image of %s: %q is not an image name", what, image)
		}
	}
	if !slices.Contains([]string{"Always", "IfNotPresent", "Never"}, p.PullPolicy) {
		wrong("pull policy %q: expected Always, IfNotPresent or Never", p.PullPolicy)
	}
	for _, name := range p.Disabled {
		if !slices.Contains(ownStacks(), name) {
			wrong("disabled stack %q does not exist; there are %s", name, strings.Join(ownStacks(), ", "))
		}
	}
	return errors.Join(errs...)
}
