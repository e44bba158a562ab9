package probe

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// aliasEvery is how often the answers about one host are read at most.
	aliasEvery = 10 * time.Minute
	// aliasFor is how long names go on being told when the host does not resolve any more.
	aliasFor = 24 * time.Hour
	// aliasIdle is how long a host may not be probed before it makes room for others.
	aliasIdle = 15 * time.Minute
	// maxAliasHosts bounds the hosts in mind: about 300 bytes each. Redirects are chosen by strangers.
	maxAliasHosts = 20_000
	// maxAliases and maxAliasesAll bound what is told of one host, and of all the hosts of one probe, as result.proto documents it.
	maxAliases, maxAliasesAll = 4, 8
	// maxAliasChain is how many CNAME records are followed: resolvers give up earlier.
	maxAliasChain = 16
)

// Aliases knows what hosts are aliases of, by CNAME records, which net.Resolver keeps to itself. It asks nothing: once in ten minutes for each host, the probe's own look-up goes over connections that
// let it read the answers, whole chains and all. So it neither delays a probe nor makes one fail, and knows what this probe's resolver said. Of a host that does not resolve any more it goes on
// telling what was known, for a day: that is when it matters.
//
// It lives in memory, one for all the checks of a prober ([Options.Aliases]), and is bounded: when it is full, hosts that have not been probed for a quarter of an hour make room, or else any. Its
// methods may be called by several goroutines at once. A nil Aliases knows nothing.
type Aliases struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error) // to name servers

	mu      sync.Mutex // guards everything below
	hosts   map[string]*alias
	swept   time.Time
	dropped int64
}

// alias is what is known of one host.
type alias struct {
	names []string  // what it is an alias of, the canonical name last; never changed in place
	said  time.Time // when a look-up said so last
	read  time.Time // when its answers were read last
	used  time.Time // when it was asked for last
}

// NewAliases makes an Aliases that knows nothing yet.
func NewAliases() *Aliases {
	return &Aliases{dial: (&net.Dialer{}).DialContext, hosts: make(map[string]*alias)}
}

// Stats are how many hosts are in mind, how many of them are aliases, and how many were dropped for others since the start.
func (x *Aliases) Stats() (hosts, aliases int, dropped int64) {
	if x == nil {
		return 0, 0, 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, h := range x.hosts {
		if len(h.names) > 0 {
			aliases++
		}
	}
	return len(x.hosts), aliases, x.dropped
}

// known is what the host is known to be an alias of. The list must not be changed.
func (x *Aliases) known(host string) []string {
	if x == nil || host == "" {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if h := x.hosts[strings.ToLower(host)]; h != nil {
		return h.names
	}
	return nil
}

// lookup resolves a host as net.Resolver does, and gives what it is known to be an alias of. That list must not be changed.
func (x *Aliases) lookup(ctx context.Context, network, host string) ([]netip.Addr, []string, error) {
	resolver := net.Resolver{PreferGo: true}
	if x == nil {
		addrs, err := resolver.LookupNetIP(ctx, network, host)
		return addrs, nil, err
	}
	names, due := x.begin(host, time.Now())
	if !due {
		addrs, err := resolver.LookupNetIP(ctx, network, host)
		return addrs, names, err
	}
	t := &tap{dial: x.dial}
	resolver.Dial = t.connect
	addrs, err := resolver.LookupNetIP(ctx, network, host)
	return addrs, x.learn(host, t.longest(), err, time.Now()), err
}

// begin tells what is known of a host, and whether its answers are to be read now.
func (x *Aliases) begin(host string, now time.Time) (names []string, due bool) {
	key := strings.ToLower(host)
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hosts[key]
	if h == nil {
		if len(x.hosts) >= maxAliasHosts {
			x.makeRoom(now)
		}
		h = &alias{}
		x.hosts[key] = h
	}
	h.used = now
	if due = now.Sub(h.read) >= aliasEvery; due {
		h.read = now
	}
	return h.names, due
}

// makeRoom drops hosts.
func (x *Aliases) makeRoom(now time.Time) {
	before := len(x.hosts)
	if now.Sub(x.swept) > time.Minute {
		x.swept = now
		for k, h := range x.hosts {
			if now.Sub(h.used) > aliasIdle {
				delete(x.hosts, k)
			}
		}
	}
	for k := range x.hosts {
		if len(x.hosts) < maxAliasHosts {
			break
		}
		delete(x.hosts, k)
	}
	x.dropped += int64(before - len(x.hosts))
}

// learn notes what the answers about a host said, and gives what is known now. A look-up that failed may have said what the host is an alias of (when that does not exist); one that has not leaves what
// is known, and the next is read again.
func (x *Aliases) learn(host string, names []string, err error, now time.Time) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	h := x.hosts[strings.ToLower(host)]
	switch {
	case h == nil:
		return names // it was dropped meanwhile
	case err == nil || len(names) > 0:
		if !slices.Equal(h.names, names) {
			h.names = names
		}
		h.said = now
	default:
		h.read = time.Time{}
		if now.Sub(h.said) > aliasFor {
			h.names = nil
		}
	}
	return h.names
}

// CanonicalNames follows the CNAME records of an answer from a name: what it is an alias of, what that is one of, the canonical name last; at most the last four. They are in lower case and without the
// final dot. Empty when the name is no alias there.
func CanonicalNames(name string, answer []dns.RR) []string {
	var chain []string
	at := strings.ToLower(strings.TrimSuffix(name, "."))
	for range maxAliasChain {
		next := ""
		for _, rr := range answer {
			if c, ok := rr.(*dns.CNAME); ok && strings.EqualFold(strings.TrimSuffix(c.Hdr.Name, "."), at) {
				next = strings.ToLower(strings.TrimSuffix(c.Target, "."))
			}
		}
		if next == "" || next == at || slices.Contains(chain, next) {
			break
		}
		chain, at = append(chain, next), next
	}
	return slices.Clip(chain[max(0, len(chain)-maxAliases):])
}

// tap reads what name servers answer to one look-up.
type tap struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex // guards chain: both families are asked at the same time
	chain []string
}

