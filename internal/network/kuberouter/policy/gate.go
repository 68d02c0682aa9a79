package policy

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// socketName is in Options.Dir.
	socketName = "cni.sock"
	// A CNI plugin is told why it has waited in vain before the kubelet loses patience.
	gateTimeout = 20 * time.Second
	// The API server has told of most pods before the kubelet has begun with them.
	fetchAfter = 2 * time.Second
	// A request or an answer is written at once.
	gateIO = 5 * time.Second
)

// Socket is where the CNI plugin finds a Controller with this Options.Dir.
func Socket(dir string) string { return filepath.Join(dir, socketName) }

// request is what the CNI plugin sends, as one JSON object: embedded-bins/cni/k0s-policy.
type request struct {
	// Command is that of CNI: ADD or DEL.
	Command string `json:"command"`
	Claim
}

// answer has an error unless the request has been carried out.
type answer struct {
	Error string `json:"error,omitempty"`
}

// listen answers CNI plugins until the listener is closed.
func (c *Controller) listen() error {
	path := Socket(c.Dir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	c.gate = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				c.Log.Error("Cannot answer a CNI plugin", "error", err)
				continue
			}
			go c.serve(conn)
		}
	}()
	return nil
}

func (c *Controller) serve(conn net.Conn) {
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(gateIO))
	var r request
	err := json.NewDecoder(conn).Decode(&r)
	if err == nil {
		err = c.handle(r)
	}
	var a answer
	if err != nil {
		a.Error = err.Error()
	}
	_ = conn.SetWriteDeadline(time.Now().Add(gateIO))
	if err := json.NewEncoder(conn).Encode(a); err != nil {
		c.Log.Warn("A CNI plugin did not wait for the answer", "pod", r.Namespace+"/"+r.Name, "error", err)
	}
}

func (c *Controller) handle(r request) error {
	switch r.Command {
	case "ADD":
		return c.admit(r.Claim)
	case "DEL":
		defer c.notify()
		return c.claims.remove(r.Container)
	}
	return fmt.Errorf("command %q is not known", r.Command)
}

// admit returns when the rules for a pod's addresses are in the kernel.
func (c *Controller) admit(claim Claim) error {
	for i, a := range claim.Addresses {
		claim.Addresses[i] = a.Unmap()
	}
	if claim.Port != "" {
		if err := showReserved(claim.Port); err != nil {
			return err
		}
	}
	done := make(chan struct{})
	c.mu.Lock()
	c.waiting[done] = claim
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, done)
	}()
	if err := c.claims.add(claim); err != nil {
		return fmt.Errorf("recording the addresses of pod %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	c.notify()
	patience := time.After(gateTimeout)
	select {
	case <-done:
		return nil
	case <-time.After(fetchAfter):
	}
	fetched := c.fetch(claim)
	select {
	case <-done:
		return nil
	case <-patience:
		_ = c.claims.remove(claim.Container)
		return fmt.Errorf("the network policies for pod %s/%s are not in the kernel after %s: %s",
			claim.Namespace, claim.Name, gateTimeout, cmp.Or(c.Snapshot().Error, fetched, "the API server has not told what policies there are"))
	}
}

// fetch asks for a pod that the API server has not told of, and says why that did not help.
func (c *Controller) fetch(claim Claim) string {
	ctx, cancel := context.WithTimeout(context.Background(), gateIO)
	defer cancel()
	p, err := c.Client.CoreV1().Pods(claim.Namespace).Get(ctx, claim.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Sprintf("asking the API server for the pod: %v", err)
	}
	k := newKnown(p)
	if !k.is(claim) {
		return fmt.Sprintf("the API server knows another pod of this name, whose UID is %s", k.UID)
	}
	c.mu.Lock()
	c.fetched[claim.UID] = k
	c.mu.Unlock()
	c.notify()
	return ""
}
