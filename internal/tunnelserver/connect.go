package tunnelserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k0s.io/k0s/internal/tunnel"
)

const (
	// answerTimeout is how long an agent may take to say whether it is connected to what it was asked for;
	// it gives up after 5 s by itself.
	answerTimeout = 7 * time.Second
	// doubtAfter is when an agent that has not answered is asked whether it is there at all. If it does not
	// say so within as much time again, it is given up.
	doubtAfter = 1500 * time.Millisecond
	// attempts is how many agents are tried. Only one that is about to be lost does not answer.
	attempts = 3
)

// ServeHTTP leads a connection of the API server through the tunnel.
func (s *agents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	s.first.await(r.Context())
	stream, err := s.reach(r.Context(), r.Host)
	conn, _, hijackErr := http.NewResponseController(w).Hijack()
	if hijackErr != nil {
		if err == nil {
			stream.end()
		}
		return
	}
	defer conn.Close()
	if err != nil {
		s.metrics.failures.Inc()
		s.log.Debug("Cannot reach what the API server asks for", "address", r.Host, "error", err)
		// The API server passes on what it finds in the first line.
		fmt.Fprintf(conn, "HTTP/1.1 502 %s\r\n\r\n", strings.Join(strings.Fields(err.Error()), " "))
		return
	}
	s.metrics.connections.Inc()
	defer s.metrics.connections.Dec()
	defer stream.end()
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connected\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, err := io.Copy(stream.to, conn)
		_ = stream.to.CloseWithError(err) // nil: an orderly end
	}()
	_, _ = io.Copy(conn, stream.from)
}

// stream is a connection through the tunnel.
type stream struct {
	to   *io.PipeWriter
	from io.ReadCloser
	end  func()
}

var errNoAgent = errors.New("no agent available: no node is connected to this controller")

// reach connects to an address through the best agent that answers.
func (s *agents) reach(ctx context.Context, address string) (*stream, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	candidates := s.candidates(host)
	err = errNoAgent
	for _, a := range candidates[:min(len(candidates), attempts)] {
		var st *stream
		refused := new(refusal)
		if st, err = a.reach(ctx, address); err == nil || errors.As(err, &refused) || ctx.Err() != nil {
			return st, err
		}
		err = fmt.Errorf("the agent of node %s does not answer: %w", a.node, err)
	}
	return nil, err
}

// refusal is what an agent says of an address that it cannot reach.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

func (a *agent) reach(ctx context.Context, address string) (*stream, error) {
	streamCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	late := time.AfterFunc(answerTimeout, end)
	doubt := time.AfterFunc(doubtAfter, func() { a.check(streamCtx) })
	abandoned := context.AfterFunc(ctx, end)
	body, to := io.Pipe()
	response, err := a.client.RoundTrip((&http.Request{ //nolint:bodyclose // the end of the stream closes it
		Method: http.MethodConnect, URL: &url.URL{Scheme: "https", Host: address}, Host: address, Header: http.Header{}, Body: body, ContentLength: -1,
	}).WithContext(streamCtx))
	inTime := late.Stop()
	doubt.Stop()
	abandoned()
	if err != nil {
		end()
		if !inTime {
			err = fmt.Errorf("nothing for %s", answerTimeout)
		}
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(response.Body, tunnel.MaxReason))
		end()
		return nil, &refusal{fmt.Sprintf("node %s: %s", a.node, reason)}
	}
	return &stream{to: to, from: response.Body, end: func() {
		end()
		body.Close()
		response.Body.Close()
	}}, nil
}

// check gives an agent up that is not there any more.
func (a *agent) check(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, doubtAfter)
	defer cancel()
	if err := a.client.Ping(limited); err != nil && ctx.Err() == nil {
		a.conn.Close()
	}
}
