// Package identity keeps what a node is meant to be. It is written before the node first acts, so
// that a node never becomes anything else by accident: a controller that lost its data does not
// found a second cluster in place of the one it belonged to.
package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"k0s.io/k0s/internal/file"
)

// State is how far the node has come.
type State string

const (
	// Founding: the cluster is being made; it is safe to try again.
	Founding State = "founding"
	// Member: the node belongs to the cluster, and its data is on this disk.
	Member State = "member"
)

// Roles of a node.
const (
	Controller = "controller"
)

// Identity is the content of <data-dir>/identity.json.
type Identity struct {
	ClusterID string `json:"clusterID"`
	Role      string `json:"role"`
	// MemberName is the name among etcd's members; it stays when the host is renamed.
	MemberName string `json:"memberName"`
	State      State  `json:"state"`

	file string
}

// Found returns the identity of the controller that keeps its data in dataDir, making one where there
// is neither identity nor data. storeExists tells whether the store's data is on the disk.
func Found(dataDir, memberName string, storeExists bool) (*Identity, error) {
	file := filepath.Join(dataDir, "identity.json")
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if storeExists {
			return nil, fmt.Errorf("%s holds the data of a cluster, but %s is missing, so there is no telling which: "+
				"put the file back, or run `k0s reset` to give the data up", dataDir, file)
		}
		id := &Identity{ClusterID: uuid.NewString(), Role: Controller, MemberName: memberName, State: Founding, file: file}
		return id, id.write()
	}
	if err != nil {
		return nil, fmt.Errorf("reading this node's identity: %w", err)
	}
	id := &Identity{file: file}
	if err := json.Unmarshal(content, id); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w): restore it from a backup, or run `k0s reset` to give this node's data up", file, err)
	}
	switch {
	case id.Role != Controller:
		return nil, fmt.Errorf("this host is a %s of cluster %s: it cannot start as a controller before `k0s reset`", id.Role, id.ClusterID)
	case id.State != Founding && id.State != Member:
		return nil, fmt.Errorf("%s says that this host is %q of its cluster, which this k0s does not know: it was written by a newer k0s? "+
			"Run that, or `k0s reset` to give this node's data up", file, id.State)
	case id.State == Member && !storeExists:
		return nil, fmt.Errorf("this host is a member of cluster %s, but its etcd data is gone from %s: "+
			"restore it from a backup, or run `k0s reset` to start afresh; founding a second cluster in its place would lose the first", id.ClusterID, dataDir)
	}
	return id, nil
}

// SetMember notes that the node belongs to the cluster now.
func (id *Identity) SetMember() error {
	if id.State == Member {
		return nil
	}
	id.State = Member
	return id.write()
}

func (id *Identity) write() error {
	content, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := file.Write(id.file, append(content, '\n'), 0o600, file.Options{Durable: true}); err != nil {
		return fmt.Errorf("this node's identity: %w", err)
	}
	return nil
}
