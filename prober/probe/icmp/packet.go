package icmp

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// Types of ICMP and ICMPv6 (RFC 792, RFC 4443).
const (
	echoReplyV4, echoV4                              = 0, 8
	unreachableV4, exceededV4, parameterV4           = 3, 11, 12
	echoV6, echoReplyV6                              = 128, 129
	unreachableV6, tooBigV6, exceededV6, parameterV6 = 1, 2, 3, 4
	fragmentationNeeded                              = 4 // code of unreachableV4
	headerLen                                        = 8 // of an echo request or reply
	tokenLen                                         = 16
)

// state is what is known of a request.
type state uint8

const (
	unsent   state = iota
	waiting        // for its reply
	answered       // in time
	sentBack       // by a router or the target; a reply may still come
	expired        // its reply came too late
)

// requests are the echo requests of one probe. A packet is about one of them when it has their id, one of their sequence numbers and their token: 128 random bits at
// the head of the payload, or what the payload has room for.
type requests struct {
	v4      bool
	id      uint16
	first   uint16 // sequence number of the first request
	wire    []byte // header and payload, sent again and again with another sequence number
	payload []byte // the part of wire behind the header
	sent    []time.Time
	states  []state
}

// newRequests makes requests of so many bytes of payload, none of them sent. They have no id yet.
func newRequests(v4 bool, count, size int) *requests {
	q := &requests{v4: v4, first: uint16(rand.Uint32()), wire: make([]byte, headerLen+size), sent: make([]time.Time, count), states: make([]state, count)}
	q.payload = q.wire[headerLen:]
	for i := 0; i < min(size, tokenLen); i++ {
		q.payload[i] = byte(rand.Uint32())
	}
	for i := tokenLen; i < size; i++ {
		q.payload[i] = byte(i)
	}
	q.wire[0] = echoV6
	if v4 {
		q.wire[0] = echoV4
	}
	return q
}

// request is the packet of request i. It is overwritten by the next call.
func (q *requests) request(i int) []byte {
	binary.BigEndian.PutUint16(q.wire[4:], q.id)
	binary.BigEndian.PutUint16(q.wire[6:], q.first+uint16(i))
	binary.BigEndian.PutUint16(q.wire[2:], 0)
	if q.v4 { // the kernel fills in the checksum of ICMPv6, which has the addresses in it
		binary.BigEndian.PutUint16(q.wire[2:], checksum(q.wire))
	}
	return q.wire
}

// checksum is the one of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint64
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b)) << 16
		b = b[2:]
		if len(b) == 1 {
			sum += uint64(b[0]) << 8
		}
	} else if len(b) == 1 {
		sum += uint64(b[0]) << 24
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// number is which request the echo header at the beginning of b belongs to.
func (q *requests) number(b []byte) (i int, ok bool) {
	if binary.BigEndian.Uint16(b[4:]) != q.id {
		return 0, false
	}
	i = int(binary.BigEndian.Uint16(b[6:]) - q.first)
	return i, i < len(q.states) && q.states[i] != unsent
}

// sameToken tells whether data begins with as much of the token as there is of it.
func (q *requests) sameToken(data []byte) bool {
	n := min(tokenLen, len(q.payload), len(data))
	return bytes.Equal(data[:n], q.payload[:n])
}

// reply tells whether an ICMP packet replies to one of the requests, to which one, and whether its payload is unchanged. A payload that the target has cut, as some
// do, is not a changed one if it has the token.
func (q *requests) reply(packet []byte) (i int, intact, ok bool) {
	kind := byte(echoReplyV6)
	if q.v4 {
		kind = echoReplyV4
	}
	if len(packet) < headerLen || packet[0] != kind || packet[1] != 0 {
		return 0, false, false
	}
	i, ok = q.number(packet)
	data := packet[headerLen:]
	if !ok || len(data) < min(tokenLen, len(q.payload)) || !q.sameToken(data) {
		return 0, false, false
	}
	return i, len(data) <= len(q.payload) && bytes.Equal(data, q.payload[:min(len(data), len(q.payload))]), true
}

// quoted tells whether the part of a packet that an error message quotes, from its ICMP header on, is one of the requests.
func (q *requests) quoted(packet []byte) (i int, ok bool) {
	kind := byte(echoV6)
	if q.v4 {
		kind = echoV4
	}
	if len(packet) < headerLen || packet[0] != kind || packet[1] != 0 {
		return 0, false
	}
	i, ok = q.number(packet)
	return i, ok && q.sameToken(packet[headerLen:])
}

// stripIPv4 is the packet without the IPv4 header that raw sockets put before it; nil when there is none.
func stripIPv4(packet []byte) []byte {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return nil
	}
	n := int(packet[0]&0x0f) * 4
	if n < 20 || len(packet) < n {
		return nil
	}
	return packet[n:]
}

// refusal is what an error message says.
type refusal struct {
	kind, code byte
	mtu        int // of the next link, when the packet is too big for it; 0 when it is not told
}

// tooBig tells whether the packet was too big for a link.
func (r refusal) tooBig(v4 bool) bool {
	if v4 {
		return r.kind == unreachableV4 && r.code == fragmentationNeeded
	}
	return r.kind == tooBigV6
}

// exceeded tells whether the hop limit ran out.
func (r refusal) exceeded(v4 bool) bool {
	return r.code == 0 && (v4 && r.kind == exceededV4 || !v4 && r.kind == exceededV6)
}

// text says what the message says.
func (r refusal) text(v4 bool) string {
	var codes []string
	switch {
	case v4 && r.kind == unreachableV4:
		codes = []string{"network unreachable", "host unreachable", "protocol unreachable", "port unreachable", "fragmentation needed", "source route failed",
			"network unknown", "host unknown", "host isolated", "network prohibited", "host prohibited", "network unreachable for this type of service",
			"host unreachable for this type of service", "communication prohibited by a filter", "host precedence violation", "precedence cutoff"}
	case !v4 && r.kind == unreachableV6:
		codes = []string{"no route to destination", "communication prohibited by a filter", "beyond the scope of the source address", "address unreachable",
			"port unreachable", "source address failed policy", "route rejected"}
	case v4 && r.kind == exceededV4, !v4 && r.kind == exceededV6:
		codes = []string{"hop limit exceeded", "fragment reassembly time exceeded"}
	case !v4 && r.kind == tooBigV6:
		return "packet too big"
	case v4 && r.kind == parameterV4, !v4 && r.kind == parameterV6:
		return "parameter problem"
	}
	if int(r.code) < len(codes) {
		return codes[r.code]
	}
	return "destination unreachable"
}
