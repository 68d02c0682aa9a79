package reset

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
)

func makeFIFO(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveDeadSockets(t *testing.T) {
	dir := t.TempDir()
	listen := func(name string) *net.UnixListener {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		return l
	}
	dead, alive := listen("dead"), listen("alive")
	defer alive.Close()
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "missing")} {
		if err := removeDeadSockets(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	var left []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	if want := []string{"alive", "file"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
}

// A k0s that was killed while it wrote a file has left another one beside it.
func TestUndoFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	name := filepath.Join(dir, "k0s.conflist")
	for _, files := range [][]string{{"k0s.conflist"}, {".k0s.conflist-123"}, {"k0s.conflist", ".k0s.conflist-123"}, nil} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // done before, and the directory is gone
			for _, e := range []journal.Entry{{Kind: journal.File, Name: name}, {Kind: journal.Dir, Name: dir}} {
				if err := undo(t.Context(), host.Layout{}, e); err != nil {
					t.Errorf("%v: undoing %v: %v", files, e, err)
				}
			}
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: the directory is still there: %v", files, err)
		}
	}
}

func TestKillUntilNone(t *testing.T) {
	// Each of these was forked while the one before was killed.
	var children []*exec.Cmd
	for range 3 {
		cmd := exec.Command("sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, cmd)
	}
	next := 0
	err := killUntilNone(t.Context(), "kubepods", func() ([]int, error) {
		if next == len(children) {
			return nil, nil
		}
		next++
		return []int{children[next-1].Process.Pid}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, cmd := range children {
		if err := cmd.Wait(); err == nil {
			t.Error("a process ended by itself")
		}
	}
	if next != len(children) {
		t.Errorf("only %d were killed", next)
		_ = children[next].Process.Kill()
	}
}

func TestKillUntilNoneGivesUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	self := func() ([]int, error) { return []int{os.Getpid()}, nil }
	if err := killUntilNone(ctx, "kubepods", self); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestProcessesIn(t *testing.T) {
	top := t.TempDir()
	below := filepath.Join(top, "pod1")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, content := range map[string]string{top: "0\n12\n", below: "13\n12\n"} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// 0 would be this process' own group.
	if got, err := processesIn([]string{top, filepath.Join(top, "missing")}); err != nil || !slices.Equal(got, []int{12, 13}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRemovalScript(t *testing.T) {
	for _, tc := range []struct{ name, saved, want string }{
		{"nothing", "", ""},
		{"nothing of ours", "*nat\n:PREROUTING ACCEPT [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j DOCKER\nCOMMIT\n", ""},
		{"the firewall chain among somebody's rules", `# Generated
*mangle
:INPUT ACCEPT [0:0]
COMMIT
*filter
:INPUT DROP [5:300]
:OUTPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:MINE - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -p tcp -m comment --comment "ssh -j KUBE" -j ACCEPT
-A OUTPUT -m comment --comment "two words" -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP
COMMIT
`, `*filter
-D INPUT -j KUBE-FIREWALL
-D OUTPUT -m comment --comment "two words" -j KUBE-FIREWALL
-F KUBE-FIREWALL
-X KUBE-FIREWALL
COMMIT
`},
		{"chains that call each other", "*nat\n:KUBE-A - [0:0]\n:KUBE-B - [0:0]\n-A KUBE-A -j KUBE-B\nCOMMIT\n",
			"*nat\n-F KUBE-A\n-F KUBE-B\n-X KUBE-A\n-X KUBE-B\nCOMMIT\n"},
	} {
		if got := removalScript(tc.saved); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

func TestDeleteTable(t *testing.T) {
	alone(t, func(t *testing.T) {
		c, err := nftables.New()
		if err != nil {
			t.Fatal(err)
		}
		add := func(name string, policy nftables.ChainPolicy) (*nftables.Table, *nftables.Chain) {
			table := c.AddTable(&nftables.Table{Name: name, Family: nftables.TableFamilyIPv4})
			return table, c.AddChain(&nftables.Chain{Name: "INPUT", Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &policy})
		}
		add("empty", nftables.ChainPolicyAccept)
		add("closed", nftables.ChainPolicyDrop)
		withRule, chain := add("used", nftables.ChainPolicyAccept)
		c.AddRule(&nftables.Rule{Table: withRule, Chain: chain})
		ours, chain := add("ours", nftables.ChainPolicyAccept)
		c.AddRule(&nftables.Rule{Table: ours, Chain: chain})
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		for name, when := range map[string]condition{
			"ip empty": ifEmpty, "ip closed": ifEmpty, "ip used": ifEmpty, "ip ours": always, "ip missing": always, "inet missing": ifEmpty,
		} {
			if err := deleteTable(name, when); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		tables, err := c.ListTables()
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, table := range tables {
			left = append(left, table.Name)
		}
		slices.Sort(left)
		if want := []string{"closed", "used"}; !slices.Equal(left, want) {
			t.Errorf("left are %q, want %q", left, want)
		}
	})
}
