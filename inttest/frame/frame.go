// Package frame makes Ethernet frames that say whatever is wanted, as a program with CAP_NET_RAW can.
package frame

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Tags that may come before what a frame carries.
var (
	Tag     = []byte{0x81, 0, 0, 0}                   // IEEE 802.1Q, of no VLAN
	TwoTags = []byte{0x81, 0, 0, 0, 0x81, 0, 0, 0}    // the outer one goes on the way
	Stacked = []byte{0x88, 0xa8, 0, 0, 0x81, 0, 0, 0} // IEEE 802.1ad
)

// Ethernet is a frame with tags, if there are any, that carries what the other functions return.
func Ethernet(to, from net.HardwareAddr, tags, carried []byte) []byte {
	return slices.Concat(to, from, tags, carried)
}

// Datagram is carried by UDP to a port.
func Datagram(from, to netip.Addr, port uint16, text string) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 1234)
	udp = binary.BigEndian.AppendUint16(udp, port)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(text)))
	return Packet(from, to, unix.IPPROTO_UDP, append(append(udp, 0, 0), text...), 6)
}

// Packet is one of IP with some data, shorter than 200 bytes, in which a checksum is put at an offset.
func Packet(from, to netip.Addr, protocol byte, data []byte, checksumAt int) []byte {
	ends := append(from.AsSlice(), to.AsSlice()...)
	pseudo := slices.Concat(ends, []byte{0, 0, 0, byte(len(data)), 0, 0, 0, protocol}, data) // RFC 8200 (8.1)
	binary.BigEndian.PutUint16(data[checksumAt:], checksum(pseudo))
	if from.Is6() {
		return slices.Concat([]byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(data)), protocol, 255}, ends, data)
	}
	header := slices.Concat([]byte{0x45, 0, 0, byte(20 + len(data)), 0, 0, 0, 0, 64, protocol, 0, 0}, ends)
	binary.BigEndian.PutUint16(header[10:], checksum(header))
	return slices.Concat([]byte{8, 0}, header, data)
}

// ARP says, by asking for the address to, that the address from is at a hardware address.
func ARP(at net.HardwareAddr, from, to netip.Addr) []byte {
	return slices.Concat([]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, at, from.AsSlice(), make([]byte, 6), to.AsSlice())
}

func checksum(data []byte) uint16 {
	sum := uint32(0)
	for i, b := range data {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// Send sends a frame by an interface of this thread's network.
func Send(link int, frame []byte) error {
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	return unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: link, Halen: 6})
}

// Receive passes on the texts of the datagrams that come to a port of this thread's network, until it is closed.
func Receive(port uint16, texts chan<- string) (io.Closer, error) {
	server, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, err
	}
	go func() {
		for buffer := make([]byte, 100); ; {
			n, _, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			texts <- string(buffer[:n])
		}
	}()
	return server, nil
}
