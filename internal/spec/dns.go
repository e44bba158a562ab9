package spec

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of the options of kind dns, as dns_probe.proto documents them, and the defaults that it says.
const (
	MaxDNSRecords      = 64
	MaxDNSExpressions  = 16
	maxDNSExpression   = 500
	maxDNSRcodes       = 16
	maxDNSAnchors      = 8
	maxDNSCount        = 1000
	maxDNSPath         = 256
	maxTTL             = 1<<31 - 1
	minUDPSize         = 512
	maxUDPSize         = 4096
	DefaultUDPSize     = 1232
	DefaultDNSPath     = "/dns-query"
	DefaultDNSServers  = 16
	maxDNSServers      = 32
	maxSignatureDays   = 365
	encryptedTransport = "transport TLS, HTTPS or QUIC"
)

func dnsOptions(f *faults, o *meshv1.DnsProbe, t *Target) {
	if o == nil {
		return
	}
	enum(f, "dns.transport", o.Transport)
	enum(f, "dns.http_method", o.HttpMethod)
	family(f, "dns.ip_family", o.IpFamily, t)
	for i, r := range o.Rcodes {
		if _, ok := Rcode(r); !ok {
			f.add(fmt.Sprintf("dns.rcodes[%d]", i), "%q is not a response code; write for example NOERROR, NXDOMAIN, SERVFAIL or REFUSED", clip(r))
		}
	}
	count(f, "dns.rcodes", len(o.Rcodes), maxDNSRcodes)
	expectations(f, "dns.expect", o.Expect, dnsSees(o, t))
	dnsTransport(f, o)
	dnsSource(f, o, t)
	dnsEdns(f, o.Edns)
	dnsAnswers(f, o.Answers, t)
	dnsSection(f, "dns.answer_section", o.AnswerSection)
	dnsSection(f, "dns.authority_section", o.AuthoritySection)
	dnsSection(f, "dns.additional_section", o.AdditionalSection)
	dnsTTLs(f, o)
	dnssecOptions(f, o, t)
	dnsSerials(f, o.Serials, t)
}

// dnsTransport checks what goes with some transports only.
func dnsTransport(f *faults, o *meshv1.DnsProbe) {
	tlsConfig(f, "dns.tls", o.Tls)
	if o.Tls != nil && !DNSEncrypted(o.Transport) {
		f.add("dns.tls", "is only for %s; remove it, or set dns.transport", encryptedTransport)
	}
	if o.TcpFallback != nil && o.Transport > meshv1.DnsProbe_UDP {
		f.add("dns.tcp_fallback", "is only for transport UDP; remove it")
	}
	if o.Transport != meshv1.DnsProbe_HTTPS {
		if o.HttpPath != "" {
			f.add("dns.http_path", "is only for transport HTTPS; remove it, or set dns.transport")
		}
		if o.HttpMethod != meshv1.DnsProbe_HTTP_METHOD_UNSPECIFIED {
			f.add("dns.http_method", "is only for transport HTTPS; remove it, or set dns.transport")
		}
	}
	if p := o.HttpPath; p != "" && (p[0] != '/' || len(p) > maxDNSPath || strings.ContainsFunc(p, notInPath)) {
		f.add("dns.http_path", "%q is not a path of at most %d characters that begins with / and has no query; write for example /dns-query", clip(p), maxDNSPath)
	}
}

// notInPath tells whether a path in a request cannot have the character as it is.
func notInPath(r rune) bool { return r <= ' ' || r > '~' || r == '?' || r == '#' }

// DNSEncrypted tells whether a transport begins with a handshake of TLS.
func DNSEncrypted(t meshv1.DnsProbe_Transport) bool {
	return t == meshv1.DnsProbe_TLS || t == meshv1.DnsProbe_HTTPS || t == meshv1.DnsProbe_QUIC
}

func dnsSource(f *faults, o *meshv1.DnsProbe, t *Target) {
	if o.SourceAddress == "" {
		return
	}
	source, err := netip.ParseAddr(o.SourceAddress)
	if err != nil || source.IsUnspecified() || source.IsMulticast() {
		f.add("dns.source_address", "%q is not an address to ask from; write for example 192.0.2.10", clip(o.SourceAddress))
		return
	}
	v4 := source.Unmap().Is4()
	if to, ok := t.Addr(); ok && to.Unmap().Is4() != v4 {
		f.add("dns.source_address", "%s is not of the same IP family as the server %s; give one of that family", source, t.Host)
	}
	if o.IpFamily == meshv1.IpFamily_IPV4 && !v4 || o.IpFamily == meshv1.IpFamily_IPV6 && v4 {
		f.add("dns.source_address", "%s does not go with ip_family %s; change one of them", source, o.IpFamily)
	}
}

