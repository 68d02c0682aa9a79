package reset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"k0s.io/k0s/internal/file"
	"k0s.io/k0s/internal/host"
	"k0s.io/k0s/internal/journal"
	"k0s.io/k0s/internal/network/kuberouter/forward"
	"k0s.io/k0s/internal/network/kuberouter/routes"
)

// undo takes one change of the host back; one that is gone already is none.
func undo(ctx context.Context, l host.Layout, e journal.Entry) error {
	switch e.Kind {
	case journal.File:
		return errors.Join(ignore(os.Remove(e.Name), fs.ErrNotExist), ignore(file.RemoveTemporary(e.Name), fs.ErrNotExist))
	case journal.Dir:
		return ignore(os.Remove(e.Name), fs.ErrNotExist, unix.ENOTEMPTY)
	case journal.Tree:
		return removeTree(e.Name)
	case journal.Sockets:
		return removeDeadSockets(ctx, e.Name)
	case journal.Sysctl:
		return ignore(host.Sysctl{Path: e.Name, Value: e.Old}.Set(), fs.ErrNotExist)
	case journal.Link:
		link, err := netlink.LinkByName(e.Name)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	case journal.Routes:
		return routes.Remove()
	case journal.ForwardRules:
		return forward.Remove(ctx, e.Name)
	case journal.NFTTable:
		return deleteTable(e.Name, always)
	case journal.EmptyNFTTable:
		return deleteTable(e.Name, ifEmpty)
	case journal.IPTables:
		return cleanIPTables(ctx, l)
	case journal.Cgroup:
		return removeCgroups(e.Name)
	case journal.KubeletRoot: // goes with the data
		return nil
	}
	return fmt.Errorf("this k0s does not know how: it was recorded by a newer one, use that for the reset")
}

// removeTree removes path with all below it, unless somebody mounted something there.
func removeTree(path string) error {
	dir, err := host.Resolve(filepath.Dir(path))
	if err != nil {
		return err
	}
	points, err := mountPoints()
	if err != nil {
		return err
	}
	if holdsMount(filepath.Join(dir, filepath.Base(path)), points) {
		return errors.New("something is mounted there, not by k0s: `umount` it first")
	}
	return os.RemoveAll(path)
}

// removeDeadSockets removes the sockets in dir on which nobody listens.
func removeDeadSockets(ctx context.Context, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ignore(err, fs.ErrNotExist)
	}
	var errs []error
	for _, entry := range entries {
		if entry.Type() != fs.ModeSocket {
			continue
		}
		socket := filepath.Join(dir, entry.Name())
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			errs = append(errs, conn.Close())
			continue
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			errs = append(errs, ignore(os.Remove(socket), fs.ErrNotExist))
		}
	}
	return errors.Join(errs...)
}
