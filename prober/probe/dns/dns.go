// Package dns is the kind dns: one question to one server over UDP, TCP, TLS (RFC 7858), HTTPS (RFC 8484) or QUIC (RFC 9250), and what follows from the answer.
//
// The server is the one in the URI, or the first of the prober's own resolvers (/etc/resolv.conf) that can be used. What the check asks for is judged in this order, and the first that
// does not hold is the failure: the response code, the answer's being empty, its values, the rules for the sections, TTLs, DNSSEC, the serials of the authoritative servers, and
// then the expectations.
//
// The parts: a [question] is what is sent, a [line] a connection over which questions go, a [peer] a server with its lines; [rules] judge an answer; a [validator] follows
// the chain of keys for it; [survey] asks the authoritative servers.
//
// Nothing that a server sends is trusted: a message has at most 65,535 bytes and is looked through before it is unpacked (see [tolerable]), datagrams that are no answer to the question are
// dropped and counted, text made of records is bounded, and so are the questions and signature verifications of a validation.
package dns

import (
	"context"
	"crypto/tls"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// resolvConf names the prober's own resolvers.
const resolvConf = "/etc/resolv.conf"

// Ports of the transports where the URI has none.
const (
	portPlain = 53
	portTLS   = 853
	portHTTPS = 443
)

// runner runs one check of kind dns. It does not change once compiled.
type runner struct {
	plan      *probe.Plan
	options   *meshv1.DnsProbe
	target    *spec.Target
	port      uint16
	dialer    probe.Dialer
	tls       *tls.Config // nil without an encrypted transport
	userAgent string
	question  *question
	rules     *rules
	anchors   []dns.RR
	conf      string // path of resolv.conf
	hasFamily func(v4 bool) bool
}

// Compile makes a runner of a check of kind dns whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	return compile(c, t, env, resolvConf)
}

func compile(c *meshv1.Check, t *spec.Target, env probe.Env, conf string) (*runner, error) {
	o := c.GetDns()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, target: t, port: port(t, o), dialer: probe.Dialer{Family: o.GetIpFamily()}, userAgent: env.UserAgent, conf: conf, hasFamily: probe.HasFamily}
	if o.GetSourceAddress() != "" {
		if r.dialer.Source, err = netip.ParseAddr(o.GetSourceAddress()); err != nil {
			return nil, err
		}
	}
	if spec.DNSEncrypted(o.GetTransport()) {
		if r.tls, err = env.TLSConfig(o.GetTls(), t.Host); err != nil {
			return nil, err
		}
		r.tls.NextProtos = protocols(o.GetTransport())
	}
	if r.rules, err = rulesOf(o, t, env); err != nil {
		return nil, err
	}
	if o.GetDnssec() != nil {
		if r.anchors, err = trustAnchors(o.GetDnssec().GetAnchors()); err != nil {
			return nil, err
		}
	}
	if r.question, err = r.newQuestion(dns.Question{Name: t.Name, Qtype: t.Type, Qclass: t.Class}, flags{recursion: o.GetRecursionDesired(), unchecked: o.GetCheckingDisabled(),
		authenticated: o.GetAuthenticatedData()}); err != nil {
		return nil, err
	}
	plan.Talk = r.talk
	return r, nil
}

// port is where the server listens.
func port(t *spec.Target, o *meshv1.DnsProbe) uint16 {
	switch {
	case t.PortGiven:
		return t.Port
	case o.GetTransport() == meshv1.DnsProbe_HTTPS:
		return portHTTPS
	case spec.DNSEncrypted(o.GetTransport()):
		return portTLS
	}
	return portPlain
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {}

// talk asks the question and judges the answer.
func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	server := &peer{r: r, a: a, fence: a.Options().Fence, transport: r.options.GetTransport(), host: r.target.Host, port: r.port, tls: r.tls}
	if a.Options().Fresh {
		server.tls = probe.Anew(r.tls)
	}
	if server.host == "" {
		var err error
		if server.host, err = r.resolver(); err != nil {
			return nil, err
		}
		server.own = true
	}
	defer server.close()
	got, err := server.ask(ctx, r.question, r.options.GetTcpFallback())
	if err != nil {
		return nil, described(a, err)
	}
	out := newAnswer(r, got)
	if r.options.GetDnssec() != nil || r.options.GetSerials() != nil {
		a.Enter(meshv1.Result_EXPECT) // the questions that follow are no part of the timings
		server.settle()
	}
	if r.options.GetDnssec() != nil {
		out.dnssec, out.trouble = r.validate(ctx, server, got.msg)
	}
	if r.options.GetSerials() != nil {
		out.survey = r.survey(ctx, server)
	}
	if f := r.rules.judge(ctx, out); f != nil {
		return out, f
	}
	return out, nil
}

// resolver is the prober's own resolver of the family that the check asks for. It is read for each probe, since it may change.
func (r *runner) resolver() (string, error) {
	config, err := dns.ClientConfigFromFile(r.conf)
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
	return "", &probe.Failure{Class: meshv1.Result_PROBER, Sentence: "this prober has no resolver of that IP family in " + r.conf + "; name a server: dns://server/name"}
}
