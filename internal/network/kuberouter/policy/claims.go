package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"k0s.io/k0s/internal/file"
)

// Claim says that the CNI plugins have given addresses to a pod: before the API says so, and until the pod
// loses them.
type Claim struct {
	Container string       `json:"container"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       types.UID    `json:"uid"`
	Addresses []netip.Addr `json:"addresses"`
	// Port is the interface on the bridge behind which the pod is, with the hardware address MAC. Empty: what it
	// sends is not looked at.
	Port string `json:"port,omitempty"`
	MAC  MAC    `json:"mac,omitzero"`
}

// MAC is a hardware address, which JSON has as text.
type MAC [6]byte

// MarshalText writes it with colons.
func (m MAC) MarshalText() ([]byte, error) { return []byte(net.HardwareAddr(m[:]).String()), nil }

// UnmarshalText takes one of 48 bits.
func (m *MAC) UnmarshalText(text []byte) error {
	parsed, err := net.ParseMAC(string(text))
	if err == nil && len(parsed) != len(m) {
		err = fmt.Errorf("hardware address %s is not one of Ethernet", text)
	}
	if err == nil {
		*m = MAC(parsed)
	}
	return err
}

// claims are kept as a file each, for the next start of k0s.
type claims struct {
	dir   string
	mu    sync.Mutex
	byPod map[types.UID]Claim
}

// loadClaims reads what is in dir, which it makes if need be. What cannot be read does not count.
func loadClaims(dir string) (*claims, error) {
	c := &claims{dir: dir, byPod: map[types.UID]Claim{}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(dir + "/*.json")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		var claim Claim
		if content, err := os.ReadFile(name); err == nil && json.Unmarshal(content, &claim) == nil && c.path(claim) == name {
			c.byPod[claim.UID] = claim
		}
	}
	return c, nil
}

func (c *claims) path(claim Claim) string { return filepath.Join(c.dir, claim.Container+".json") }

// add a claim, which ends those that the pod and the addresses had before.
func (c *claims) add(claim Claim) error {
	if claim.Container == "" || strings.ContainsAny(claim.Container, "/.") || claim.UID == "" || len(claim.Addresses) == 0 {
		return fmt.Errorf("a container ID, a pod's UID and its addresses are needed, got %+v", claim)
	}
	if (claim.Port == "") != (claim.MAC == MAC{}) {
		return fmt.Errorf("a pod's port and its hardware address go together, got %+v", claim)
	}
	content, err := json.Marshal(claim)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, other := range c.byPod {
		taken := slices.ContainsFunc(other.Addresses, func(a netip.Addr) bool { return slices.Contains(claim.Addresses, a) })
		if taken || other.UID == claim.UID {
			if err := c.drop(other); err != nil {
				return err
			}
		}
	}
	c.byPod[claim.UID] = claim
	return file.Write(c.path(claim), content, 0o600, file.Options{})
}

// remove the claim of a container, if there is one.
func (c *claims) remove(container string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, claim := range c.byPod {
		if claim.Container == container {
			return c.drop(claim)
		}
	}
	return nil
}

func (c *claims) drop(claim Claim) error {
	delete(c.byPod, claim.UID)
	if err := os.Remove(c.path(claim)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (c *claims) list() []Claim {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Claim
	for _, claim := range c.byPod {
		list = append(list, claim)
	}
	return list
}
