// Package identity keeps what a node is meant to be. It is written before the node first acts, so
// that a node never becomes anything else by accident: a controller that lost its data does not
// found a second cluster in place of the one it belonged to.
package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/file"
)

// State is how far the node has come.
type State string

const (
	// Founding: the cluster is being made; it is safe to try again.
	Founding State = "founding"
	// Joining: the node has been told to join a cluster; it is safe to try again.
	Joining State = "joining"
	// Left: the controller was a member of its cluster's etcd, and is none any more.
	Left State = "left"
	// Member: the node belongs to the cluster, and its data is on this disk.
	Member State = "member"
)

// Roles of a node.
const (
	Controller = "controller"
	Worker     = "worker"
)

// Identity is the content of <data-dir>/identity.json.
type Identity struct {
	ClusterID string `json:"clusterID"`
	Role      string `json:"role"`
	// MemberName is the name among etcd's members; it stays when the host is renamed.
	MemberName string `json:"memberName"`
	State      State  `json:"state"`
	// Founded are the values of k0s.yaml that were fixed when the cluster was founded, by path.
	Founded map[string]string `json:"founded,omitempty"`

	// EtcdMember is the id of this controller's member of etcd, where others can join that.
	EtcdMember uint64 `json:"etcdMember,omitempty"`
	// InitialCluster is what a joining controller starts etcd with, as NAME=PEERURL; later, who were its
	// members when last looked.
	InitialCluster []string `json:"initialCluster,omitempty"`
	// APIServers are those, as host:port, that the worker joined by.
	APIServers []string `json:"apiServers,omitempty"`

	mu   sync.Mutex // guards the setters, and what may be asked for while the node joins
	file string
}

// Cluster is the id of the node's cluster; empty while it is not known.
func (id *Identity) Cluster() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.ClusterID
}

// Etcd is which member of etcd the controller is, and who the members were when last looked.
func (id *Identity) Etcd() (state State, member uint64, cluster []string) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.State, id.EtcdMember, id.InitialCluster
}

func fileIn(dataDir string) string { return filepath.Join(dataDir, "identity.json") }

// Read returns the identity of the node that keeps its data in dataDir; nil where there is none.
func Read(dataDir string) (*Identity, error) {
	id := &Identity{file: fileIn(dataDir)}
	content, err := os.ReadFile(id.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading this node's identity: %w", err)
	}
	if err := json.Unmarshal(content, id); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): restore it from a backup, or run `k0s reset` to give this node's data up", id.file, err)
	}
	return id, nil
}

// Found returns the identity of the controller that keeps its data in dataDir, making one where there
// is neither identity nor data. store is the file or directory that is there if the store's data is;
// empty for a store elsewhere, which is asked when it answers.
func Found(dataDir, memberName, store string) (*Identity, error) {
	storeExists, err := exists(store)
	if err != nil {
		return nil, fmt.Errorf("looking for the store's data: %w", err)
	}
	id, err := Read(dataDir)
	if err != nil {
		return nil, err
	}
	file := fileIn(dataDir)
	switch {
	case id == nil && storeExists:
		return nil, fmt.Errorf("%s holds the data of a cluster, but %s is missing, so there is no telling which: "+
			"put the file back, or run `k0s reset` to give the data up", store, file)
	case id == nil:
		id := &Identity{ClusterID: uuid.NewString(), Role: Controller, MemberName: memberName, State: Founding, file: file}
		return id, id.write()
	case id.Role != Controller:
		return nil, fmt.Errorf("this host is a %s of cluster %s: it cannot start as a controller before `k0s reset`", id.Role, id.ClusterID)
	case id.State == Left:
		return nil, fmt.Errorf("this host has left cluster %s (`k0s etcd leave`): its data is of no use to anybody; "+
			"run `k0s reset`, then it may join again or found a cluster of its own", id.ClusterID)
	case id.State != Founding && id.State != Joining && id.State != Member:
		return nil, fmt.Errorf("%s says that this host is %q of its cluster, which this k0s does not know: it was written by a newer k0s? "+
			"Run that, or `k0s reset` to give this node's data up", file, id.State)
	case id.State == Member && store != "" && !storeExists:
		return nil, fmt.Errorf("this host is a member of cluster %s, but its data is gone from %s: "+
			"restore it from a backup (and spec.storage, if that was changed), or run `k0s reset` to start afresh; "+
			"founding a second cluster in its place would lose the first", id.ClusterID, store)
	}
	return id, nil
}

