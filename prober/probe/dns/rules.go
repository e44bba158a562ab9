package dns

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// rules are what a check demands of an answer, compiled. They do not change.
type rules struct {
	rcodes   []int
	names    []string // of rcodes, as written
	kind     uint16
	nonempty bool
	values   []dns.RR // the values that the answer must have; nil for any
	sections []section
	minTTL   time.Duration
	maxTTL   time.Duration // -1 for any
	dnssec   *meshv1.DnsDnssec
	serials  *meshv1.DnsSerials
}

// section are the rules for one section.
type section struct {
	name       string
	of         func(*answer) []dns.RR
	none       []*regexp.Regexp // no record may match any
	notAll     []*regexp.Regexp // not all records may match all
	all        []*regexp.Regexp // each record must match all, and there must be one
	any        []*regexp.Regexp // a record must match one
	each       []*regexp.Regexp // each record must match all
	exact      []dns.RR
	signatures bool // exact has signatures
	least      int
	most       int // 0: any number
}

// rulesOf compiles the rules of a check, or finds those of checks with the same options: where these name no values, rules depend on nothing else but the type that is asked for.
func rulesOf(o *meshv1.DnsProbe, t *spec.Target, env probe.Env) (*rules, error) {
	if len(o.GetAnswers()) > 0 {
		return compileRules(o, t)
	}
	return probe.Share(env.Shared, "dns.rules", fmt.Sprintf("%d\x00%s", t.Type, probe.Text(o)), func() (*rules, error) { return compileRules(o, t) })
}

func compileRules(o *meshv1.DnsProbe, t *spec.Target) (*rules, error) {
	r := &rules{names: o.GetRcodes(), kind: t.Type, maxTTL: -1, dnssec: o.GetDnssec(), serials: o.GetSerials()}
	for _, name := range o.GetRcodes() {
		n, ok := spec.Rcode(name)
		if !ok {
			return nil, fmt.Errorf("dns.rcodes: %q is not a response code", name)
		}
		r.rcodes = append(r.rcodes, n)
	}
	for _, v := range o.GetAnswers() {
		rr, err := spec.DNSValue(t, v)
		if err != nil {
			return nil, fmt.Errorf("dns.answers: %w", err)
		}
		r.values = append(r.values, rr)
	}
	for _, s := range []struct {
		name  string
		rules *meshv1.DnsSection
		of    func(*answer) []dns.RR
	}{
		{"answer", o.GetAnswerSection(), func(g *answer) []dns.RR { return g.msg.Answer }},
		{"authority", o.GetAuthoritySection(), func(g *answer) []dns.RR { return g.msg.Ns }},
		{"additional", o.GetAdditionalSection(), func(g *answer) []dns.RR { return g.extra }},
	} {
		if s.rules == nil {
			continue
		}
		compiled, err := compileSection(s.name, s.rules)
		if err != nil {
			return nil, err
		}
		compiled.of = s.of
		r.sections = append(r.sections, *compiled)
	}
	if o.GetMinTtl() != nil {
		r.minTTL = o.GetMinTtl().AsDuration()
	}
	if o.GetMaxTtl() != nil {
		r.maxTTL = o.GetMaxTtl().AsDuration()
	}
	r.nonempty = !o.GetAllowEmpty() && len(o.GetExpect()) == 0 && len(r.values) == 0 && len(r.sections) == 0 && o.GetDnssec() == nil
	return r, nil
}

func compileSection(name string, s *meshv1.DnsSection) (*section, error) {
	out := &section{name: name, least: int(s.MinRecords), most: int(s.MaxRecords)}
	for _, l := range []struct {
		from []string
		to   *[]*regexp.Regexp
	}{
		{s.FailIfMatchesRegexp, &out.none},
		{s.FailIfAllMatchRegexp, &out.notAll},
		{s.FailIfNotMatchesRegexp, &out.all},
		{s.FailIfNoneMatchesRegexp, &out.any},
		{s.FailUnlessAllMatchRegexp, &out.each},
	} {
		for _, e := range l.from {
			re, err := regexp.Compile(e)
			if err != nil {
				return nil, fmt.Errorf("dns.%s_section: %w", name, err)
			}
			*l.to = append(*l.to, re)
		}
	}
	for _, e := range s.Exact {
		rr, err := spec.DNSRecord(e)
		if err != nil {
			return nil, fmt.Errorf("dns.%s_section.exact: %w", name, err)
		}
		out.exact = append(out.exact, rr)
		out.signatures = out.signatures || rr.Header().Rrtype == dns.TypeRRSIG
	}
	return out, nil
}

// unmet is the failure of a demand that does not hold.
func unmet(format string, args ...any) *probe.Failure {
	return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Sentence: fmt.Sprintf(format, args...)}
}

// helpless is the failure of a prober that cannot find out whether a demand holds.
func helpless(format string, args ...any) *probe.Failure {
	return &probe.Failure{Class: meshv1.Result_PROBER, Phase: meshv1.Result_EXPECT, Sentence: fmt.Sprintf(format, args...)}
}

