// Package journal remembers what k0s changed on the host outside of its own directories, so that
// reset can take it back without asking any daemon.
package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"

	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/host"
)

// Kind of a change.
type Kind string

// Kinds of changes, with what undoes them.
const (
	File     Kind = "file"      // Name is a path: removed
	Dir      Kind = "dir"       // Name is a path: removed if empty
	Tree     Kind = "tree"      // Name is a path: removed with all below it, unless something is mounted there
	Sockets  Kind = "sockets"   // Name is a directory: those sockets in it are removed on which nobody listens
	Link     Kind = "link"      // Name is a network interface: deleted
	Routes   Kind = "routes"    // Name is a protocol number: routes with it are deleted
	NFTTable Kind = "nft-table" // Name is "family table": deleted
	// EmptyNFTTable is for a table that others may have come to use: deleted if it has no rules.
	EmptyNFTTable Kind = "empty-nft-table"
	// ForwardRules are in iptables' chain FORWARD: Name is ip or ip6, or the legacy program's path: ours are deleted.
	ForwardRules Kind = "forward-rules"
	IPTables     Kind = "iptables" // Name is kube-proxy: it removes its chains
	Cgroup       Kind = "cgroup"   // Name is a path below each hierarchy: removed
	Sysctl       Kind = "sysctl"   // Name is a path below /proc/sys: set to Old
	// KubeletRoot is the kubelet's state: Name is a path, unmounted below and removed with the data.
	KubeletRoot Kind = "kubelet-root"
)

// Entry is one change.
type Entry struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Old is the value before the change, where the change is undone by restoring it.
	Old string `json:"old,omitempty"`
}

// Journal is the list of changes, one JSON object a line, oldest first.
type Journal struct {
	path string
	mu   sync.Mutex
	seen []Entry
}

// Open reads the journal at path, which need not exist. A torn last line, left by a crash in the
// middle of a write, is passed over: what it announced had not been done yet.
func Open(path string) (*Journal, error) {
	j := &Journal{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var e Entry
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Kind != "" {
			j.seen = append(j.seen, e)
		}
	}
	return j, lines.Err()
}

// Add records a change that is about to be made. A change recorded before is not recorded again,
// so the oldest Old value is the one that counts.
func (j *Journal) Add(e Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.ContainsFunc(j.seen, e.sameAs) {
		return nil
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	// A leading newline ends a line torn by a crash.
	_, err = f.Write(append(append([]byte("\n"), line...), '\n'))
	if e.outlivesReboot() {
		err = errors.Join(err, f.Sync(), file.SyncDir(filepath.Dir(j.path)))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	j.seen = append(j.seen, e)
	return nil
}

// Entries lists the changes, newest first: the order in which to undo them.
func (j *Journal) Entries() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	entries := slices.Clone(j.seen)
	slices.Reverse(entries)
	return entries
}

// MakeDir makes dir and its missing parents, recording those it makes.
func (j *Journal) MakeDir(dir string) error {
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	if err := j.MakeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := j.Add(Entry{Kind: Dir, Name: dir}); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// AddUnlessThere records paths, parents first, that somebody else is about to make; what was there
// before k0s is left alone.
func (j *Journal) AddUnlessThere(kind Kind, paths ...string) error {
	for _, path := range paths {
		if _, err := os.Lstat(path); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := j.Add(Entry{Kind: kind, Name: path}); err != nil {
			return err
		}
	}
	return nil
}

// AddKubeletRoot records dir as the kubelet's, to be deleted by reset. Outside of the data directory,
// where the journal is, one that holds files which no kubelet of k0s put there is refused.
func (j *Journal) AddKubeletRoot(dir string) error {
	entry := Entry{Kind: KubeletRoot, Name: dir}
	if !j.has(entry) && !strings.HasPrefix(dir, filepath.Dir(j.path)+"/") {
		foreign, err := host.Foreign(dir)
		if err != nil {
			return err
		}
		if len(foreign) > 0 {
			return fmt.Errorf("the kubelet's directory %s holds %q, which k0s did not put there and `k0s reset` would delete: "+
				"empty it, or choose another --kubelet-root-dir", dir, foreign[0])
		}
	}
	return j.Add(entry)
}

// AddIPTables records what kube-proxy in iptables mode is about to leave: its chains, and the tables that
// the nft variant of iptables makes for them, if they are not there.
func (j *Journal) AddIPTables(kubeProxy string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	present, err := host.NFTables(c)
	if err != nil {
		return fmt.Errorf("listing nftables: %w", err)
	}
	for _, family := range []string{"ip", "ip6"} {
		for _, table := range []string{"filter", "mangle", "nat", "raw"} {
			name := family + " " + table
			if present[name] != nil {
				continue
			}
			if err := j.Add(Entry{Kind: EmptyNFTTable, Name: name}); err != nil {
				return err
			}
		}
	}
	return j.Add(Entry{Kind: IPTables, Name: kubeProxy})
}

// KubeletRoots are the directories recorded by AddKubeletRoot.
func (j *Journal) KubeletRoots() []string {
	var roots []string
	for _, e := range j.Entries() {
		if e.Kind == KubeletRoot {
			roots = append(roots, e.Name)
		}
	}
	return roots
}

func (j *Journal) has(e Entry) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.seen, e.sameAs)
}

// outlivesReboot tells whether the change is on a disk: then the power must not be cut between it and the
// journal's getting there.
func (e Entry) outlivesReboot() bool {
	return slices.Contains([]Kind{File, Dir, Tree, Sockets, KubeletRoot}, e.Kind)
}

// sameAs tells whether both are about the same thing.
func (e Entry) sameAs(o Entry) bool { return e.Kind == o.Kind && e.Name == o.Name }
