package blackbox

import (
	"time"

	pconfig "github.com/prometheus/common/config"
)

// Config is a configuration file of blackbox_exporter. It does not change after [Parse].
type Config struct {
	// Modules by name.
	Modules map[string]*Module `yaml:"modules"`
}

// Module is one way of probing.
type Module struct {
	// Prober is http, tcp, dns, icmp, grpc or unix. Requests for a module with another are refused.
	Prober string `yaml:"prober,omitempty"`
	// Timeout bounds a probe besides the timeout of the scrape; 0 for the latter alone.
	Timeout time.Duration `yaml:"timeout,omitempty"`
	// HTTP are the options of prober http.
	HTTP HTTP `yaml:"http,omitempty"`
	// TCP are the options of prober tcp.
	TCP TCP `yaml:"tcp,omitempty"`
	// ICMP are the options of prober icmp.
	ICMP ICMP `yaml:"icmp,omitempty"`
	// DNS are the options of prober dns.
	DNS DNS `yaml:"dns,omitempty"`
	// GRPC are the options of prober grpc.
	GRPC GRPC `yaml:"grpc,omitempty"`
	// Unix are the options of prober unix.
	Unix Unix `yaml:"unix,omitempty"`
}

// Family is which addresses a probe prefers, and whether it may use others. Prober unix has none.
type Family struct {
	// Preferred is ip4 or ip6; empty for ip6, and anything else for ip4.
	Preferred string `yaml:"preferred_ip_protocol,omitempty"`
	// Fallback tells whether an address of the other family may be used where there is none of the preferred one. Default true.
	Fallback bool `yaml:"ip_protocol_fallback,omitempty"`
}

// HTTP are the options of prober http.
type HTTP struct {
	// ValidStatusCodes are the good ones; if empty, 200 to 299.
	ValidStatusCodes []int `yaml:"valid_status_codes,omitempty"`
	// ValidHTTPVersions are the good ones, for example HTTP/1.1 and HTTP/2.0; if empty, all.
	ValidHTTPVersions []string `yaml:"valid_http_versions,omitempty"`
	Family            `yaml:",inline"`
	// SkipResolvePhaseWithProxy leaves it to the proxy to find the target.
	SkipResolvePhaseWithProxy bool `yaml:"skip_resolve_phase_with_proxy,omitempty"`
	// NoFollowRedirects is the older form of follow_redirects, which it overrides.
	NoFollowRedirects *bool `yaml:"no_follow_redirects,omitempty"`
	// FailIfSSL fails the probe when the last answer came over TLS.
	FailIfSSL bool `yaml:"fail_if_ssl,omitempty"`
	// FailIfNotSSL fails the probe when the last answer did not come over TLS.
	FailIfNotSSL bool `yaml:"fail_if_not_ssl,omitempty"`
	// Method of the request; if empty, GET.
	Method string `yaml:"method,omitempty"`
	// Headers of the request. Host is the virtual host, and the name to verify unless tls_config has one.
	Headers map[string]string `yaml:"headers,omitempty"`
	// FailIfBodyMatchesRegexp fails the probe when any matches the body.
	FailIfBodyMatchesRegexp []Regexp `yaml:"fail_if_body_matches_regexp,omitempty"`
	// FailIfBodyNotMatchesRegexp fails the probe unless all match the body.
	FailIfBodyNotMatchesRegexp []Regexp `yaml:"fail_if_body_not_matches_regexp,omitempty"`
	// FailIfBodyJSONMatchesCEL fails the probe when the expression is true of the body, a JSON object.
	FailIfBodyJSONMatchesCEL *CEL `yaml:"fail_if_body_json_matches_cel,omitempty"`
	// FailIfBodyJSONNotMatchesCEL fails the probe unless the expression is true of the body.
	FailIfBodyJSONNotMatchesCEL *CEL `yaml:"fail_if_body_json_not_matches_cel,omitempty"`
	// FailIfHeaderMatches fails the probe when any value of a header matches.
	FailIfHeaderMatches []HeaderMatch `yaml:"fail_if_header_matches,omitempty"`
	// FailIfHeaderNotMatches fails the probe unless some value of each header matches.
	FailIfHeaderNotMatches []HeaderMatch `yaml:"fail_if_header_not_matches,omitempty"`
	// Body of the request. Not together with BodyFile.
	Body string `yaml:"body,omitempty"`
	// BodyFile is read for each request, at most 16 MiB.
	BodyFile string `yaml:"body_file,omitempty"`
	// Compression is how the answer must be compressed: gzip, deflate, br or identity; if empty, the body is taken as it comes. Others make every probe fail.
	Compression string `yaml:"compression,omitempty"`
	// BodySizeLimit fails the probe when the answer's body is longer, after decompression; 0 for the package's limit.
	BodySizeLimit Size `yaml:"body_size_limit,omitempty"`
	// Client are basic_auth, authorization, bearer_token, oauth2, tls_config, proxy_url and its kin, follow_redirects, enable_http2 and http_headers.
	Client pconfig.HTTPClientConfig `yaml:",inline"`
}

// HeaderMatch is a header and what its values may be.
type HeaderMatch struct {
	// Header is the name.
	Header string `yaml:"header,omitempty"`
	// Regexp is looked for in each value.
	Regexp Regexp `yaml:"regexp,omitempty"`
	// AllowMissing tells whether an answer without the header is good.
	AllowMissing bool `yaml:"allow_missing,omitempty"`
}

