package reset

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/instance"
	"k0s.io/k0s/internal/journal"
)

// place is a host as far as reset is concerned.
type place struct {
	t   *testing.T
	top string
	host.Layout
}

// newPlace has a data directory that is marked as k0s'.
func newPlace(t *testing.T) place {
	t.Helper()
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := place{t: t, top: top, Layout: host.Layout{
		DataDir: filepath.Join(top, "data"), RunDir: filepath.Join(top, "run"), KubeletRoot: filepath.Join(top, "data/kubelet"),
	}}
	p.write("data/identity.json")
	return p
}

// write makes a file, with its directories.
func (p place) write(name string) {
	p.t.Helper()
	p.mkdir(filepath.Dir(name))
	if err := os.WriteFile(filepath.Join(p.top, name), []byte("precious"), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p place) mkdir(name string) string {
	p.t.Helper()
	dir := filepath.Join(p.top, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	return dir
}

func (p place) journal(entries ...journal.Entry) {
	p.t.Helper()
	j, err := journal.Open(p.Journal())
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range entries {
		if err := j.Add(e); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p place) reset(keepData bool) error {
	return Run(p.t.Context(), Options{Layout: p.Layout, KeepData: keepData, Log: slog.New(slog.DiscardHandler)})
}

func (p place) mustFail(with string) {
	p.t.Helper()
	if err := p.reset(false); err == nil || !strings.Contains(err.Error(), with) {
		p.t.Errorf("got %v, want an error with %q", err, with)
	}
}

// mustHave checks what there is, but for directories.
func (p place) mustHave(want ...string) {
	p.t.Helper()
	var got []string
	err := filepath.WalkDir(p.top, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(p.top, path)
			got = append(got, name)
		}
		return err
	})
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		p.t.Errorf("there are %q, want %q", got, want)
	}
}

func (p place) mustBeGone(dirs ...string) {
	p.t.Helper()
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); !os.IsNotExist(err) {
			p.t.Errorf("%s is still there: %v", dir, err)
		}
	}
}