// longest is the longest chain of aliases that an answer told of so far.
func (t *tap) longest() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.chain
}

// connect is the Dial of a resolver. It takes a connection for one of datagrams by its type, so that must be kept.
func (t *tap) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := t.dial(ctx, network, address)
	switch c := conn.(type) {
	case *net.UDPConn:
		return &datagrams{UDPConn: c, tap: t}, err
	case *net.TCPConn:
		return &stream{TCPConn: c, tap: t}, err
	}
	return conn, err
}

// heard reads an answer to a query. Whatever is wrong with it is the resolver's to say.
func (t *tap) heard(query, answer []byte) {
	defer func() { _ = recover() }() // strangers write answers; a fault in reading one must not be one of the probe
	var q, m dns.Msg
	if len(query) < 12 || len(answer) < 12 || query[0] != answer[0] || query[1] != answer[1] || m.Unpack(answer) != nil && len(m.Answer) == 0 || q.Unpack(query) != nil {
		return
	}
	if !m.Response || len(q.Question) != 1 || len(m.Question) != 1 || !strings.EqualFold(q.Question[0].Name, m.Question[0].Name) || q.Question[0].Qtype != m.Question[0].Qtype {
		return
	}
	names := CanonicalNames(m.Question[0].Name, m.Answer)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(names) > len(t.chain) || len(names) == len(t.chain) && m.Question[0].Qtype == dns.TypeA {
		t.chain = names
	}
}

// datagrams is a connection over UDP: a message is a datagram.
type datagrams struct {
	*net.UDPConn
	tap   *tap
	query []byte
}

// Write notes the query.
func (d *datagrams) Write(b []byte) (int, error) {
	d.query = slices.Clone(b)
	return d.UDPConn.Write(b)
}

// Read reads an answer, or what somebody sends who would like to be taken for one.
func (d *datagrams) Read(b []byte) (int, error) {
	n, err := d.UDPConn.Read(b)
	if err == nil {
		d.tap.heard(d.query, b[:n])
	}
	return n, err
}

// stream is a connection over TCP: a message comes after its length, in two bytes, and in pieces.
type stream struct {
	*net.TCPConn
	tap    *tap
	query  []byte
	answer []byte // at most one, of 64 KiB
	over   bool
}

// Write notes the query.
func (s *stream) Write(b []byte) (int, error) {
	if len(b) > 2 {
		s.query = slices.Clone(b[2:])
	}
	return s.TCPConn.Write(b)
}

// Read reads a piece of the answer.
func (s *stream) Read(b []byte) (int, error) {
	n, err := s.TCPConn.Read(b)
	if s.over || n <= 0 {
		return n, err
	}
	s.answer = append(s.answer, b[:n]...)
	if len(s.answer) < 2 {
		return n, err
	}
	if end := 2 + int(s.answer[0])<<8 + int(s.answer[1]); len(s.answer) >= end {
		s.tap.heard(s.query, s.answer[2:end])
		s.answer, s.over = nil, true
	}
	return n, err
}
