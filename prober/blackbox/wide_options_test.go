package blackbox_test

// option is a part of a module's options, which may stand beside others that set nothing of the same name.
type option struct{ name, text string }

// httpOptions are options of prober http, in the flow style of YAML.
var httpOptions = []option{
	{"post", "method: POST"}, {"head", "method: HEAD"}, {"put", "method: PUT"}, {"options", "method: OPTIONS"}, {"connect", "method: CONNECT"}, {"lower", "method: get"}, {"oddmethod", "method: 'A B'"}, {"own", "method: PURGE"},
	{"codes200", "valid_status_codes: [200]"}, {"codes3xx", "valid_status_codes: [301, 302, 303, 304, 307, 308]"}, {"codes4xx", "valid_status_codes: [401, 404, 407]"}, {"nocodes", "valid_status_codes: []"}, {"codes0", "valid_status_codes: [0]"},
	{"v1", "valid_http_versions: [HTTP/1.0]"}, {"v11", "valid_http_versions: [HTTP/1.1]"}, {"v2", "valid_http_versions: [HTTP/2.0]"}, {"v12", "valid_http_versions: ['HTTP/1.1', 'HTTP/2.0']"}, {"vodd", "valid_http_versions: ['1.1', http/1.1]"}, {"nov", "valid_http_versions: []"},
	{"ssl", "fail_if_ssl: true"}, {"notssl", "fail_if_not_ssl: true"}, {"bothssl", "fail_if_ssl: true, fail_if_not_ssl: true"},
	{"ip4", "preferred_ip_protocol: ip4"}, {"ip6", "preferred_ip_protocol: ip6"}, {"ip4only", "preferred_ip_protocol: ip4, ip_protocol_fallback: false"}, {"ip6only", "preferred_ip_protocol: ip6, ip_protocol_fallback: false"}, {"defaultonly", "ip_protocol_fallback: false"},
	{"stay", "follow_redirects: false"}, {"stayold", "no_follow_redirects: true"}, {"goold", "no_follow_redirects: false"}, {"staygo", "follow_redirects: false, no_follow_redirects: false"}, {"gostay", "follow_redirects: true, no_follow_redirects: true"},
	{"host", "headers: {Host: virtual.example}"}, {"hostlower", "headers: {host: virtual.example}"}, {"hostgood", "headers: {Host: good.example}"}, {"hostport", "headers: {Host: 'good.example:8080'}"}, {"hostempty", "headers: {Host: ''}"},
	{"headers", "headers: {X-Test: 'yes', Accept-Language: en-US, Origin: example.com}"}, {"headerlower", "headers: {x-test: 'yes'}"}, {"headercookie", "headers: {Cookie: a=b}"}, {"headerauth", "headers: {Authorization: Bearer token}"},
	{"headerconn", "headers: {Connection: close}"}, {"headerkeep", "headers: {Connection: keep-alive}"}, {"headerlength", "headers: {Content-Length: '3'}"}, {"headerte", "headers: {Transfer-Encoding: chunked}"}, {"headerrange", "headers: {Range: bytes=0-3}"},
	{"headerexpect", "headers: {Expect: 100-continue}"}, {"headerodd", "headers: {'X Odd': x}"}, {"headernewline", "headers: {X-Line: \"a\\nb\"}"}, {"headeragent", "headers: {User-Agent: ''}"}, {"headerutf", "headers: {X-Name: Müller}"},
	{"hello", "fail_if_body_not_matches_regexp: [hello]"}, {"nothello", "fail_if_body_matches_regexp: [hello]"}, {"start", "fail_if_body_not_matches_regexp: ['^hello', 'world$']"}, {"lines", "fail_if_body_not_matches_regexp: ['(?m)world$']"},
	{"dot", "fail_if_body_matches_regexp: ['o.w', 'zzz']"}, {"dotall", "fail_if_body_not_matches_regexp: ['(?s)hello.*d']"}, {"emptyre", "fail_if_body_not_matches_regexp: ['']"}, {"emptyfail", "fail_if_body_matches_regexp: ['']"},
	{"bothre", "fail_if_body_not_matches_regexp: [hello], fail_if_body_matches_regexp: [error]"}, {"nore", "fail_if_body_not_matches_regexp: []"}, {"byteclass", "fail_if_body_not_matches_regexp: ['\\x00']"}, {"emptybody", "fail_if_body_not_matches_regexp: ['^$']"},
	{"type", "fail_if_header_not_matches: [{header: Content-Type, regexp: '^text/plain'}]"}, {"nottype", "fail_if_header_matches: [{header: content-type, regexp: json}]"}, {"nocookie", "fail_if_header_matches: [{header: Set-Cookie, allow_missing: true, regexp: '.*'}]"},
	{"cookiemissing", "fail_if_header_matches: [{header: Set-Cookie, regexp: '.*'}]"}, {"kind", "fail_if_header_not_matches: [{header: X-Kind, regexp: '^(good|better)$'}]"}, {"kindtwo", "fail_if_header_matches: [{header: X-Kind, regexp: better, allow_missing: true}]"},
	{"maybe", "fail_if_header_not_matches: [{header: X-None, regexp: x, allow_missing: true}, {header: Date, regexp: GMT}]"}, {"length", "fail_if_header_not_matches: [{header: Content-Length, regexp: '^12$'}]"}, {"server", "fail_if_header_matches: [{header: Host, regexp: x}]"},
	{"body", "body: payload"}, {"bodypost", "method: POST, body: payload"}, {"bodylines", "method: POST, body: \"pay\\nload\""}, {"bodyempty", "method: POST, body: ''"},
	{"gzip", "compression: gzip"}, {"gzipaccept", "compression: gzip, headers: {Accept-Encoding: 'br;q=1.0, gzip;q=0.9'}"}, {"br", "compression: br"}, {"deflate", "compression: deflate"}, {"identity", "compression: identity"}, {"GZIP", "compression: GZIP"}, {"nocompression", "compression: ''"},
	{"accept", "headers: {Accept-Encoding: gzip}"}, {"acceptany", "compression: br, headers: {accept-encoding: '*'}"},
	{"limit1", "body_size_limit: 1B"}, {"limit12", "body_size_limit: 12B"}, {"limit11", "body_size_limit: 11B"}, {"limit1KB", "body_size_limit: 1KB"}, {"limit1KiB", "body_size_limit: 1KiB"}, {"limit1MB", "body_size_limit: 1MB"}, {"limit0", "body_size_limit: 0"}, {"limit1.5KB", "body_size_limit: 1.5KB"}, {"limit1GB", "body_size_limit: 1GB"},
	{"basic", "basic_auth: {username: user, password: pass}"}, {"basicfile", "basic_auth: {username: user, password_file: DIR/pass}"}, {"basicmissing", "basic_auth: {username: user, password_file: DIR/none}"}, {"basicname", "basic_auth: {username: user}"}, {"basicwrong", "basic_auth: {username: user, password: x}"},
	{"bearer", "bearer_token: token"}, {"bearerfile", "bearer_token_file: DIR/token"}, {"bearermissing", "bearer_token_file: DIR/none"}, {"authorization", "authorization: {credentials: token}"}, {"authorizationtype", "authorization: {type: Token, credentials: token}"}, {"authorizationfile", "authorization: {type: bearer, credentials_file: DIR/token}"},
	{"oauth", "oauth2: {client_id: me, client_secret: secret, token_url: 'http://HTTP/oauth'}"}, {"oauthfile", "oauth2: {client_id: me, client_secret_file: DIR/secret, scopes: [a, b], endpoint_params: {audience: shop}, token_url: 'http://HTTP/oauth'}"},
	{"oauthwrong", "oauth2: {client_id: me, client_secret: wrong, token_url: 'http://HTTP/oauth'}"}, {"oauthdead", "oauth2: {client_id: me, client_secret: secret, token_url: 'http://127.0.0.1:1/oauth'}"}, {"oauthtls", "oauth2: {client_id: me, client_secret: secret, token_url: 'https://HTTPS/oauth', tls_config: {ca_file: DIR/ca.pem}}"},
	{"proxy", "proxy_url: 'http://PROXY'"}, {"proxyskip", "proxy_url: 'http://PROXY', skip_resolve_phase_with_proxy: true"}, {"proxyuser", "proxy_url: 'http://user:pass@PROXY'"}, {"proxydead", "proxy_url: 'http://127.0.0.1:1'"}, {"proxy407", "proxy_url: 'http://PROXY407'"}, {"noproxyskip", "skip_resolve_phase_with_proxy: true"},
	{"proxytls", "proxy_url: 'https://HTTPS'"}, {"proxysocks", "proxy_url: 'socks5://SSH'"}, {"proxyname", "proxy_url: 'http://no-such-host.invalid:3128'"}, {"proxyempty", "proxy_url: ''"},
	{"no2", "enable_http2: false"}, {"h2", "enable_http2: true"},
	{"insecure", "tls_config: {insecure_skip_verify: true}"}, {"ca", "tls_config: {ca_file: DIR/ca.pem}"}, {"name", "tls_config: {ca_file: DIR/ca.pem, server_name: good.example}"}, {"nameother", "tls_config: {ca_file: DIR/ca.pem, server_name: bad.example}"},
	{"nameip", "tls_config: {ca_file: DIR/ca.pem, server_name: 127.0.0.1}"}, {"min13", "tls_config: {ca_file: DIR/ca.pem, min_version: TLS13}"}, {"min10", "tls_config: {ca_file: DIR/ca.pem, min_version: TLS10}"}, {"min11", "tls_config: {insecure_skip_verify: true, min_version: TLS11}"},
	{"client", "tls_config: {ca_file: DIR/ca.pem, cert_file: DIR/client.pem, key_file: DIR/client.key}"}, {"clientother", "tls_config: {ca_file: DIR/ca.pem, cert_file: DIR/selfsigned.pem, key_file: DIR/selfsigned.key}"}, {"clientmissing", "tls_config: {ca_file: DIR/ca.pem, cert_file: DIR/none, key_file: DIR/none}"},
	{"clientmixed", "tls_config: {ca_file: DIR/ca.pem, cert_file: DIR/client.pem, key_file: DIR/good.key}"}, {"cagarbage", "tls_config: {ca_file: DIR/token}"}, {"caself", "tls_config: {ca_file: DIR/selfsigned.pem}"}, {"caexpired", "tls_config: {ca_file: DIR/expired.pem}"}, {"insecurename", "tls_config: {insecure_skip_verify: true, server_name: other.example}"},
}

