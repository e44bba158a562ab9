package blackbox

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func probeDNS(ctx context.Context, j *job) *meshv1.Result {
	for _, n := range []string{"probe_dns_answer_rrs", "probe_dns_authority_rrs", "probe_dns_additional_rrs", "probe_dns_query_succeeded"} {
		j.out.set(n, 0)
	}
	result := j.run(ctx, j.ask)
	t := result.GetTimings()
	j.out.phases("probe_dns_duration_seconds", phase{"resolve", t.GetResolve().AsDuration()},
		phase{"connect", t.GetConnect().AsDuration() + t.GetHandshake().AsDuration()}, phase{"request", t.GetProcessing().AsDuration() + t.GetTransfer().AsDuration()})
	return result
}

// question is what a module asks.
func (d *DNS) question() *dns.Msg {
	class, kind := uint16(dns.ClassINET), dns.TypeANY
	if d.QueryClass != "" {
		class = dns.StringToClass[d.QueryClass]
	}
	if d.QueryType != "" {
		kind = dns.StringToType[d.QueryType]
	}
	m := &dns.Msg{Question: []dns.Question{{Name: dns.Fqdn(d.QueryName), Qtype: kind, Qclass: class}}}
	m.Id = dns.Id()
	m.RecursionDesired = d.Recursion
	return m
}

// ask asks the question of the target and judges the answer.
func (j *job) ask(ctx context.Context, a *probe.Attempt) error {
	o := &j.module.DNS
	if p := o.TransportProtocol; p != "" && p != "udp" && p != "tcp" {
		return probe.Failf(a, meshv1.Result_PROBER, "%v", o.transport())
	}
	host, port, err := net.SplitHostPort(j.target)
	if err != nil {
		host, port = j.target, "53"
		if o.DNSOverTLS {
			port = "853"
		}
	}
	ip, err := j.choose(ctx, a, o.Family, host)
	if err != nil {
		return err
	}
	if err := o.transport(); err != nil {
		return probe.Failf(a, meshv1.Result_PROBER, "%v", err)
	}
	question := o.question()
	answer, err := j.exchange(ctx, a, question, ip, host, port)
	if err != nil {
		return err
	}
	j.log.Info("got response", "response", answer.String())
	j.out.set("probe_dns_query_succeeded", 1)
	j.out.set("probe_dns_answer_rrs", float64(len(answer.Answer)))
	j.out.set("probe_dns_authority_rrs", float64(len(answer.Ns)))
	j.out.set("probe_dns_additional_rrs", float64(len(answer.Extra)))
	if question.Question[0].Qtype == dns.TypeSOA {
		j.out.set("probe_dns_serial", 0)
		for _, rr := range answer.Answer {
			if soa, ok := rr.(*dns.SOA); ok {
				j.out.set("probe_dns_serial", float64(soa.Serial))
			}
		}
	}
	return o.judge(a, answer)
}

// exchange sends the question over one connection of its own and waits for the answer to it.
func (j *job) exchange(ctx context.Context, a *probe.Attempt, question *dns.Msg, ip *net.IPAddr, host, port string) (*dns.Msg, error) {
	o := &j.module.DNS
	network := "udp"
	if o.TransportProtocol == "tcp" {
		network = "tcp"
	}
	raw, err := j.dial(ctx, a, network, ip, port, o.SourceIPAddress)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	stop := probe.Watch(ctx, raw)
	defer stop()
	conn := &dns.Conn{Conn: raw, UDPSize: dns.MinMsgSize}
	if o.DNSOverTLS {
		config, err := tlsConfig(a, &o.TLSConfig, host)
		if err != nil {
			return nil, err
		}
		if conn.Conn, err = probe.Handshake(ctx, a, raw, config); err != nil {
			return nil, err
		}
	}
	a.Enter(meshv1.Result_PROCESSING)
	client := dns.Client{Net: network, Timeout: time.Until(deadline(ctx))}
	answer, _, err := client.ExchangeWithConnContext(ctx, question, conn)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func deadline(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// judge is what a module says of an answer.
func (d *DNS) judge(a *probe.Attempt, m *dns.Msg) error {
	a.Enter(meshv1.Result_EXPECT)
	valid := d.ValidRcodes
	if valid == nil {
		valid = []string{"NOERROR"}
	}
	for _, r := range valid {
		if _, ok := dns.StringToRcode[r]; !ok {
			return probe.Failf(a, meshv1.Result_PROBER, "valid_rcodes has %q, which is not known", r)
		}
	}
	if !slices.ContainsFunc(valid, func(r string) bool { return dns.StringToRcode[r] == m.Rcode }) {
		return probe.Failf(a, meshv1.Result_EXPECTATION, "the rcode is %s, not %s", dns.RcodeToString[m.Rcode], strings.Join(valid, " or "))
	}
	for _, s := range []struct {
		name    string
		records []dns.RR
		rules   *RRs
	}{{"answer", m.Answer, &d.ValidateAnswer}, {"authority", m.Ns, &d.ValidateAuthority}, {"additional", m.Extra, &d.ValidateAdditional}} {
		if why := s.rules.judge(s.records); why != "" {
			return probe.Failf(a, meshv1.Result_EXPECTATION, "%s section: %s", s.name, why)
		}
	}
	return nil
}

// judge says what is wrong with the records of a section, or "".
func (v *RRs) judge(records []dns.RR) string {
	if len(records) == 0 && len(v.FailIfNotMatches)+len(v.FailIfNoneMatches) > 0 {
		return "there are no records, and a match is asked for"
	}
	for _, p := range slices.Concat(v.FailIfMatches, v.FailIfAllMatch, v.FailIfNotMatches, v.FailIfNoneMatches) {
		if len(records) > 0 && p.fault != nil {
			return p.fault.Error()
		}
	}
	all, some := true, false
	for _, rr := range records {
		text := rr.String()
		matches := func(p Pattern) bool { return p.compiled.MatchString(text) }
		if slices.ContainsFunc(v.FailIfMatches, matches) {
			return "a record matches that must not: " + text
		}
		for _, p := range v.FailIfNotMatches {
			if !matches(p) {
				return "a record does not match " + p.text + ": " + text
			}
		}
		for _, p := range v.FailIfAllMatch {
			all = all && matches(p)
		}
		some = some || slices.ContainsFunc(v.FailIfNoneMatches, matches)
	}
	switch {
	case len(v.FailIfAllMatch) > 0 && !all:
		return "not every record matches"
	case len(v.FailIfNoneMatches) > 0 && !some:
		return "no record matches"
	}
	return ""
}
