package spec

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/internal/nearest"
)

// Kind is what sort of probe a check asks for. The scheme of its URI decides it.
type Kind string

// The kinds there are.
const (
	HTTP      Kind = "http"
	TCP       Kind = "tcp"
	TLS       Kind = "tls"
	DNS       Kind = "dns"
	ICMP      Kind = "icmp"
	GRPC      Kind = "grpc"
	UDP       Kind = "udp"
	WEBSOCKET Kind = "websocket"
)

// maxSocketPath is the most bytes that the path of a Unix socket has (sun_path of unix(7), without the NUL at its end).
const maxSocketPath = 107

// maxURI is the most bytes that a URI may have.
const maxURI = 2048

// Target is a URI of a check, taken apart.
type Target struct {
	// Kind is the kind of the check.
	Kind Kind
	// Scheme is the scheme in lower case.
	Scheme string
	// Host is the name or the address to reach, without brackets. With kind dns it is the server to ask, empty for the prober's own
	// resolver.
	Host string
	// Port is the port to reach, with the scheme's default resolved; 0 with kind icmp and with a Unix socket.
	Port uint16
	// Secure is true when the connection begins with a TLS handshake.
	Secure bool
	// Service is the service to ask for, with kind grpc; empty for the server as a whole.
	Service string
	// Name is the name to ask for, fully qualified, with kind dns.
	Name string
	// Type is the record type to ask for, with kind dns.
	Type uint16
	// Class is the class to ask for, with kind dns.
	Class uint16
	// PortGiven is true, with kinds dns and tls, when the URI has a port, and false when Port is the scheme's default: encrypted transports and STARTTLS have others.
	PortGiven bool
	// Path is the absolute path of a Unix socket, with scheme unix, whose host is empty; else empty.
	Path string
	// URL is the whole URI, with kinds http and websocket.
	URL *url.URL
}

// Addr is the literal address that the host is, if it is one.
func (t *Target) Addr() (netip.Addr, bool) {
	a, err := netip.ParseAddr(t.Host)
	return a, err == nil
}

// scheme is what a scheme means.
type scheme struct {
	kind   Kind
	port   uint16 // 0: must be given
	secure bool
	form   string
}

// schemeOf looks a scheme up by its name in lower case.
func schemeOf(name string) (scheme, bool) {
	switch name {
	case "http":
		return scheme{kind: HTTP, port: 80, form: "http://host[:80]/path"}, true
	case "https":
		return scheme{kind: HTTP, port: 443, secure: true, form: "https://host[:443]/path"}, true
	case "tcp":
		return scheme{kind: TCP, form: "tcp://host:port"}, true
	case "unix":
		return scheme{kind: TCP, form: "unix:///path/to.sock"}, true
	case "udp":
		return scheme{kind: UDP, form: "udp://host:port"}, true
	case "ws":
		return scheme{kind: WEBSOCKET, port: 80, form: "ws://host[:80]/path"}, true
	case "wss":
		return scheme{kind: WEBSOCKET, port: 443, secure: true, form: "wss://host[:443]/path"}, true
	case "tls":
		return scheme{kind: TLS, port: 443, secure: true, form: "tls://host[:443]"}, true
	case "dns":
		return scheme{kind: DNS, port: 53, form: "dns://[server[:53]]/name[?type=A;class=IN]"}, true
	case "icmp":
		return scheme{kind: ICMP, form: "icmp://host"}, true
	case "grpc":
		return scheme{kind: GRPC, form: "grpc://host:port[/service]"}, true
	case "grpcs":
		return scheme{kind: GRPC, secure: true, form: "grpcs://host:port[/service]"}, true
	}
	return scheme{}, false
}

// schemes are the names of all schemes.
func schemes() []string {
	return strings.Split(strings.Replace(knownSchemes, " and ", ", ", 1), ", ")
}

const knownSchemes = "http, https, tcp, unix, udp, ws, wss, tls, dns, icmp, grpc and grpcs"

// KindOf is the kind of check that the URI's scheme asks for. The error says which schemes there are. The rest of the URI is not examined.
func KindOf(uri string) (Kind, error) {
	name, _, ok := strings.Cut(uri, ":")
	s, known := schemeOf(strings.ToLower(name))
	if !ok || !known {
		return "", fmt.Errorf("%s", schemeProblem(uri))
	}
	return s.kind, nil
}

// schemeProblem says why the beginning of the URI is no scheme.
func schemeProblem(uri string) string {
	name, _, ok := strings.Cut(uri, ":")
	switch {
	case uri == "":
		return "is missing; write what to probe, for example https://shop.example.com/health"
	case !ok, strings.ContainsAny(name, "/.[] "):
		return fmt.Sprintf("%q has no scheme; begin it with one of %s, for example https://", clip(uri), knownSchemes)
	case !strings.Contains(uri, "://"):
		return fmt.Sprintf("%q has no known scheme; begin it with one of %s, for example tcp://host:port", clip(uri), knownSchemes)
	}
	if right := otherScheme(strings.ToLower(name)); right != "" {
		return fmt.Sprintf("scheme %q is not known; write %s", clip(name), right)
	}
	return fmt.Sprintf("scheme %q is not known; the known ones are %s", clip(name), knownSchemes) + nearest.Hint(name, schemes())
}