// tcpOptions are options of prober tcp.
var tcpOptions = []option{
	{"ip4", "preferred_ip_protocol: ip4"}, {"ip6", "preferred_ip_protocol: ip6"}, {"ip4only", "preferred_ip_protocol: ip4, ip_protocol_fallback: false"}, {"ip6only", "ip_protocol_fallback: false"},
	{"source", "source_ip_address: 127.0.0.1"}, {"source2", "source_ip_address: 127.0.0.2"}, {"source6", "source_ip_address: '::1'"}, {"sourceother", "source_ip_address: 192.0.2.7"},
	{"ssh", "query_response: [{expect: '^SSH-2.0-'}]"}, {"sshgroup", "query_response: [{expect: '^SSH-(2.0)-(.*)$', send: 'SSH-${1}-${2}'}]"}, {"sshnamed", "query_response: [{expect: '^SSH-(?P<v>.*)$', send: 'got ${v} $none $$'}]"}, {"any", "query_response: [{expect: '.'}]"}, {"dotstar", "query_response: [{expect: '.*'}]"},
	{"empty", "query_response: []"}, {"emptystep", "query_response: [{}]"}, {"emptyexpect", "query_response: [{expect: ''}]"}, {"emptysend", "query_response: [{send: ''}, {expect: SSH}]"}, {"sendonly", "query_response: [{send: hello}]"}, {"sendtwo", "query_response: [{send: hello}, {send: again}, {send: bye}]"},
	{"eol", "query_response: [{expect: 'Debian-2$'}]"}, {"cr", "query_response: [{expect: \"\\\\r$\"}]"}, {"third", "query_response: [{expect: third}]"}, {"secondthenfirst", "query_response: [{expect: second}, {expect: first}]"}, {"same", "query_response: [{expect: first}, {expect: first}]"},
	{"irc", "query_response: [{send: NICK prober}, {send: 'USER prober prober prober :prober'}, {expect: 'PING :([^ ]+)', send: 'PONG ${1}'}, {expect: '^:[^ ]+ 001'}]"},
	{"smtp", "query_response: [{expect: '^220 ([^ ]+) ESMTP', send: \"EHLO prober\\r\"}, {expect: '^250-STARTTLS', send: \"STARTTLS\\r\"}, {expect: '^220'}, {starttls: true}, {send: \"EHLO prober\\r\"}, {expect: '^250 HELP'}, {send: \"QUIT\\r\"}]"},
	{"smtpclose", "query_response: [{expect: '^220', send: QUIT}, {expect: '^221'}, {expect: never}]"}, {"starttlsonly", "query_response: [{starttls: true}]"}, {"starttlssend", "query_response: [{expect: '^220', send: STARTTLS}, {expect: '^220', starttls: true}, {send: 'EHLO x'}, {expect: '^250'}]"},
	{"http", "query_response: [{send: \"GET /ok HTTP/1.0\\r\\n\\r\"}, {expect: '^HTTP/1.. 200'}, {expect: hello}]"}, {"httpbad", "query_response: [{send: \"nonsense\\r\\n\\r\"}, {expect: '400 Bad'}]"},
	{"tls", "tls: true"}, {"notls", "tls: false"}, {"ca", "tls_config: {ca_file: DIR/ca.pem}"}, {"insecure", "tls_config: {insecure_skip_verify: true}"}, {"name", "tls_config: {ca_file: DIR/ca.pem, server_name: good.example}"}, {"nameother", "tls_config: {ca_file: DIR/ca.pem, server_name: bad.example}"},
	{"min13", "tls_config: {ca_file: DIR/ca.pem, min_version: TLS13}"}, {"min10", "tls_config: {ca_file: DIR/ca.pem, min_version: TLS10}"}, {"client", "tls_config: {ca_file: DIR/ca.pem, cert_file: DIR/client.pem, key_file: DIR/client.key}"}, {"missing", "tls_config: {ca_file: DIR/none}"}, {"cagarbage", "tls_config: {ca_file: DIR/token}"},
}

