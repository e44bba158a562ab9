package spec

import (
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

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

func httpDefaults(h *meshv1.HttpProbe) *meshv1.HttpProbe {
	if h == nil {
		h = &meshv1.HttpProbe{}
	}
	if h.Method == "" {
		h.Method = "GET"
		if h.Body != "" {
			h.Method = "POST"
		}
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
	return h
}