func exists(path string) (bool, error) {
	if path == "" {
		return false, nil
	}
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// JoinedController returns the identity of the controller that keeps its data in dataDir, making one that
// is to join a cluster where there is none. Data of a store that nobody knows is refused.
func JoinedController(dataDir, memberName, store string) (*Identity, error) {
	id, err := Read(dataDir)
	if err != nil {
		return nil, err
	}
	storeExists, err := exists(store)
	if err != nil {
		return nil, fmt.Errorf("looking for the store's data: %w", err)
	}
	if id != nil || storeExists {
		return Found(dataDir, memberName, store) // which says what is wrong, if anything
	}
	id = &Identity{Role: Controller, MemberName: memberName, State: Joining, file: fileIn(dataDir)}
	return id, id.write()
}

// SetCluster notes which cluster the controller is about to join.
func (id *Identity) SetCluster(clusterID string) error {
	return id.change(func(to *Identity) { to.ClusterID = clusterID })
}

// SetEtcd notes which member of etcd the controller is, or is about to be, and what it starts with.
func (id *Identity) SetEtcd(member uint64, initialCluster []string) error {
	return id.change(func(to *Identity) { to.EtcdMember, to.InitialCluster = member, initialCluster })
}

// Joined returns the identity of the worker that keeps its data in dataDir, making one that is to join
// where there is none.
func Joined(dataDir, nodeName string) (*Identity, error) {
	id, err := Read(dataDir)
	switch {
	case err != nil:
		return nil, err
	case id == nil:
		id = &Identity{Role: Worker, MemberName: nodeName, State: Joining, file: fileIn(dataDir)}
		return id, id.write()
	case id.Role != Worker:
		return nil, fmt.Errorf("this host is a %s of cluster %s: it cannot start as a worker before `k0s reset`, which gives its data up", id.Role, id.ClusterID)
	case id.State != Joining && id.State != Member:
		return nil, fmt.Errorf("%s says that this worker is %q of its cluster, which this k0s does not know: it was written by a newer k0s? "+
			"Run that, or `k0s reset`", id.file, id.State)
	}
	return id, nil
}

// SetAPIServers notes by which servers the worker joins.
func (id *Identity) SetAPIServers(servers ...string) error {
	return id.change(func(to *Identity) { to.APIServers = servers })
}

// JoinedCluster notes that the worker belongs to a cluster.
func (id *Identity) JoinedCluster(clusterID string) error {
	return id.change(func(to *Identity) { to.State, to.ClusterID = Member, clusterID })
}

// SetLeft notes that the node is about to leave its cluster.
func (id *Identity) SetLeft() error {
	return id.change(func(to *Identity) { to.State = Left })
}

// SetMember notes that the node belongs to the cluster now.
func (id *Identity) SetMember() error {
	return id.change(func(to *Identity) { to.State = Member })
}

// SetFounded notes the values of k0s.yaml that are fixed from now on.
func (id *Identity) SetFounded(values map[string]string) error {
	return id.change(func(to *Identity) { to.Founded = maps.Clone(values) })
}

// change notes what set sets, in the file first. `k0s etcd leave` writes the file of a running k0s, too: so it is
// read again under a lock, and that the node has left stays until who noted that says otherwise.
func (id *Identity) change(set func(*Identity)) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	dir, err := os.Open(filepath.Dir(id.file))
	if err != nil {
		return fmt.Errorf("this node's identity: %w", err)
	}
	defer dir.Close() // which unlocks it
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", dir.Name(), err)
	}
	next, err := Read(dir.Name())
	if err != nil {
		return err
	}
	if next == nil {
		return fmt.Errorf("%s is gone: was `k0s reset` run while k0s runs? Stop k0s, then start it again", id.file)
	}
	hasLeft := next.State == Left && id.State != Left
	set(next)
	if hasLeft && next.State != Left {
		return fmt.Errorf("%s says that this host has left its cluster: stop k0s and run `k0s reset`", id.file)
	}
	if err := next.write(); err != nil {
		return err
	}
	set(id)
	return nil
}

func (id *Identity) write() error {
	content, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(id.file); err == nil && bytes.Equal(old, append(content, '\n')) {
		return nil
	}
	if err := file.Write(id.file, append(content, '\n'), 0o600, file.Options{Durable: true}); err != nil {
		return fmt.Errorf("this node's identity: %w", err)
	}
	return nil
}
