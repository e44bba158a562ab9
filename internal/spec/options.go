package spec

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/miekg/dns"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/probemesh/probemesh/internal/expect"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of the options of the kinds, as check.proto documents them.
const (
	MaxRequestBody  = 8 << 10
	MaxBodyLimit    = 10 << 20
	MaxRedirects    = 20
	MaxReadLimit    = 1 << 20
	MaxICMPCount    = 10
	MaxICMPPayload  = 65_000
	maxHeaders      = 64
	maxHeaderBytes  = 4 << 10
	maxMetadataSize = 8 << 10
)

// options checks that only the block of the check's own kind is set, and that block. target is nil when the scheme is not known.
func options(f *faults, c *meshv1.Check, target *Target) {
	blocks := []struct {
		kind Kind
		set  bool
		uris string
	}{
		{HTTP, c.Http != nil, "an http or https"},
		{TCP, c.Tcp != nil, "a tcp"},
		{TLS, c.Tls != nil, "a tls"},
		{DNS, c.Dns != nil, "a dns"},
		{ICMP, c.Icmp != nil, "an icmp"},
		{GRPC, c.Grpc != nil, "a grpc or grpcs"},
	}
	for _, b := range blocks {
		if b.set && target != nil && b.kind != target.Kind {
			f.add(string(b.kind), "is only for %s URI, and this one is %s; remove it, or move its fields to %s", b.uris, target.Scheme, target.Kind)
		}
	}
	if target == nil {
		target = &Target{}
	}
	httpOptions(f, c.Http, target)
	tcpOptions(f, c.Tcp, target)
	tlsOptions(f, c.Tls, target)
	dnsOptions(f, c.Dns, target)
	icmpOptions(f, c.Icmp, target)
	grpcOptions(f, c.Grpc, target)
}

func httpOptions(f *faults, h *meshv1.HttpProbe, t *Target) {
	if h == nil {
		return
	}
	if h.Method != "" && !validToken(h.Method) {
		f.add("http.method", "%q is not an HTTP method; write for example GET", clip(h.Method))
	}
	if h.Method == "CONNECT" {
		f.add("http.method", "CONNECT opens tunnels and cannot be probed; use another method, or a tcp check")
	}
	headers(f, "http.headers", h.Headers, maxHeaders)
	for _, k := range sortedKeys(h.Headers) {
		switch strings.ToLower(k) {
		case "content-length", "transfer-encoding", "connection", "upgrade", "trailer", "te":
			f.add(element("http.headers", k), "is set by the prober itself; remove it")
		case "authorization":
			if h.BasicAuth != nil || h.BearerToken != "" {
				f.add(element("http.headers", k), "is given besides basic_auth or bearer_token; keep one")
			}
		}
	}
	bounded(f, "http.body", len(h.Body), MaxRequestBody)
	if h.BasicAuth != nil && h.BearerToken != "" {
		f.add("http.bearer_token", "is given besides basic_auth; keep one")
	}
	if strings.Contains(h.BasicAuth.GetUsername(), ":") {
		f.add("http.basic_auth.username", "contains a colon, which basic authentication cannot carry (RFC 7617)")
	}
	if !httpguts.ValidHeaderFieldValue(h.BearerToken) {
		f.add("http.bearer_token", "contains control characters; remove them (often a line end)")
	}
	between(f, "http.max_redirects", int64(h.MaxRedirects), 1, MaxRedirects)
	family(f, "http.ip_family", h.IpFamily, t)
	enum(f, "http.version", h.Version)
	tlsConfig(f, "http.tls", h.Tls)
	proxy(f, h.ProxyUrl)
	if h.BodyLimit < 0 || h.BodyLimit > MaxBodyLimit {
		f.add("http.body_limit", "%d is not 0 to %d bytes", h.BodyLimit, MaxBodyLimit)
	}
	expectations(f, "http.expect", h.Expect)
}

func tcpOptions(f *faults, o *meshv1.TcpProbe, t *Target) {
	if o == nil {
		return
	}
	bounded(f, "tcp.send", len(o.Send), MaxRequestBody)
	between(f, "tcp.read_limit", o.ReadLimit, 1, MaxReadLimit)
	family(f, "tcp.ip_family", o.IpFamily, t)
	expectations(f, "tcp.expect", o.Expect)
}

func tlsOptions(f *faults, o *meshv1.TlsProbe, t *Target) {
	if o == nil {
		return
	}
	tlsConfig(f, "tls.tls", o.Tls)
	family(f, "tls.ip_family", o.IpFamily, t)
	expectations(f, "tls.expect", o.Expect)
}