// dnsOptions are options of prober dns, to which query_name is added.
var dnsOptions = []option{
	{"a", "query_type: A"}, {"aaaa", "query_type: AAAA"}, {"any", "query_type: ANY"}, {"soa", "query_type: SOA"}, {"ns", "query_type: NS"}, {"mx", "query_type: MX"}, {"txt", "query_type: TXT"}, {"srv", "query_type: SRV"}, {"ptr", "query_type: PTR"}, {"axfr", "query_type: AXFR"}, {"opt", "query_type: OPT"}, {"caa", "query_type: CAA"},
	{"in", "query_class: IN"}, {"ch", "query_class: CH"}, {"hs", "query_class: HS"}, {"classany", "query_class: ANY"}, {"none", "query_class: NONE"},
	{"tcp", "transport_protocol: tcp"}, {"udp", "transport_protocol: udp"}, {"tls", "transport_protocol: tcp, dns_over_tls: true"}, {"iterative", "recursion_desired: false"}, {"recursive", "recursion_desired: true"},
	{"ip4", "preferred_ip_protocol: ip4"}, {"ip4only", "preferred_ip_protocol: ip4, ip_protocol_fallback: false"}, {"ip6only", "ip_protocol_fallback: false"}, {"source", "source_ip_address: 127.0.0.1"}, {"source6", "source_ip_address: '::1'"}, {"sourceother", "source_ip_address: 192.0.2.7"},
	{"rcodes", "valid_rcodes: [NOERROR]"}, {"norcodes", "valid_rcodes: []"}, {"nx", "valid_rcodes: [NXDOMAIN]"}, {"bad", "valid_rcodes: [SERVFAIL, REFUSED, FORMERR, NOTIMP]"}, {"badvers", "valid_rcodes: [BADVERS, BADSIG]"},
	{"answermatch", "validate_answer_rrs: {fail_if_matches_regexp: ['192\\.0\\.2\\.1$']}"}, {"answernot", "validate_answer_rrs: {fail_if_not_matches_regexp: ['192\\.0\\.2\\.']}"}, {"answerall", "validate_answer_rrs: {fail_if_all_match_regexp: ['\\tIN\\tA\\t']}"}, {"answernone", "validate_answer_rrs: {fail_if_none_matches_regexp: ['2\\.3$']}"},
	{"answerfull", "validate_answer_rrs: {fail_if_not_matches_regexp: [\"^many\\\\.example\\\\.\\t300\\tIN\\tA\\t192.0.2.[12]$\"]}"}, {"answermix", "validate_answer_rrs: {fail_if_matches_regexp: ['10\\.'], fail_if_all_match_regexp: ['2\\.1$'], fail_if_not_matches_regexp: [IN], fail_if_none_matches_regexp: ['2\\.1']}"},
	{"answerallboth", "validate_answer_rrs: {fail_if_all_match_regexp: ['192', 'zzz']}"}, {"answernoneboth", "validate_answer_rrs: {fail_if_none_matches_regexp: ['zzz', '2\\.2']}"}, {"authoritynot", "validate_authority_rrs: {fail_if_not_matches_regexp: ['\\tNS\\t']}"}, {"authorityall", "validate_authority_rrs: {fail_if_all_match_regexp: [NS]}"},
	{"authoritymatch", "validate_authority_rrs: {fail_if_matches_regexp: [ns2]}"}, {"authoritynone", "validate_authority_rrs: {fail_if_none_matches_regexp: [SOA]}"}, {"additionalmatch", "validate_additional_rrs: {fail_if_matches_regexp: ['192\\.0\\.2\\.53']}"}, {"additionalnot", "validate_additional_rrs: {fail_if_not_matches_regexp: ['\\tA\\t']}"},
	{"additionalall", "validate_additional_rrs: {fail_if_all_match_regexp: [A]}"}, {"additionalnone", "validate_additional_rrs: {fail_if_none_matches_regexp: [AAAA]}"}, {"emptyvalidation", "validate_answer_rrs: {}"},
	{"ca", "tls_config: {ca_file: DIR/ca.pem}"}, {"insecure", "tls_config: {insecure_skip_verify: true}"}, {"name", "tls_config: {ca_file: DIR/ca.pem, server_name: bad.example}"}, {"min13", "tls_config: {ca_file: DIR/ca.pem, min_version: TLS13}"},
}

