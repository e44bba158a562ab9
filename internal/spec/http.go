package spec

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func httpOptions(f *faults, h *meshv1.HttpProbe, t *Target) {
	if h == nil {
		return
	}
	method(f, "http.method", h.Method)
	requestHeaders(f, h)
	requestBody(f, "http", h)
	if h.BodyFile != "" {
		f.add("http.body_file", "is for files that are given to `probemesh apply`, which puts the content into body; send body or body_bytes")
	}
	credentials(f, h)
	between(f, "http.max_redirects", int64(h.MaxRedirects), 1, MaxRedirects)
	family(f, "http.ip_family", h.IpFamily, t)
	enum(f, "http.compression", h.Compression)
	requestCompression(f, h)
	tlsConfig(f, "http.tls", h.Tls)
	proxy(f, h.ProxyUrl)
	if h.BodyLimit < 0 || h.BodyLimit > MaxBodyLimit {
		f.add("http.body_limit", "%d is not 0 to %d bytes", h.BodyLimit, MaxBodyLimit)
	}
	versions(f, h, t)
	connection(f, h)
	see := httpSees(h, t)
	expectations(f, "http.expect", h.Expect, see)
	httpSteps(f, h, see)
}

// method checks a request method; empty is fine. A well-known one in lower case is a slip: methods are case-sensitive (RFC 9110), and servers answer 501 or 405, which reads as an outage.
func method(f *faults, field, m string) {
	if m != "" && !validToken(m) {
		f.add(field, "%q is not an HTTP method; write for example GET", clip(m))
	}
	if up := strings.ToUpper(m); up != m && slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}, up) {
		f.add(field, "%q is sent as it is written, and servers do not know it in lower case; write %s", m, up)
	}
	if m == "CONNECT" {
		f.add(field, "CONNECT opens tunnels and cannot be probed; use another method, or a tcp check")
	}
}

// requestHeaders checks both ways of giving headers, and them against each other.
func requestHeaders(f *faults, h *meshv1.HttpProbe) {
	headers(f, "http.headers", h.Headers, maxHeaders)
	for _, k := range sortedKeys(h.Headers) {
		reservedHeader(f, element("http.headers", k), k, h)
	}
	if len(h.Headers)+len(h.HeaderLines) > maxHeaders && len(h.Headers) <= maxHeaders {
		f.add("http.header_lines", "has %d entries, which together with headers is more than %d; remove some", len(h.HeaderLines), maxHeaders)
	}
	headerLines(f, "http.header_lines", h.HeaderLines, func(at, name string) {
		reservedHeader(f, at, name, h)
		if strings.EqualFold(name, "host") {
			f.add(at, "sets the virtual host, of which there is one: write it under headers")
		}
	})
}

// headerLines checks headers of which a name may occur several times, and each further with also.
func headerLines(f *faults, field string, lines []*meshv1.HttpHeader, also func(at, name string)) {
	for i, l := range lines {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !httpguts.ValidHeaderFieldName(l.GetName()) {
			f.add(at+".name", "%q is not an HTTP header name; write letters, digits and -", clip(l.GetName()))
		}
		if !httpguts.ValidHeaderFieldValue(l.GetValue()) {
			f.add(at+".value", "contains control characters; remove them (often a line end)")
		}
		bounded(f, at+".value", len(l.GetValue()), maxHeaderBytes)
		if also != nil {
			also(at, l.GetName())
		}
	}
}

