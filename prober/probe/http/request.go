package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"net/url"
	"strings"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// request is one request as the check describes it. Nothing of it changes while it is sent.
type request struct {
	method  string
	url     *url.URL
	own     nethttp.Header // for the check's own host
	other   nethttp.Header // for another host that the check names itself
	content nethttp.Header // what of these describes the body; nil when nothing does
	body    []byte         // compressed, when that is asked for
	follow  bool           // follow redirects
	raw     []byte         // as it is sent to the check's own host without a transport, when that can be known before; else nil
}

// manner is how a check asks, whomever it asks: what follows from its options alone, so that all checks with the same have it in common. It does not change.
type manner struct {
	options *meshv1.HttpProbe
	host    string         // value of the Host header, empty for the URL's
	header  nethttp.Header // what every request to the check's own host is sent with
	safe    nethttp.Header // what other hosts are sent
	// proxyAuth are the credentials for the proxy; nil without a proxy or without any.
	proxyAuth []string
	first     request // of a check without steps, but for its URL
}

// mannerOf compiles options, or finds what they compile to.
func mannerOf(o *meshv1.HttpProbe, env probe.Env) (*manner, error) {
	return probe.Share(env.Shared, "http", env.UserAgent+"\x00"+probe.Text(o), func() (*manner, error) {
		m := &manner{options: o}
		m.headers(env.UserAgent)
		var err error
		m.first, err = m.newRequest(nil, o.GetMethod(), o, nil, o.GetFollowRedirects())
		return m, err
	})
}

// request is the request of a check without steps.
func (r *runner) request() request {
	q := r.first
	q.url, q.raw = r.url, r.raw
	return q
}

// content is the body of a request before it is compressed, and the headers that go with it.
type content interface {
	GetBody() string
	GetBodyBytes() []byte
	GetForm() []*meshv1.FormField
	GetGraphql() *meshv1.GraphQl
}

// headers prepares what every request is sent with.
func (m *manner) headers(userAgent string) {
	m.header, m.safe = make(nethttp.Header), make(nethttp.Header)
	m.header.Set("User-Agent", userAgent)
	for k, v := range m.options.GetHeaders() {
		if strings.EqualFold(k, "host") {
			m.host = v
			continue
		}
		m.header.Set(k, v)
	}
	add(m.header, m.options.GetHeaderLines())
	partly := m.header["Range"] != nil && m.options.GetCompression() == meshv1.HttpProbe_COMPRESSION_UNSPECIFIED // a part of what is compressed cannot be decompressed
	if v := offer(m.options.GetCompression()); v != "" && m.header["Accept-Encoding"] == nil && !partly {
		m.header.Set("Accept-Encoding", v)
	}
	if b := m.options.GetBasicAuth(); b != nil {
		m.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(b.Username+":"+b.Password)))
	}
	if token := m.options.GetBearerToken(); token != "" {
		m.header.Set("Authorization", "Bearer "+token)
	}
	if m.options.GetProxyUrl() != "" {
		m.proxyAuth = m.header["Proxy-Authorization"]
		delete(m.header, "Proxy-Authorization") // inside a tunnel it would reach the target
	}
	for k, v := range m.header {
		if harmless(k) {
			m.safe[k] = v
		}
	}
}

// harmless tells whether a header, by its canonical name, may be sent to anyone.
func harmless(name string) bool { return name == "User-Agent" || strings.HasPrefix(name, "Accept") }

// add adds lines to a header.
func add(h nethttp.Header, lines []*meshv1.HttpHeader) {
	own := make(map[string]bool) // a first line replaces the default of the prober
	for _, l := range lines {
		k := nethttp.CanonicalHeaderKey(l.GetName())
		if k == "User-Agent" && !own[k] {
			h.Del(k)
		}
		own[k] = true
		h[k] = append(h[k], l.GetValue())
	}
}

// newRequest makes a request to u. lines are headers of the request itself, which win over those of the check, and these over what the body says of itself.
func (m *manner) newRequest(u *url.URL, method string, c content, lines []*meshv1.HttpHeader, follow bool) (request, error) {
	body, content, err := bodyOf(c, m.options.GetRequestCompression())
	if err != nil {
		return request{}, err
	}
	q := request{method: method, url: u, content: content, body: body, follow: follow, own: merged(m.header, content), other: merged(m.safe, content)}
	if len(lines) > 0 {
		q.own, q.other = replaced(q.own, lines), replaced(q.other, lines)
	}
	return q, nil
}

// replaced is a header in which lines take the place of those of the same name.
func replaced(h nethttp.Header, lines []*meshv1.HttpHeader) nethttp.Header {
	out := h.Clone()
	for _, l := range lines {
		out.Del(l.GetName())
	}
	for _, l := range lines {
		out.Add(l.GetName(), l.GetValue())
	}
	return out
}

// bodyOf is the body of a request as it is sent, and the headers that describe it.
func bodyOf(c content, compression meshv1.HttpProbe_Compression) ([]byte, nethttp.Header, error) {
	var body []byte
	header := make(nethttp.Header)
	switch {
	case c.GetBody() != "":
		body = []byte(c.GetBody())
	case len(c.GetBodyBytes()) > 0:
		body = c.GetBodyBytes()
	case len(c.GetForm()) > 0:
		body = formBody(c.GetForm())
		header.Set("Content-Type", "application/x-www-form-urlencoded")
	case c.GetGraphql() != nil:
		var err error
		if body, err = graphqlBody(c.GetGraphql()); err != nil {
			return nil, nil, err
		}
		header.Set("Content-Type", "application/json")
		header.Set("Accept", "application/graphql-response+json, application/json;q=0.9")
	}
	if name := codingName(compression); name != "" && len(body) > 0 {
		packed, err := compress(name, body)
		if err != nil {
			return nil, nil, err
		}
		header.Set("Content-Encoding", name)
		body = packed
	}
	if len(header) == 0 {
		header = nil
	}
	return body, header, nil
}

// formBody is a form in its order.
func formBody(fields []*meshv1.FormField) []byte {
	var b bytes.Buffer
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(f.GetName()))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(f.GetValue()))
	}
	return b.Bytes()
}

// graphqlBody is a query as it is posted.
func graphqlBody(g *meshv1.GraphQl) ([]byte, error) {
	posted := struct {
		Query         string         `json:"query"`
		OperationName string         `json:"operationName,omitempty"`
		Variables     map[string]any `json:"variables,omitempty"`
	}{g.GetQuery(), g.GetOperationName(), g.GetVariables().AsMap()}
	body, err := json.Marshal(posted)
	if err != nil {
		return nil, fmt.Errorf("graphql: %w", err)
	}
	return body, nil
}

// merged is base, which wins, and more.
func merged(base, more nethttp.Header) nethttp.Header {
	if len(more) == 0 {
		return base
	}
	out := make(nethttp.Header, len(base)+len(more))
	for k, v := range more {
		out[k] = v
	}
	for k, v := range base {
		out[k] = v
	}
	return out
}
