package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"k0s.io/k0s/pkg/apis/k0s/v1beta1"
)

// run is what `k0s ARGS` prints and fails with. FILE in args is a file with the
// given content, which is also the standard input.
func run(t *testing.T, content string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "k0s.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "FILE", file)
	}
	root := &cobra.Command{Use: "k0s", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(command(programs{}, somewhere))
	root.AddCommand(Deprecated(programs{})...)
	var out, errs strings.Builder
	root.SetIn(strings.NewReader(content))
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs(args)
	err = root.Execute()
	clean := func(s string) string { return strings.ReplaceAll(s, file, "FILE") }
	if err != nil {
		return clean(out.String()), clean(errs.String()), &cleanError{clean(err.Error())}
	}
	return clean(out.String()), clean(errs.String()), nil
}

type cleanError struct{ text string }

func (e *cleanError) Error() string { return e.text }

// programs know one flag, and are asked nothing else.
type programs struct{ v1beta1.Programs }

func (programs) Flags(string) []string { return []string{"audit-log-path"} }

// somewhere is a host with one address.
func somewhere(dataDir string) (v1beta1.Host, error) {
	only := netip.MustParseAddr("192.0.2.1")
	return v1beta1.Host{
		Addresses: []netip.Addr{only}, DataDir: dataDir,
		CanListen: func(address netip.Addr) bool { return address == only },
		HasUser:   func(name string) bool { return name == "me" },
	}, nil
}

