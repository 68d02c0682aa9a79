package joinapi

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
)

// limitConnections keeps at most limit connections. When there are more, one is closed that has not shown a
// right token: the oldest from the address that has most of these. So those who hold connections open, or
// come again and again, keep nobody out who comes from elsewhere.
func limitConnections(l net.Listener, limit int) net.Listener {
	return &limitedListener{Listener: l, limit: limit, strangers: list.New()}
}

type limitedListener struct {
	net.Listener
	limit int

	mu        sync.Mutex
	open      int
	strangers *list.List // of *limitedConn, oldest first
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn := &limitedConn{Conn: accepted, listener: l, client: addressOf(accepted.RemoteAddr().String())}
		if victim, ok := l.add(conn); !ok {
			accepted.Close()
			continue
		} else if victim != nil {
			victim.Close()
		}
		return conn, nil
	}
}

// add makes room for conn by naming a connection to close. It is false when there is no room.
func (l *limitedListener) add(conn *limitedConn) (victim *limitedConn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limit {
		if victim = l.victim(); victim == nil {
			return nil, false
		}
		l.forget(victim)
	}
	l.open++
	conn.place = l.strangers.PushBack(conn)
	return victim, true
}

// victim is the oldest stranger from the address that has most of them; nil when there are none.
func (l *limitedListener) victim() (victim *limitedConn) {
	count, oldest := map[netip.Addr]int{}, map[netip.Addr]*limitedConn{}
	for e := l.strangers.Front(); e != nil; e = e.Next() {
		conn := e.Value.(*limitedConn)
		if count[conn.client]++; count[conn.client] == 1 {
			oldest[conn.client] = conn
		}
		if victim == nil || count[conn.client] > count[victim.client] {
			victim = oldest[conn.client]
		}
	}
	return victim
}

// forget counts conn as closed. The lock is held.
func (l *limitedListener) forget(conn *limitedConn) {
	if conn.gone {
		return
	}
	conn.gone = true
	l.open--
	l.trust(conn)
}

func (l *limitedListener) trust(conn *limitedConn) {
	if conn.place != nil {
		l.strangers.Remove(conn.place)
		conn.place = nil
	}
}

type limitedConn struct {
	net.Conn
	listener *limitedListener
	client   netip.Addr
	place    *list.Element // among the strangers; nil when it is none
	gone     bool
}

func (c *limitedConn) Close() error {
	c.listener.mu.Lock()
	c.listener.forget(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

type connKey struct{}

// withConn remembers the connection of a request.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// trustConn notes that the connection of a request belongs to somebody with a right token.
func trustConn(ctx context.Context) {
	if c, ok := ctx.Value(connKey{}).(*limitedConn); ok {
		c.listener.mu.Lock()
		c.listener.trust(c)
		c.listener.mu.Unlock()
	}
}
