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
	"sync"
)

// Kind of a change.
type Kind string

// Kinds of changes, with what undoes them.
const (
	File     Kind = "file"      // Name is a path: removed
	Dir      Kind = "dir"       // Name is a path: removed if empty
	Tree     Kind = "tree"      // Name is a path: removed with all below it
	Link     Kind = "link"      // Name is a network interface: deleted
	NFTTable Kind = "nft-table" // Name is "family table": deleted
	IPTables Kind = "iptables"  // Name is kube-proxy: it removes its chains
	Cgroup   Kind = "cgroup"    // Name is a path below each hierarchy: removed
	Sysctl   Kind = "sysctl"    // Name is a path below /proc/sys: set to Old
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
	if slices.ContainsFunc(j.seen, func(s Entry) bool { return s.Kind == e.Kind && s.Name == e.Name }) {
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

// AddTreeUnlessThere records dir, which somebody else is about to make and fill; a directory that was
// there before k0s is left alone.
func (j *Journal) AddTreeUnlessThere(dir string) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return j.Add(Entry{Kind: Tree, Name: dir})
}
