package dns

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxStray is how many datagrams that are no answer to the question are dropped before the probe gives up. Guessing an id takes 65,536 of them.
const maxStray = 1000

// Patience with servers that are asked besides the one of the check: a lost datagram is sent again.
const (
	tries    = 3
	patience = 1500 * time.Millisecond
)

// peer is a server that a probe asks, over one line as long as that lasts. The first question is the timed part of the probe; after settle, what is asked is not timed.
type peer struct {
	r         *runner
	a         *probe.Attempt // nil after settle
	fence     *probe.Fence   // of the probe
	tls       *tls.Config    // nil without an encrypted transport
	own       bool           // the prober's own resolver, for which no fence is asked
	transport meshv1.DnsProbe_Transport
	host      string // an address after settle
	port      uint16
	main      line
	tcp       line      // for answers that do not fit into a datagram
	udp       datagrams // what main is over UDP, so that the usual probe allocates one thing less
}

// reply is an answer to a question.
type reply struct {
	msg       *dns.Msg
	bytes     int
	transport meshv1.DnsProbe_Transport
}

// settle ends the timed part.
func (p *peer) settle() {
	if p.a == nil {
		return
	}
	if at, err := netip.ParseAddrPort(p.a.Remote()); err == nil {
		p.host, p.port = at.Addr().String(), at.Port()
	}
	p.a = nil
}

// close ends all lines.
func (p *peer) close() {
	for _, l := range []line{p.main, p.tcp} {
		if l != nil {
			l.close()
		}
	}
	p.main, p.tcp = nil, nil
}

// ask asks a question and waits for the answer. With fallback it asks again over TCP when the answer over UDP is truncated.
func (p *peer) ask(ctx context.Context, q *question, fallback bool) (reply, error) {
	cookie := q.newCookie()
	got, err := p.converse(ctx, q, cookie, fallback)
	if err == nil && len(cookie) > 0 && got.msg.Rcode == dns.RcodeBadCookie {
		if whole := cookieOf(got.msg); len(whole) > cookieBytes {
			return p.converse(ctx, q, whole, fallback)
		}
	}
	return got, err
}

// patiently asks a question that is not the check's own: a line that has ended is opened again, and a datagram that may be lost is sent again.
func (p *peer) patiently(ctx context.Context, q *question) (reply, error) {
	var got reply
	var err error
	for range tries {
		try, cancel := context.WithTimeout(ctx, patience)
		got, err = p.ask(try, q, true)
		cancel()
		if err == nil || ctx.Err() != nil {
			return got, err
		}
		p.close()
		var f *probe.Failure
		if errors.As(err, &f) {
			return reply{}, err
		}
	}
	return reply{}, err
}

func (p *peer) converse(ctx context.Context, q *question, cookie []byte, fallback bool) (reply, error) {
	if p.main == nil {
		var err error
		if p.main, err = p.open(ctx, p.transport); err != nil {
			return reply{}, err
		}
	}
	got, err := p.exchange(ctx, p.main, q, cookie, fallback)
	if err != nil {
		return reply{}, err
	}
	got.transport = p.transport
	if got.msg != nil {
		return got, nil
	}
	if p.tcp == nil {
		if p.tcp, err = p.open(ctx, meshv1.DnsProbe_TCP); err != nil {
			return reply{}, err
		}
	}
	if got, err = p.exchange(ctx, p.tcp, q, cookie, false); err == nil {
		got.transport = meshv1.DnsProbe_TCP
	}
	return got, err
}

// exchange sends the question over a line and waits for its answer. An answer without a message is one that is truncated.
func (p *peer) exchange(ctx context.Context, l line, q *question, cookie []byte, fallback bool) (reply, error) {
	traits := l.traits()
	query, err := q.wire(traits.prefix, traits.id, cookie)
	if err != nil {
		return reply{}, err
	}
	switch x := l.(type) {
	case *datagrams:
		x.begin(ctx)
		defer x.end()
	case *stream:
		defer probe.Watch(ctx, x.conn)()
	}
	if err := l.send(ctx, query); err != nil {
		return reply{}, err
	}
	enter(p.a, meshv1.Result_PROCESSING)
	query = query[traits.prefix:]
	for range maxStray {
		b, err := l.receive(ctx, p.a)
		if err != nil {
			return reply{}, err
		}
		if !answersQuestion(b, query) {
			if !traits.datagrams {
				return reply{}, malformed("it is an answer to another question")
			}
			continue
		}
		if fallback && traits.datagrams && truncated(b) {
			return reply{}, nil
		}
		msg, err := unpack(b)
		if err != nil {
			return reply{}, err
		}
		if len(cookie) > 0 && foreignCookie(msg, cookie) {
			if !traits.datagrams {
				return reply{}, malformed("it has a cookie that was not sent")
			}
			continue
		}
		return reply{msg: msg, bytes: len(b)}, nil
	}
	return reply{}, malformed("1000 datagrams came, and none is an answer to the question")
}