// ParseURI takes a URI of a check apart. The error lists everything that is wrong with it, in one line.
func ParseURI(uri string) (*Target, error) {
	t, problems := parseURI(uri)
	if len(problems) > 0 {
		return nil, fmt.Errorf("uri: %s", strings.Join(problems, "; also, it "))
	}
	return t, nil
}

// parseURI is ParseURI with one sentence for each problem.
func parseURI(uri string) (*Target, []string) {
	if len(uri) > maxURI {
		return nil, []string{fmt.Sprintf("has %d bytes, which is more than %d; shorten it", len(uri), maxURI)}
	}
	name, _, ok := strings.Cut(uri, ":")
	s, known := schemeOf(strings.ToLower(name))
	if !ok || !known {
		return nil, []string{schemeProblem(uri)}
	}
	u, err := url.Parse(uri)
	if err != nil {
		return nil, []string{fmt.Sprintf("cannot be parsed (%s); write it as %s", urlProblem(err), s.form)}
	}
	if u.Opaque != "" && s.kind != DNS {
		return nil, []string{fmt.Sprintf("has no // after the scheme; write it as %s", s.form)}
	}
	p := &uriParser{url: u, scheme: s, target: &Target{Kind: s.kind, Scheme: strings.ToLower(name), Secure: s.secure}}
	p.parse()
	return p.target, p.problems
}

// uriParser collects what it finds in one URI.
type uriParser struct {
	url      *url.URL
	scheme   scheme
	target   *Target
	problems []string
}

func (p *uriParser) fault(format string, args ...any) {
	p.problems = append(p.problems, fmt.Sprintf(format, args...))
}

func (p *uriParser) parse() {
	u, t := p.url, p.target
	if u.User != nil {
		p.fault("has user information (before the @), which is refused; use the fields of the kind, such as http.basic_auth")
	}
	if u.Fragment != "" {
		p.fault("has a fragment (#%s), which no probe would send; remove it", clip(u.Fragment))
	}
	if t.Scheme == "unix" {
		p.socket()
		return
	}
	t.Host = u.Hostname()
	if t.Host == "" && t.Kind != DNS {
		p.fault("has no host; write it as %s", p.scheme.form)
	}
	if t.Host != "" {
		if problem := hostProblem(t.Host); problem != "" {
			p.fault("%s", problem)
		}
	}
	p.port()
	switch t.Kind {
	case HTTP, WEBSOCKET:
		t.URL = u
	case DNS:
		p.dns()
	case GRPC:
		t.Service = strings.TrimPrefix(u.Path, "/")
		p.without(false)
	default:
		p.without(true)
	}
}

// port resolves the port.
func (p *uriParser) port() {
	text := p.url.Port()
	switch {
	case p.scheme.kind == ICMP:
		if text != "" {
			p.fault("has a port, which ICMP does not know; write it as %s", p.scheme.form)
		}
	case text == "" && p.scheme.port == 0:
		if p.target.Host != "" {
			p.fault("has no port; write it as %s", p.scheme.form)
		}
	case text == "":
		p.target.Port = p.scheme.port
	default:
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			p.fault("has port %s, which is not 1 to 65535", clip(text))
		}
		p.target.Port, p.target.PortGiven = uint16(n), p.scheme.kind == DNS || p.scheme.kind == TLS
	}
}

// socket takes the path of a Unix socket.
func (p *uriParser) socket() {
	p.target.Path = p.url.Path
	switch {
	case p.url.Host != "":
		p.fault("has %q where a Unix socket has no host; write it as %s, with three slashes, since the path must be absolute", clip(p.url.Host), p.scheme.form)
	case p.url.Path == "" || strings.HasSuffix(p.url.Path, "/"):
		p.fault("has no path of a socket; write it as %s", p.scheme.form)
	case len(p.url.Path) > maxSocketPath:
		p.fault("has a path of %d bytes, which is more than the %d of a Unix socket", len(p.url.Path), maxSocketPath)
	case strings.ContainsRune(p.url.Path, 0):
		p.fault("has a path with a NUL byte, which no file has")
	}
	if p.url.RawQuery != "" {
		p.fault("has a query (?%s), which a Unix socket does not know; write it as %s", clip(p.url.RawQuery), p.scheme.form)
	}
}

// without refuses the parts that the scheme has no use for.
func (p *uriParser) without(path bool) {
	if path && p.url.Path != "" && p.url.Path != "/" {
		p.fault("has a path (%s), which kind %s does not know; write it as %s", clip(p.url.Path), p.scheme.kind, p.scheme.form)
	}
	if p.url.RawQuery != "" {
		p.fault("has a query (?%s), which kind %s does not know; write it as %s", clip(p.url.RawQuery), p.scheme.kind, p.scheme.form)
	}
}