func TestResetGoesRoundVolumes(t *testing.T) {
	alone(t, func(t *testing.T) {
		p := newPlace(t)
		p.write("home/file")
		// The data directory is given as a symbolic link.
		link := filepath.Join(p.top, "link")
		if err := os.Symlink(p.DataDir, link); err != nil {
			t.Fatal(err)
		}
		resolved, err := host.NewLayout(link, "")
		if err != nil {
			t.Fatal(err)
		}
		p.DataDir, p.DataDirLink, p.KubeletRoot = resolved.DataDir, resolved.DataDirLink, resolved.KubeletRoot
		// The kubelet has a directory of its own, which only the journal knows.
		p.journal(journal.Entry{Kind: journal.KubeletRoot, Name: p.mkdir("kubelet")})

		home := filepath.Join(p.top, "home")
		for _, at := range []string{"kubelet/pods/1/volumes/a b", "data/kubelet/pods/2/volumes/c", "data/containerd/x/tmp", "run/containerd/rootfs"} {
			mount(t, home, p.mkdir(at))
		}
		p.write("kubelet/state")
		p.write("run/socket")
		p.write("data/bin/runc")
		if err := p.reset(false); err != nil {
			t.Fatal(err)
		}
		p.mustHave("home/file")
		p.mustBeGone(p.DataDir, p.RunDir, link, filepath.Join(p.top, "kubelet"))
		if err := p.reset(false); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

func TestResetEmptiesDisks(t *testing.T) {
	alone(t, func(t *testing.T) {
		p := newPlace(t)
		disks := []string{p.DataDir, p.Etcd(), p.Containerd()}
		for _, disk := range disks {
			if err := os.MkdirAll(disk, 0o755); err != nil {
				t.Fatal(err)
			}
			mount(t, "tmpfs", disk)
		}
		p.write("data/identity.json")
		p.write("data/lost+found/file")
		p.write("data/etcd/member/wal")
		p.write("data/containerd/snapshots/1")
		if err := p.reset(false); err != nil {
			t.Fatal(err)
		}
		p.mustHave("data/lost+found/file")
		points, err := mountPoints()
		if err != nil {
			t.Fatal(err)
		}
		for _, disk := range disks {
			if !slices.Contains(points, disk) {
				t.Errorf("%s is not mounted any more", disk)
			}
		}
		p.write("data/lost+found/file")
		if err := p.reset(false); err != nil {
			t.Errorf("again: %v", err)
		}
		if err := instance.CheckDataDir(p.Layout); err != nil {
			t.Errorf("k0s cannot use the disks again: %v", err)
		}
	})
}

func TestResetDeletesNothingThatIsMounted(t *testing.T) {
	alone(t, func(t *testing.T) {
		t.Run("a volume that cannot be unmounted", func(t *testing.T) {
			p := newPlace(t)
			p.RunDir = filepath.Join(p.top, "hidden/run")
			mount(t, "tmpfs", p.mkdir("hidden/run/volume"))
			mount(t, "tmpfs", filepath.Join(p.top, "hidden")) // now nobody gets at the volume
			p.mustFail("nothing was deleted")
			p.mustHave("data/identity.json")
		})
		t.Run("somebody's disk in the data directory", func(t *testing.T) {
			p := newPlace(t)
			p.write("home/file")
			mount(t, filepath.Join(p.top, "home"), p.mkdir("data/backup"))
			p.mustFail(p.DataDir + "/backup")
			p.mustHave("data/identity.json", "data/backup/file", "home/file")
		})
		t.Run("somebody's disk in a tree of the journal", func(t *testing.T) {
			p := newPlace(t)
			p.write("home/file")
			p.journal(journal.Entry{Kind: journal.Tree, Name: p.mkdir("tree")})
			mount(t, filepath.Join(p.top, "home"), p.mkdir("tree/disk"))
			p.mustFail("something is mounted there")
			p.mustHave("data/identity.json", "data/journal.jsonl", "tree/disk/file", "home/file")
		})
	})
}

func TestResetTouchesOnlyWhatIsOurs(t *testing.T) {
	t.Run("a data directory", func(t *testing.T) {
		p := newPlace(t)
		p.write("home/alice/file")
		p.DataDir = filepath.Join(p.top, "home")
		p.mustFail("--data-dir")
		p.mustHave("data/identity.json", "home/alice/file")
		p.mustBeGone(p.RunDir)
	})
	t.Run("a missing data directory", func(t *testing.T) {
		p := newPlace(t)
		p.DataDir = filepath.Join(p.top, "no", "such", "directory")
		p.KubeletRoot = filepath.Join(p.DataDir, "kubelet")
		if err := p.reset(false); err != nil {
			t.Error(err)
		}
		p.mustBeGone(filepath.Join(p.top, "no"), p.RunDir)
	})
	t.Run("a kubelet's directory", func(t *testing.T) {
		p := newPlace(t)
		p.write("other/pods/1")
		p.KubeletRoot = filepath.Join(p.top, "other")
		p.mustFail("--kubelet-root-dir")
		p.mustHave("data/identity.json", "other/pods/1")
	})
	t.Run("a host where k0s runs", func(t *testing.T) {
		p := newPlace(t)
		lock, err := instance.Acquire(p.Layout, instance.RuntimeSpec{Role: "controller"})
		if err != nil {
			t.Fatal(err)
		}
		p.mustFail("stop that one first")
		p.mustHave("data/identity.json", "data/k0s.yaml.lock", "run/k0s.yaml", "run/k0s.yaml.lock")
		if err := lock.Release(); err != nil {
			t.Error(err)
		}
	})
	t.Run("with --keep-data", func(t *testing.T) {
		p := newPlace(t)
		p.write("traces/file")
		p.write("run/socket")
		p.journal(journal.Entry{Kind: journal.File, Name: filepath.Join(p.top, "traces/file")})
		if err := p.reset(true); err != nil {
			t.Fatal(err)
		}
		p.mustHave("data/identity.json", "data/journal.jsonl")
	})
}

// While it works, no k0s starts.
func TestResetHoldsTheLock(t *testing.T) {
	p := newPlace(t)
	// Opening the pid file blocks until somebody writes to it.
	p.mkdir("run")
	fifo := filepath.Join(p.RunDir, "kubelet.pid")
	makeFIFO(t, fifo)
	done := make(chan error)
	go func() { done <- p.reset(false) }()
	writer, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := instance.Acquire(p.Layout, instance.RuntimeSpec{Role: "controller"}); err == nil {
		t.Error("k0s started in the middle of a reset")
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	p.mustBeGone(p.DataDir, p.RunDir)
}
