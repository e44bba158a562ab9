package spec

import (
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of what an http check sends, as http_probe.proto documents them.
const (
	maxFormFields      = 64
	maxProxyHeaders    = 16
	maxScopes          = 32
	maxOAuthParameters = 16
	maxClientBytes     = 1 << 10
)

// content is what a request may carry; a check and its steps have the same fields for it.
type content interface {
	GetBody() string
	GetBodyBytes() []byte
	GetForm() []*meshv1.FormField
	GetGraphql() *meshv1.GraphQl
}

// requestBody checks that a request has at most one body, and that one.
func requestBody(f *faults, path string, c content) {
	var given []string
	for _, b := range []struct {
		name string
		set  bool
	}{{"body", c.GetBody() != ""}, {"body_bytes", len(c.GetBodyBytes()) > 0}, {"form", len(c.GetForm()) > 0}, {"graphql", c.GetGraphql() != nil}} {
		if b.set {
			given = append(given, b.name)
		}
	}
	if len(given) > 1 {
		f.add(path+"."+given[1], "is given besides %s; a request has one body, keep one", given[0])
	}
	bounded(f, path+".body", len(c.GetBody()), MaxRequestBody)
	bounded(f, path+".body_bytes", len(c.GetBodyBytes()), MaxRequestBody)
	count(f, path+".form", len(c.GetForm()), maxFormFields)
	size := 0
	for i, field := range c.GetForm() {
		size += len(url.QueryEscape(field.GetName())) + len(url.QueryEscape(field.GetValue())) + 2
		if field.GetName() == "" {
			f.add(fmt.Sprintf("%s.form[%d].name", path, i), "is missing; a field of a form has a name")
		}
	}
	bounded(f, path+".form", size, MaxRequestBody)
	if g := c.GetGraphql(); g != nil {
		if strings.TrimSpace(g.GetQuery()) == "" {
			f.add(path+".graphql.query", "is missing; write for example { __typename }")
		}
		bounded(f, path+".graphql.query", len(g.GetQuery()), MaxRequestBody)
	}
}

// hasBody tells whether a request carries anything.
func hasBody(c content) bool {
	return c.GetBody() != "" || len(c.GetBodyBytes()) > 0 || len(c.GetForm()) > 0 || c.GetGraphql() != nil
}

// methodFor is the method of a request that does not say.
func methodFor(c content) string {
	if hasBody(c) {
		return "POST"
	}
	return "GET"
}

// requestCompression checks how a request body is compressed.
func requestCompression(f *faults, h *meshv1.HttpProbe) {
	enum(f, "http.request_compression", h.RequestCompression)
	if h.RequestCompression > meshv1.HttpProbe_IDENTITY && !hasBody(h) {
		f.add("http.request_compression", "is given without a body; add one, or remove this")
	}
}

// credentialKinds are the ways of authentication that a check asks for.
func credentialKinds(h *meshv1.HttpProbe) []string {
	var kinds []string
	for _, k := range []struct {
		name string
		set  bool
	}{{"basic_auth", h.BasicAuth != nil}, {"bearer_token", h.BearerToken != ""}, {"digest_auth", h.DigestAuth != nil}, {"oauth2", h.Oauth2 != nil}, {"aws_sigv4", h.AwsSigv4 != nil}} {
		if k.set {
			kinds = append(kinds, k.name)
		}
	}
	return kinds
}

// credentials checks that a check has at most one way of authentication, and that one.
func credentials(f *faults, h *meshv1.HttpProbe) {
	if kinds := credentialKinds(h); len(kinds) > 1 {
		f.add("http."+kinds[1], "is given besides %s; keep one", kinds[0])
	}
	if strings.Contains(h.BasicAuth.GetUsername(), ":") {
		f.add("http.basic_auth.username", "contains a colon, which basic authentication cannot carry (RFC 7617)")
	}
	if !httpguts.ValidHeaderFieldValue(h.BearerToken) {
		f.add("http.bearer_token", "contains control characters; remove them (often a line end)")
	}
	if d := h.DigestAuth; d != nil {
		switch {
		case d.Username == "":
			f.add("http.digest_auth.username", "is missing")
		case strings.Contains(d.Username, ":"):
			f.add("http.digest_auth.username", "contains a colon, which digest authentication cannot carry (RFC 7616)")
		case !httpguts.ValidHeaderFieldValue(d.Username):
			f.add("http.digest_auth.username", "contains control characters; remove them (often a line end)")
		}
	}
	oauth2(f, h.Oauth2, h.ProxyUrl)
	if s := h.AwsSigv4; s != nil {
		for _, field := range []struct{ name, value string }{{"access_key_id", s.AccessKeyId}, {"secret_access_key", s.SecretAccessKey}, {"region", s.Region}, {"service", s.Service}} {
			if field.value == "" {
				f.add("http.aws_sigv4."+field.name, "is missing")
			}
			if !httpguts.ValidHeaderFieldValue(field.value) {
				f.add("http.aws_sigv4."+field.name, "contains control characters; remove them (often a line end)")
			}
		}
		if !httpguts.ValidHeaderFieldValue(s.SessionToken) {
			f.add("http.aws_sigv4.session_token", "contains control characters; remove them (often a line end)")
		}
	}
}

// oauth2 checks how tokens are to be had.
func oauth2(f *faults, o *meshv1.OAuth2ClientCredentials, proxyURL string) {
	if o == nil {
		return
	}
	u, err := url.Parse(o.TokenUrl)
	switch {
	case o.TokenUrl == "":
		f.add("http.oauth2.token_url", "is missing; write for example https://auth.example.com/token")
	case err != nil:
		f.add("http.oauth2.token_url", "cannot be parsed (%s); write for example https://auth.example.com/token", urlProblem(err))
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		f.add("http.oauth2.token_url", "%q is not an http or https URI; write for example https://auth.example.com/token", clip(o.TokenUrl))
	case u.User != nil:
		f.add("http.oauth2.token_url", "has user information, which is refused; write client_id and client_secret")
	}
	bounded(f, "http.oauth2.token_url", len(o.TokenUrl), maxURI)
	if o.ClientId == "" {
		f.add("http.oauth2.client_id", "is missing")
	}
	bounded(f, "http.oauth2.client_id", len(o.ClientId), maxClientBytes)
	bounded(f, "http.oauth2.client_secret", len(o.ClientSecret), maxClientBytes)
	count(f, "http.oauth2.scopes", len(o.Scopes), maxScopes)
	count(f, "http.oauth2.parameters", len(o.Parameters), maxOAuthParameters)
	for _, k := range sortedKeys(o.Parameters) {
		switch k {
		case "grant_type", "scope", "client_id", "client_secret":
			f.add(element("http.oauth2.parameters", k), "is set by the prober itself; remove it")
		}
	}
	enum(f, "http.oauth2.auth_style", o.AuthStyle)
	if o.WithoutProxy && proxyURL == "" {
		f.add("http.oauth2.without_proxy", "is given without http.proxy_url; remove it")
	}
	tlsConfig(f, "http.oauth2.tls", o.Tls)
}