func dnsEdns(f *faults, e *meshv1.DnsEdns) {
	if e == nil {
		return
	}
	if e.Disabled && (e.UdpSize != 0 || e.DnssecOk || e.ClientSubnet != "" || e.Nsid || e.Cookie) {
		f.add("dns.edns.disabled", "does not go with the other options of EDNS; remove it or them")
	}
	between(f, "dns.edns.udp_size", int64(e.UdpSize), minUDPSize, maxUDPSize)
	if e.ClientSubnet != "" {
		p, err := netip.ParsePrefix(e.ClientSubnet)
		if err != nil {
			f.add("dns.edns.client_subnet", "%q is not a network; write for example 192.0.2.0/24", clip(e.ClientSubnet))
		} else if p != p.Masked() {
			f.add("dns.edns.client_subnet", "%s has bits beyond its length; write %s", p, p.Masked())
		}
	}
}

func dnsAnswers(f *faults, answers []string, t *Target) {
	count(f, "dns.answers", len(answers), MaxDNSRecords)
	if len(answers) > 0 && t.Type == dns.TypeANY {
		f.add("dns.answers", "does not go with type ANY, whose values are of any type; use dns.answer_section.exact")
		return
	}
	for i, a := range answers[:min(len(answers), MaxDNSRecords)] {
		if _, err := DNSValue(t, a); t.Kind == DNS && err != nil {
			f.add(fmt.Sprintf("dns.answers[%d]", i), "%s", err)
		}
	}
}

