package http_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// echo answers with method, content type and body of what it is sent.
func echo(w nethttp.ResponseWriter, r *nethttp.Request) {
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s|%s|%s", r.Method, r.Header.Get("Content-Type"), b)
}

func TestEveryKindOfBodyIsSent(t *testing.T) {
	s := serve(t, echo)
	for want, o := range map[string]*meshv1.HttpProbe{
		"POST||\x00\x01":      {BodyBytes: []byte{0, 1}},
		"PUT||text":           {Method: "PUT", Body: "text"},
		"POST|text/plain|a=1": {Form: []*meshv1.FormField{{Name: "a", Value: "1"}}, Headers: map[string]string{"Content-Type": "text/plain"}},
		"POST|application/x-www-form-urlencoded|b=x+y%26&a=%C3%A4&b=": {Form: []*meshv1.FormField{{Name: "b", Value: "x y&"}, {Name: "a", Value: "ä"}, {Name: "b"}}},
		`POST|application/json|{"query":"{ a }","operationName":"Q","variables":{"n":1}}`: {
			Graphql: &meshv1.GraphQl{Query: "{ a }", OperationName: "Q", Variables: &structpb.Struct{Fields: map[string]*structpb.Value{"n": structpb.NewNumberValue(1)}}, AllowErrors: true}},
	} {
		o.Expect = []string{fmt.Sprintf("response.body == %q", want)}
		r := run(t, s.URL, o)
		if o.GetGraphql() != nil { // the echo is no answer to a query
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_EXPECT, "not a GraphQL response").Match(t, r)
			if !strings.HasPrefix(string(r.Evidence.Body), want) {
				t.Errorf("sent %s", r.Evidence.Body)
			}
			continue
		}
		probetest.OK().Match(t, r)
	}
}

func TestHeadersHaveSeveralValuesBothWays(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Add("X-B", "one, two")
		w.Header().Add("X-B", "three")
		fmt.Fprint(w, strings.Join(r.Header["X-A"], "|"), "|", r.UserAgent())
	})
	lines := []*meshv1.HttpHeader{{Name: "x-a", Value: "2"}, {Name: "X-A", Value: "3"}, {Name: "User-Agent", Value: "me"}}
	probetest.OK().Match(t, run(t, s.URL, &meshv1.HttpProbe{Headers: map[string]string{"X-A": "1"}, HeaderLines: lines, Expect: []string{
		`response.body == "1|2|3|me"`, `response.header_values["x-b"].values == ["one, two", "three"]`, `response.headers["x-b"] == "one, two, three"`,
		`response.header_values["x-b"].values.exists(v, v.matches("^three$"))`, `!("x-none" in response.header_values)`}}))
}

func TestGraphQLErrorsFail(t *testing.T) {
	for name, c := range map[string]struct {
		body  string
		allow bool
		want  probetest.Want
	}{
		"data":              {`{"data": {"a": 1}}`, false, probetest.OK()},
		"errors":            {`{"errors": [{"message": "no such field"}, {}]}`, false, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "has 2 errors, the first one: no such field")},
		"both":              {`{"data": {"a": 1}, "errors": [{"message": "partly"}]}`, false, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "has 1 error, the first one: partly")},
		"both allowed":      {`{"data": {"a": 1}, "errors": [{"message": "partly"}]}`, true, probetest.OK()},
		"only errors":       {`{"data": null, "errors": [{"message": "all"}]}`, true, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "the first one: all")},
		"neither":           {`{}`, false, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_EXPECT, "neither data nor errors")},
		"not JSON":          {`<html>`, false, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_EXPECT, "not a GraphQL response")},
		"longer than limit": {`{"data": "` + strings.Repeat("x", 5000), false, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_EXPECT, "longer than http.body_limit")},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { fmt.Fprint(w, c.body) })
			c.want.Match(t, run(t, s.URL, &meshv1.HttpProbe{BodyLimit: 4096, Graphql: &meshv1.GraphQl{Query: "{ a }", AllowErrors: c.allow}}))
		})
	}
}

