package node

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/process"
)

// withoutKubeProxy takes the rules back that kube-proxy left when it last ran here: it does not do so
// when it ends, and what replaces it must not find services in the kernel that nobody keeps up to date.
func withoutKubeProxy(o Options) component.Component {
	return component.Component{Name: "without-kube-proxy", Start: func(ctx context.Context) error {
		if !hasRunKubeProxy(o.Journal.Entries()) {
			return nil
		}
		cmd := exec.CommandContext(ctx, process.Self, "--cleanup")
		cmd.Args[0] = name.KubeProxy
		cmd.Env = append(os.Environ(), "PATH="+o.path())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("removing the rules of the disabled kube-proxy: kube-proxy --cleanup: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	}}
}

// hasRunKubeProxy tells whether kube-proxy has been about to make rules on this host.
func hasRunKubeProxy(changes []journal.Entry) bool {
	return slices.ContainsFunc(changes, func(e journal.Entry) bool {
		return e.Kind == journal.IPTables && e.Name == name.KubeProxy || e.Kind == journal.NFTTable && slices.Contains(proxyTables, e.Name)
	})
}

// proxyTables are kube-proxy's in nftables mode.
var proxyTables = []string{"ip kube-proxy", "ip6 kube-proxy"}
