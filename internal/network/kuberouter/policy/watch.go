package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// watchTable tells of changes of our table from now on: run calls changed whenever somebody else has made
// one, or may have, until ctx ends.
func (k *Kernel) watchTable(changed func()) (run func(context.Context) error, err error) {
	const group = 1 << (unix.NFNLGRP_NFTABLES - 1)
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: group})
	if err == nil {
		err = conn.SetReadBuffer(buffer)
	}
	if err != nil {
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	return func(ctx context.Context) error { return k.follow(ctx, conn, changed) }, nil
}

func (k *Kernel) follow(ctx context.Context, conn *netlink.Conn, changed func()) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost
			changed()
			continue
		case err != nil:
			return fmt.Errorf("watching nftables: %w", err)
		}
		for _, m := range messages {
			if m.Header.PID != k.port.Load() && ofOurTable(m) {
				changed()
				break
			}
		}
	}
}

// ofOurTable tells whether a message is about our table, or what is in it.
func ofOurTable(m netlink.Message) bool {
	const header, nameOfTable = 4, 1 // the attribute is 1 in all kinds of messages
	if len(m.Data) < header || m.Data[0] != unix.NFPROTO_INET || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
		return false
	}
	attributes, err := netlink.NewAttributeDecoder(m.Data[header:])
	if err != nil {
		return false
	}
	for attributes.Next() {
		if attributes.Type() == nameOfTable {
			return strings.TrimRight(string(attributes.Bytes()), "\x00") == tableName
		}
	}
	return false
}