// malformed is the error of something that is no answer.
type malformed string

func (m malformed) Error() string { return string(m) }

// unpack makes a message of what arrived.
func unpack(b []byte) (*dns.Msg, error) {
	if err := tolerable(b); err != nil {
		return nil, malformed(err.Error())
	}
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		return nil, malformed(strings.TrimPrefix(err.Error(), "dns: "))
	}
	return m, nil
}

// described makes a failure of the target of what cannot be read.
func described(a *probe.Attempt, err error) error {
	var bad malformed
	if errors.As(err, &bad) {
		return probe.Failf(a, meshv1.Result_PROTOCOL, "wait for the answer of %s: what came back is no DNS answer: %s", a.Remote(), string(bad))
	}
	return err
}

// cookieOf is the cookie in an answer.
func cookieOf(m *dns.Msg) []byte {
	opt := m.IsEdns0()
	if opt == nil {
		return nil
	}
	for _, o := range opt.Option {
		if c, ok := o.(*dns.EDNS0_COOKIE); ok {
			b, _ := hex.DecodeString(c.Cookie)
			return b
		}
	}
	return nil
}

// foreignCookie tells whether an answer has a cookie that does not begin with ours. Servers need not know cookies.
func foreignCookie(m *dns.Msg, ours []byte) bool {
	theirs := cookieOf(m)
	return theirs != nil && (len(theirs) < cookieBytes || string(theirs[:cookieBytes]) != string(ours[:cookieBytes]))
}

// open opens a line to the server.
func (p *peer) open(ctx context.Context, transport meshv1.DnsProbe_Transport) (line, error) {
	switch transport {
	case meshv1.DnsProbe_TCP:
		conn, err := p.dial(ctx, "tcp")
		if err != nil {
			return nil, err
		}
		return &stream{conn: conn}, nil
	case meshv1.DnsProbe_TLS:
		conn, err := p.secure(ctx)
		if err != nil {
			return nil, err
		}
		return &stream{conn: conn}, nil
	case meshv1.DnsProbe_HTTPS:
		return p.openHTTP(ctx)
	case meshv1.DnsProbe_QUIC:
		return p.openQUIC(ctx)
	}
	conn, err := p.dial(ctx, "udp")
	if err != nil {
		return nil, err
	}
	p.udp = newDatagrams(conn, int(udpSize(p.r.options.GetEdns())))
	return &p.udp, nil
}

// dial connects to the server by "tcp" or "udp".
func (p *peer) dial(ctx context.Context, network string) (net.Conn, error) {
	switch {
	case p.a != nil && p.own:
		dialer := p.r.dialer
		dialer.Own = true
		return dialer.Dial(ctx, p.a, network, p.host, p.port)
	case p.a != nil:
		return p.r.dialer.Dial(ctx, p.a, network, p.host, p.port)
	}
	addr, err := netip.ParseAddr(p.host)
	if err != nil {
		return nil, err
	}
	if !p.own {
		if err := p.fence.Permits(addr); err != nil {
			return nil, err
		}
	}
	dialer := net.Dialer{KeepAlive: -1}
	if s := p.r.dialer.Source; s.IsValid() && s.Is4() == addr.Unmap().Is4() {
		if network == "udp" {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(s, 0))
		} else {
			dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(s, 0))
		}
		dialer.Control = probe.AddressOnly
	}
	return dialer.DialContext(ctx, network, netip.AddrPortFrom(addr, p.port).String())
}

// secure connects to the server by TLS over TCP.
func (p *peer) secure(ctx context.Context) (*tls.Conn, error) {
	conn, err := p.dial(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	var secured *tls.Conn
	if p.a != nil {
		secured, err = probe.Handshake(ctx, p.a, conn, p.tls)
	} else {
		secured = tls.Client(conn, p.tls)
		err = secured.HandshakeContext(ctx)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}