// dns takes apart the name, type and class of RFC 4501, section 3.
func (p *uriParser) dns() {
	name := strings.TrimPrefix(p.url.Path, "/")
	if p.url.Opaque != "" {
		unescaped, err := url.PathUnescape(p.url.Opaque)
		if err != nil {
			p.fault("cannot be parsed (%s); write it as %s", urlProblem(err), p.scheme.form)
		}
		name = unescaped
	}
	if name == "" {
		p.fault("has no name to ask for; write it as %s, with a name of . for the root", p.scheme.form)
	} else if _, ok := dns.IsDomainName(name); !ok || strings.ContainsAny(name, " /") {
		p.fault("asks for %q, which is not a domain name of at most 253 characters in labels of at most 63", clip(name))
	}
	p.target.Name, p.target.Type, p.target.Class = dns.Fqdn(name), dns.TypeA, dns.ClassINET
	if p.url.RawQuery == "" {
		return
	}
	for _, element := range strings.FieldsFunc(p.url.RawQuery, func(r rune) bool { return r == ';' || r == '&' }) {
		key, value, _ := strings.Cut(element, "=")
		switch strings.ToLower(key) {
		case "type":
			p.recordType(value)
		case "class":
			p.recordClass(value)
		default:
			p.fault("has %q in its query; only type and class are known, for example ?type=MX", clip(key))
		}
	}
}

func (p *uriParser) recordType(value string) {
	t, ok := RecordType(value)
	switch {
	case !ok:
		p.fault("has record type %q, which is not known; write for example A, AAAA, MX, TXT, or TYPE65 by number", clip(value))
	case t == dns.TypeAXFR || t == dns.TypeIXFR || t == dns.TypeOPT || t == dns.TypeNone || t == dns.TypeTSIG || t == dns.TypeTKEY:
		p.fault("has record type %q, which is not for questions that have one answer; write for example A, AAAA, MX or SOA", clip(value))
	}
	p.target.Type = t
}

func (p *uriParser) recordClass(value string) {
	c, ok := RecordClass(value)
	if !ok || c == dns.ClassNONE {
		p.fault("has class %q, which is not known; write IN, CH, HS or ANY, or CLASS3 by number", clip(value))
	}
	p.target.Class = c
}

// RecordClass is the number of a DNS class given by its name (in any case) or as CLASSnnn (RFC 3597).
func RecordClass(name string) (uint16, bool) {
	upper := strings.ToUpper(name)
	if c, ok := dns.StringToClass[upper]; ok {
		return c, true
	}
	if digits, ok := strings.CutPrefix(upper, "CLASS"); ok {
		if n, err := strconv.ParseUint(digits, 10, 16); err == nil && n > 0 {
			return uint16(n), true
		}
	}
	return 0, false
}

// RecordType is the number of a DNS record type given by its name (in any case) or as TYPEnnn (RFC 3597).
func RecordType(name string) (uint16, bool) {
	upper := strings.ToUpper(name)
	if t, ok := dns.StringToType[upper]; ok {
		return t, true
	}
	if digits, ok := strings.CutPrefix(upper, "TYPE"); ok {
		if n, err := strconv.ParseUint(digits, 10, 16); err == nil && n > 0 {
			return uint16(n), true
		}
	}
	return 0, false
}

// hostProblem says what is wrong with a host, in words that follow the name of the field; empty when nothing is.
func hostProblem(host string) string {
	if strings.Contains(host, ":") {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Sprintf("has host %q, which is not an IPv6 address", clip(host))
		}
		return ""
	}
	if len(host) > 253 {
		return fmt.Sprintf("has a host of %d characters, which is more than 253", len(host))
	}
	numeric := true
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Sprintf("has host %q, whose labels are not all 1 to 63 characters that neither begin nor end with -", clip(host))
		}
		for _, r := range label {
			if r > 127 {
				return fmt.Sprintf("has host %q, which is not ASCII; write its xn-- form (IDNA)", clip(host))
			}
			if !isAlphanumeric(r) && r != '-' && r != '_' {
				return fmt.Sprintf("has host %q with the character %q, which no host name has", clip(host), r)
			}
		}
		numeric = numeric && strings.Trim(label, "0123456789") == ""
	}
	if numeric {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Sprintf("has host %q, which is not an IPv4 address", clip(host))
		}
	}
	return ""
}

func isAlphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// urlProblem is the innermost message of url.Parse, which otherwise repeats the URI.
func urlProblem(err error) string {
	if e, ok := err.(*url.Error); ok { //nolint:errorlint // url.Parse returns this type itself
		return e.Err.Error()
	}
	return err.Error()
}

// clip shortens what a message quotes.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
