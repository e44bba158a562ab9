package blackbox

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/textproto"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"go.yaml.in/yaml/v3"

	"github.com/probemesh/probemesh/internal/nearest"
)

// maxFile is the most bytes that a configuration file may have.
const maxFile = 4 << 20

// builtin are the modules without a file: those of blackbox_exporter's example that need nobody's names.
const builtin = `modules:
  http_2xx: {prober: http}
  http_post_2xx: {prober: http, http: {method: POST}}
  tcp_connect: {prober: tcp}
  icmp: {prober: icmp}
  icmp_ttl5: {prober: icmp, timeout: 5s, icmp: {ttl: 5}}
  grpc: {prober: grpc, grpc: {tls: true, preferred_ip_protocol: ip4}}
  grpc_plain: {prober: grpc, grpc: {tls: false}}
  dns_udp: {prober: dns, dns: {query_name: ".", query_type: NS}}
  dns_tcp: {prober: dns, dns: {query_name: ".", query_type: NS, transport_protocol: tcp}}
  pop3s_banner:
    prober: tcp
    tcp: {tls: true, query_response: [{expect: "^\\+OK"}]}
  ssh_banner:
    prober: tcp
    tcp: {query_response: [{expect: "^SSH-2.0-"}, {send: SSH-2.0-blackbox-ssh-check}]}
  irc_banner:
    prober: tcp
    tcp:
      query_response:
        - {send: NICK prober}
        - {send: "USER prober prober prober :prober"}
        - {expect: "PING :([^ ]+)", send: "PONG ${1}"}
        - {expect: "^:[^ ]+ 001"}
`

// Builtin gives the modules that there are without a file: http_2xx, http_post_2xx, tcp_connect, icmp, icmp_ttl5, grpc, grpc_plain, dns_udp, dns_tcp, pop3s_banner,
// ssh_banner and irc_banner. It is valid always.
func Builtin() *Config {
	c, err := Parse([]byte(builtin))
	if err != nil {
		panic(err) // a fault of this file, which a test looks for
	}
	return c
}

// Load reads a configuration file. The error names the file, the line where it is known, what is wrong and what would be right.
func Load(name string) (*Config, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s is longer than %d MiB", name, maxFile>>20)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// Parse reads a configuration from its text. The error is as that of [Load], without the file.
func Parse(text []byte) (*Config, error) {
	c := &Config{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, sentence(err)
	}
	for _, name := range sortedKeys(c.Modules) {
		if c.Modules[name] == nil {
			return nil, fmt.Errorf("module %s is empty; give it a prober, for example `prober: http`", name)
		}
		if err := c.Modules[name].validate(); err != nil {
			return nil, fmt.Errorf("module %s: %w", name, err)
		}
	}
	return c, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// UnmarshalYAML sets the defaults first. (With the older of the library's two signatures, which keeps to known fields.)
func (m *Module) UnmarshalYAML(unmarshal func(any) error) error {
	*m = defaults()
	type plain Module
	return unmarshal((*plain)(m))
}

var unknownField = regexp.MustCompile(`^line (\d+): field (\S+) not found in type (\S+)$`)

// sentence turns what the YAML library says of unknown options into sentences.
func sentence(err error) error {
	var faults *yaml.TypeError
	if !errors.As(err, &faults) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]string, 0, len(faults.Errors))
	for _, l := range faults.Errors {
		if m := unknownField.FindStringSubmatch(l); m != nil {
			l = fmt.Sprintf("line %s: there is no option %s here", m[1], m[2])
			if near := nearest.To(m[2], options(m[3])); near != "" {
				l += "; did you mean " + near + "?"
			}
		}
		lines = append(lines, l)
	}
	return errors.New(strings.Join(lines, "\n"))
}

// options are the options of the structs of that name among those that a module is made of. Types that set defaults, or check what they read, go by the name plain.
func options(name string) []string {
	var out []string
	seen := map[reflect.Type]bool{}
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || seen[t] {
			return
		}
		seen[t] = true
		if t.String() == name || name == "blackbox.plain" && t == reflect.TypeFor[Module]() || name == "config.plain" && strings.HasPrefix(t.String(), "config.") {
			out = append(out, fields(t)...)
		}
		for i := range t.NumField() {
			visit(t.Field(i).Type)
		}
	}
	visit(reflect.TypeFor[Config]())
	return out
}

// fields are the options that a struct has, inlined ones included.
func fields(t reflect.Type) []string {
	var out []string
	if t.Kind() != reflect.Struct {
		return nil // a map of one's own names
	}
	for i := range t.NumField() {
		name, flags, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		switch {
		case strings.Contains(flags, "inline"):
			out = append(out, fields(t.Field(i).Type)...)
		case name != "" && name != "-":
			out = append(out, name)
		}
	}
	return out
}

// validate checks what one option alone does not show. The order of the checks is that of the file's options.
func (m *Module) validate() error {
	probers := []string{"http", "tcp", "dns", "icmp", "grpc", "unix"}
	if !slices.Contains(probers, m.Prober) {
		return fmt.Errorf("prober %q is not known; it must be one of %s", m.Prober, strings.Join(probers, ", "))
	}
	if m.Timeout < 0 {
		return errors.New("timeout must not be negative")
	}
	for _, f := range []*Family{&m.HTTP.Family, &m.TCP.Family, &m.ICMP.Family, &m.DNS.Family, &m.GRPC.Family} {
		if f.Preferred != "" && f.Preferred != "ip4" && f.Preferred != "ip6" {
			return fmt.Errorf("preferred_ip_protocol %q must be ip4 or ip6", f.Preferred)
		}
	}
	for _, source := range []string{m.TCP.SourceIPAddress, m.ICMP.SourceIPAddress, m.DNS.SourceIPAddress} {
		if source != "" {
			if _, err := netip.ParseAddr(source); err != nil {
				return fmt.Errorf("source_ip_address %q is not an IP address", source)
			}
		}
	}
	return cmp.Or(m.HTTP.validate(), m.DNS.validate(m.Prober == "dns"), m.ICMP.validate(), validateSteps(m.TCP.Steps), validateSteps(m.Unix.Steps))
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
	switch strings.ToLower(h.Compression) {
	case "", "identity", "gzip", "deflate", "br":
	default:
		return fmt.Errorf("compression %q is not known; it must be gzip, deflate, br or identity", h.Compression)
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
	for part := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(part, ";")
		name, weight = strings.TrimSpace(name), strings.ReplaceAll(weight, " ", "")
		if name == encoding || name == "*" {
			return weight == "" || strings.Trim(strings.TrimPrefix(weight, "q="), "0.") != ""
		}
	}
	return false
}

func (d *DNS) validate(used bool) error {
	if !used {
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
	if p := d.TransportProtocol; p != "" && p != "udp" && p != "tcp" {
		return fmt.Errorf("transport_protocol %q must be udp or tcp", p)
	}
	if d.DNSOverTLS && d.TransportProtocol != "tcp" {
		return errors.New("dns_over_tls needs transport_protocol: tcp")
	}
	for _, r := range d.ValidRcodes {
		if _, ok := dns.StringToRcode[r]; !ok {
			return fmt.Errorf("valid_rcodes has %q, which is not known; write for example NOERROR or NXDOMAIN", r)
		}
	}
	return nil
}

func (i *ICMP) validate() error {
	if i.TTL < 0 || i.TTL > 255 {
		return errors.New("ttl must be 0 to 255")
	}
	if i.PayloadSize < 0 || i.PayloadSize > 65000 {
		return errors.New("payload_size must be 0 to 65000")
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
