package dns

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// surveyed is what the authoritative servers of a zone said.
type surveyed struct {
	servers []*meshv1.DnsServer
	leftOut bool
	newest  uint32
	trouble string // why they could not be asked at all
	broken  string // why that is the prober's own trouble; empty when it is not
}

// survey asks all authoritative servers of the zone for its SOA, side by side. Their names and addresses are asked of the server of the check, and where that does not know, of
// the prober's own resolver.
func (r *runner) survey(ctx context.Context, server *peer) *surveyed {
	s := &surveyed{}
	asker := newAsker(r, server)
	defer asker.close()
	most := int(r.options.GetSerials().GetMaxServers())
	got, err := asker.ask(ctx, r.target.Name, dns.TypeNS)
	if err != nil {
		s.trouble, s.broken = "the names of the servers are not known: "+reason(err), asker.broken
		return s
	}
	names := serversOf(got, r.target.Name)
	if len(names) == 0 {
		s.trouble = "the zone " + r.target.Name + " has no NS record; give the name of a zone"
		return s
	}
	for _, name := range names {
		addrs, unreachable, err := r.addresses(ctx, asker, got, name)
		if len(s.servers)+max(1, len(addrs)) > most {
			s.leftOut = true
			addrs = addrs[:min(len(addrs), most-len(s.servers))]
			if len(addrs) == 0 {
				break
			}
		}
		if len(addrs) == 0 {
			s.servers = append(s.servers, unaddressed(name, unreachable, asker.broken, err))
		}
		for _, addr := range addrs {
			s.servers = append(s.servers, &meshv1.DnsServer{Name: name, Address: netip.AddrPortFrom(addr, r.surveyPort()).String()})
		}
	}
	r.askAll(ctx, s, server.fence)
	s.compare()
	return s
}

// unaddressed is a server without an address to ask. Where that is for what the prober lacks, it is left out.
func unaddressed(name string, unreachable bool, broken string, err error) *meshv1.DnsServer {
	s := &meshv1.DnsServer{Name: name, Error: "it has no address of the IP family that the check asks for"}
	switch {
	case unreachable:
		s.Error, s.LeftOut = "this prober has no network of the IP family of its addresses", true
	case err != nil && broken != "":
		s.Error, s.LeftOut = "its address is not known: "+broken, true
	case err != nil:
		s.Error = "its address is not known: " + reason(err)
	}
	s.Error = clip(s.Error, 256)
	return s
}

// besides says how many servers were left out, if any.
func (s *surveyed) besides(asked int) string {
	if asked == len(s.servers) {
		return ""
	}
	return fmt.Sprintf("; besides, this prober could not ask %d", len(s.servers)-asked)
}

// surveyPort is the port of authoritative servers: that of the URI where it is one of plain DNS.
func (r *runner) surveyPort() uint16 {
	if t := r.options.GetTransport(); t == meshv1.DnsProbe_UDP || t == meshv1.DnsProbe_TCP {
		return r.port
	}
	return portPlain
}

// serversOf are the names in the NS records of a zone, in lower case, each once.
func serversOf(m *dns.Msg, zone string) []string {
	var out []string
	seen := make(map[string]bool)
	for _, rr := range m.Answer {
		ns, ok := rr.(*dns.NS)
		if !ok || !strings.EqualFold(ns.Hdr.Name, zone) {
			continue
		}
		if name := dns.CanonicalName(ns.Ns); !seen[name] {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}

// addresses are those of a server that this prober can reach: of the families that the check allows and the prober has. unreachable tells that there are some of others.
func (r *runner) addresses(ctx context.Context, asker *asker, hints *dns.Msg, name string) (out []netip.Addr, unreachable bool, failed error) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		f := r.options.GetIpFamily()
		if f == meshv1.IpFamily_IPV4 && kind == dns.TypeAAAA || f == meshv1.IpFamily_IPV6 && kind == dns.TypeA {
			continue
		}
		found := addressesIn(hints.Extra, name, kind)
		if len(found) == 0 {
			m, err := asker.ask(ctx, name, kind)
			if err != nil {
				failed = err
				continue
			}
			found = addressesIn(m.Answer, name, kind)
		}
		if len(found) > 0 && f == meshv1.IpFamily_ANY && !found[0].IsLoopback() && !r.hasFamily(kind == dns.TypeA) {
			unreachable = true
			continue
		}
		out = append(out, found...)
	}
	return out, unreachable, failed
}

