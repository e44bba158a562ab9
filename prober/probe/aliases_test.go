package probe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// zone is a name server on the loopback interface, whose records a test may change.
type zone struct {
	mu      sync.Mutex
	records map[string]string // CNAME or address of a name
	rcode   int               // of all answers, if not 0
	cut     bool              // over UDP, nothing but that there is more
	queries int
}

func (z *zone) set(change func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change()
}

// ServeDNS answers with the whole chain, as a resolver does.
func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.queries++
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	name := q.Question[0].Name
	for range 20 {
		to, ok := z.records[strings.ToLower(name)]
		if addr, err := netip.ParseAddr(to); err == nil {
			if q.Question[0].Qtype == dns.TypeA {
				m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: addr.AsSlice()})
			}
			break
		}
		if !ok {
			m.Rcode = dns.RcodeNameError
			break
		}
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: to})
		name = to
	}
	if z.rcode != 0 {
		m.Rcode, m.Answer = z.rcode, nil
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp && z.cut {
		m.Truncated, m.Answer = true, nil
	}
	_ = w.WriteMsg(m)
}

// aliasesOf is an Aliases whose look-ups all go to the zone, if they are read.
func aliasesOf(t *testing.T, z *zone) *Aliases {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Skip("the port is taken over UDP")
	}
	for _, s := range []*dns.Server{{Listener: l, Handler: z}, {PacketConn: p, Handler: z}} {
		ended := make(chan error, 1)
		go func() { ended <- s.ActivateAndServe() }()
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	x := NewAliases()
	x.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network[:3], l.Addr().String())
	}
	return x
}

// look resolves a host by a dialer, with the answers read.
func look(t *testing.T, x *Aliases, host string) ([]string, error) {
	t.Helper()
	x.mu.Lock()
	if h := x.hosts[host]; h != nil {
		h.read = time.Time{}
	}
	x.mu.Unlock()
	a := &Attempt{start: time.Now(), timeout: 5 * time.Second, options: Options{Aliases: x}}
	_, err := (&Dialer{}).Resolve(t.Context(), a, host)
	return a.names, err
}

func TestResultsTellTheWholeChainOfAliases(t *testing.T) {
	z := &zone{records: map[string]string{"shop.example.": "Shop.CDN.example.", "shop.cdn.example.": "pop-1.cdn.example.", "pop-1.cdn.example.": "192.0.2.7", "plain.example.": "192.0.2.8"}}
	x := aliasesOf(t, z)
	want := []string{"shop.cdn.example", "pop-1.cdn.example"}
	for _, cut := range []bool{false, true} { // true: by TCP
		z.set(func() { z.cut = cut })
		if got, err := look(t, x, "shop.example"); err != nil || !slices.Equal(got, want) {
			t.Errorf("cut %v: got %q, %v", cut, got, err)
		}
	}
	if got, err := look(t, x, "plain.example"); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
	if hosts, aliases, dropped := x.Stats(); hosts != 2 || aliases != 1 || dropped != 0 {
		t.Errorf("%d hosts, %d aliases, %d dropped", hosts, aliases, dropped)
	}
}

