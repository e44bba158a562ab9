package dns

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// cookieBytes is the size of a client's cookie (RFC 7873, section 4).
const cookieBytes = 8

// flags are the bits of a question's header.
type flags struct {
	recursion, unchecked, authenticated bool
}

// question is a question that can be asked any number of times. It does not change.
type question struct {
	packed []byte   // as it is sent, without id and cookie
	cookie *dns.Msg // the same, for a cookie to be added to; nil where none is sent
}

// newQuestion packs a question with the EDNS options of the check.
func (r *runner) newQuestion(q dns.Question, f flags) (*question, error) {
	m := &dns.Msg{Question: []dns.Question{q}}
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = f.recursion, f.unchecked, f.authenticated
	e := r.options.GetEdns()
	if opt := edns(e, r.options.GetDnssec() != nil); opt != nil {
		m.Extra = append(m.Extra, opt)
	}
	packed, err := m.Pack()
	if err != nil {
		return nil, err
	}
	out := &question{packed: packed}
	if e.GetCookie() {
		out.cookie = m
	}
	return out, nil
}

// edns makes the OPT record; nil when there is to be none.
func edns(e *meshv1.DnsEdns, signatures bool) *dns.OPT {
	if e.GetDisabled() {
		return nil
	}
	opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
	opt.SetUDPSize(udpSize(e))
	if e.GetDnssecOk() || signatures {
		opt.SetDo()
	}
	if e.GetNsid() {
		opt.Option = append(opt.Option, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	}
	if p, err := netip.ParsePrefix(e.GetClientSubnet()); err == nil {
		family := uint16(2)
		if p.Addr().Is4() {
			family = 1
		}
		opt.Option = append(opt.Option, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: family, SourceNetmask: uint8(p.Bits()), Address: net.IP(p.Addr().AsSlice())})
	}
	return opt
}

// udpSize is the largest answer over UDP that is asked for.
func udpSize(e *meshv1.DnsEdns) uint16 {
	if n := e.GetUdpSize(); n > 0 {
		return uint16(n)
	}
	return spec.DefaultUDPSize
}

// wire is the question as it is sent once: with an id, which transports that keep questions apart by themselves do without, and with the cookie, if any. prefix bytes are left free at the
// beginning.
func (q *question) wire(prefix int, withID bool, cookie []byte) ([]byte, error) {
	packed := q.packed
	if len(cookie) > 0 {
		m := q.cookie.Copy()
		opt := m.IsEdns0()
		opt.Option = append(opt.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: hex.EncodeToString(cookie)})
		var err error
		if packed, err = m.Pack(); err != nil {
			return nil, err
		}
	}
	out := make([]byte, prefix+len(packed))
	copy(out[prefix:], packed)
	if withID {
		_, _ = rand.Read(out[prefix : prefix+2]) // never fails
	}
	return out, nil
}

// newCookie is a client's cookie for one conversation; nil when none is to be sent.
func (q *question) newCookie() []byte {
	if q.cookie == nil {
		return nil
	}
	c := make([]byte, cookieBytes)
	_, _ = rand.Read(c) // never fails
	return c
}
