// Package dns is the kind dns: one question to one server, over UDP with TCP when the answer is cut short, or over TCP.
//
// The server is the one in the URI, or the first of the prober's own resolvers (/etc/resolv.conf) that can be reached. Without expectations the response
// code must be one of `rcodes`, and with NOERROR the answer must not be empty. With expectations these decide, and `rcodes` only when it is given.
package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// udpSize is the largest answer over UDP that is asked for: it fits into one packet everywhere.
const udpSize = 1232

// resolvConf names the prober's own resolvers.
const resolvConf = "/etc/resolv.conf"

// runner runs one check of kind dns.
type runner struct {
	plan    *probe.Plan
	options *meshv1.DnsProbe
	target  *spec.Target
	dialer  probe.Dialer
}

// Compile makes a runner of a check of kind dns whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, _ probe.Env) (probe.Runner, error) {
	plan, err := probe.NewPlan(c, c.GetDns().GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: c.GetDns(), target: t, dialer: probe.Dialer{Family: c.GetDns().GetIpFamily()}}
	plan.Talk = r.talk
	return r, nil
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {}

func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	host, port := r.target.Host, r.target.Port
	if host == "" {
		var err error
		if host, err = r.resolver(); err != nil {
			return nil, err
		}
	}
	network := "udp"
	if r.options.GetTransport() == meshv1.DnsProbe_TCP {
		network = "tcp"
	}
	got, err := r.ask(ctx, a, network, host, port)
	if err == nil && network == "udp" && got.msg.Truncated {
		got, err = r.ask(ctx, a, "tcp", host, port)
	}
	if err != nil {
		return nil, err
	}
	return got, nil
}

// resolver is the prober's own resolver of the family that the check asks for. It is read for each probe, since it may change.
func (r *runner) resolver() (string, error) {
	config, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return "", &probe.Failure{Class: meshv1.Result_PROBER, Sentence: "this prober has no resolver of its own (" + err.Error() + "); name a server: dns://server/name"}
	}
	for _, s := range config.Servers {
		addr, err := netip.ParseAddr(s)
		v4 := err == nil && addr.Is4()
		if f := r.options.GetIpFamily(); f == meshv1.IpFamily_IPV4 && !v4 || f == meshv1.IpFamily_IPV6 && v4 {
			continue
		}
		return s, nil
	}
	return "", &probe.Failure{Class: meshv1.Result_PROBER, Sentence: "this prober has no resolver of that IP family in " + resolvConf + "; name a server: dns://server/name"}
}