// addressesIn are the addresses of a name among records.
func addressesIn(section []dns.RR, name string, kind uint16) []netip.Addr {
	var out []netip.Addr
	for _, rr := range section {
		if rr.Header().Rrtype != kind || !strings.EqualFold(rr.Header().Name, name) {
			continue
		}
		var addr netip.Addr
		var ok bool
		switch x := rr.(type) {
		case *dns.A:
			addr, ok = netip.AddrFromSlice(x.A.To4())
		case *dns.AAAA:
			addr, ok = netip.AddrFromSlice(x.AAAA)
		}
		if ok && len(out) < maxSurveyed {
			out = append(out, addr)
		}
	}
	return out
}

// maxSurveyed is the most addresses of one server that are looked at.
const maxSurveyed = 32

// askAll asks the servers side by side and waits for all.
func (r *runner) askAll(ctx context.Context, s *surveyed, fence *probe.Fence) {
	q, err := r.newQuestion(dns.Question{Name: r.target.Name, Qtype: dns.TypeSOA, Qclass: dns.ClassINET}, flags{})
	if err != nil {
		s.trouble = err.Error()
		return
	}
	var wg sync.WaitGroup
	for _, server := range s.servers {
		if server.Address != "" {
			wg.Go(func() { r.askOne(ctx, q, server, fence) })
		}
	}
	wg.Wait()
}

// askOne asks one server and notes what it says.
func (r *runner) askOne(ctx context.Context, q *question, s *meshv1.DnsServer, fence *probe.Fence) {
	at, err := netip.ParseAddrPort(s.Address)
	if err != nil {
		s.Error = err.Error()
		return
	}
	transport := meshv1.DnsProbe_UDP
	if r.options.GetTransport() == meshv1.DnsProbe_TCP {
		transport = meshv1.DnsProbe_TCP
	}
	p := &peer{r: r, fence: fence, transport: transport, host: at.Addr().String(), port: at.Port()}
	defer p.close()
	begin := time.Now()
	got, err := p.patiently(ctx, q)
	s.Duration = durationpb.New(time.Since(begin))
	if err != nil {
		aside := &probe.Attempt{}
		aside.Connecting(s.Address)
		s.Error, s.LeftOut = clip(reason(err), 256), probe.Classify(err, aside).Class == meshv1.Result_PROBER
		return
	}
	if opt := got.msg.IsEdns0(); opt != nil {
		s.Nsid = nsid(opt)
	}
	var soa *dns.SOA
	for _, rr := range got.msg.Answer {
		if x, ok := rr.(*dns.SOA); ok && strings.EqualFold(x.Hdr.Name, r.target.Name) {
			soa = x
		}
	}
	switch {
	case got.msg.Rcode != dns.RcodeSuccess:
		s.Error = rcode(got.msg)
	case !got.msg.Authoritative:
		s.Error = "not authoritative"
	case soa == nil:
		s.Error = "no SOA in its answer"
	default:
		s.Serial = soa.Serial
	}
}

// compare finds the newest serial and how far each server is behind it (RFC 1982).
func (s *surveyed) compare() {
	found := false
	for _, server := range s.servers {
		if server.Error == "" && (!found || int32(server.Serial-s.newest) > 0) {
			s.newest, found = server.Serial, true
		}
	}
	for _, server := range s.servers {
		if server.Error == "" {
			server.Lag = s.newest - server.Serial
		}
	}
}
