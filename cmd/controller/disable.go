package controller

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/joinapi"
	"k0s.io/k0s/internal/manifests"
	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// parts says what each name of --disable-components stands for.
var parts = map[string]struct {
	component string                              // to leave out of the set
	stack     string                              // not to be deployed
	configure func(config *v1beta1.ClusterConfig) // what it changes in the configuration
}{
	"applier-manager":     {component: "manifests"},
	"coredns":             {stack: manifests.CoreDNS},
	"control-api":         {component: joinapi.Name},
	"csr-approver":        {component: "csr-approver"},
	"konnectivity-server": {component: name.KonnectivityServer},
	// Without it, workers go to the controllers' own addresses, and the API servers say which these are.
	"endpoint-reconciler":     {configure: func(c *v1beta1.ClusterConfig) { c.Spec.Network.NodeLocalLoadBalancing.Enabled = true }},
	"kube-controller-manager": {component: "kube-controller-manager"},
	"kube-proxy":              {configure: func(c *v1beta1.ClusterConfig) { c.Spec.Network.KubeProxy.Disabled = true }},
	"kube-scheduler":          {component: "kube-scheduler"},
	"metrics-server":          {stack: manifests.MetricsServer},
	"network-provider":        {configure: func(c *v1beta1.ClusterConfig) { c.Spec.Network.Provider = v1beta1.CustomProvider }},
	"node-role":               {component: "node-role"},
	"system-rbac":             {stack: manifests.SystemRBAC},
}

// absent are names that other versions know; what they stand for is not in this one.
var absent = []string{
	"autopilot", "helm", "update-prober", "windows-node", "worker-config",
}

func disableable() []string { return slices.Sorted(maps.Keys(parts)) }

// disabled tells which components and stacks are not wanted, and changes config accordingly.
func disabled(names []string, config *v1beta1.ClusterConfig, log *slog.Logger) (components, stacks []string, err error) {
	for _, name := range names {
		part, ok := parts[name]
		switch {
		case slices.Contains(absent, name):
			log.Info("Not part of this k0s anyway", "disabled", name)
		case !ok:
			return nil, nil, fmt.Errorf("--disable-components: there is no component %q; there are: %s", name, strings.Join(disableable(), ", "))
		case part.component != "":
			components = append(components, part.component)
		case part.stack != "":
			stacks = append(stacks, part.stack)
		default:
			part.configure(config)
		}
	}
	return components, stacks, nil
}