// ask puts the question over one connection.
func (r *runner) ask(ctx context.Context, a *probe.Attempt, network, host string, port uint16) (*answer, error) {
	conn, err := r.dialer.Dial(ctx, a, network, host, port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer probe.Watch(ctx, conn)()
	a.Connecting(conn.RemoteAddr().String())
	question := new(dns.Msg)
	question.SetQuestion(r.target.Name, r.target.Type)
	question.RecursionDesired = r.options.GetRecursionDesired()
	question.SetEdns0(udpSize, false)
	wire := &dns.Conn{Conn: conn, UDPSize: udpSize}
	if err := wire.WriteMsg(question); err != nil {
		return nil, err
	}
	a.Enter(meshv1.Result_PROCESSING)
	msg, err := receive(wire, question, network == "udp")
	if err != nil {
		return nil, described(a, err)
	}
	return &answer{msg: msg, asked: r.target.Type, rcodes: r.options.GetRcodes()}, nil
}

// receive reads until the answer to the question comes: what else arrives by UDP is not of this conversation and is dropped.
func receive(wire *dns.Conn, question *dns.Msg, datagrams bool) (*dns.Msg, error) {
	for {
		msg, err := wire.ReadMsg()
		switch {
		case err != nil && datagrams && isParse(err):
			if msg != nil && msg.Id == question.Id {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		case msg.Id == question.Id && msg.Response && sameQuestion(msg, question):
			return msg, nil
		case !datagrams:
			return nil, errors.New("it is an answer to another question")
		}
	}
}

// isParse tells whether a datagram came that is no DNS message.
func isParse(err error) bool {
	var network net.Error
	return !errors.As(err, &network)
}

func sameQuestion(msg, question *dns.Msg) bool {
	if len(msg.Question) == 0 {
		return msg.Rcode != dns.RcodeSuccess // servers that cannot read the question do not repeat it
	}
	got, want := msg.Question[0], question.Question[0]
	return strings.EqualFold(got.Name, want.Name) && got.Qtype == want.Qtype
}

// described makes a sentence of an answer that cannot be read.
func described(a *probe.Attempt, err error) error {
	var network net.Error
	if errors.As(err, &network) {
		return err
	}
	var bad *dns.Error
	if errors.As(err, &bad) || strings.Contains(err.Error(), "question") {
		return probe.Failf(a, meshv1.Result_PROTOCOL, "wait for the answer of %s: what came back is no DNS answer: %s", a.Remote(), strings.TrimPrefix(err.Error(), "dns: "))
	}
	return err
}

// answer is a DNS message.
type answer struct {
	msg    *dns.Msg
	asked  uint16
	rcodes []string
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	r.Dns = &meshv1.DnsResult{Rcode: rcode(g.msg), Answers: int32(len(g.msg.Answer)), Authorities: int32(len(g.msg.Ns)), Additionals: int32(len(without(g.msg.Extra)))}
	for _, rr := range g.msg.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			r.Dns.Serial = soa.Serial
		}
	}
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	if !p.Reads("dns") {
		return
	}
	r.Dns = &meshv1.ResponseDns{
		Rcode: rcode(g.msg), Authoritative: g.msg.Authoritative, Authenticated: g.msg.AuthenticatedData, Truncated: g.msg.Truncated,
		Answer: presentation(g.msg.Answer), Authority: presentation(g.msg.Ns), Additional: presentation(without(g.msg.Extra)),
	}
	for i, rr := range g.msg.Answer {
		h := rr.Header()
		if i == 0 || int64(h.Ttl) < r.Dns.TtlSeconds {
			r.Dns.TtlSeconds = int64(h.Ttl)
		}
		if h.Rrtype == g.asked || g.asked == dns.TypeANY {
			r.Dns.Answers = append(r.Dns.Answers, value(rr))
		}
	}
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	code := rcode(g.msg)
	fail := func(format string, args ...any) *probe.Failure {
		return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Sentence: fmt.Sprintf(format, args...)}
	}
	switch {
	case len(g.rcodes) > 0 && !slices.Contains(g.rcodes, code):
		return fail("the answer is %s, which is not among the rcodes of the check (%s)", code, strings.Join(g.rcodes, ", "))
	case expected:
		return nil
	case len(g.rcodes) == 0 && code != "NOERROR":
		return fail("the answer is %s; without expectations it must be NOERROR", code)
	case code == "NOERROR" && len(g.msg.Answer) == 0:
		return fail("the answer is empty: the name has no %s record", dns.Type(g.asked))
	}
	return nil
}

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = rcode(g.msg)
	for _, section := range [][]dns.RR{g.msg.Answer, g.msg.Ns, without(g.msg.Extra)} {
		probe.EvidenceRecords(e, presentation(section))
	}
}

// rcode is the response code as text.
func rcode(m *dns.Msg) string {
	if s, ok := dns.RcodeToString[m.Rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", m.Rcode)
}

// without is a section without OPT, which is no record but part of the message.
func without(section []dns.RR) []dns.RR {
	var out []dns.RR
	for _, rr := range section {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, rr)
		}
	}
	return out
}

// presentation is a section as text, one line a record, fields separated by one space.
func presentation(section []dns.RR) []string {
	out := make([]string, 0, len(section))
	for _, rr := range section {
		out = append(out, strings.ToValidUTF8(strings.ReplaceAll(rr.String(), "\t", " "), "\uFFFD"))
	}
	return out
}

// value is what a record holds, as text. The strings of a TXT record are joined.
func value(rr dns.RR) string {
	switch x := rr.(type) {
	case *dns.TXT:
		return strings.ToValidUTF8(strings.Join(x.Txt, ""), "\uFFFD")
	case *dns.A:
		return x.A.String()
	case *dns.AAAA:
		return x.AAAA.String()
	}
	return strings.ToValidUTF8(strings.TrimPrefix(strings.TrimPrefix(rr.String(), rr.Header().String()), "\t"), "\uFFFD")
}
