// Package tablewatch tells of changes of nftables tables, whoever makes them.
package tablewatch

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A transaction is told of at once, each element of a set in some 100 B: what finds no room is lost.
const buffer = 64 << 20

// Watch calls changed whenever chains, rules or sets of tables of that name have, or may have, been changed, in any
// family, until stop. The channel tells when it can no longer do so.
func Watch(table string, changed func()) (failed <-chan error, stop func(), err error) {
	return WatchOthers(table, func(uint32) bool { return false }, changed)
}

// WatchOthers is Watch without the changes that come from netlink connections which are own, by their port.
func WatchOthers(table string, own func(port uint32) bool, changed func()) (failed <-chan error, stop func(), err error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, nil, fmt.Errorf("subscribing to the kernel's events of nftables: %w", err)
	}
	if err := socket.SetReceiveBufferSize(buffer, true); err != nil {
		socket.Close()
		return nil, nil, fmt.Errorf("having room for the kernel's events of nftables: %w", err)
	}
	ended, done := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		for {
			messages, _, err := socket.Receive()
			switch {
			case errors.Is(err, unix.ENOBUFS): // some were lost
				changed()
			case err != nil:
				ended <- fmt.Errorf("receiving the kernel's events of nftables: %w", err)
				return
			}
			for _, m := range messages {
				if !own(m.Header.Pid) && isAbout(m, table) {
					changed()
					break
				}
			}
		}
	}()
	return ended, func() { socket.Close(); <-done }, nil
}

// isAbout tells whether an event is about a table, or what is in it.
func isAbout(m syscall.NetlinkMessage, table string) bool {
	const header, nameOfTable = 4, 1 // the attribute is 1 in all kinds of messages
	if len(m.Data) < header || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
		return false
	}
	attributes, err := nl.ParseRouteAttr(m.Data[header:])
	if err != nil {
		return true
	}
	for _, a := range attributes {
		if a.Attr.Type == nameOfTable {
			return strings.TrimRight(string(a.Value), "\x00") == table
		}
	}
	return false
}
