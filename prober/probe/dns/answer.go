package dns

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of what a result tells.
const (
	maxText           = 512 << 10 // text made of the records of one section
	maxNSID           = 256
	maxExtendedErrors = 4
	maxExtendedError  = 256
)

// answer is a DNS message and what was found out because of it.
type answer struct {
	r       *runner
	reply   reply
	msg     *dns.Msg
	extra   []dns.RR // the additional section without OPT
	opt     *dns.OPT
	dnssec  *meshv1.DnssecResult
	trouble string // why dnssec is not known, if it is the prober's own
	survey  *surveyed
}

func newAnswer(r *runner, got reply) *answer {
	g := &answer{r: r, reply: got, msg: got.msg, extra: got.msg.Extra}
	for i, rr := range got.msg.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			g.opt = opt
			g.extra = append(append([]dns.RR(nil), got.msg.Extra[:i]...), without(got.msg.Extra[i+1:])...)
			break
		}
	}
	return g
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

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	d := &meshv1.DnsResult{
		Rcode: rcode(g.msg), Answers: int32(len(g.msg.Answer)), Authorities: int32(len(g.msg.Ns)), Additionals: int32(len(g.extra)), Serial: g.serial(),
		Flags: g.flags(), Transport: g.reply.transport, MessageBytes: int32(g.reply.bytes), Dnssec: g.dnssec,
	}
	if g.opt != nil && len(g.opt.Option) > 0 {
		d.Nsid, d.ExtendedErrors, d.ClientSubnet = nsid(g.opt), extendedErrors(g.opt), clientSubnet(g.opt)
	}
	if g.survey != nil {
		d.Servers, d.ServersLeftOut = g.survey.servers, g.survey.leftOut
	}
	r.Dns = d
	if len(g.msg.Question) == 1 {
		// What was asked for is what the check is about: what it is an alias of is told beside what the server itself is one of.
		r.CanonicalNames = slices.Concat(r.CanonicalNames, probe.CanonicalNames(g.msg.Question[0].Name, g.msg.Answer))
	}
}

// serial is the serial of the SOA in the answer section, 0 without one.
func (g *answer) serial() (serial uint32) {
	for _, rr := range g.msg.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			serial = soa.Serial
		}
	}
	return serial
}

// flags are the flags that are set, in the order of the header.
func (g *answer) flags() []string {
	out := make([]string, 0, 4)
	m := &g.msg.MsgHdr
	add := func(set bool, name string) {
		if set {
			out = append(out, name)
		}
	}
	add(m.Authoritative, "aa")
	add(m.Truncated, "tc")
	add(m.RecursionDesired, "rd")
	add(m.RecursionAvailable, "ra")
	add(m.AuthenticatedData, "ad")
	add(m.CheckingDisabled, "cd")
	return out
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	if !p.Reads("dns") {
		return
	}
	d := &meshv1.ResponseDns{
		Rcode: rcode(g.msg), Authoritative: g.msg.Authoritative, Authenticated: g.msg.AuthenticatedData, Truncated: g.msg.Truncated, RecursionAvailable: g.msg.RecursionAvailable,
		Answer: presentation(g.msg.Answer), Authority: presentation(g.msg.Ns), Additional: presentation(g.extra), Serial: int64(g.serial()),
		Transport: g.reply.transport.String(), MessageBytes: int64(g.reply.bytes),
	}
	if g.opt != nil {
		d.Nsid, d.ExtendedErrors = nsid(g.opt), extendedErrors(g.opt)
	}
	if g.dnssec != nil {
		d.Dnssec, d.DaysLeft = g.dnssec.Status.String(), int64(g.dnssec.DaysLeft)
	}
	if g.survey != nil {
		d.Servers = g.survey.servers
	}
	for i, rr := range g.msg.Answer {
		ttl := int64(rr.Header().Ttl)
		if i == 0 || ttl < d.TtlSeconds {
			d.TtlSeconds = ttl
		}
		d.MaxTtlSeconds = max(d.MaxTtlSeconds, ttl)
	}
	size := 0
	for _, rr := range g.asked() {
		v := value(rr)
		if size += len(v); size > maxText {
			break
		}
		d.Answers = append(d.Answers, v)
	}
	r.Dns = d
}

// asked are the records of the answer section that are of the type asked for.
func (g *answer) asked() []dns.RR {
	out := make([]dns.RR, 0, len(g.msg.Answer))
	for _, rr := range g.msg.Answer {
		if t := g.r.target.Type; rr.Header().Rrtype == t || t == dns.TypeANY {
			out = append(out, rr)
		}
	}
	return out
}

// Judge implements probe.Answer. Everything is judged while the probe runs, so that it ends in time.
func (g *answer) Judge(bool) *probe.Failure { return nil }

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = rcode(g.msg)
	for _, section := range [][]dns.RR{g.msg.Answer, g.msg.Ns, g.extra} {
		if left := probe.MaxEvidenceRecords - len(e.Records); left > 0 {
			probe.EvidenceRecords(e, presentation(section[:min(left, len(section))]))
		}
	}
}

// rcode is the response code as text.
func rcode(m *dns.Msg) string {
	if s, ok := dns.RcodeToString[m.Rcode]; ok {
		return s
	}
	return fmt.Sprintf("RCODE%d", m.Rcode)
}

// presentation is a section as text, one line a record, fields separated by one space; what goes beyond maxText is left out.
func presentation(section []dns.RR) []string {
	out := make([]string, 0, len(section))
	size := 0
	for _, rr := range section {
		line := strings.ToValidUTF8(strings.ReplaceAll(rr.String(), "\t", " "), "\uFFFD")
		if size += len(line); size > maxText {
			break
		}
		out = append(out, line)
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

// nsid is the identifier of the server (RFC 5001): text when it is printable, else hex.
func nsid(opt *dns.OPT) string {
	for _, o := range opt.Option {
		n, ok := o.(*dns.EDNS0_NSID)
		if !ok {
			continue
		}
		raw, err := hex.DecodeString(n.Nsid)
		if err == nil && printable(string(raw)) {
			return clip(string(raw), maxNSID)
		}
		return clip(n.Nsid, maxNSID)
	}
	return ""
}

// extendedError is an extended error with its number, its name where it has one and what the server says about it, if anything.
func extendedError(e *dns.EDNS0_EDE) string {
	text := strconv.Itoa(int(e.InfoCode))
	if name := dns.ExtendedErrorCodeToString[e.InfoCode]; name != "" {
		text += " (" + name + ")"
	}
	if e.ExtraText != "" {
		text += ": " + e.ExtraText
	}
	return text
}

// extendedErrors are the extended errors (RFC 8914).
func extendedErrors(opt *dns.OPT) []string {
	var out []string
	for _, o := range opt.Option {
		if e, ok := o.(*dns.EDNS0_EDE); ok && len(out) < maxExtendedErrors {
			out = append(out, clip(extendedError(e), maxExtendedError))
		}
	}
	return out
}

// clientSubnet is the network that the answer is for (RFC 7871).
func clientSubnet(opt *dns.OPT) string {
	for _, o := range opt.Option {
		if s, ok := o.(*dns.EDNS0_SUBNET); ok {
			return fmt.Sprintf("%s/%d scope /%d", s.Address, s.SourceNetmask, s.SourceScope)
		}
	}
	return ""
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// clip cuts a text at a number of bytes, leaving valid UTF-8.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}