// reservedHeader refuses headers that other options decide.
func reservedHeader(f *faults, at, name string, h *meshv1.HttpProbe) {
	switch strings.ToLower(name) {
	case "content-length", "transfer-encoding", "connection", "upgrade", "trailer", "te":
		f.add(at, "is set by the prober itself; remove it")
	case "authorization":
		if kinds := credentialKinds(h); len(kinds) > 0 {
			f.add(at, "is given besides %s; keep one", kinds[0])
		}
	case "content-encoding":
		if h.RequestCompression > meshv1.HttpProbe_IDENTITY {
			f.add(at, "is set by request_compression; remove one of them")
		}
	}
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

// versions checks which versions of HTTP are spoken and accepted, and what does not go with HTTP/3.
func versions(f *faults, h *meshv1.HttpProbe, t *Target) {
	enum(f, "http.version", h.Version)
	known := []string{"1.0", "1.1", "2", "3"}
	for i, v := range h.AcceptedVersions {
		if !slices.Contains(known, v) {
			f.add(fmt.Sprintf("http.accepted_versions[%d]", i), "%q is not a version of HTTP; write one of %s", clip(v), strings.Join(known, ", "))
		}
	}
	only := map[meshv1.HttpProbe_Version]string{meshv1.HttpProbe_HTTP2: "2", meshv1.HttpProbe_HTTP3: "3"}[h.Version]
	if only != "" && len(h.AcceptedVersions) > 0 && !slices.Contains(h.AcceptedVersions, only) {
		f.add("http.accepted_versions", "does not have %s, which is all that version %s speaks; add it, or remove one of the two", only, h.Version)
	}
	if h.Version != meshv1.HttpProbe_HTTP3 {
		return
	}
	if t.Scheme == "http" {
		f.add("http.version", "HTTP3 needs an https URI: QUIC has no form without TLS")
	}
	if h.ProxyUrl != "" {
		f.add("http.proxy_url", "does not go with version HTTP3; remove one of them")
	}
	if h.KeepAlive {
		f.add("http.keep_alive", "does not go with version HTTP3, which connects anew for each probe; remove one of them")
	}
}

// connection checks where a probe connects to, and whether over TLS.
func connection(f *faults, h *meshv1.HttpProbe) {
	if h.FailIfTls && h.FailIfNotTls {
		f.add("http.fail_if_tls", "together with fail_if_not_tls always fails; keep one")
	}
	if h.ResolveTo != "" {
		if h.ProxyUrl != "" {
			f.add("http.resolve_to", "does not go with proxy_url, since it is the proxy that connects; remove one of them")
		}
		resolveTo(f, "http.resolve_to", h.ResolveTo)
	}
	count(f, "http.proxy_headers", len(h.ProxyHeaders), maxProxyHeaders)
	if len(h.ProxyHeaders) > 0 && h.ProxyUrl == "" {
		f.add("http.proxy_headers", "is given without proxy_url; add that, or remove this")
	}
	headerLines(f, "http.proxy_headers", h.ProxyHeaders, nil)
}

// resolveTo checks a host with an optional port.
func resolveTo(f *faults, field, text string) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), ""
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		f.add(field, "%q is not a port; write 1 to 65535", clip(port))
	}
	if problem := hostProblem(host); problem != "" {
		f.add(field, "%s; write for example 192.0.2.7:8443", problem)
	}
}

// proxy checks the URL of a proxy.
func proxy(f *faults, text string) { proxyAt(f, "http.proxy_url", text) }

func httpDefaults(h *meshv1.HttpProbe) *meshv1.HttpProbe {
	if h == nil {
		h = &meshv1.HttpProbe{}
	}
	if h.Method == "" && len(h.Steps) == 0 {
		h.Method = methodFor(h)
	}
	if h.FollowRedirects == nil {
		h.FollowRedirects = proto.Bool(true)
	}
	if h.MaxRedirects == 0 {
		h.MaxRedirects = DefaultMaxRedirects
	}
	if h.BodyLimit == 0 {
		h.BodyLimit = DefaultBodyLimit
	}
	h.IpFamily = familyDefault(h.IpFamily)
	h.Tls = tlsDefaults(h.Tls)
	if h.Oauth2 != nil {
		h.Oauth2.Tls = tlsDefaults(h.Oauth2.Tls)
	}
	return h
}
