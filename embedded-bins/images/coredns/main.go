// CoreDNS with the plugins that a Corefile of ours can name, and no others: every plugin
// left out is weight that no node has to store, map and load.
package main

import (
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/caddy/onevent" // the directive "on"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/debug"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metadata"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	_ "github.com/coredns/coredns/plugin/rewrite"
	_ "github.com/coredns/coredns/plugin/transfer"

	"k0s.io/k0s/internal/memory"
)

// directives is the order in which a query passes the plugins of a server block,
// whatever their order in the Corefile: those that watch (prometheus, errors, log) see
// every query; rewrite decides what is asked before cache remembers the answer; those
// that know names of their own answer before forward asks elsewhere.
var directives = []string{
	"metadata",
	"reload",
	"bind",
	"debug",
	"health",
	"ready",
	"prometheus",
	"errors",
	"log",
	"loadbalance",
	"rewrite",
	"cache",
	"transfer",
	"hosts",
	"kubernetes",
	"loop",
	"forward",
	"on",
}

func main() {
	memory.Settle(10*time.Second, 30)
	dnsserver.Directives = directives
	coremain.Run()
}
