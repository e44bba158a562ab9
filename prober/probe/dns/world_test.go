package dns

import (
	"context"
	"crypto"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// world is a tree of zones that one server answers for, signing as it goes.
type world struct {
	mu     sync.Mutex
	zones  map[string]*fakeZone
	tamper func(m *dns.Msg) // what the server does to an answer before it is sent
	asked  int
}

// fakeZone is a zone of a world.
type fakeZone struct {
	name       string
	key        *dns.DNSKEY // nil: not signed
	signer     crypto.Signer
	records    map[string]map[uint16][]dns.RR
	nsec3      bool
	optOut     bool
	iterations uint16
	begin, end time.Time
}

func newWorld() *world { return &world{zones: make(map[string]*fakeZone)} }

// zone adds a zone, signed by the algorithm unless that is 0, and the delegation to it.
func (w *world) zone(t testing.TB, name string, algorithm uint8, lines ...string) *fakeZone {
	t.Helper()
	z := &fakeZone{name: name, records: make(map[string]map[uint16][]dns.RR), begin: time.Now().Add(-time.Hour), end: time.Now().Add(30*24*time.Hour + time.Hour)}
	z.add(t, name+" 300 IN SOA ns.test. host.test. 7 1 2 3 60", name+" 300 IN NS ns.test.")
	if algorithm != 0 {
		z.key = &dns.DNSKEY{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 300}, Flags: 257, Protocol: 3, Algorithm: algorithm}
		bits := 256
		if algorithm == dns.ECDSAP384SHA384 {
			bits = 384
		}
		if algorithm == dns.RSASHA256 {
			bits = 2048
		}
		private, err := z.key.Generate(bits)
		if err != nil {
			t.Fatal(err)
		}
		z.signer = private.(crypto.Signer) //nolint:errcheck // every kind of key is one
		z.put(z.key)
	}
	z.add(t, lines...)
	if up := w.above(name); up != nil {
		up.add(t, name+" 300 IN NS ns.test.")
		if z.key != nil {
			up.put(z.key.ToDS(dns.SHA256))
		}
	}
	w.zones[name] = z
	return z
}

func (z *fakeZone) add(t testing.TB, lines ...string) {
	t.Helper()
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		z.put(rr)
	}
}

func (z *fakeZone) put(rr dns.RR) {
	name := dns.CanonicalName(rr.Header().Name)
	if z.records[name] == nil {
		z.records[name] = make(map[uint16][]dns.RR)
	}
	z.records[name][rr.Header().Rrtype] = append(z.records[name][rr.Header().Rrtype], rr)
}

// above is the zone that delegates a name; nil for the root.
func (w *world) above(name string) *fakeZone {
	for name != "." {
		name = parent(name)
		if z := w.zones[name]; z != nil {
			return z
		}
	}
	return nil
}

// of is the zone that answers a question.
func (w *world) of(name string, kind uint16) *fakeZone {
	if z := w.zones[name]; z != nil && (kind != dns.TypeDS || name == ".") {
		return z
	}
	return w.above(name)
}

// ServeDNS implements dns.Handler: a resolver that does not validate.
func (w *world) ServeDNS(to dns.ResponseWriter, q *dns.Msg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable, m.Compress = true, true
	w.answer(m, dns.CanonicalName(q.Question[0].Name), q.Question[0].Qtype, 0)
	if w.tamper != nil {
		w.tamper(m)
	}
	if _, udp := to.RemoteAddr().(*net.UDPAddr); udp {
		m.Truncate(1232)
	}
	_ = to.WriteMsg(m)
}