func TestCookiesArePassedOnWithinAProbeToTheirOwnSites(t *testing.T) {
	other := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) { fmt.Fprint(w, "other:", r.Header.Get("Cookie")) })
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch r.URL.Path {
		case "/login":
			for _, c := range []string{"id=1; Path=/; HttpOnly", "deep=2; Path=/deep", "suffix=4; Domain=com", "gone=5; Max-Age=0"} {
				w.Header().Add("Set-Cookie", c)
			}
			nethttp.Redirect(w, r, "/home", nethttp.StatusFound)
		case "/away":
			w.Header().Add("Set-Cookie", "id=1")
			nethttp.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), nethttp.StatusFound)
		case "/flood":
			for i := range 200 {
				w.Header().Add("Set-Cookie", fmt.Sprintf("c%s%d=%s", r.URL.RawQuery, i, strings.Repeat("x", 200)))
			}
			nethttp.Redirect(w, r, "/flood?"+r.URL.RawQuery+"x", nethttp.StatusFound)
		default:
			fmt.Fprint(w, r.Header.Get("Cookie"))
		}
	})
	o := &meshv1.HttpProbe{Headers: map[string]string{"Cookie": "own=0"}, Expect: []string{`response.body == "own=0; id=1"`, `response.redirects == 1`}}
	for range 2 { // and nothing is left for the next probe
		probetest.OK().Match(t, run(t, s.URL+"/login", proto.CloneOf(o)))
	}
	probetest.OK().Match(t, run(t, s.URL+"/away", &meshv1.HttpProbe{Expect: []string{`response.body == "other:"`}}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "stopped after 20 redirects").Match(t, run(t, s.URL+"/flood", &meshv1.HttpProbe{MaxRedirects: 20}))
}

func TestTheProbeConnectsToWhereTheCheckSays(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "a.example.com")
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/away" {
			nethttp.Redirect(w, r, "https://b.invalid/", nethttp.StatusFound)
		}
		fmt.Fprint(w, r.Host, "|", r.TLS.ServerName)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	t.Cleanup(s.Close)
	address := s.Listener.Addr().String()
	_, number, _ := net.SplitHostPort(address)
	options := func(to string, expect ...string) *meshv1.HttpProbe {
		return &meshv1.HttpProbe{ResolveTo: to, Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Expect: expect}
	}
	r := run(t, "https://a.example.com/", options(address, `response.body == "a.example.com|a.example.com"`))
	probetest.OK().Match(t, r)
	if r.RemoteAddress != address {
		t.Errorf("remote %s", r.RemoteAddress)
	}
	probetest.OK().Match(t, run(t, "https://a.example.com:"+number+"/", options("127.0.0.1", `response.body == "a.example.com:`+number+`|a.example.com"`)))
	if r := within(t, 2*time.Second, "https://a.example.com/away", options(address)); r.FailedPhase != meshv1.Result_RESOLVE {
		t.Errorf("another host was looked for at the address: %v", r)
	}
}

func TestTheProxyIsSentItsHeadersAlone(t *testing.T) {
	got := make(chan *nethttp.Request, 1)
	address := probetest.Listen(t, func(c net.Conn) {
		req, err := nethttp.ReadRequest(bufio.NewReader(c))
		if err == nil {
			got <- req
			fmt.Fprint(c, "HTTP/1.1 403 No\r\n\r\n")
		}
	})
	r := run(t, "https://a.example.com/", &meshv1.HttpProbe{ProxyUrl: "http://" + address, BearerToken: "secret",
		ProxyHeaders: []*meshv1.HttpHeader{{Name: "X-Tenant", Value: "a"}, {Name: "X-Tenant", Value: "b"}}})
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_CONNECT, "answered CONNECT with 403").Match(t, r)
	req := <-got
	if strings.Join(req.Header["X-Tenant"], ",") != "a,b" || req.Header.Get("Authorization") != "" || req.UserAgent() != "probemesh/test" {
		t.Errorf("the proxy was sent %v", req.Header)
	}
}

func TestTLSAndVersionsAreDemandedOrRefused(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	plain := serve(t, func(nethttp.ResponseWriter, *nethttp.Request) {})
	secure := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		nethttp.Redirect(w, r, plain.URL, nethttp.StatusFound)
	}))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	options := func(change func(*meshv1.HttpProbe)) *meshv1.HttpProbe {
		o := &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Expect: []string{"true"}}
		change(o)
		return o
	}
	stay := proto.Bool(false)
	fails := func(sentence string) probetest.Want {
		return probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, sentence)
	}
	for _, c := range []struct {
		name, url string
		want      probetest.Want
		change    func(*meshv1.HttpProbe)
	}{
		{"tls refused and absent", plain.URL, probetest.OK(), func(o *meshv1.HttpProbe) { o.FailIfTls = true }},
		{"tls refused and there", secure.URL, fails("the answer came over TLS"), func(o *meshv1.HttpProbe) { o.FailIfTls, o.FollowRedirects = true, stay }},
		{"tls demanded and absent", plain.URL, fails("did not come over TLS"), func(o *meshv1.HttpProbe) { o.FailIfNotTls = true }},
		{"tls demanded and there", secure.URL, probetest.OK(), func(o *meshv1.HttpProbe) { o.FailIfNotTls, o.FollowRedirects = true, stay }},
		{"tls demanded, redirected away", secure.URL, fails("did not come over TLS"), func(o *meshv1.HttpProbe) { o.FailIfNotTls = true }},
		{"version accepted", plain.URL, probetest.OK(), func(o *meshv1.HttpProbe) { o.AcceptedVersions = []string{"1.0", "1.1"} }},
		{"version not accepted", plain.URL, fails("the answer is in HTTP/1.1; the check accepts 2, 3"), func(o *meshv1.HttpProbe) { o.AcceptedVersions = []string{"2", "3"} }},
	} {
		t.Run(c.name, func(t *testing.T) { c.want.Match(t, run(t, c.url, options(c.change))) })
	}
}

