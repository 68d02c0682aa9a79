package main

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// sockets send single packets, of which nothing is expected: each datagram from one port and each SYN from
// another one, so that thousands of them leave no trace in anybody's tables.
type sockets struct {
	udp      *net.UDPConn
	raw4     int
	raw6     int
	whole    int                       // packets with their header
	own      map[netip.Addr]netip.Addr // by destination
	sequence uint32
}

const synSource = 19999

func newSockets() (*sockets, error) {
	udp, err := net.ListenUDP("udp", nil)
	if err != nil {
		return nil, err
	}
	raw4, err4 := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_TCP)
	raw6, err6 := syscall.Socket(syscall.AF_INET6, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_TCP)
	whole, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.IPPROTO_RAW)
	return &sockets{udp: udp, raw4: raw4, raw6: raw6, whole: whole, own: map[netip.Addr]netip.Addr{}}, errors.Join(err4, err6, err)
}

func (s *sockets) close() {
	_ = s.udp.Close()
	_ = syscall.Close(s.raw4)
	_ = syscall.Close(s.raw6)
	_ = syscall.Close(s.whole)
}

// forge sends a datagram that says that it comes from elsewhere, RFC 791 and RFC 768. The kernel fills in the
// length and the checksum of its header.
func (s *sockets) forge(from netip.Addr, to netip.AddrPort) int {
	const ipHeader, udpHeader, ttl = 20, 8, 64
	packet := make([]byte, ipHeader+udpHeader)
	packet[0] = 4<<4 | ipHeader/4
	packet[8], packet[9] = ttl, syscall.IPPROTO_UDP
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(packet[ipHeader:], synSource)
	binary.BigEndian.PutUint16(packet[ipHeader+2:], to.Port())
	binary.BigEndian.PutUint16(packet[ipHeader+4:], udpHeader) // and no checksum
	if err := syscall.Sendto(s.whole, packet, 0, &syscall.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		return 0
	}
	return 1
}

// send sends a datagram and a SYN, and returns how many of both the kernel took.
func (s *sockets) send(to netip.AddrPort) int {
	sent := 0
	if _, err := s.udp.WriteToUDPAddrPort([]byte("!"), to); err == nil {
		sent++
	}
	own, ok := s.own[to.Addr()]
	if !ok { // what the kernel would send from
		probe, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return sent
		}
		own = probe.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = probe.Close()
		s.own[to.Addr()] = own
	}
	s.sequence++
	segment := syn(own, to, s.sequence)
	var err error
	if to.Addr().Is4() {
		err = syscall.Sendto(s.raw4, segment, 0, &syscall.SockaddrInet4{Addr: to.Addr().As4()})
	} else {
		err = syscall.Sendto(s.raw6, segment, 0, &syscall.SockaddrInet6{Addr: to.Addr().As16()})
	}
	if err == nil {
		sent++
	}
	return sent
}

// syn is a TCP segment that asks for a connection, RFC 9293.
func syn(from netip.Addr, to netip.AddrPort, sequence uint32) []byte {
	const headerLength, flagSYN = 20, 2
	segment := make([]byte, headerLength)
	binary.BigEndian.PutUint16(segment[0:], synSource)
	binary.BigEndian.PutUint16(segment[2:], to.Port())
	binary.BigEndian.PutUint32(segment[4:], sequence)
	segment[12] = headerLength / 4 << 4
	segment[13] = flagSYN
	binary.BigEndian.PutUint16(segment[14:], 1024) // window
	pseudo := append(from.AsSlice(), to.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, headerLength, 0, syscall.IPPROTO_TCP)
	binary.BigEndian.PutUint16(segment[16:], ^sum(append(pseudo, segment...)))
	return segment
}

// sum is the ones' complement sum of words.
func sum(words []byte) uint16 {
	var total uint32
	for i := 0; i < len(words); i += 2 {
		total += uint32(binary.BigEndian.Uint16(words[i:]))
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint16(total)
}