// Step is one turn of a dialogue: first the expectations, then what is sent, then the handshake.
type Step struct {
	// Expect is looked for in each line until one matches.
	Expect Regexp `yaml:"expect,omitempty"`
	// ExpectBytes must be exactly what comes next.
	ExpectBytes string `yaml:"expect_bytes,omitempty"`
	// Labels become series probe_expect_info; ${1} is the first group of Expect.
	Labels []Label `yaml:"labels,omitempty"`
	// Send is sent with a line feed at its end; ${1} is the first group of Expect.
	Send string `yaml:"send,omitempty"`
	// StartTLS makes the rest of the dialogue go over TLS.
	StartTLS bool `yaml:"starttls,omitempty"`
}

// Label is a label of probe_expect_info.
type Label struct {
	// Name of the label.
	Name string `yaml:"name,omitempty"`
	// Value with ${1}, ${2}, ... for the groups of the expectation.
	Value string `yaml:"value,omitempty"`
}

// Dialogue is what probers tcp and unix do once they are connected.
type Dialogue struct {
	// Steps of the dialogue; none: connecting is enough.
	Steps []Step `yaml:"query_response,omitempty"`
	// TLS begins with a handshake.
	TLS bool `yaml:"tls,omitempty"`
	// TLSConfig is how.
	TLSConfig pconfig.TLSConfig `yaml:"tls_config,omitempty"`
}

// TCP are the options of prober tcp.
type TCP struct {
	Family `yaml:",inline"`
	// SourceIPAddress to connect from; if empty, the system chooses.
	SourceIPAddress string `yaml:"source_ip_address,omitempty"`
	Dialogue        `yaml:",inline"`
}

// Unix are the options of prober unix, whose target is the path of a socket.
type Unix struct {
	Dialogue `yaml:",inline"`
}

// ICMP are the options of prober icmp.
type ICMP struct {
	Family `yaml:",inline"`
	// SourceIPAddress to send from; if empty, the system chooses.
	SourceIPAddress string `yaml:"source_ip_address,omitempty"`
	// PayloadSize in bytes, 0 to 65000; 0 for 28. Others make every probe fail.
	PayloadSize int `yaml:"payload_size,omitempty"`
	// DontFragment sets the DF bit; IPv4 only.
	DontFragment bool `yaml:"dont_fragment,omitempty"`
	// TTL of the request, 0 to 255; default 64.
	TTL int `yaml:"ttl,omitempty"`
}

// DNS are the options of prober dns.
type DNS struct {
	there  bool // the module has the section
	Family `yaml:",inline"`
	// DNSOverTLS asks over TLS; needs transport_protocol tcp.
	DNSOverTLS bool `yaml:"dns_over_tls,omitempty"`
	// TLSConfig is how.
	TLSConfig pconfig.TLSConfig `yaml:"tls_config,omitempty"`
	// SourceIPAddress to ask from; if empty, the system chooses.
	SourceIPAddress string `yaml:"source_ip_address,omitempty"`
	// TransportProtocol is udp or tcp; if empty, udp.
	TransportProtocol string `yaml:"transport_protocol,omitempty"`
	// QueryClass is IN, CH, HS, ...; if empty, IN.
	QueryClass string `yaml:"query_class,omitempty"`
	// QueryName is the name to ask for. It must be set where the section is there; without the section it is the root.
	QueryName string `yaml:"query_name,omitempty"`
	// QueryType is A, SOA, ...; if empty, ANY.
	QueryType string `yaml:"query_type,omitempty"`
	// Recursion asks for it. Default true.
	Recursion bool `yaml:"recursion_desired,omitempty"`
	// ValidRcodes are the good ones; NOERROR without the option. An empty list has none.
	ValidRcodes []string `yaml:"valid_rcodes,omitempty"`
	// ValidateAnswer judges the answer section.
	ValidateAnswer RRs `yaml:"validate_answer_rrs,omitempty"`
	// ValidateAuthority judges the authority section.
	ValidateAuthority RRs `yaml:"validate_authority_rrs,omitempty"`
	// ValidateAdditional judges the additional section.
	ValidateAdditional RRs `yaml:"validate_additional_rrs,omitempty"`
}

// RRs judges a section of a DNS answer by its records in presentation format, fields separated by tabs.
type RRs struct {
	// FailIfMatches fails the probe when any record matches any.
	FailIfMatches []Pattern `yaml:"fail_if_matches_regexp,omitempty"`
	// FailIfAllMatch fails the probe unless every record matches all of them. (The name says otherwise; blackbox_exporter does this.)
	FailIfAllMatch []Pattern `yaml:"fail_if_all_match_regexp,omitempty"`
	// FailIfNotMatches fails the probe unless there are records, and every one matches all.
	FailIfNotMatches []Pattern `yaml:"fail_if_not_matches_regexp,omitempty"`
	// FailIfNoneMatches fails the probe unless some record matches some.
	FailIfNoneMatches []Pattern `yaml:"fail_if_none_matches_regexp,omitempty"`
}

// GRPC are the options of prober grpc.
type GRPC struct {
	// Service to ask the health of; if empty, the server as a whole.
	Service string `yaml:"service,omitempty"`
	// TLS tells whether to speak it.
	TLS bool `yaml:"tls,omitempty"`
	// TLSConfig is how.
	TLSConfig pconfig.TLSConfig `yaml:"tls_config,omitempty"`
	// Metadata to send.
	Metadata map[string]string `yaml:"metadata,omitempty"`
	Family   `yaml:",inline"`
}

// defaults is a module as it is before the file has its say.
func defaults() Module {
	either := Family{Fallback: true}
	return Module{
		HTTP: HTTP{Family: either, Client: pconfig.DefaultHTTPClientConfig},
		TCP:  TCP{Family: either},
		ICMP: ICMP{Family: either, TTL: 64},
		DNS:  DNS{Family: either, Recursion: true},
		GRPC: GRPC{Family: either},
	}
}