func (w *world) answer(m *dns.Msg, name string, kind uint16, hop int) {
	z := w.of(name, kind)
	if z == nil || hop > 20 {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	if rrs := z.records[name][kind]; len(rrs) > 0 {
		m.Answer = append(m.Answer, z.sign(rrs)...)
		return
	}
	if c := z.records[name][dns.TypeCNAME]; len(c) > 0 {
		m.Answer = append(m.Answer, z.sign(c)...)
		w.answer(m, dns.CanonicalName(c[0].(*dns.CNAME).Target), kind, hop+1)
		return
	}
	encloser := name
	for !z.exists(encloser) {
		encloser = parent(encloser)
	}
	if encloser == name {
		m.Ns = append(append(m.Ns, z.sign(z.records[z.name][dns.TypeSOA])...), z.prove(name)...)
		return
	}
	star := wildcard(encloser)
	if rrs := z.records[star][kind]; len(rrs) > 0 {
		for _, rr := range z.sign(rrs) {
			c := dns.Copy(rr)
			c.Header().Name = name
			m.Answer = append(m.Answer, c)
		}
		m.Ns = append(m.Ns, z.prove(name)...)
		return
	}
	m.Ns = append(append(m.Ns, z.sign(z.records[z.name][dns.TypeSOA])...), z.prove(name, star)...)
	if !z.exists(star) {
		m.Rcode = dns.RcodeNameError
	}
}

// exists tells whether a name has records or names below it.
func (z *fakeZone) exists(name string) bool {
	for n := range z.records {
		if dns.IsSubDomain(name, n) {
			return true
		}
	}
	return false
}

// sign gives records and their signature.
func (z *fakeZone) sign(rrs []dns.RR) []dns.RR {
	out := slices.Clone(rrs)
	if z.key == nil || len(rrs) == 0 || rrs[0].Header().Rrtype == dns.TypeNS && rrs[0].Header().Name != z.name {
		return out
	}
	sig := &dns.RRSIG{Algorithm: z.key.Algorithm, KeyTag: z.key.KeyTag(), SignerName: z.name, Inception: uint32(z.begin.Unix()), Expiration: uint32(z.end.Unix())}
	if err := sig.Sign(z.signer, rrs); err != nil {
		panic(err)
	}
	return append(out, sig)
}

// types are those of a name, for a proof.
func (z *fakeZone) types(name string, more ...uint16) []uint16 {
	for t := range z.records[name] {
		more = append(more, t)
	}
	slices.Sort(more)
	return more
}

// prove gives the records that prove what is at names, each once.
func (z *fakeZone) prove(names ...string) []dns.RR {
	if z.key == nil {
		return nil
	}
	if z.nsec3 {
		return z.prove3(names...)
	}
	var owners []string
	for n := range z.records {
		owners = append(owners, n)
	}
	sort.Slice(owners, func(i, j int) bool { return order(owners[i], owners[j]) < 0 })
	var out []dns.RR
	seen := make(map[int]bool)
	for _, name := range names {
		i := len(owners) - 1
		for ; order(owners[i], name) > 0; i-- {
		}
		if seen[i] {
			continue
		}
		seen[i] = true
		n := &dns.NSEC{Hdr: dns.RR_Header{Name: owners[i], Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 60}, NextDomain: owners[(i+1)%len(owners)],
			TypeBitMap: z.types(owners[i], dns.TypeRRSIG, dns.TypeNSEC)}
		out = append(out, z.sign([]dns.RR{n})...)
	}
	return out
}

func (z *fakeZone) prove3(names ...string) []dns.RR {
	hash := func(n string) string { return dns.HashName(n, dns.SHA1, z.iterations, "AB") }
	owners := make(map[string]string)
	for n, kinds := range z.records {
		if z.optOut && n != z.name && len(kinds) == 1 && len(kinds[dns.TypeNS]) > 0 {
			continue
		}
		for ; dns.IsSubDomain(z.name, n); n = parent(n) {
			owners[hash(n)] = n
			if n == "." {
				break
			}
		}
	}
	var hashes []string
	for h := range owners {
		hashes = append(hashes, h)
	}
	slices.Sort(hashes)
	all := make(map[string]bool) // of all names, those of their ancestors too: closest enclosers and next closer names
	for _, name := range names {
		for n := name; dns.IsSubDomain(z.name, n); n = parent(n) {
			all[n] = true
			if n == "." {
				break
			}
		}
	}
	chosen := make(map[int]bool)
	for n := range all {
		i := len(hashes) - 1
		for h := hash(n); i > 0 && hashes[i] > h; i-- {
		}
		if hashes[i] > hash(n) {
			i = len(hashes) - 1
		}
		chosen[i] = true
	}
	var out []dns.RR
	for i := range chosen {
		n := &dns.NSEC3{Hdr: dns.RR_Header{Name: strings.ToLower(hashes[i]) + "." + strings.TrimPrefix(z.name, "."), Rrtype: dns.TypeNSEC3, Class: dns.ClassINET, Ttl: 60}, Hash: dns.SHA1,
			Iterations: z.iterations, SaltLength: 1, Salt: "AB", HashLength: 20, NextDomain: hashes[(i+1)%len(hashes)]}
		if owner := owners[hashes[i]]; len(z.records[owner]) > 0 {
			n.TypeBitMap = z.types(owner, dns.TypeRRSIG)
		}
		if z.optOut {
			n.Flags = optOutFlag
		}
		out = append(out, z.sign([]dns.RR{n})...)
	}
	return out
}

// listenBoth listens on the same port by UDP and TCP, and serves until the test ends.
func listenBoth(t testing.TB, address string, h dns.Handler) string {
	t.Helper()
	for range 50 {
		pc, err := net.ListenPacket("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err != nil {
			pc.Close()
			continue
		}
		for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
			started, done := make(chan struct{}), make(chan struct{})
			s.NotifyStartedFunc = func() { close(started) }
			go func() { defer close(done); _ = s.ActivateAndServe() }()
			<-started
			t.Cleanup(func() { _ = s.Shutdown(); <-done })
		}
		return pc.LocalAddr().String()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return ""
}

// tree is a world with a signed root, a signed zone test., and below it zones of many kinds.
func tree(t testing.TB, nsec3 bool) *world {
	t.Helper()
	w := newWorld()
	root := dns.ECDSAP384SHA384
	if nsec3 {
		root = dns.RSASHA256
	}
	w.zone(t, ".", root)
	w.zone(t, "test.", dns.ECDSAP256SHA256, "ns.test. 300 IN A 127.0.0.1", "alias.test. 300 IN CNAME a.shop.test.", "out.test. 300 IN CNAME a.open.test.",
		"loop.test. 300 IN CNAME pool.test.", "pool.test. 300 IN CNAME loop.test.", "dead.test. 300 IN CNAME nothing.shop.test.")
	w.zone(t, "shop.test.", dns.ED25519, "a.shop.test. 300 IN A 192.0.2.1", "a.shop.test. 300 IN A 192.0.2.2", "deep.empty.shop.test. 300 IN A 192.0.2.3",
		"*.wild.shop.test. 300 IN A 192.0.2.4", "z.shop.test. 300 IN TXT \"v=1\"")
	w.zone(t, "open.test.", 0, "a.open.test. 300 IN A 192.0.2.5")
	for _, z := range w.zones {
		z.nsec3 = nsec3
	}
	return w
}

// anchor is the trust anchor for a zone of the world.
func (w *world) anchor(name string) string { return w.zones[name].key.ToDS(dns.SHA256).String() }

// query probes a name of the world, whose resolver is at the address, with the root of the world as the anchor.
func (w *world) query(t testing.TB, server, rest string, change func(*meshv1.DnsProbe)) *meshv1.Result {
	t.Helper()
	o := &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{Anchors: []string{w.anchor(".")}}, Rcodes: []string{"NOERROR", "NXDOMAIN"}}
	if change != nil {
		change(o)
	}
	return probed(t, "dns://"+server+"/"+rest, o, "")
}

// probed probes once; resolver is the prober's own, on port 53, or empty for none.
func probed(t testing.TB, uri string, o *meshv1.DnsProbe, resolver string) *meshv1.Result {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if resolver != "" {
		if err := os.WriteFile(conf, []byte("nameserver "+resolver+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, target := probetest.Check(t, uri, 10*time.Second, func(c *meshv1.Check) { c.Dns = o })
	r, err := compile(c, target, probetest.Env(), conf)
	if err != nil {
		t.Fatal(err)
	}
	got := r.Probe(context.Background(), probe.Options{Evidence: true})
	probetest.Promises(t, got)
	return got
}

// finding is what validation found, in one line.
func finding(r *meshv1.Result) string {
	d := r.GetDns().GetDnssec()
	return strings.TrimSpace(fmt.Sprintf("%s %s", d.GetStatus(), d.GetReason()))
}
