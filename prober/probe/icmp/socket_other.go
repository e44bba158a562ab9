//go:build !linux

package icmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// socket is a socket of one probe. Unlike on Linux it is not connected, and learns of errors only where the system hands their messages to it. The owner closes it;
// close may be called at any time and more than once.
type socket struct {
	conn *icmp.PacketConn
	v4   bool
	raw  bool
	id   uint16
	to   netip.Addr
	peer net.Addr
	data []byte
}

// open opens a socket: unprivileged if it can, raw if it must.
func open(o settings) (*socket, error) {
	if o.dontFragment {
		return nil, &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT,
			Sentence: "this prober's system cannot forbid the fragmentation of echo requests; remove icmp.dont_fragment, or run the check from a prober on Linux"}
	}
	o.to, o.source = o.to.Unmap(), o.source.Unmap()
	s := &socket{v4: o.to.Is4(), to: o.to, id: uint16(rand.Uint32()), data: make([]byte, o.payload+256)}
	datagram, raw, from := "udp6", "ip6:ipv6-icmp", "::"
	if s.v4 {
		datagram, raw, from = "udp4", "ip4:icmp", "0.0.0.0"
	}
	if o.source.IsValid() {
		from = o.source.String()
	}
	ip := &net.IPAddr{IP: o.to.AsSlice(), Zone: o.to.Zone()}
	var err error
	s.peer = &net.UDPAddr{IP: ip.IP, Zone: ip.Zone}
	if s.conn, err = icmp.ListenPacket(datagram, from); err != nil {
		s.raw, s.peer = true, ip
		s.conn, err = icmp.ListenPacket(raw, from)
	}
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT, Sentence: Unavailable}
	case err != nil:
		return nil, err
	}
	if err := s.prepare(o); err != nil {
		s.conn.Close()
		return nil, fmt.Errorf("set an option of the socket: %w", err)
	}
	return s, nil
}

// prepare sets the options.
func (s *socket) prepare(o settings) error {
	if s.v4 {
		_ = s.conn.IPv4PacketConn().SetControlMessage(ipv4.FlagTTL, true) // without it the hop limit of replies is not known
		if o.hopLimit > 0 {
			return s.conn.IPv4PacketConn().SetTTL(o.hopLimit)
		}
		return nil
	}
	_ = s.conn.IPv6PacketConn().SetControlMessage(ipv6.FlagHopLimit, true)
	if o.hopLimit > 0 {
		return s.conn.IPv6PacketConn().SetHopLimit(o.hopLimit)
	}
	return nil
}

// close ends everything that is waiting on the socket.
func (s *socket) close() { s.conn.Close() }

// linkMTU is not known here.
func (s *socket) linkMTU() int { return 0 }

// send sends a packet.
func (s *socket) send(packet []byte) error {
	_, err := s.conn.WriteTo(packet, s.peer)
	return err
}

// receive waits for a packet until the given time. ok is false when none came.
func (s *socket) receive(until time.Time, into *arrival) (ok bool, err error) {
	if err := s.conn.SetReadDeadline(until); err != nil {
		return false, err
	}
	n, hops, from, err := s.read()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	case err != nil:
		return false, err
	}
	*into = arrival{hops: hops, from: from}
	packet := s.data[:n]
	if quoted, says, ok := quotation(s.v4, packet, s.to); ok {
		into.packet, into.error, into.says = quoted, true, says
	} else if from == s.to.WithZone("") {
		into.packet = packet
	}
	return true, nil
}

// read reads one packet, with the hop limit that it came with.
func (s *socket) read() (n, hops int, from netip.Addr, err error) {
	var peer net.Addr
	if s.v4 {
		var cm *ipv4.ControlMessage
		if n, cm, peer, err = s.conn.IPv4PacketConn().ReadFrom(s.data); cm != nil {
			hops = cm.TTL
		}
	} else {
		var cm *ipv6.ControlMessage
		if n, cm, peer, err = s.conn.IPv6PacketConn().ReadFrom(s.data); cm != nil {
			hops = cm.HopLimit
		}
	}
	switch p := peer.(type) {
	case *net.UDPAddr:
		from, _ = netip.AddrFromSlice(p.IP)
	case *net.IPAddr:
		from, _ = netip.AddrFromSlice(p.IP)
	}
	return n, hops, from.Unmap(), err
}

// quotation is what an error message quotes, from the ICMP header of the quoted packet on, when that went to the address.
func quotation(v4 bool, packet []byte, to netip.Addr) (quoted []byte, says refusal, ok bool) {
	if len(packet) < headerLen {
		return nil, refusal{}, false
	}
	says = refusal{kind: packet[0], code: packet[1]}
	inner := packet[headerLen:]
	var destination []byte
	if v4 {
		if says.kind != unreachableV4 && says.kind != exceededV4 && says.kind != parameterV4 {
			return nil, says, false
		}
		if quoted = stripIPv4(inner); quoted == nil {
			return nil, says, false
		}
		destination = inner[16:20]
		if says.tooBig(true) {
			says.mtu = int(binary.BigEndian.Uint16(packet[6:]))
		}
	} else {
		if says.kind < unreachableV6 || says.kind > parameterV6 || len(inner) < 40 {
			return nil, says, false
		}
		quoted, destination = inner[40:], inner[24:40]
		if says.tooBig(false) {
			says.mtu = int(binary.BigEndian.Uint32(packet[4:]))
		}
	}
	went, _ := netip.AddrFromSlice(destination)
	return quoted, says, went == to.WithZone("")
}