func TestALongBodyFailsWhenTheCheckSaysSo(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) { fmt.Fprint(w, strings.Repeat("x", 1000)) })
	for _, expect := range [][]string{nil, {`response.body != ""`}} {
		probetest.OK().Match(t, run(t, s.URL, &meshv1.HttpProbe{BodyLimit: 1000, FailAboveBodyLimit: true, Expect: expect}))
		probetest.OK().Match(t, run(t, s.URL, &meshv1.HttpProbe{BodyLimit: 999, Expect: expect}))
		probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "longer than 999 bytes").Match(t, run(t, s.URL, &meshv1.HttpProbe{BodyLimit: 999, FailAboveBodyLimit: true, Expect: expect}))
	}
}

func TestATraceIsSentAndToldWhenTheCheckAsksForIt(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) { fmt.Fprint(w, r.Header.Get("Traceparent")) })
	r := probetest.Run(t, http.Compile, s.URL, 10*time.Second, probe.Options{Evidence: true}, func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Traceparent: true} })
	probetest.OK().Match(t, r)
	if len(r.TraceId) != 32 || !strings.HasPrefix(string(r.Evidence.Body), "00-"+r.TraceId+"-") || len(r.Evidence.Body) != 55 {
		t.Errorf("trace %q, sent %q", r.TraceId, r.Evidence.Body)
	}
	given := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	r = probetest.Run(t, http.Compile, s.URL, 10*time.Second, probe.Options{Evidence: true, Traceparent: given}, func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Traceparent: true} })
	if string(r.Evidence.Body) != given || r.TraceId != "" {
		t.Errorf("trace %q, sent %q", r.TraceId, r.Evidence.Body)
	}
}

func TestWhatAnAnswerSaysOfItselfIsTold(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
		w.Header().Set("Content-Encoding", "unheard-of")
		fmt.Fprint(w, "abc")
	})
	r := run(t, s.URL, &meshv1.HttpProbe{Expect: []string{`response.headers["content-encoding"] == "unheard-of"`, `response.body == "abc"`}})
	probetest.OK().Match(t, r)
	if h := r.Http; h.LastModified.AsTime().Unix() != time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC).Unix() || h.ContentEncoding != "unheard-of" || h.EncodedBytes != 3 || h.BodyBytes != 3 {
		t.Errorf("got %v", h)
	}
}

func TestAPartIsNotAskedForCompressed(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		fmt.Fprint(w, r.Header.Get("Range"), r.Header.Get("Accept-Encoding"))
	})
	probetest.OK().Match(t, run(t, s.URL, &meshv1.HttpProbe{Headers: map[string]string{"Range": "bytes=0-9"}, Expect: []string{`response.body == "bytes=0-9"`}}))
}

func TestThePinnedAddressIsUsedForItsHostAlone(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/away" {
			nethttp.Redirect(w, r, "http://b.invalid/", nethttp.StatusFound)
		}
		fmt.Fprint(w, r.Host)
	})
	_, number, _ := net.SplitHostPort(s.Listener.Addr().String())
	pin := probe.Options{Evidence: true, Pin: probe.Pin{Host: "a.example.com", Addr: netip.MustParseAddr("127.0.0.1")}}
	for _, keep := range []bool{false, true} {
		r := probetest.Run(t, http.Compile, "http://a.example.com:"+number+"/", 10*time.Second, pin, func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{KeepAlive: keep} })
		probetest.OK().Match(t, r)
		if string(r.Evidence.Body) != "a.example.com:"+number || r.RemoteAddress != s.Listener.Addr().String() || r.Timings.Resolve != nil {
			t.Errorf("got %v", r)
		}
	}
	r := probetest.Run(t, http.Compile, "http://a.example.com:"+number+"/away", 2*time.Second, pin, nil)
	if r.FailedPhase != meshv1.Result_RESOLVE {
		t.Errorf("another host was looked for at the address: %v", r)
	}
}
