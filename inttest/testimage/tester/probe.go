package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k0s.io/k0s/inttest/policy/probe"
)

// prober answers the questions of package probe, and is what those of others meet.
type prober struct {
	// source is the port that the last probe went out from: each takes its own, so that none belongs to a
	// connection that was let through earlier.
	source atomic.Uint32

	mu    sync.Mutex
	flood *flood
}

// The ports that probes go out from; no listener is among them.
const firstSource, lastSource = 20000, 60000

func probeServer(socket string, ports []string) error {
	for _, text := range ports {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return fmt.Errorf("port %q: %w", text, err)
		}
		if err := listen(uint16(port)); err != nil {
			return err
		}
	}
	p := &prober{}
	mux := http.NewServeMux()
	mux.HandleFunc("/probe", answer(p.probeAll))
	mux.HandleFunc("/stream", answer(p.stream))
	mux.HandleFunc("/flood", answer(p.changeFlood))
	_ = os.Remove(socket) // of a tester that was killed
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return http.Serve(listener, mux)
}

func answer[Q, A any](to func(context.Context, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var question Q
		err := json.NewDecoder(r.Body).Decode(&question)
		var a A
		if err == nil {
			a, err = to(r.Context(), question)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := json.NewEncoder(w).Encode(a); err != nil {
			fmt.Fprintln(os.Stderr, "tester:", err)
		}
	}
}

// listen accepts TCP connections and sends datagrams back, at a port of all addresses there are. (Each has a
// socket of its own for datagrams, so that answers come from the address that was asked.)
func listen(port uint16) error {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
	if err != nil {
		return err
	}
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			_ = connection.Close()
		}
	}()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, address := range addresses {
		ip := address.(*net.IPNet).IP
		if ip.IsLinkLocalUnicast() {
			continue
		}
		socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: int(port)})
		if err != nil {
			return err
		}
		go func() {
			buffer := make([]byte, 64)
			for {
				n, from, err := socket.ReadFromUDPAddrPort(buffer)
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil {
					_, _ = socket.WriteToUDPAddrPort(buffer[:n], from)
				}
			}
		}()
	}
	return nil
}

func (p *prober) probeAll(ctx context.Context, r probe.Request) ([]probe.Answer, error) {
	answers := make([]probe.Answer, len(r.Targets))
	var wg sync.WaitGroup
	for i, target := range r.Targets {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, r.Patience)
			defer cancel()
			begin := time.Now()
			err := p.probe(ctx, target)
			answers[i] = probe.Answer{Passed: err == nil, Took: time.Since(begin)}
			if err != nil {
				answers[i].Why = err.Error()
			}
		})
	}
	wg.Wait()
	return answers, nil
}

func (p *prober) probe(ctx context.Context, target probe.Target) error {
	connection, err := p.dial(ctx, target)
	if err != nil {
		return err
	}
	defer connection.Close()
	if tcp, ok := connection.(*net.TCPConn); ok {
		return tcp.SetLinger(0)
	}
	deadline, _ := ctx.Deadline()
	if err := connection.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := connection.Write([]byte("?")); err != nil {
		return err
	}
	_, err = connection.Read(make([]byte, 1))
	return err
}

// dial connects from a port that was not used for long.
func (p *prober) dial(ctx context.Context, target probe.Target) (net.Conn, error) {
	for {
		port := int(firstSource + p.source.Add(1)%(lastSource-firstSource))
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}}
		if target.Protocol == "udp" {
			dialer.LocalAddr = &net.UDPAddr{Port: port}
		}
		connection, err := dialer.DialContext(ctx, target.Protocol, target.Address.String())
		if !errors.Is(err, syscall.EADDRINUSE) {
			return connection, err
		}
	}
}

func (p *prober) stream(ctx context.Context, s probe.Stream) ([]probe.Echo, error) {
	ctx, cancel := context.WithTimeout(ctx, s.For)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var echoes []*probe.Echo
	var wg sync.WaitGroup
	for ctx.Err() == nil {
		connection, err := p.dial(ctx, probe.Target{Protocol: "udp", Address: s.Address})
		if err != nil {
			break
		}
		echo := &probe.Echo{Sent: time.Now()}
		echoes = append(echoes, echo)
		_, _ = connection.Write([]byte("?"))
		wg.Go(func() {
			defer connection.Close()
			_ = connection.SetReadDeadline(echo.Sent.Add(500 * time.Millisecond))
			_, err := connection.Read(make([]byte, 1))
			echo.Back = err == nil
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	wg.Wait()
	all := make([]probe.Echo, len(echoes))
	for i, echo := range echoes {
		all[i] = *echo
	}
	return all, nil
}

// flood sends packets until it is stopped.
type flood struct {
	stop context.CancelFunc
	done chan struct{}
	sent int
}

func (p *prober) changeFlood(_ context.Context, f probe.Flood) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := 0
	if p.flood != nil {
		p.flood.stop()
		<-p.flood.done
		sent, p.flood = p.flood.sent, nil
	}
	if len(f.Addresses) == 0 {
		return sent, nil
	}
	sockets, err := newSockets()
	if err != nil {
		return sent, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.flood = &flood{stop: cancel, done: make(chan struct{})}
	go p.flood.run(ctx, sockets, f)
	return sent, nil
}

func (f *flood) run(ctx context.Context, s *sockets, order probe.Flood) {
	defer close(f.done)
	defer s.close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, address := range order.Addresses {
			to := netip.AddrPortFrom(address, order.Port)
			if order.Source.IsValid() {
				f.sent += s.forge(order.Source, to)
			} else {
				f.sent += s.send(to)
			}
		}
		<-tick.C
	}
}

// burst sends a datagram and a TCP SYN to the addresses from the first moment on: every millisecond for a
// second, then every ten. It never ends. It says what comes to its own port, which it listens to first.
func burst(port string, addresses []string) error {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return err
	}
	var to []netip.AddrPort
	for _, text := range addresses {
		address, err := netip.ParseAddrPort(text)
		if err != nil {
			return err
		}
		to = append(to, address)
	}
	s, err := newSockets()
	if err != nil {
		return err
	}
	send := func() {
		for _, address := range to {
			s.send(address)
		}
	}
	send() // before anything else
	if err := report(uint16(number)); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		if i == 1000 {
			tick.Reset(10 * time.Millisecond)
		}
		send()
		<-tick.C
	}
}

// report prints a line for each of the first datagrams and TCP connections that come to a port.
func report(port uint16) error {
	const enough = 5
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return err
	}
	go func() {
		for range enough {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Println("got a connection from", connection.RemoteAddr())
			_ = connection.Close()
		}
	}()
	go func() {
		for range enough {
			_, from, err := socket.ReadFromUDPAddrPort(make([]byte, 64))
			if err != nil {
				return
			}
			fmt.Println("got a datagram from", from)
		}
	}()
	return nil
}
