package controlplane

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/flags"
	"k0s.io/k0s/internal/probe"
	"k0s.io/k0s/internal/process"
)

// apiServerStopTimeout leaves requests under way the time to end.
const apiServerStopTimeout = 20 * time.Second

// cipherSuites are those with forward secrecy and authenticated encryption, for TLS 1.2.
var cipherSuites = []string{
	"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
	"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}

// apiServer is ready as soon as it answers: a kubelet can register then.
func apiServer(o Options) component.Component {
	api := o.Config.Spec.API
	return process.Component(name.KubeAPIServer, func() (process.Spec, error) {
		spec, err := o.spec(name.KubeAPIServer, o.Config.Spec.InstallConfig.Users.KubeAPIServerUser, apiServerArgs(o))
		spec.StopTimeout = apiServerStopTimeout
		if api.Port < 1024 && spec.UID != 0 {
			spec.Capabilities = []uintptr{unix.CAP_NET_BIND_SERVICE}
		}
		return spec, err
	}, o.askAPI("/livez/ping"))
}

// API is the name of the component that is ready when the API server is: when the roles are there
// that everybody but administrators and nodes depends on. That is a second after its first answer.
const API = "api"

func apiReady(o Options) component.Component {
	return component.Component{Name: API, Ready: func(ctx context.Context) error {
		return probe.Until(ctx, o.askAPI("/readyz"), nil)
	}}
}

func (o Options) askAPI(path string) check {
	l := o.Layout
	return probe.HTTP(o.Config.Spec.API.LocalURL()+path, l.PKI("ca.crt"), l.PKI("admin.crt"), l.PKI("admin.key"))
}

func apiServerArgs(o Options) []string {
	l, api := o.Layout, o.Config.Spec.API
	args := flags.Args{
		"advertise-address":                  api.Address,
		"secure-port":                        strconv.Itoa(api.Port),
		"allow-privileged":                   "true",
		"anonymous-auth":                     "false",
		"api-audiences":                      "https://kubernetes.default.svc",
		"authorization-mode":                 "Node,RBAC",
		"client-ca-file":                     l.PKI("ca.crt"),
		"enable-admission-plugins":           "NodeRestriction",
		"enable-bootstrap-token-auth":        "true",
		"kubelet-certificate-authority":      l.PKI("ca.crt"),
		"kubelet-client-certificate":         l.PKI("apiserver-kubelet-client.crt"),
		"kubelet-client-key":                 l.PKI("apiserver-kubelet-client.key"),
		"kubelet-preferred-address-types":    "InternalIP,ExternalIP,Hostname",
		"profiling":                          "false",
		"proxy-client-cert-file":             l.PKI("front-proxy-client.crt"),
		"proxy-client-key-file":              l.PKI("front-proxy-client.key"),
		"requestheader-allowed-names":        "front-proxy-client",
		"requestheader-client-ca-file":       l.PKI("front-proxy-ca.crt"),
		"requestheader-extra-headers-prefix": "X-Remote-Extra-",
		"requestheader-group-headers":        "X-Remote-Group",
		"requestheader-username-headers":     "X-Remote-User",
		// Watches are told to end; else their connections hold the stop up until it is forced.
		"shutdown-watch-termination-grace-period": "500ms",
		"service-account-issuer":                  "https://kubernetes.default.svc",
		"service-account-jwks-uri":                "https://kubernetes.default.svc/openid/v1/jwks",
		"service-account-key-file":                l.PKI("sa.pub"),
		"service-account-signing-key-file":        l.PKI("sa.key"),
		"service-cluster-ip-range":                strings.Join(o.Config.ServiceCIDRs(), ","),
		"tls-cert-file":                           l.PKI("server.crt"),
		"tls-cipher-suites":                       strings.Join(cipherSuites, ","),
		"tls-min-version":                         "VersionTLS12",
		"tls-private-key-file":                    l.PKI("server.key"),
		"v":                                       o.LogLevels[name.KubeAPIServer],
	}
	maps.Copy(args, storeFlags(o.storeAccess()))
	if o.tunnel() {
		args["egress-selector-config-file"] = o.egressSelector()
	}
	if o.externalEndpoints() {
		args["endpoint-reconciler-type"] = "none" // ours is at work
	}
	if api.OnlyBindToAddress {
		args["bind-address"] = api.Address
	}
	return flags.Compute(args.WithFeatureGates(o.Config.FeatureGatesOf(name.KubeAPIServer)), api.ExtraArgs, api.RawArgs)
}