// judge gives the first demand that does not hold, nil when all do. ctx bounds the matching.
func (r *rules) judge(ctx context.Context, g *answer) error {
	code := rcode(g.msg)
	switch {
	case len(r.rcodes) > 0 && !slices.Contains(r.rcodes, g.msg.Rcode):
		sentence := fmt.Sprintf("the answer is %s, which is not among the rcodes of the check (%s)", code, strings.Join(r.names, ", "))
		if g.dnssec.GetReason() != "" {
			sentence += "; " + g.dnssec.Reason
		}
		return unmet("%s%s", sentence, saying(g))
	case r.nonempty && g.msg.Rcode == dns.RcodeSuccess && len(g.msg.Answer) == 0:
		return unmet("the answer is empty: the name has no %s record%s", dns.Type(r.kind), saying(g))
	case len(r.values) > 0:
		if f := compare("the answer", r.values, g.asked()); f != nil {
			return f
		}
	}
	for i := range r.sections {
		if err := r.sections[i].judge(ctx, g); err != nil {
			return err
		}
	}
	for _, judge := range []func(*answer) *probe.Failure{r.judgeTTL, r.judgeDNSSEC, r.judgeSerials} {
		if f := judge(g); f != nil {
			return f
		}
	}
	return nil
}

// saying is what the server said of its trouble.
func saying(g *answer) string {
	if g.opt == nil {
		return ""
	}
	if e := extendedErrors(g.opt); len(e) > 0 {
		return "; the server says " + strings.Join(e, ", ")
	}
	return ""
}

// judgeTTL holds the TTLs of the answer section to their bounds.
func (r *rules) judgeTTL(g *answer) *probe.Failure {
	for _, rr := range g.msg.Answer {
		h := rr.Header()
		ttl := time.Duration(h.Ttl) * time.Second
		switch {
		case h.Rrtype == dns.TypeRRSIG:
		case ttl < r.minTTL:
			return unmet("the TTL of %s %s is %ds, which is less than min_ttl (%ds)", h.Name, dns.Type(h.Rrtype), h.Ttl, int64(r.minTTL.Seconds()))
		case r.maxTTL >= 0 && ttl > r.maxTTL:
			return unmet("the TTL of %s %s is %ds, which is more than max_ttl (%ds)", h.Name, dns.Type(h.Rrtype), h.Ttl, int64(r.maxTTL.Seconds()))
		}
	}
	return nil
}

// judgeDNSSEC holds what validation found to what the check demands.
func (r *rules) judgeDNSSEC(g *answer) *probe.Failure {
	if r.dnssec == nil {
		return nil
	}
	d := g.dnssec
	switch {
	case d.Status == meshv1.DnssecResult_INSECURE && r.dnssec.AllowInsecure:
		return nil
	case g.trouble != "":
		return helpless("DNSSEC: the answer cannot be validated, since the server does not know all of the chain and %s; mend the resolver of the prober, or name a server that recurses", g.trouble)
	case d.Status != meshv1.DnssecResult_SECURE:
		return unmet("DNSSEC: the answer is %s: %s%s", d.Status, d.Reason, saying(g))
	case d.Expiry != nil && d.DaysLeft < r.dnssec.MinDaysLeft:
		return unmet("DNSSEC: a signature of the zone ends in %d days (%s), which is less than min_days_left (%d)", d.DaysLeft, d.Expiry.AsTime().Format(time.DateTime), r.dnssec.MinDaysLeft)
	}
	return nil
}

// judgeSerials holds the authoritative servers to each other.
func (r *rules) judgeSerials(g *answer) *probe.Failure {
	if r.serials == nil {
		return nil
	}
	s := g.survey
	switch {
	case s.broken != "":
		return helpless("the authoritative servers cannot be compared, since the server does not know them and %s; mend the resolver of the prober, or name a server that recurses", s.broken)
	case s.trouble != "":
		return unmet("the authoritative servers cannot be compared: %s", s.trouble)
	}
	silent, asked := 0, 0
	var first *meshv1.DnsServer
	for _, server := range s.servers {
		if server.LeftOut {
			continue
		}
		asked++
		if server.Error != "" {
			if silent++; first == nil {
				first = server
			}
		}
	}
	switch {
	case asked == 0:
		return helpless("this prober can ask none of %d authoritative servers, first %s: %s", len(s.servers), serverName(s.servers[0]), s.servers[0].Error)
	case silent > int(r.serials.MaxUnanswered):
		return unmet("%d of %d authoritative servers give no answer that counts (at most %d may), first %s: %s%s", silent, asked, r.serials.MaxUnanswered, serverName(first), first.Error, s.besides(asked))
	}
	for _, server := range s.servers {
		if server.Error == "" && server.Lag > uint32(r.serials.MaxLag) {
			return unmet("%s has serial %d, which is %d behind the newest (%d); at most %d is allowed%s", serverName(server), server.Serial, server.Lag, s.newest, r.serials.MaxLag, s.besides(asked))
		}
	}
	return nil
}

func serverName(s *meshv1.DnsServer) string { return strings.TrimSpace(s.Name + " " + s.Address) }

