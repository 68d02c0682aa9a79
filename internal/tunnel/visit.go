package tunnel

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// dialTimeout is how long it may take to connect to what a controller asks for.
	dialTimeout = 5 * time.Second
	// farewell is how long the other side may still talk when the API server has nothing more to say.
	farewell = 10 * time.Second
)

// visit is one connection to a controller, which asks for what it wants to reach.
type visit struct {
	server    *server
	conn      *lastError
	duplicate bool

	mu sync.Mutex
	id string // of the controller; empty until it has admitted this node
}

// leave returns the id of the controller that was visited.
func (v *visit) leave() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.id != "" {
		v.server.closed(v.id)
	}
	return v.id
}

// ServeHTTP answers a controller.
func (v *visit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		v.introduce(w, r)
	case http.MethodConnect:
		v.connect(w, r)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// introduce says who this is.
func (v *visit) introduce(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id := r.Header.Get(ServerHeader)
	if id == "" || v.id != "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if v.server.opened(id) {
		v.duplicate = true
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusConflict)
		return
	}
	v.id = id
	_ = json.NewEncoder(w).Encode(v.server.identity)
}

// connect leads to something on this node, or near it.
func (v *visit) connect(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.Host)
	cancel()
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		reason := err.Error()
		_, _ = io.WriteString(w, reason[:min(len(reason), MaxReason)])
		return
	}
	defer conn.Close()
	defer context.AfterFunc(r.Context(), func() { conn.Close() })()
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	if flush() != nil {
		return
	}
	go func() {
		_, err := io.Copy(conn, r.Body)
		tcp, ok := conn.(*net.TCPConn)
		if err != nil || !ok {
			conn.Close()
			return
		}
		_ = tcp.CloseWrite()
		_ = tcp.SetReadDeadline(time.Now().Add(farewell))
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil || flush() != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // so that it is no orderly end for the API server, either
		}
	}
}