func TestAliasesAreToldWhenTheNameDoesNotResolveAnyMore(t *testing.T) {
	z := &zone{records: map[string]string{"shop.example.": "edge.cdn.example.", "edge.cdn.example.": "192.0.2.7"}}
	x := aliasesOf(t, z)
	want := []string{"edge.cdn.example"}
	if got, err := look(t, x, "shop.example"); err != nil || !slices.Equal(got, want) {
		t.Fatalf("got %q, %v", got, err)
	}
	z.set(func() { z.rcode = dns.RcodeServerFailure })
	if got, err := look(t, x, "shop.example"); err == nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	// After a day of that it is not known any more.
	x.mu.Lock()
	x.hosts["shop.example"].said = time.Now().Add(-aliasFor - time.Minute)
	x.mu.Unlock()
	if got, err := look(t, x, "shop.example"); err == nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
	// An alias of what does not exist is told by the very answer that says so.
	z.set(func() { z.rcode = 0; delete(z.records, "edge.cdn.example.") })
	if got, err := look(t, x, "shop.example"); err == nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	// It is an alias of something else now, and then of nothing.
	z.set(func() { z.records["shop.example."], z.records["other.example."] = "other.example.", "192.0.2.9" })
	if got, err := look(t, x, "shop.example"); err != nil || !slices.Equal(got, []string{"other.example"}) {
		t.Errorf("got %q, %v", got, err)
	}
	z.set(func() { z.records["shop.example."] = "192.0.2.9" })
	if got, err := look(t, x, "shop.example"); err != nil || len(got) != 0 {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAnswersAboutAHostAreReadOnceInTenMinutes(t *testing.T) {
	x := NewAliases()
	now := time.Now()
	read := 0
	for i := range 200 { // a probe every ten seconds
		if _, due := x.begin("Shop.example", now.Add(time.Duration(i)*10*time.Second)); due {
			read++
			x.learn("shop.example", []string{"edge.cdn.example"}, nil, now)
		}
	}
	if read != 4 {
		t.Errorf("read %d times in 33 minutes", read)
	}
	// A look-up that failed is read again at once: nothing was learnt.
	if x.learn("shop.example", nil, context.DeadlineExceeded, now); x.hosts["shop.example"].read != (time.Time{}) {
		t.Error("it waits for ten minutes")
	}
}

func TestHostsInMindAreBoundedAndThoseNotProbedGoFirst(t *testing.T) {
	x, now := NewAliases(), time.Now()
	for i := range maxAliasHosts / 2 {
		x.begin(fmt.Sprintf("old-%d.example", i), now)
	}
	now = now.Add(aliasIdle + time.Minute)
	for i := range maxAliasHosts/2 + 10 {
		x.begin(fmt.Sprintf("new-%d.example", i), now)
	}
	if hosts, _, dropped := x.Stats(); hosts != maxAliasHosts/2+10 || dropped != maxAliasHosts/2 {
		t.Errorf("%d hosts, %d dropped", hosts, dropped)
	}
	for i := range 2 * maxAliasHosts {
		x.begin(fmt.Sprintf("more-%d.example", i), now)
	}
	if hosts, _, _ := x.Stats(); hosts != maxAliasHosts {
		t.Errorf("%d hosts", hosts)
	}
}

func TestChainsAreBoundedAndMayBeLoops(t *testing.T) {
	rr := func(from, to string) dns.RR {
		return &dns.CNAME{Hdr: dns.RR_Header{Name: from, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: to}
	}
	var long []dns.RR
	for i := range 30 {
		long = append(long, rr(fmt.Sprintf("n%d.", i), fmt.Sprintf("n%d.", i+1)))
	}
	slices.Reverse(long) // in any order
	if got := CanonicalNames("n0.", long); !slices.Equal(got, []string{"n13", "n14", "n15", "n16"}) {
		t.Errorf("got %q", got)
	}
	if got := CanonicalNames("A.", []dns.RR{rr("a.", "b."), rr("B.", "a.")}); !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("got %q", got)
	}
	if got := CanonicalNames("a.", []dns.RR{rr("a.", "a."), rr("x.", "y.")}); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

func TestOnlyTheAnswerToTheQueryIsBelieved(t *testing.T) {
	pack := func(m *dns.Msg) []byte {
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	q := new(dns.Msg).SetQuestion("shop.example.", dns.TypeA)
	answer := func(change func(*dns.Msg)) []byte {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: "shop.example.", Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: "evil.example."}}
		change(m)
		return pack(m)
	}
	for name, b := range map[string][]byte{
		"another id":   answer(func(m *dns.Msg) { m.Id++ }),
		"a query":      answer(func(m *dns.Msg) { m.Response = false }),
		"another name": answer(func(m *dns.Msg) { m.Question[0].Name = "else.example." }),
		"another type": answer(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }),
		"no question":  answer(func(m *dns.Msg) { m.Question = nil }),
		"cut short":    answer(func(*dns.Msg) {})[:20],
		"nothing":      nil,
	} {
		x := &tap{}
		if x.heard(pack(q), b); len(x.longest()) != 0 {
			t.Errorf("%s: %q", name, x.longest())
		}
	}
	x := &tap{}
	if x.heard(pack(q), answer(func(*dns.Msg) {})); !slices.Equal(x.longest(), []string{"evil.example"}) {
		t.Errorf("%q", x.longest())
	}
}

func TestAProbeOfSeveralHostsTellsOfAllOfThem(t *testing.T) {
	a := &Attempt{start: time.Now()}
	first := []string{"a", "b", "c", "d"}
	a.aliasOf(first)
	a.aliasOf([]string{"b", "e"})
	a.aliasOf([]string{"f", "g", "h", "i"})
	if got := strings.Join(a.names, ""); got != "abcdefgh" || !slices.Equal(first, []string{"a", "b", "c", "d"}) {
		t.Errorf("got %s, %q", got, first)
	}
}

func TestAKeptConnectionTellsWhatItsHostIsAnAliasOf(t *testing.T) {
	x := NewAliases()
	x.begin("shop.example", time.Now())
	x.learn("shop.example", []string{"edge.cdn.example"}, nil, time.Now())
	p, err := NewPlan(&meshv1.Check{Uri: "https://Shop.example:8443/"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Timeout, p.Talk = time.Second, func(context.Context, *Attempt) (Answer, error) { return nil, nil }
	if r := p.Run(t.Context(), Options{Aliases: x}); !slices.Equal(r.GetCanonicalNames(), []string{"edge.cdn.example"}) {
		t.Errorf("got %v", r)
	}
	if r := p.Run(t.Context(), Options{}); len(r.GetCanonicalNames()) != 0 {
		t.Errorf("got %v", r)
	}
}

func BenchmarkKnownHost(b *testing.B) {
	x := NewAliases()
	b.ReportAllocs()
	for b.Loop() {
		x.begin("shop.example", time.Now())
	}
}
