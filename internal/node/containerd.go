package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"

	containerdclient "github.com/containerd/containerd/v2/client"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/applet/name"
	"k0s.io/k0s/internal/component"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/network/kuberouter"
	"k0s.io/k0s/internal/process"
)

const (
	// userContainerdConfig replaces ours, if it is there and not managed by k0s.
	userContainerdConfig = "/etc/k0s/containerd.toml"
	managedMark          = "# k0s_managed=true\n"
)

func containerd(o Options) component.Component {
	l := o.Layout
	return process.Component(name.Containerd, func() (process.Spec, error) {
		if err := recordContainerdTraces(o); err != nil {
			return process.Spec{}, err
		}
		config, err := writeContainerdConfig(o)
		if err != nil {
			return process.Spec{}, err
		}
		return o.spec(name.Containerd, containerdArgs(o, config)), nil
	}, func(ctx context.Context) error {
		// Asked before the socket is there, the client would sit out a back-off of its own.
		if conn, err := (&net.Dialer{}).DialContext(ctx, "unix", l.ContainerdSocket()); err != nil {
			return err
		} else if err := conn.Close(); err != nil {
			return err
		}
		client, err := containerdclient.New(l.ContainerdSocket())
		if err != nil {
			return err
		}
		defer client.Close()
		serving, err := client.IsServing(ctx)
		if err == nil && !serving {
			err = errors.New("containerd does not serve yet")
		}
		return err
	})
}

// recordContainerdTraces writes down what containerd leaves on the host in places it has built in.
func recordContainerdTraces(o Options) error {
	// It makes this directory itself, if nobody has.
	if err := o.Journal.MakeDir(filepath.Dir(kuberouter.CNIConfig)); err != nil {
		return err
	}
	// The shims' sockets, NRI's socket: another containerd of this host may put its own beside them.
	if err := o.Journal.AddUnlessThere(journal.Dir, "/run/containerd", "/run/containerd/s", "/run/nri"); err != nil {
		return err
	}
	for _, dir := range []string{"/run/containerd/s", "/run/nri"} {
		if err := o.Journal.Add(journal.Entry{Kind: journal.Sockets, Name: dir}); err != nil {
			return err
		}
	}
	// The results that libcni keeps.
	return o.Journal.AddUnlessThere(journal.Tree, "/var/lib/cni")
}

func containerdArgs(o Options, config string) []string {
	return []string{
		"--root=" + o.Layout.Containerd(),
		"--state=" + o.Layout.Run("containerd"),
		"--address=" + o.Layout.ContainerdSocket(),
		"--log-level=" + o.LogLevels[name.Containerd],
		"--config=" + config,
	}
}

// writeContainerdConfig returns the configuration to use: the user's own, or the one written here.
func writeContainerdConfig(o Options) (string, error) {
	users, err := os.ReadFile(userContainerdConfig)
	if err == nil && !bytes.HasPrefix(users, []byte(managedMark)) {
		o.Log.Warn("Using the user's containerd configuration in place of k0s' own: it must name runc, the CNI plugins and the cgroup driver; "+
			"settings to add to k0s' own go to /etc/k0s/containerd.d/*.toml", "component", name.Containerd, "file", userContainerdConfig)
		return userContainerdConfig, nil
	}
	content, err := containerdConfig(o.containerdFacts())
	if err != nil {
		return "", err
	}
	path := o.Layout.Run("containerd.toml")
	return path, os.WriteFile(path, content, 0o644)
}

// containerdFacts are what the configuration depends on.
type containerdFacts struct {
	BinDir        string
	RuncRoot      string // where runc keeps its containers' state
	PauseImage    string
	SystemdCgroup bool
	// RestrictOOMScoreAdj: this process may not lower oom_score_adj, nor may runc.
	RestrictOOMScoreAdj bool
}

func (o Options) containerdFacts() containerdFacts {
	return containerdFacts{
		BinDir:              o.Layout.Bin(),
		RuncRoot:            o.Layout.Run("runc"),
		PauseImage:          o.Config.Spec.Images.Ref(o.Config.Spec.Images.Pause),
		SystemdCgroup:       useSystemdCgroups(),
		RestrictOOMScoreAdj: !host.HasCapability(unix.CAP_SYS_RESOURCE),
	}
}

// useSystemdCgroups tells whether containers' cgroups are made by systemd; kubelet and runc must
// agree on it.
func useSystemdCgroups() bool {
	version, err := host.CgroupVersion()
	return err == nil && version == 2 && host.HasSystemd()
}

// network namespaces are kept below the state directory: so reset finds all of ours, and no others.
var containerdTemplate = template.Must(template.New("containerd.toml").Parse(managedMark + `version = 3
# This one makes /opt/containerd, for programs installed by containerd: k0s brings its own.
disabled_plugins = ["io.containerd.internal.v1.opt"]
imports = ["/etc/k0s/containerd.d/*.toml"]

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = {{printf "%q" .PauseImage}}

[plugins."io.containerd.cri.v1.runtime"]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = {{.RestrictOOMScoreAdj}}

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [{{printf "%q" (print .BinDir "/cni")}}, "/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = {{printf "%q" (print .BinDir "/runc")}}
  Root = {{printf "%q" .RuncRoot}}
  SystemdCgroup = {{.SystemdCgroup}}
`))

func containerdConfig(f containerdFacts) ([]byte, error) {
	var out bytes.Buffer
	if err := containerdTemplate.Execute(&out, f); err != nil {
		return nil, fmt.Errorf("containerd's configuration: %w", err)
	}
	return out.Bytes(), nil
}
