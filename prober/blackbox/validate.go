package blackbox

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// validate checks what one option alone does not show, and refuses what blackbox_exporter refuses. The order of the checks is that of the file's options.
func (m *Module) validate() error {
	return cmp.Or(m.HTTP.validate(), m.DNS.validate(), m.ICMP.validate(), validateSteps(m.TCP.Steps), validateSteps(m.Unix.Steps))
}

func (h *HTTP) validate() error {
	if err := h.Client.Validate(); err != nil {
		return err
	}
	if h.NoFollowRedirects != nil {
		h.Client.FollowRedirects = !*h.NoFollowRedirects
	}
	if h.Body != "" && h.BodyFile != "" {
		return errors.New("http has both body and body_file; keep one")
	}
	for _, list := range [][]HeaderMatch{h.FailIfHeaderMatches, h.FailIfHeaderNotMatches} {
		for _, m := range list {
			if m.Header == "" || m.Regexp.Regexp == nil || m.Regexp.String() == "" {
				return errors.New("fail_if_header_matches and fail_if_header_not_matches need both header and regexp in each entry")
			}
		}
	}
	for name, value := range h.Headers {
		if textproto.CanonicalMIMEHeaderKey(name) == "Accept-Encoding" && !accepts(value, h.Compression) {
			return fmt.Errorf("the header Accept-Encoding: %s does not ask for compression %s, which the answer must have; add it there", value, h.Compression)
		}
	}
	return nil
}

// accepts tells whether a value of Accept-Encoding allows an encoding (RFC 9110, section 12.5.3).
func accepts(header, encoding string) bool {
	if header == "" || encoding == "" {
		return true
	}
	best := 0.0
	for part := range strings.SplitSeq(header, ",") {
		name, weight, weighed := strings.Cut(part, ";")
		if name = strings.TrimSpace(name); name != encoding && name != "*" {
			continue
		}
		quality := 1.0
		if weighed {
			var err error
			if quality, err = strconv.ParseFloat(strings.TrimPrefix(strings.TrimSpace(weight), "q="), 32); err != nil {
				quality = -1
			}
		}
		best = max(best, quality)
	}
	return best > 0
}

func (d *DNS) validate() error {
	if !d.there {
		return nil
	}
	if d.QueryName == "" {
		return errors.New("dns needs query_name, the name to ask for")
	}
	if _, ok := dns.StringToClass[d.QueryClass]; d.QueryClass != "" && !ok {
		return fmt.Errorf("query_class %q is not known; use IN, CH or HS", d.QueryClass)
	}
	if _, ok := dns.StringToType[d.QueryType]; d.QueryType != "" && !ok {
		return fmt.Errorf("query_type %q is not known; write it in capitals, for example AAAA", d.QueryType)
	}
	return nil
}

func (i *ICMP) validate() error {
	if i.TTL < 0 || i.TTL > 255 {
		return errors.New("ttl must be 0 to 255")
	}
	return nil
}

func validateSteps(steps []Step) error {
	for n, s := range steps {
		if len(s.Labels) > 0 && s.Expect.Regexp == nil {
			return fmt.Errorf("query_response[%d] has labels, which need an expect to take them from", n)
		}
		for _, l := range s.Labels {
			if !labelName.MatchString(l.Name) {
				return fmt.Errorf("query_response[%d]: label %q must begin with a letter or _, and have only these and digits", n, l.Name)
			}
		}
	}
	return nil
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// probers are those that a module may have.
var probers = []string{"http", "tcp", "dns", "icmp", "grpc", "unix"}

// doubts are sentences about options that blackbox_exporter takes, and that do not mean what whoever wrote them may have thought: most make every probe of the module fail. They are worth a
// warning, and no reason to refuse a file whose other modules are right.
func (m *Module) doubts() (out []string) {
	doubt := func(yes bool, format string, values ...any) {
		if yes {
			out = append(out, fmt.Sprintf(format, values...))
		}
	}
	if !slices.Contains(probers, m.Prober) {
		return []string{fmt.Sprintf("prober %q is not known; it must be one of %s", m.Prober, strings.Join(probers, ", "))}
	}
	doubt(m.Timeout < 0, "timeout is negative, and does not count")
	for _, f := range []*Family{&m.HTTP.Family, &m.TCP.Family, &m.ICMP.Family, &m.DNS.Family, &m.GRPC.Family} {
		doubt(f.Preferred != "" && f.Preferred != "ip4" && f.Preferred != "ip6", "preferred_ip_protocol %q is taken for ip4; it must be ip4 or ip6", f.Preferred)
	}
	for _, source := range []string{m.TCP.SourceIPAddress, m.ICMP.SourceIPAddress, m.DNS.SourceIPAddress} {
		_, err := netip.ParseAddr(source)
		doubt(source != "" && err != nil, "source_ip_address %q is not an IP address", source)
	}
	doubt(!slices.Contains([]string{"", "identity", "gzip", "deflate", "br"}, strings.ToLower(m.HTTP.Compression)), "compression %q is not known; it must be gzip, deflate, br or identity", m.HTTP.Compression)
	doubt(m.ICMP.PayloadSize < 0 || m.ICMP.PayloadSize > maxPayload, "payload_size must be 0 to %d", maxPayload)
	if m.Prober == "dns" {
		out = append(out, m.DNS.doubts()...)
	}
	return out
}

func (d *DNS) doubts() (out []string) {
	if d.QueryName == "" {
		out = append(out, "dns has no query_name, and asks for the root")
	}
	if err := d.transport(); err != nil {
		out = append(out, err.Error())
	}
	for _, r := range d.ValidRcodes {
		if _, ok := dns.StringToRcode[r]; !ok {
			out = append(out, fmt.Sprintf("valid_rcodes has %q, which is not known; write for example NOERROR or NXDOMAIN", r))
		}
	}
	for _, s := range []*RRs{&d.ValidateAnswer, &d.ValidateAuthority, &d.ValidateAdditional} {
		for _, p := range slices.Concat(s.FailIfMatches, s.FailIfAllMatch, s.FailIfNotMatches, s.FailIfNoneMatches) {
			if p.fault != nil {
				out = append(out, p.fault.Error())
			}
		}
	}
	return out
}

// transport tells what is wrong with how the question travels.
func (d *DNS) transport() error {
	switch p := d.TransportProtocol; {
	case p != "" && p != "udp" && p != "tcp":
		return fmt.Errorf("transport_protocol %q must be udp or tcp", p)
	case d.DNSOverTLS && p != "tcp":
		return errors.New("dns_over_tls needs transport_protocol: tcp")
	}
	return nil
}
