package blackbox_test

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// files are configurations, right and wrong, one a line. The part behind " # " is why ours differs on purpose.
const files = `
modules: {}
modules:
{}
module: {}
modules: {a: }
modules: {a: {}}
modules: {a: {prober: ''}}
modules: {a: {prober: HTTP}}
modules: {a: {prober: gopher}}
modules: {a: {prober: http}, a: {prober: tcp}}
modules: {a: {prober: http, tcp: {tls: true}}}
modules: {a: {prober: http, http: }}
modules: {a: {prober: http, timeout: 5}}
modules: {a: {prober: http, timeout: 5s, http: {}}}
modules: {a: {prober: http, timeout: 5 s}}
modules: {a: {prober: http, timeout: 1d}}
modules: {a: {prober: http, timeout: 1h30m}}
modules: {a: {prober: http, timeout: -1s}}
modules: {a: {prober: http, timeout: 0}}
modules: {a: {prober: http, timeout: ''}}
modules: {a: {prober: http, timeout: 1.5s}}
modules: {a: {prober: http, htpp: {}}}
modules: {a: {prober: http, http: {valid_status_code: [200]}}}
modules: {a: {prober: http, http: {valid_status_codes: 200}}}
modules: {a: {prober: http, http: {valid_status_codes: ['200']}}}
modules: {a: {prober: http, http: {valid_status_codes: [2xx]}}}
modules: {a: {prober: http, http: {valid_http_versions: HTTP/1.1}}}
modules: {a: {prober: http, http: {valid_http_versions: [1.1]}}}
modules: {a: {prober: http, http: {preferred_ip_protocol: ip5}}}
modules: {a: {prober: http, http: {preferred_ip_protocol: ipv4}}}
modules: {a: {prober: http, http: {preferred_ip_protocol: ''}}}
modules: {a: {prober: http, http: {ip_protocol_fallback: 'yes'}}}
modules: {a: {prober: http, http: {ip_protocol_fallback: yes}}}
modules: {a: {prober: http, http: {fail_if_ssl: 1}}}
modules: {a: {prober: http, http: {method: 5}}}
modules: {a: {prober: http, http: {method: [GET]}}}
modules: {a: {prober: http, http: {headers: [a]}}}
modules: {a: {prober: http, http: {headers: {a: [b]}}}}
modules: {a: {prober: http, http: {headers: {a: 1, b: true, c: }}}}
modules: {a: {prober: http, http: {fail_if_body_matches_regexp: ['(']}}}
modules: {a: {prober: http, http: {fail_if_body_matches_regexp: x}}}
modules: {a: {prober: http, http: {fail_if_body_matches_regexp: [1]}}}
modules: {a: {prober: http, http: {fail_if_header_matches: [{header: X}]}}}
modules: {a: {prober: http, http: {fail_if_header_matches: [{regexp: X}]}}}
modules: {a: {prober: http, http: {fail_if_header_matches: [{header: X, regexp: ''}]}}}
modules: {a: {prober: http, http: {fail_if_header_not_matches: [{header: X, regexp: '(?<!x)'}]}}}
modules: {a: {prober: http, http: {fail_if_header_matches: [{header: X, regexp: x, allow_missing: maybe}]}}}
modules: {a: {prober: http, http: {compression: zip}}}
modules: {a: {prober: http, http: {compression: GZIP}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: br}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {accept-encoding: 'br, gzip;q=0.0'}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: 'br, gzip;q=0.1'}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: '*'}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: '*;q=0'}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: GZIP}}}}
modules: {a: {prober: http, http: {compression: identity, headers: {Accept-Encoding: gzip}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: 'gzip; q=1.0'}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: 'gzip;q=x'}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: ''}}}}
modules: {a: {prober: http, http: {compression: gzip, headers: {Accept-Encoding: ','}}}}
modules: {a: {prober: http, http: {body_size_limit: 3 apples}}}
modules: {a: {prober: http, http: {body_size_limit: -1}}}
modules: {a: {prober: http, http: {body_size_limit: 10}}} # a size without a unit, or without its B, is one too
modules: {a: {prober: http, http: {body_size_limit: '10'}}} # a size without a unit, or without its B, is one too
modules: {a: {prober: http, http: {body_size_limit: 10kB}}}
modules: {a: {prober: http, http: {body_size_limit: 10kb}}}
modules: {a: {prober: http, http: {body_size_limit: 10 MB}}} # a size without a unit, or without its B, is one too
modules: {a: {prober: http, http: {body_size_limit: 10M}}} # a size without a unit, or without its B, is one too
modules: {a: {prober: http, http: {body_size_limit: 10Mi}}} # a size without a unit, or without its B, is one too
modules: {a: {prober: http, http: {body_size_limit: 10MiB}}}
modules: {a: {prober: http, http: {body_size_limit: 1MB512KB}}}
modules: {a: {prober: http, http: {body_size_limit: 1.5MB}}}
modules: {a: {prober: http, http: {body_size_limit: 1PB}}}
modules: {a: {prober: http, http: {body_size_limit: 1EB}}}
modules: {a: {prober: http, http: {body_size_limit: 9EB}}}
modules: {a: {prober: http, http: {body_size_limit: ''}}}
modules: {a: {prober: http, http: {body_size_limit: +5B}}}
modules: {a: {prober: http, http: {body_size_limit: 1e3}}}
modules: {a: {prober: http, http: {body_size_limit: .5KB}}}
modules: {a: {prober: http, http: {body_size_limit: 0}}}
modules: {a: {prober: http, http: {body_size_limit: inf}}}
modules: {a: {prober: http, http: {bearer_token: a, bearer_token_file: b}}}
modules: {a: {prober: http, http: {bearer_token: a, basic_auth: {username: u}}}}
modules: {a: {prober: http, http: {authorization: {type: Basic, credentials: x}}}}
modules: {a: {prober: http, http: {authorization: {credentials: x, credentials_file: y}}}}
modules: {a: {prober: http, http: {authorization: {}}}}
modules: {a: {prober: http, http: {basic_auth: {username: u, password: a, password_file: b}}}}
modules: {a: {prober: http, http: {basic_auth: {user: u}}}}
modules: {a: {prober: http, http: {basic_auth: {}}}}
modules: {a: {prober: http, http: {oauth2: {client_id: a, client_secret: b}}}}
modules: {a: {prober: http, http: {oauth2: {client_id: a, client_secret: b, token_url: 'http://x'}, bearer_token: c}}}
modules: {a: {prober: http, http: {oauth2: {client_secret: b, token_url: 'http://x'}}}}
modules: {a: {prober: http, http: {oauth2: {client_id: a, client_secret: b, client_secret_file: c, token_url: 'http://x'}}}}
modules: {a: {prober: http, http: {oauth2: {client_id: a, token_url: 'http://x'}}}} # an option of later versions
modules: {a: {prober: http, http: {proxy_url: 'http://[::1'}}}
modules: {a: {prober: http, http: {proxy_url: 'x'}}}
modules: {a: {prober: http, http: {proxy_url: 'gopher://x'}}}
modules: {a: {prober: http, http: {proxy_url: ''}}}
modules: {a: {prober: http, http: {proxy_from_environment: true}}} # an option of later versions
modules: {a: {prober: http, http: {no_proxy: localhost}}}
modules: {a: {prober: http, http: {proxy_connect_header: {a: [b]}}}}
modules: {a: {prober: http, http: {http_headers: {a: {values: [b]}}}}} # an option of later versions
modules: {a: {prober: http, http: {follow_redirects: maybe}}}
modules: {a: {prober: http, http: {enable_http2: 'false'}}}
modules: {a: {prober: http, http: {tls_config: {ca_fil: x}}}}
modules: {a: {prober: http, http: {tls_config: {ca_file: /none}}}}
modules: {a: {prober: http, http: {tls_config: {ca: x}}}} # an option of later versions
modules: {a: {prober: http, http: {tls_config: {cert_file: x}}}} # a certificate without its key is refused with the file, and not with each probe
modules: {a: {prober: http, http: {tls_config: {key_file: x}}}} # a certificate without its key is refused with the file, and not with each probe
modules: {a: {prober: http, http: {tls_config: {cert_file: x, key_file: y}}}}
modules: {a: {prober: http, http: {tls_config: {min_version: TLS13}}}}
modules: {a: {prober: http, http: {tls_config: {min_version: '1.3'}}}}
modules: {a: {prober: http, http: {tls_config: {max_version: TLS12}}}}
modules: {a: {prober: http, http: {tls_config: {min_version: tls12}}}}
modules: {a: {prober: http, http: {body: x, body_file: y}}}
modules: {a: {prober: http, http: {body_file: y}}} # an option of later versions
modules: {a: {prober: http, http: {body: {a: b}}}}
modules: {a: {prober: http, http: {body: 5}}}
modules: {a: {prober: http, http: {enable_http3: true}}}
modules: {a: {prober: tcp, tcp: {source_ip_address: here}}}
modules: {a: {prober: tcp, tcp: {source_ip_address: ''}}}
modules: {a: {prober: tcp, tcp: {preferred_ip_protocol: x}}}
modules: {a: {prober: tcp, tcp: {query_response: {expect: x}}}}
modules: {a: {prober: tcp, tcp: {query_response: [{expect: '('}]}}}
modules: {a: {prober: tcp, tcp: {query_response: [{expect: x, labels: [{name: a, value: b}]}]}}} # an option of later versions
modules: {a: {prober: tcp, tcp: {query_response: [{expect_bytes: x}]}}} # an option of later versions
modules: {a: {prober: tcp, tcp: {query_response: [x]}}}
modules: {a: {prober: tcp, tcp: {query_response: [{}]}}}
modules: {a: {prober: tcp, tcp: {query_response: [{send: 5, starttls: 'true'}]}}}
modules: {a: {prober: tcp, tcp: {tls: true, tls_config: {min_version: TLS14}}}}
modules: {a: {prober: unix}}
modules: {a: {prober: dns}}
modules: {a: {prober: dns, dns: {}}}
modules: {a: {prober: http, dns: {}}}
modules: {a: {prober: http, dns: {query_type: A}}}
modules: {a: {prober: dns, dns: {query_name: ''}}}
modules: {a: {prober: dns, dns: {query_name: x, query_type: a}}}
modules: {a: {prober: dns, dns: {query_name: x, query_type: NOPE}}}
modules: {a: {prober: http, dns: {query_name: x, query_type: NOPE}}}
modules: {a: {prober: dns, dns: {query_name: x, query_type: HTTPS}}}
modules: {a: {prober: dns, dns: {query_name: x, query_type: TYPE65}}}
modules: {a: {prober: dns, dns: {query_name: x, query_class: in}}}
modules: {a: {prober: dns, dns: {query_name: x, query_class: CS}}}
modules: {a: {prober: dns, dns: {query_name: x, dns_over_tls: true}}}
modules: {a: {prober: dns, dns: {query_name: x, dns_over_tls: true, transport_protocol: udp}}}
modules: {a: {prober: dns, dns: {query_name: x, transport_protocol: quic}}}
modules: {a: {prober: dns, dns: {query_name: x, transport_protocol: TCP}}}
modules: {a: {prober: dns, dns: {query_name: x, valid_rcodes: [NOPE]}}}
modules: {a: {prober: dns, dns: {query_name: x, valid_rcodes: NOERROR}}}
modules: {a: {prober: dns, dns: {query_name: x, source_ip_address: here}}}
modules: {a: {prober: dns, dns: {query_name: x, validate_answer_rrs: {fail_if_matches_regexp: ['(']}}}}
modules: {a: {prober: dns, dns: {query_name: x, validate_answer_rrs: {fail_if_match_regexp: [x]}}}}
modules: {a: {prober: dns, dns: {query_name: x, validate_answer_rrs: [x]}}}
modules: {a: {prober: dns, dns: {query_name: 5}}}
modules: {a: {prober: icmp, icmp: {ttl: 256}}}
modules: {a: {prober: icmp, icmp: {ttl: -1}}}
modules: {a: {prober: icmp, icmp: {payload_size: -1}}}
modules: {a: {prober: icmp, icmp: {payload_size: 70000}}}
modules: {a: {prober: icmp, icmp: {payload_size: 1KB}}}
modules: {a: {prober: icmp, icmp: {source_ip_address: x}}}
modules: {a: {prober: icmp, icmp: {preferred_ip_protocol: x}}}
modules: {a: {prober: icmp, icmp: {dont_fragment: 1}}}
modules: {a: {prober: grpc, grpc: {preferred_ip_protocol: x}}}
modules: {a: {prober: grpc, grpc: {service: 5}}}
modules: {a: {prober: grpc, grpc: {metadata: {a: b}}}} # an option of later versions
modules: {a: {prober: grpc, grpc: {metadata: {a: [b]}}}}
modules: {a: {prober: http, http: &h {method: POST}}, b: {prober: http, http: *h}}
modules: {a: &a {prober: http}, b: {<<: *a, timeout: 1s}}
modules: {1: {prober: http}}
modules: [a]
modules: [
x-note: {}
`

func TestDebiansExporterTakesTheSameFiles(t *testing.T) {
	w := newWorld(t)
	w.configure(t)
	both := startBoth(t, w)
	reload := func(base string) (int, string) {
		resp, err := http.Post(base+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, strings.TrimSpace(string(text))
	}
	for line := range strings.SplitSeq(strings.Trim(files, "\n"), "\n") {
		line, reason, _ := strings.Cut(line, " # ")
		if err := os.WriteFile(w.path("modules.yml"), []byte(line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		their, said := reload(both.theirs)
		our, says := reload(both.ours)
		if their != our && reason == "" {
			t.Errorf("%s\n\t%d %s\n\tours: %d %s", line, their, said, our, says)
		}
		if their == our && reason != "" {
			t.Errorf("%s\n\tboth say %d; there is nothing to explain", line, our)
		}
	}
}