// grpcOptions are options of prober grpc.
var grpcOptions = []option{
	{"serving", "service: serving"}, {"down", "service: down"}, {"unknown", "service: unknown"}, {"odd", "service: odd"}, {"nobody", "service: nobody"}, {"nameless", "service: ''"}, {"slashes", "service: 'a/b c.Ü'"},
	{"ip4", "preferred_ip_protocol: ip4"}, {"ip6", "preferred_ip_protocol: ip6"}, {"ip4only", "preferred_ip_protocol: ip4, ip_protocol_fallback: false"}, {"ip6only", "ip_protocol_fallback: false"}, {"tls", "tls: true"}, {"notls", "tls: false"},
	{"ca", "tls_config: {ca_file: DIR/ca.pem}"}, {"insecure", "tls_config: {insecure_skip_verify: true}"}, {"name", "tls_config: {ca_file: DIR/ca.pem, server_name: good.example}"}, {"nameother", "tls_config: {ca_file: DIR/ca.pem, server_name: bad.example}"}, {"min13", "tls_config: {ca_file: DIR/ca.pem, min_version: TLS13}"},
	{"client", "tls_config: {ca_file: DIR/ca.pem, cert_file: DIR/client.pem, key_file: DIR/client.key}"}, {"missing", "tls_config: {ca_file: DIR/none}"},
}

// icmpOptions are options of prober icmp.
var icmpOptions = []option{
	{"ip4", "preferred_ip_protocol: ip4"}, {"ip6", "preferred_ip_protocol: ip6"}, {"ip4only", "preferred_ip_protocol: ip4, ip_protocol_fallback: false"}, {"ip6only", "ip_protocol_fallback: false"},
	{"source", "source_ip_address: 127.0.0.1"}, {"source2", "source_ip_address: 127.0.0.3"}, {"source6", "source_ip_address: '::1'"}, {"sourceother", "source_ip_address: 192.0.2.7"}, {"df", "dont_fragment: true"}, {"nodf", "dont_fragment: false"},
	{"size0", "payload_size: 0"}, {"size1", "payload_size: 1"}, {"size1472", "payload_size: 1472"}, {"size9000", "payload_size: 9000"}, {"size60000", "payload_size: 60000"}, {"size65000", "payload_size: 65000"}, {"ttl0", "ttl: 0"}, {"ttl1", "ttl: 1"}, {"ttl64", "ttl: 64"}, {"ttl255", "ttl: 255"},
}