func dnsOptions(f *faults, o *meshv1.DnsProbe, t *Target) {
	if o == nil {
		return
	}
	enum(f, "dns.transport", o.Transport)
	family(f, "dns.ip_family", o.IpFamily, t)
	for i, r := range o.Rcodes {
		if _, ok := dns.StringToRcode[r]; !ok {
			f.add(fmt.Sprintf("dns.rcodes[%d]", i), "%q is not a response code; write for example NOERROR, NXDOMAIN, SERVFAIL or REFUSED", clip(r))
		}
	}
	count(f, "dns.rcodes", len(o.Rcodes), 16)
	expectations(f, "dns.expect", o.Expect)
}

func icmpOptions(f *faults, o *meshv1.IcmpProbe, t *Target) {
	if o == nil {
		return
	}
	between(f, "icmp.count", int64(o.Count), 1, MaxICMPCount)
	if o.PayloadSize != nil && (*o.PayloadSize < 0 || *o.PayloadSize > MaxICMPPayload) {
		f.add("icmp.payload_size", "%d is not 0 to %d bytes", *o.PayloadSize, MaxICMPPayload)
	}
	family(f, "icmp.ip_family", o.IpFamily, t)
	expectations(f, "icmp.expect", o.Expect)
}

func grpcOptions(f *faults, o *meshv1.GrpcProbe, t *Target) {
	if o == nil {
		return
	}
	if o.Tls != nil && t.Kind == GRPC && !t.Secure {
		f.add("grpc.tls", "is only for a grpcs URI; remove it, or write grpcs:// instead of grpc://")
	}
	tlsConfig(f, "grpc.tls", o.Tls)
	metadata(f, o.Metadata)
	family(f, "grpc.ip_family", o.IpFamily, t)
	if o.Authority != "" && (!httpguts.ValidHostHeader(o.Authority) || strings.ContainsAny(o.Authority, "/ @")) {
		f.add("grpc.authority", "%q is not a host with an optional port", clip(o.Authority))
	}
	expectations(f, "grpc.expect", o.Expect)
}

// headers checks the names and values of HTTP headers.
func headers(f *faults, field string, m map[string]string, most int) {
	count(f, field, len(m), most)
	seen := make(map[string]string)
	for _, k := range sortedKeys(m) {
		at := element(field, k)
		if !httpguts.ValidHeaderFieldName(k) {
			f.add(at, "the name is not an HTTP header name; write letters, digits and -")
		}
		if !httpguts.ValidHeaderFieldValue(m[k]) {
			f.add(at, "the value contains control characters; remove them (often a line end)")
		}
		bounded(f, at, len(m[k]), maxHeaderBytes)
		if other, ok := seen[strings.ToLower(k)]; ok {
			f.add(at, "is the same header as %q; keep one", other)
		}
		seen[strings.ToLower(k)] = k
		if strings.EqualFold(k, "host") && (!httpguts.ValidHostHeader(m[k]) || m[k] == "") {
			f.add(at, "%q is not a host with an optional port", clip(m[k]))
		}
	}
}

// metadata checks the keys and values of gRPC metadata.
func metadata(f *faults, m map[string]string) {
	count(f, "grpc.metadata", len(m), maxHeaders)
	size := 0
	for _, k := range sortedKeys(m) {
		at := element("grpc.metadata", k)
		size += len(k) + len(m[k])
		switch {
		case k == "" || strings.Trim(k, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "":
			f.add(at, "the key is not a metadata key; write lower-case letters, digits, -, _ and .")
		case strings.HasPrefix(k, "grpc-"):
			f.add(at, "keys that begin with grpc- belong to gRPC itself; use another")
		case k == "content-type" || k == "te" || k == "user-agent":
			f.add(at, "is set by the prober itself; remove it")
		}
		if !strings.HasSuffix(k, "-bin") && strings.IndexFunc(m[k], func(r rune) bool { return r < 0x20 || r > 0x7e }) >= 0 {
			f.add(at, "the value is not printable ASCII; use a key that ends with -bin for other bytes")
		}
	}
	bounded(f, "grpc.metadata", size, maxMetadataSize)
}

// tlsConfig checks what can be checked of TLS options without a handshake.
func tlsConfig(f *faults, field string, t *meshv1.TlsConfig) {
	if t == nil {
		return
	}
	if t.ServerName != "" {
		if problem := hostProblem(t.ServerName); problem != "" {
			f.add(field+".server_name", "%s", problem)
		}
	}
	caPEM(f, field+".ca_pem", t.CaPem)
	switch {
	case t.ClientCertificatePem == "" && t.ClientKeyPem != "":
		f.add(field+".client_key_pem", "is given without client_certificate_pem; add that, or remove this")
	case t.ClientCertificatePem != "" && t.ClientKeyPem == "":
		f.add(field+".client_certificate_pem", "is given without client_key_pem; add that, or remove this")
	case t.ClientCertificatePem != "":
		if _, err := tls.X509KeyPair([]byte(t.ClientCertificatePem), []byte(t.ClientKeyPem)); err != nil {
			f.add(field+".client_certificate_pem", "does not go with client_key_pem: %s", strings.TrimPrefix(err.Error(), "tls: "))
		}
	}
	if _, ok := TLSVersion(t.MinVersion); !ok && t.MinVersion != "" {
		f.add(field+".min_version", "%q is not a version of TLS; write 1.0, 1.1, 1.2 or 1.3", clip(t.MinVersion))
	}
}

// TLSVersion is the number of a TLS version given as text: "1.2" is tls.VersionTLS12.
func TLSVersion(s string) (uint16, bool) {
	switch s {
	case "1.0":
		return tls.VersionTLS10, true
	case "1.1":
		return tls.VersionTLS11, true
	case "1.2":
		return tls.VersionTLS12, true
	case "1.3":
		return tls.VersionTLS13, true
	}
	return 0, false
}

// caPEM checks a list of certificates in PEM; the empty text is fine.
func caPEM(f *faults, field, text string) {
	if text == "" {
		return
	}
	if _, err := CertPool(text); err != nil {
		f.add(field, "%s", err)
	}
}

// CertPool is the pool of the certificates in a PEM text. Unlike x509's own reading it refuses a text in which any block is no certificate.
func CertPool(text string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	rest, n := []byte(text), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		n++
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a block of type %q; give certificates only", clip(block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be parsed: %s", n, strings.TrimPrefix(err.Error(), "x509: "))
		}
		pool.AddCert(cert)
	}
	if n == 0 {
		return nil, errors.New("holds no PEM certificate; it begins with -----BEGIN CERTIFICATE-----")
	}
	return pool, nil
}