func dnsSection(f *faults, field string, s *meshv1.DnsSection) {
	if s == nil {
		return
	}
	lists := []struct {
		name string
		list []string
	}{
		{"fail_if_matches_regexp", s.FailIfMatchesRegexp},
		{"fail_if_all_match_regexp", s.FailIfAllMatchRegexp},
		{"fail_if_not_matches_regexp", s.FailIfNotMatchesRegexp},
		{"fail_if_none_matches_regexp", s.FailIfNoneMatchesRegexp},
		{"fail_unless_all_match_regexp", s.FailUnlessAllMatchRegexp},
	}
	total := 0
	for _, l := range lists {
		total += len(l.list)
		for i, e := range l.list[:min(len(l.list), MaxDNSExpressions)] {
			at := fmt.Sprintf("%s.%s[%d]", field, l.name, i)
			bounded(f, at, len(e), maxDNSExpression)
			if _, err := regexp.Compile(e); err != nil {
				f.add(at, "%q is not a regular expression (RE2): %s", clip(e), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			}
		}
	}
	if total > MaxDNSExpressions {
		f.add(field, "has %d expressions, which is more than %d; remove some, or join them by |", total, MaxDNSExpressions)
	}
	count(f, field+".exact", len(s.Exact), MaxDNSRecords)
	for i, e := range s.Exact[:min(len(s.Exact), MaxDNSRecords)] {
		if _, err := DNSRecord(e); err != nil {
			f.add(fmt.Sprintf("%s.exact[%d]", field, i), "%s", err)
		}
	}
	between(f, field+".min_records", int64(s.MinRecords), 1, maxDNSCount)
	between(f, field+".max_records", int64(s.MaxRecords), 1, maxDNSCount)
	if s.MaxRecords > 0 && s.MinRecords > s.MaxRecords {
		f.add(field+".min_records", "%d is more than max_records, which is %d", s.MinRecords, s.MaxRecords)
	}
}

func dnsTTLs(f *faults, o *meshv1.DnsProbe) {
	least, ok := ttl(f, "dns.min_ttl", o.MinTtl)
	most, valid := ttl(f, "dns.max_ttl", o.MaxTtl)
	if ok && valid && least > most {
		f.add("dns.min_ttl", "%s is longer than max_ttl, which is %s", text(least), text(most))
	}
}

// ttl is a time to live; ok is false when it is unset or not valid, which is noted.
func ttl(f *faults, field string, d *durationpb.Duration) (value time.Duration, ok bool) {
	if d == nil {
		return 0, false
	}
	value = d.AsDuration()
	if d.CheckValid() != nil || value < 0 || value > maxTTL*time.Second || value%time.Second != 0 {
		f.add(field, "is not 0s to %ds in whole seconds; write for example 300s", maxTTL)
		return 0, false
	}
	return value, true
}

func dnssecOptions(f *faults, o *meshv1.DnsProbe, t *Target) {
	d := o.Dnssec
	if d == nil {
		return
	}
	if o.Edns.GetDisabled() {
		f.add("dns.dnssec", "does not go with edns.disabled, since signatures are asked for by EDNS; remove one of them")
	}
	if t.Kind == DNS && t.Class != dns.ClassINET {
		f.add("dns.dnssec", "is only for class IN; remove it, or the class from the URI")
	}
	if t.Type == dns.TypeANY || t.Type == dns.TypeRRSIG {
		f.add("dns.dnssec", "does not go with type %s, whose answer need not be whole; ask for another type", dns.Type(t.Type))
	}
	count(f, "dns.dnssec.anchors", len(d.Anchors), maxDNSAnchors)
	covered := len(d.Anchors) == 0
	for i, a := range d.Anchors[:min(len(d.Anchors), maxDNSAnchors)] {
		rr, err := TrustAnchor(a)
		if err != nil {
			f.add(fmt.Sprintf("dns.dnssec.anchors[%d]", i), "%s", err)
			covered = true // do not complain twice
			continue
		}
		covered = covered || dns.IsSubDomain(rr.Header().Name, t.Name)
	}
	if !covered && t.Kind == DNS {
		f.add("dns.dnssec.anchors", "has none for %s or a zone above it; add one, or remove them all for the root's", clip(t.Name))
	}
	between(f, "dns.dnssec.min_days_left", int64(d.MinDaysLeft), 1, maxSignatureDays)
}

func dnsSerials(f *faults, s *meshv1.DnsSerials, t *Target) {
	if s == nil {
		return
	}
	if t.Kind == DNS && (t.Type != dns.TypeSOA || t.Class != dns.ClassINET) {
		f.add("dns.serials", "is only for questions for the SOA of a zone; end the URI with ?type=SOA, or remove it")
	}
	if s.MaxLag < 0 {
		f.add("dns.serials.max_lag", "%d is not 0 to %d", s.MaxLag, maxTTL)
	}
	between(f, "dns.serials.max_servers", int64(s.MaxServers), 1, maxDNSServers)
	between(f, "dns.serials.max_unanswered", int64(s.MaxUnanswered), 1, maxDNSServers-1)
}

func dnsDefaults(d *meshv1.DnsProbe) *meshv1.DnsProbe {
	if d == nil {
		d = &meshv1.DnsProbe{}
	}
	if d.Transport == meshv1.DnsProbe_TRANSPORT_UNSPECIFIED {
		d.Transport = meshv1.DnsProbe_UDP
	}
	if d.RecursionDesired == nil {
		d.RecursionDesired = proto.Bool(true)
	}
	if len(d.Rcodes) == 0 && len(d.Expect) == 0 { // expectations decide alone, unless the check names response codes too
		d.Rcodes = []string{"NOERROR"}
	}
	if d.Transport == meshv1.DnsProbe_UDP && d.TcpFallback == nil {
		d.TcpFallback = proto.Bool(true)
	}
	if DNSEncrypted(d.Transport) {
		d.Tls = tlsDefaults(d.Tls)
	}
	if d.Transport == meshv1.DnsProbe_HTTPS {
		if d.HttpPath == "" {
			d.HttpPath = DefaultDNSPath
		}
		if d.HttpMethod == meshv1.DnsProbe_HTTP_METHOD_UNSPECIFIED {
			d.HttpMethod = meshv1.DnsProbe_POST
		}
	}
	if d.Edns == nil {
		d.Edns = &meshv1.DnsEdns{}
	}
	if !d.Edns.Disabled && d.Edns.UdpSize == 0 {
		d.Edns.UdpSize = DefaultUDPSize
	}
	if d.Serials != nil && d.Serials.MaxServers == 0 {
		d.Serials.MaxServers = DefaultDNSServers
	}
	d.IpFamily = familyDefault(d.IpFamily)
	return d
}

// Rcode is the number of a response code given by its name or as RCODEnnn, up to 4095.
func Rcode(name string) (int, bool) {
	if n, ok := dns.StringToRcode[name]; ok {
		return n, true
	}
	if digits, ok := strings.CutPrefix(name, "RCODE"); ok {
		if n, err := strconv.ParseUint(digits, 10, 12); err == nil {
			return int(n), true
		}
	}
	return 0, false
}
