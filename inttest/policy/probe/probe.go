// Package probe is what the tester in a pod is asked, and answers, through a socket in the file system: no
// network policy has a say in that.
package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Target is what a probe goes to.
type Target struct {
	// Protocol is tcp or udp.
	Protocol string
	Address  netip.AddrPort
}

// Request asks for a probe of each target, all at once.
type Request struct {
	// Patience is how long an answer may take.
	Patience time.Duration
	Targets  []Target
}

// Answer is what became of a probe.
type Answer struct {
	// Passed says that the other end was reached, and that its answer came back.
	Passed bool
	// Why it has not: what the kernel said, or that nothing came back.
	Why  string `json:",omitempty"`
	Took time.Duration
}

// Stream asks for a datagram to an address every millisecond, each from another port, for some time.
type Stream struct {
	Address netip.AddrPort
	For     time.Duration
}

// Echo is a datagram of a stream.
type Echo struct {
	Sent time.Time
	// Back says that it was answered.
	Back bool
}

// Flood asks for a datagram and a TCP SYN every millisecond to each of some addresses, until the next flood;
// one without addresses ends it.
type Flood struct {
	Addresses []netip.Addr
	// Port is the port of both. The SYN needs no listener there.
	Port uint16
	// Source, if it is valid, is what the datagrams say that they come from. There are no SYNs then. (IPv4)
	Source netip.Addr
}

// Ask puts a question to the tester that serves the socket: "probe" takes a Request and returns []Answer,
// "stream" a Stream and []Echo, "flood" a Flood and the number of packets that the one before it has sent.
func Ask[A any](ctx context.Context, socket, what string, question any) (A, error) {
	var answer A
	body, err := json.Marshal(question)
	if err != nil {
		return answer, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://tester/"+what, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	response, err := client.Do(request)
	if err != nil {
		return answer, fmt.Errorf("asking the tester at %s for a %s: %w", socket, what, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil {
		err = fmt.Errorf("asking the tester at %s for a %s: %w", socket, what, err)
	}
	return answer, err
}