func TestCommand(t *testing.T) {
	const address = "  api: {address: 192.0.2.1}\n"
	for _, tc := range []struct {
		name, content, args string
		stdout, stderr, err string
	}{
		{"create", "", "config create", v1beta1.DefaultFile(false), "", ""},
		{"create with images", "", "config create --include-images", v1beta1.DefaultFile(true), "", ""},
		{"the old name", "", "default-config --include-images", v1beta1.DefaultFile(true), "", ""},
		{"create wants no arguments", "", "config create x", "", "", `k0s config create takes no arguments, got ["x"]`},

		{"defaults", v1beta1.DefaultFile(false), "config validate -c FILE", "FILE is valid.\n", "", ""},
		{"defaults with images", v1beta1.DefaultFile(true), "config validate --config FILE", "FILE is valid.\n", "", ""},
		{"standard input", "spec: {}", "config validate -c -", "stdin is valid.\n", "", ""},
		{"empty", "", "config validate -c FILE", "FILE is valid.\n", "", ""},
		{"the other old name", "spec: {}", "validate config -c FILE", "FILE is valid.\n", "", ""},
		{"for another host", "spec: {}", "config validate -c FILE --other-host", "FILE is valid.\n", "", ""},
		{"no file", "", "config validate", "", "", `required flag(s) "config" not set`},
		{"missing file", "", "config validate -c FILE.not", "", "", "read the configuration: open FILE.not: no such file or directory: name a file that exists, or - for the standard input"},
		{"no name", "", "config validate --config=", "", "", "--config is empty: name a k0s.yaml, or - for the standard input"},
		{"endless", "", "config validate -c /dev/zero", "", "", "/dev/zero: larger than 1048576 bytes: this is not a k0s.yaml"},
		{"misspelt", "", "config creat", "", "", `unknown command "creat" for "k0s config": did you mean "create"?`},
		{"misspelt by its old name", "", "validate conf", "", "", `unknown command "conf" for "k0s validate": did you mean "config"?`},
		{"unheard of", "", "config whatever", "", "", `unknown command "whatever" for "k0s config"`},
		{"a directory", "", "config validate -c /", "", "", "read the configuration from /: read /: is a directory"},
		{"arguments", "", "config validate FILE", "", "", `k0s config validate takes no arguments, got ["FILE"]`},

		{"every problem, a line each", "spec:\n  api:\n    prot: 1\n    extraArgs: {audit-log-pth: /x}\n  network:\n    podCIDR: 10.0.0.0\n", "config validate -c FILE", "", "",
			"FILE:3: spec.api.prot: unknown field: did you mean \"port\"?\n" +
				"FILE:4: spec.api.extraArgs[audit-log-pth]: kube-apiserver has no such flag: did you mean \"audit-log-path\"?\n" +
				"FILE:6: spec.network.podCIDR: invalid value \"10.0.0.0\": must be a CIDR such as 10.244.0.0/16"},
		{"problems of the standard input", "spec: []", "config validate -c -", "", "",
			"stdin:1: spec: must be a mapping of names to values, not a list"},
		{"a warning", "spec:\n" + address + "  telemetry: {enabled: true}\n", "config validate -c FILE", "FILE is valid.\n",
			"Warning: spec.telemetry.enabled has no effect: k0s sends no telemetry\n", ""},
		{"an address in the way", "spec: {api: {address: 10.244.0.1}}\n", "config validate -c FILE --other-host", "", "",
			"FILE:1: spec.network.podCIDR: invalid value \"10.244.0.0/16\": contains the host's address 10.244.0.1 (spec.api.address): choose another network"},

		{"this host's address in the way", "spec:\n  api: {prot: 1}\n  network: {podCIDR: 192.0.2.0/24}\n", "config validate -c FILE", "", "",
			"FILE:2: spec.api.prot: unknown field: did you mean \"port\"?\n" +
				"FILE:3: spec.network.podCIDR: invalid value \"192.0.2.0/24\": contains the host's address 192.0.2.1 (spec.api.address): choose another network"},
		{"which another host does not have", "spec:\n  network: {podCIDR: 192.0.2.0/24}\n", "config validate -c FILE --other-host", "FILE is valid.\n", "", ""},
		{"an address of another host", "spec: {api: {address: 203.0.113.77}}", "config validate -c FILE", "", "",
			"FILE:1: spec.api.address: invalid value \"203.0.113.77\": is no address of this host, and etcd is to listen there: take one of [192.0.2.1]"},
		{"is good there", "spec: {api: {address: 203.0.113.77}}", "config validate -c FILE --other-host", "FILE is valid.\n", "", ""},
		{"an address of a router", "spec: {api: {address: 203.0.113.77}, storage: {etcd: {peerAddress: 192.0.2.1}}}", "config validate -c FILE", "FILE is valid.\n", "", ""},
		{"with a database", "spec: {api: {address: 203.0.113.77}, storage: {type: kine}}", "config validate -c FILE", "FILE is valid.\n", "", ""},
		{"to be listened on", "spec: {api: {address: 203.0.113.77, onlyBindToAddress: true}, storage: {type: kine}}", "config validate -c FILE", "", "",
			"FILE:1: spec.api.address: invalid value \"203.0.113.77\": is no address of this host, and kube-apiserver (spec.api.onlyBindToAddress) is to listen there"},
		{"loopback", "spec: {api: {address: 127.0.0.1}}", "config validate -c FILE --other-host", "", "",
			"FILE:1: spec.api.address: invalid value \"127.0.0.1\": must be an address others can connect to: a loopback address not even pods can use"},

		{"users", "spec: {installConfig: {users: {etcdUser: me, konnectivityUser: you, kubeAPIserverUser: kube-apisrever, kineUser: unused}}}", "config validate -c FILE", "", "",
			"FILE:1: spec.installConfig.users.konnectivityUser: invalid value \"you\": is no user of this host (/etc/passwd), and what it is for would run as root: make it (useradd --system), or correct the name\n" +
				"FILE:1: spec.installConfig.users.kubeAPIserverUser: invalid value \"kube-apisrever\": is no user of this host (/etc/passwd)"},
		{"of kine", "spec: {storage: {type: kine}, installConfig: {users: {etcdUser: unused, kineUser: no-such}}}", "config validate -c FILE", "", "",
			"FILE:1: spec.installConfig.users.kineUser: invalid value \"no-such\": is no user of this host"},
		{"of another host", "spec: {installConfig: {users: {etcdUser: there}}}", "config validate -c FILE --other-host", "FILE is valid.\n", "", ""},

		{"line ends of Windows", "spec:\r\n  api:\r\n    port: 443\r\n", "config validate -c FILE", "FILE is valid.\n", "", ""},
		{"and the lines are counted", "spec:\r\n  api:\r\n    port: 0\r\n", "config validate -c FILE", "", "",
			"FILE:3: spec.api.port: invalid value 0: must be a port from 1 to 65535"},
		{"a byte order mark", "\ufeffspec:\n  api:\n    port: 443\n", "config validate -c FILE", "FILE is valid.\n", "", ""},
		{"tabs", "spec:\n\tapi:\n\t\tport: 443\n", "config validate -c FILE", "", "",
			"FILE:2: not valid YAML from this line on: found character that cannot start any token: indent with spaces, not with tabs"},
		{"a tab behind blanks", "spec:\n  api:\n  \tport: 443\n", "config validate -c FILE", "", "", "FILE:3: not valid YAML from this line on: "},
		{"not UTF-8", "spec: {api: {sans: [\xff]}}\n", "config validate -c FILE", "", "", "FILE: not valid YAML: "},
		{"binary", "\x7fELF\x00\x01", "config validate -c FILE", "", "", "FILE: not valid YAML: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stdout, stderr, err := run(t, tc.content, strings.Fields(tc.args)...)
			if !strings.HasSuffix(stdout, tc.stdout) || tc.stdout == "" && stdout != "" {
				t.Errorf("printed %q, want %q", stdout, tc.stdout)
			}
			if stderr != tc.stderr && !strings.Contains(stdout+stderr, "is deprecated, use `k0s config ") {
				t.Errorf("complained %q, want %q", stderr, tc.stderr)
			}
			switch {
			case tc.err == "" && err != nil, tc.err != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.err)):
				t.Errorf("failed with %v, want %q", err, tc.err)
			}
		})
	}
}