// proxy checks the URL of a proxy.
func proxy(f *faults, text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		f.add("http.proxy_url", "cannot be parsed (%s); write it as http://host:port", urlProblem(err))
	case u.Scheme != "http" || u.Hostname() == "" || u.Port() == "":
		f.add("http.proxy_url", "%q is not the URL of an HTTP proxy; write it as http://host:port", clip(text))
	case u.User != nil:
		f.add("http.proxy_url", "has user information, which is refused; set the header Proxy-Authorization")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		f.add("http.proxy_url", "has more than a host and a port; write it as http://host:port")
	}
}

// expectations checks the number and length of expressions, and compiles them.
func expectations(f *faults, field string, exprs []string) {
	count(f, field, len(exprs), maxExpectations)
	if len(exprs) > maxExpectations {
		exprs = exprs[:maxExpectations]
	}
	short := true
	for i, e := range exprs {
		if n := utf8.RuneCountInString(e); n > maxExpectationRunes {
			f.add(fmt.Sprintf("%s[%d]", field, i), "has %d characters, which is more than %d; split it, since all expectations must hold anyway", n, maxExpectationRunes)
			short = false
		}
	}
	if !short {
		return
	}
	_, err := expect.Compile(exprs)
	var all expect.Errors
	switch {
	case errors.As(err, &all):
		for _, e := range all {
			f.add(fmt.Sprintf("%s[%d]", field, e.Index), "%s", e.Error())
		}
	case err != nil:
		f.add(field, "%s", err)
	}
}

// family checks the choice of an IP family, also against an address in the URI.
func family(f *faults, field string, p meshv1.IpFamily_Preference, t *Target) {
	enum(f, field, p)
	addr, ok := t.Addr()
	if !ok {
		return
	}
	v4 := addr.Is4() || addr.Is4In6()
	if p == meshv1.IpFamily_IPV4 && !v4 || p == meshv1.IpFamily_IPV6 && v4 {
		f.add(field, "%s does not go with the address %s in the URI; remove it", p, t.Host)
	}
}

// enum refuses numbers that the enum has no name for.
func enum(f *faults, field string, e protoreflect.Enum) {
	values := e.Descriptor().Values()
	if values.ByNumber(e.Number()) != nil {
		return
	}
	names := make([]string, 0, values.Len())
	for i := range values.Len() {
		names = append(names, string(values.Get(i).Name()))
	}
	f.add(field, "%d is not known; write one of %s", e.Number(), strings.Join(names, ", "))
}

// between checks a number for which 0 means unset.
func between(f *faults, field string, n, least, most int64) {
	if n != 0 && (n < least || n > most) {
		f.add(field, "%d is not %d to %d", n, least, most)
	}
}

func bounded(f *faults, field string, n, most int) {
	if n > most {
		f.add(field, "has %d bytes, which is more than %d; shorten it", n, most)
	}
}

func validToken(s string) bool {
	for _, r := range s {
		if !httpguts.IsTokenRune(r) {
			return false
		}
	}
	return s != ""
}