// judge holds a section to its rules.
func (s *section) judge(ctx context.Context, g *answer) error {
	records := s.of(g)
	switch n := len(records); {
	case n < s.least:
		return unmet("the %s section has %d records, which is less than min_records (%d)", s.name, n, s.least)
	case s.most > 0 && n > s.most:
		return unmet("the %s section has %d records, which is more than max_records (%d)", s.name, n, s.most)
	case n == 0 && len(s.all) > 0:
		return unmet("the %s section has no record, and one must match %q", s.name, s.all[0])
	case n == 0 && len(s.any) > 0:
		return unmet("the %s section has no record, and one must match %q", s.name, s.any[0])
	}
	if len(s.exact) > 0 {
		if !s.signatures {
			records = slices.DeleteFunc(slices.Clone(records), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
		}
		if f := compare("the "+s.name+" section", s.exact, records); f != nil {
			return f
		}
	}
	return s.match(ctx, s.of(g))
}

// match holds each record to the expressions.
func (s *section) match(ctx context.Context, records []dns.RR) error {
	if len(s.none)+len(s.notAll)+len(s.all)+len(s.any)+len(s.each) == 0 {
		return nil
	}
	every, some, size := len(records) > 0, false, 0
	for _, rr := range records {
		if err := ctx.Err(); err != nil {
			return err
		}
		line := strings.ToValidUTF8(rr.String(), "\uFFFD")
		if size += len(line); size > maxText {
			return &probe.Failure{Class: meshv1.Result_PROTOCOL, Phase: meshv1.Result_EXPECT,
				Sentence: fmt.Sprintf("the records of the %s section are more than %d KiB as text", s.name, maxText>>10)}
		}
		if re := first(s.none, line, true); re != nil {
			return unmet("a record of the %s section matches %q: %s", s.name, re, shown(line))
		}
		if re := first(s.all, line, false); re != nil {
			return unmet("a record of the %s section does not match %q: %s", s.name, re, shown(line))
		}
		if re := first(s.each, line, false); re != nil {
			return unmet("a record of the %s section does not match %q: %s", s.name, re, shown(line))
		}
		every = every && first(s.notAll, line, false) == nil
		some = some || first(s.any, line, true) != nil
	}
	switch {
	case len(s.notAll) > 0 && every:
		return unmet("all records of the %s section match %q", s.name, s.notAll[0])
	case len(s.any) > 0 && !some:
		return unmet("no record of the %s section matches %q", s.name, s.any[0])
	}
	return nil
}

// first is the first expression for which matching comes out as asked.
func first(list []*regexp.Regexp, line string, matches bool) *regexp.Regexp {
	for _, re := range list {
		if re.MatchString(line) == matches {
			return re
		}
	}
	return nil
}

// shown is a record as a sentence quotes it.
func shown(line string) string { return clip(strings.ReplaceAll(line, "\t", " "), 200) }

// compare holds records to a set, in any order, their TTLs left out.
func compare(what string, want, got []dns.RR) *probe.Failure {
	left := slices.Clone(want)
	var surplus []dns.RR
	for _, rr := range got {
		if i := slices.IndexFunc(left, func(w dns.RR) bool { return same(w, rr) }); i >= 0 {
			left = slices.Delete(left, i, i+1)
		} else {
			surplus = append(surplus, rr)
		}
	}
	var lacks string
	if len(left) > 0 {
		lacks = "lacks " + shown(wanted(left[0])) + others(len(left)-1)
	}
	switch {
	case len(surplus) == 0 && lacks == "":
		return nil
	case len(surplus) == 0:
		return unmet("%s %s", what, lacks)
	case lacks != "":
		lacks = ", and " + lacks
	}
	return unmet("%s has a record that is not expected: %s%s%s", what, shown(surplus[0].String()), others(len(surplus)-1), lacks)
}

// others says that there are more of the same.
func others(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

// wanted is a wanted record as text, without its TTL, which is not compared.
func wanted(rr dns.RR) string {
	h := rr.Header()
	return fmt.Sprintf("%s %s %s %s", h.Name, dns.Class(h.Class), dns.Type(h.Rrtype), value(rr))
}

// same tells whether two records are the same but for their TTLs. Texts are compared joined, since how a text is split into strings means nothing.
func same(a, b dns.RR) bool {
	x, ok := a.(*dns.TXT)
	y, also := b.(*dns.TXT)
	if ok && also {
		return x.Hdr.Class == y.Hdr.Class && strings.EqualFold(x.Hdr.Name, y.Hdr.Name) && strings.Join(x.Txt, "") == strings.Join(y.Txt, "")
	}
	if x, ok := a.(*dns.RFC3597); ok {
		y, ok := b.(*dns.RFC3597)
		return ok && x.Hdr.Rrtype == y.Hdr.Rrtype && x.Hdr.Class == y.Hdr.Class && strings.EqualFold(x.Hdr.Name, y.Hdr.Name) && strings.EqualFold(x.Rdata, y.Rdata)
	}
	return dns.IsDuplicate(a, b)
}
