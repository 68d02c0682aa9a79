package tunnelserver

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// userListener accepts the connections of one user and of root.
type userListener struct {
	*net.UnixListener
	uid uint32
	log *slog.Logger
}

// listenForUser listens on a Unix socket. The directory's group may use it (the directory is to be
// set-group-id, so that it is the socket's group, too); who does not come as the user is turned away.
func listenForUser(path string, uid int, log *slog.Logger) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return userListener{l, uint32(uid), log}, nil
}

// Accept waits for a connection of somebody who may have one.
func (l userListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(conn)
		if err == nil && !l.admits(peer.Uid) {
			err = fmt.Errorf("process %d is of user %d: only user %d may use the socket", peer.Pid, peer.Uid, l.uid)
		}
		if err == nil {
			return conn, nil
		}
		l.log.Warn("Refused a connection to the API server's socket", "error", err)
		conn.Close()
	}
}

func (l userListener) admits(uid uint32) bool { return uid == 0 || uid == l.uid }

func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var (
		peer    *unix.Ucred
		peerErr error
	)
	err = raw.Control(func(fd uintptr) {
		peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	return peer, errors.Join(err, peerErr)
}
