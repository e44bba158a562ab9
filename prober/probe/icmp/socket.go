package icmp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Unavailable says what a prober that cannot send echo requests needs.
const Unavailable = "this prober can send no ICMP: allow its group in net.ipv4.ping_group_range (sysctl), or give it CAP_NET_RAW"

// Available tells whether this process may send echo requests, by opening a socket as a probe would.
func Available() bool {
	conn, _, err := listen(true)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// listen opens a socket: unprivileged if it can, raw if it must.
func listen(v4 bool) (conn *icmp.PacketConn, raw bool, err error) {
	datagram, rawNetwork, any := "udp4", "ip4:icmp", "0.0.0.0"
	if !v4 {
		datagram, rawNetwork, any = "udp6", "ip6:ipv6-icmp", "::"
	}
	conn, err = icmp.ListenPacket(datagram, any)
	if err == nil {
		return conn, false, nil
	}
	conn, rawErr := icmp.ListenPacket(rawNetwork, any)
	if rawErr == nil {
		return conn, true, nil
	}
	return nil, false, rawErr
}

// socket is one conversation with one address.
type socket struct {
	conn    *icmp.PacketConn
	v4, raw bool
	to      netip.Addr
	peer    net.Addr
	id      uint16
	payload []byte
	sent    map[uint16]time.Time
	buffer  []byte
	once    sync.Once
}

// open opens a socket to talk to an address, with so many bytes of payload.
func open(to netip.Addr, size int) (*socket, error) {
	to = to.Unmap()
	conn, raw, err := listen(to.Is4())
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return nil, &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT, Sentence: Unavailable}
		}
		return nil, err
	}
	s := &socket{conn: conn, v4: to.Is4(), raw: raw, to: to, id: uint16(rand.Uint32()), payload: make([]byte, size),
		sent: make(map[uint16]time.Time), buffer: make([]byte, size+256)}
	ip := &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}
	s.peer = ip
	if !raw {
		s.peer = &net.UDPAddr{IP: ip.IP, Zone: ip.Zone}
	}
	for i := 0; i+8 <= size && i < 16; i += 8 {
		binary.BigEndian.PutUint64(s.payload[i:], rand.Uint64())
	}
	for i := 16; i < size; i++ {
		s.payload[i] = byte(i)
	}
	if s.v4 {
		_ = conn.IPv4PacketConn().SetControlMessage(ipv4.FlagTTL, true)
	} else {
		_ = conn.IPv6PacketConn().SetControlMessage(ipv6.FlagHopLimit, true)
	}
	return s, nil
}

func (s *socket) close() { s.once.Do(func() { s.conn.Close() }) }

// send sends the request with the number.
func (s *socket) send(number int) error {
	m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(s.id), Seq: number, Data: s.payload}}
	if !s.v4 {
		m.Type = ipv6.ICMPTypeEchoRequest
	}
	wire, err := m.Marshal(nil)
	if err != nil {
		return err
	}
	s.sent[uint16(number)] = time.Now()
	_, err = s.conn.WriteTo(wire, s.peer)
	if errors.Is(err, syscall.EMSGSIZE) {
		return &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_CONNECT,
			Sentence: fmt.Sprintf("this prober's network cannot send %d bytes of payload; lower icmp.payload_size", len(s.payload))}
	}
	return err
}

// reply is an echo reply, or word that there will be none.
type reply struct {
	trip        time.Duration
	hopLimit    int
	unreachable bool
}

// receive waits for a reply that belongs to this conversation and has not come before; nil when there was none until the given time.
func (s *socket) receive(until time.Time) (*reply, error) {
	if err := s.conn.SetReadDeadline(until); err != nil {
		return nil, err
	}
	for {
		n, hops, from, err := s.read()
		now := time.Now()
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil, nil
			}
			return nil, err
		}
		kind, number, ok := s.parse(s.buffer[:n], from)
		if !ok {
			continue
		}
		at, waiting := s.sent[number]
		if !waiting {
			continue // a duplicate
		}
		delete(s.sent, number)
		return &reply{trip: now.Sub(at), hopLimit: hops, unreachable: kind == unreachable}, nil
	}
}

// read reads one packet, with the hop limit that it came with.
func (s *socket) read() (n, hops int, from netip.Addr, err error) {
	var peer net.Addr
	if s.v4 {
		var cm *ipv4.ControlMessage
		if n, cm, peer, err = s.conn.IPv4PacketConn().ReadFrom(s.buffer); cm != nil {
			hops = cm.TTL
		}
	} else {
		var cm *ipv6.ControlMessage
		if n, cm, peer, err = s.conn.IPv6PacketConn().ReadFrom(s.buffer); cm != nil {
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

// What a packet is.
const (
	echoReply = iota
	unreachable
)

// parse tells whether a packet is about a request of this conversation, and about which.
func (s *socket) parse(packet []byte, from netip.Addr) (kind int, number uint16, ok bool) {
	protocol := 1
	if !s.v4 {
		protocol = 58
	}
	m, err := icmp.ParseMessage(protocol, packet)
	if err != nil {
		return 0, 0, false
	}
	switch body := m.Body.(type) {
	case *icmp.Echo:
		answers := m.Type == ipv4.ICMPTypeEchoReply || m.Type == ipv6.ICMPTypeEchoReply
		mine := !s.raw || uint16(body.ID) == s.id // the kernel sorts by its own number on an unprivileged socket
		prefix := min(16, len(s.payload))
		same := len(body.Data) >= prefix && string(body.Data[:prefix]) == string(s.payload[:prefix])
		return echoReply, uint16(body.Seq), answers && mine && same && from.WithZone("") == s.to.WithZone("")
	case *icmp.DstUnreach:
		number, ok = s.quoted(body.Data)
		return unreachable, number, ok
	}
	return 0, 0, false
}

// quoted finds the number of a request of this conversation in the packet that an error message quotes.
func (s *socket) quoted(data []byte) (uint16, bool) {
	header, request := 40, byte(128)
	if s.v4 {
		if len(data) == 0 {
			return 0, false
		}
		header, request = int(data[0]&0x0f)*4, 8
	}
	if len(data) < header+8 || header < 20 {
		return 0, false
	}
	destination := data[16:20]
	if !s.v4 {
		destination = data[24:40]
	}
	to, _ := netip.AddrFromSlice(destination)
	echo := data[header:]
	if echo[0] != request || to != s.to.WithZone("") || s.raw && binary.BigEndian.Uint16(echo[4:]) != s.id {
		return 0, false
	}
	return binary.BigEndian.Uint16(echo[6:]), true
}
