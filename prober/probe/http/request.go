package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"net/url"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// request is one request as the check describes it.
type request struct {
	method string
	url    *url.URL
	header nethttp.Header // besides what every request has; nil when that is all
	body   []byte         // compressed, when that is asked for
}

// content is the body of a request before it is compressed, and the headers that go with it.
type content interface {
	GetBody() string
	GetBodyBytes() []byte
	GetForm() []*meshv1.FormField
	GetGraphql() *meshv1.GraphQl
}

// headers prepares what every request is sent with.
func (r *runner) headers(userAgent string) {
	r.header, r.safe = make(nethttp.Header), make(nethttp.Header)
	r.header.Set("User-Agent", userAgent)
	for k, v := range r.options.GetHeaders() {
		if strings.EqualFold(k, "host") {
			r.host = v
			continue
		}
		r.header.Set(k, v)
	}
	add(r.header, r.options.GetHeaderLines())
	if v := offer(r.options.GetCompression()); v != "" && r.header["Accept-Encoding"] == nil {
		r.header.Set("Accept-Encoding", v)
	}
	if b := r.options.GetBasicAuth(); b != nil {
		r.header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(b.Username+":"+b.Password)))
	}
	if token := r.options.GetBearerToken(); token != "" {
		r.header.Set("Authorization", "Bearer "+token)
	}
	for k, v := range r.header {
		if k == "User-Agent" || strings.HasPrefix(k, "Accept") {
			r.safe[k] = v
		}
	}
}

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

// newRequest makes the request of a check without steps.
func newRequest(u *url.URL, o *meshv1.HttpProbe) (request, error) {
	body, header, err := bodyOf(o, o.GetRequestCompression())
	if err != nil {
		return request{}, err
	}
	return request{method: o.GetMethod(), url: u, header: header, body: body}, nil
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

// merged is what a request to the check's own host is sent with: the headers of the check, which win, and those of the request.
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
