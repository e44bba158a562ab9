package http_test

import (
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run probes uri with the options and has the patience of a slow machine.
func run(t testing.TB, uri string, o *meshv1.HttpProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, uri, o)
}

// within is run with a timeout.
func within(t testing.TB, timeout time.Duration, uri string, o *meshv1.HttpProbe) *meshv1.Result {
	t.Helper()
	return probetest.Run(t, http.Compile, uri, timeout, probe.Options{}, func(c *meshv1.Check) { c.Http = o })
}

// serve starts a server that ends with the test.
func serve(t testing.TB, h nethttp.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func TestAnAnswerIsMeasured(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("X-A", "b")
		fmt.Fprint(w, `{"ok": true, "agent": "`+r.UserAgent()+`"}`)
	})
	r := run(t, s.URL+"/x", &meshv1.HttpProbe{Expect: []string{
		`response.status == 200`, `response.json.ok`, `response.json.agent == "probemesh/test"`, `response.headers["x-a"] == "b"`,
		`response.version == "1.1"`, `response.uri.endsWith("/x")`, `response.body.startsWith("{")`, `response.duration < duration("10s")`,
		`response.timings.connect > duration("0s")`, `response.remote_address.startsWith("127.0.0.1:")`}})
	probetest.OK().Match(t, r)
	if r.Http.Status != 200 || r.Http.Version != "1.1" || r.Http.BodyBytes != 39 || r.Http.ContentLength != 39 || r.RemoteAddress != s.Listener.Addr().String() {
		t.Errorf("got %v", r)
	}
	if tm := r.Timings; tm.Resolve != nil || tm.Connect == nil || tm.Handshake != nil || tm.Processing == nil || tm.Transfer == nil {
		t.Errorf("timings %v", tm)
	}
	if r.Evidence != nil {
		t.Error("evidence of a good answer that nobody asked for")
	}
}

func TestTheRequestIsAsTheCheckSays(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Method, "|", r.Host, "|", r.Header.Get("X-A"), "|", r.Header.Get("Authorization"), "|", string(b), "|", r.UserAgent(), "|", r.Header.Get("Traceparent"))
	})
	for want, o := range map[string]*meshv1.HttpProbe{
		"PUT|a.example.com|b|Basic dTpw|hello|probemesh/test|": {Method: "PUT", Headers: map[string]string{"host": "a.example.com", "x-a": "b"},
			BasicAuth: &meshv1.BasicAuth{Username: "u", Password: "p"}, Body: "hello"},
		"POST|" + s.Listener.Addr().String() + "||Bearer tok|x|me|": {Body: "x", BearerToken: "tok", Headers: map[string]string{"User-Agent": "me"}},
	} {
		o.Expect = []string{fmt.Sprintf("response.body == %q", want)}
		probetest.OK().Match(t, run(t, s.URL, o))
	}
	r := probetest.Run(t, http.Compile, s.URL, time.Second, probe.Options{Traceparent: "00-1-2-01", Evidence: true}, nil)
	if !strings.HasSuffix(string(r.Evidence.GetBody()), "|00-1-2-01") {
		t.Errorf("evidence %v", r.Evidence)
	}
}

func TestABadStatusFailsWithEvidence(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Set-Cookie", "session=secret")
		w.Header().Set("X-Why", "broken")
		w.WriteHeader(503)
		fmt.Fprint(w, strings.Repeat("down ", 2000))
	})
	for name, c := range map[string]struct {
		o    *meshv1.HttpProbe
		want string
	}{
		"default":     {nil, "status 503 Service Unavailable; without expectations it must be 200 to 299"},
		"expectation": {&meshv1.HttpProbe{Expect: []string{"response.status == 200"}}, "expectation response.status == 200 does not hold: response.status is 503"},
		"body":        {&meshv1.HttpProbe{Expect: []string{`response.body.contains("up")`}}, `does not hold: response.body is "down down`},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, s.URL, c.o)
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, c.want).Match(t, r)
			if (r.FailedExpectation == "") != (c.o == nil) {
				t.Errorf("failed_expectation %q", r.FailedExpectation)
			}
			e := r.Evidence
			if e.StatusLine != "HTTP/1.1 503 Service Unavailable" || len(e.Body) != 4096 || !e.BodyTruncated || r.Http.BodyBytes != 10000 {
				t.Errorf("evidence %q, %d bytes, truncated %v, %v", e.StatusLine, len(e.Body), e.BodyTruncated, r.Http)
			}
			text := fmt.Sprint(e.Headers)
			if strings.Contains(text, "secret") || !strings.Contains(text, "(hidden)") || !strings.Contains(text, "broken") {
				t.Errorf("headers %s", text)
			}
		})
	}
}

func TestRedirectsAreFollowedWithinTheirLimitAndWithoutCredentials(t *testing.T) {
	other := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		fmt.Fprint(w, r.Method, "|", r.Header.Get("Authorization"), r.Header.Get("X-Key"), r.Header.Get("Cookie"))
	})
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch r.URL.Path {
		case "/loop":
			nethttp.Redirect(w, r, "/loop", nethttp.StatusFound)
		case "/own":
			nethttp.Redirect(w, r, "/end", nethttp.StatusTemporaryRedirect)
		case "/see":
			nethttp.Redirect(w, r, "/end", nethttp.StatusSeeOther)
		case "/end":
			b, _ := io.ReadAll(r.Body)
			fmt.Fprint(w, r.Method, "|", r.Header.Get("Authorization"), "|", string(b))
		case "/away":
			nethttp.Redirect(w, r, other.URL+"/x", nethttp.StatusFound)
		case "/ftp":
			w.Header().Set("Location", "ftp://a/")
			w.WriteHeader(302)
		case "/nowhere":
			w.WriteHeader(302)
		}
	})
	o := func(expect ...string) *meshv1.HttpProbe {
		return &meshv1.HttpProbe{BearerToken: "t", Headers: map[string]string{"X-Key": "k", "Cookie": "c"}, Expect: expect}
	}
	r := run(t, s.URL+"/own", &meshv1.HttpProbe{BearerToken: "t", Body: "data", Expect: []string{`response.body == "POST|Bearer t|data"`}})
	probetest.OK().Match(t, r)
	if r.Http.Redirects != 1 {
		t.Errorf("redirects %d", r.Http.Redirects)
	}
	probetest.OK().Match(t, run(t, s.URL+"/see", &meshv1.HttpProbe{Body: "data", Expect: []string{`response.body == "GET||"`, `response.uri.endsWith("/end")`}}))
	probetest.OK().Match(t, run(t, s.URL+"/away", o(`response.body == "GET|"`, `response.uri.endsWith("/x")`)))
	r = run(t, s.URL+"/loop", nil)
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "stopped after 10 redirects").Match(t, r)
	if len(r.Evidence.Redirects) != 11 || r.Http.Redirects != 10 {
		t.Errorf("redirects %d, %v", r.Http.Redirects, r.Evidence.Redirects)
	}
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "neither http nor https").Match(t, run(t, s.URL+"/ftp", nil))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 302").Match(t, run(t, s.URL+"/nowhere", nil))
	probetest.OK().Match(t, run(t, s.URL+"/loop", &meshv1.HttpProbe{FollowRedirects: proto.Bool(false), Expect: []string{`response.status == 302`}}))
}

func TestTLSIsVerifiedAsTheCheckSays(t *testing.T) {
	ca := probetest.NewCA(t)
	start := func(valid time.Duration, change func(*tls.Config), names ...string) string {
		pair, _, _ := ca.Issue(t, valid, names...)
		s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			fmt.Fprint(w, r.Proto, r.TLS.ServerName, len(r.TLS.PeerCertificates))
		}))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2", "http/1.1"}}
		if change != nil {
			change(s.TLS)
		}
		s.Config.ErrorLog = discard()
		s.EnableHTTP2 = true
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	good := start(100*24*time.Hour+time.Minute, nil, "127.0.0.1", "a.example.com")
	trust := func(change func(*meshv1.TlsConfig)) *meshv1.TlsConfig {
		c := &meshv1.TlsConfig{CaPem: ca.PEM}
		if change != nil {
			change(c)
		}
		return c
	}
	r := run(t, good, &meshv1.HttpProbe{Tls: trust(nil), Expect: []string{`response.tls.version == "1.3"`, `response.tls.days_left == 100`,
		`response.version == "2"`, `"a.example.com" in response.tls.names`, `response.tls.issuer == "CN=Test CA"`}})
	probetest.OK().Match(t, r)
	if r.Tls.GetVersion() != "1.3" || r.Tls.GetChainExpiry() == nil || r.Timings.Handshake == nil || r.Http.Version != "2" {
		t.Errorf("got %v", r)
	}
	probetest.OK().Match(t, run(t, good, &meshv1.HttpProbe{Tls: trust(func(c *meshv1.TlsConfig) { c.ServerName = "a.example.com" }),
		Version: meshv1.HttpProbe_HTTP1, Expect: []string{`response.body == "HTTP/1.1a.example.com0"`}}))
	r = run(t, good, nil)
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "signed by an authority that is not trusted (CN=Test CA)").Match(t, r)
	if len(r.Evidence.Certificates) != 1 || r.Evidence.Certificates[0].Subject != "CN=leaf" {
		t.Errorf("certificates %v", r.Evidence.Certificates)
	}
	probetest.OK().Match(t, run(t, good, &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}}))
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "the certificate is not for b.example.com; it is for a.example.com, 127.0.0.1").Match(t,
		run(t, good, &meshv1.HttpProbe{Tls: trust(func(c *meshv1.TlsConfig) { c.ServerName = "b.example.com" })}))
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "the certificate of CN=leaf expired on ").Match(t,
		run(t, start(-time.Hour, nil, "127.0.0.1"), &meshv1.HttpProbe{Tls: trust(nil)}))
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "protocol version not supported").Match(t,
		run(t, start(time.Hour, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, "127.0.0.1"),
			&meshv1.HttpProbe{Tls: trust(func(c *meshv1.TlsConfig) { c.MinVersion = "1.3" })}))

	mutual := start(time.Hour, func(c *tls.Config) { c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool() }, "127.0.0.1")
	_, cert, key := ca.Issue(t, time.Hour, "client")
	probetest.OK().Match(t, run(t, mutual, &meshv1.HttpProbe{Tls: trust(func(c *meshv1.TlsConfig) { c.ClientCertificatePem, c.ClientKeyPem = cert, key }),
		Expect: []string{`response.body.endsWith("1")`}}))
	if r := run(t, mutual, &meshv1.HttpProbe{Tls: trust(nil)}); r.ErrorClass != meshv1.Result_CONNECTION_RESET && !strings.Contains(r.Error, "certificate required") { // the alert, unless the RST after it overtakes it
		t.Errorf("got %v", r)
	}
	plain := serve(t, func(nethttp.ResponseWriter, *nethttp.Request) {})
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "plain HTTP on this port").Match(t, run(t, strings.Replace(plain.URL, "http", "https", 1), nil))
}

func TestHTTP2IsSpokenInTheClearByPriorKnowledge(t *testing.T) {
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) { fmt.Fprint(w, r.Proto) }))
	s.Config.Protocols = &nethttp.Protocols{}
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.Protocols.SetHTTP1(true)
	s.Start()
	t.Cleanup(s.Close)
	probetest.OK().Match(t, run(t, s.URL, &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP2, Expect: []string{`response.version == "2"`, `response.body == "HTTP/2.0"`}}))
	probetest.OK().Match(t, run(t, s.URL, &meshv1.HttpProbe{Expect: []string{`response.version == "1.1"`}}))
	old := serve(t, func(nethttp.ResponseWriter, *nethttp.Request) {})
	if r := run(t, old.URL, &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP2}); r.ErrorClass != meshv1.Result_PROTOCOL && r.ErrorClass != meshv1.Result_CONNECTION_RESET {
		t.Errorf("got %v", r)
	}
}

func TestTheBodyIsCutAtItsLimitAfterDecompression(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		zeros := make([]byte, 1<<20)
		for range 200 {
			if _, err := z.Write(zeros); err != nil {
				return
			}
		}
	})
	for _, expect := range [][]string{nil, {`response.body.size() == 2000`}} {
		r := run(t, s.URL, &meshv1.HttpProbe{BodyLimit: 2000, Expect: expect})
		probetest.OK().Match(t, r)
		if r.Http.BodyBytes != 2000 {
			t.Errorf("%d bytes", r.Http.BodyBytes)
		}
	}
}

func TestAKeptConnectionIsUsedAgainUnlessTheProbeIsFresh(t *testing.T) {
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) { fmt.Fprint(w, r.RemoteAddr) })
	c, target := probetest.Check(t, s.URL, time.Second, func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{KeepAlive: true} })
	r, err := http.Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	peer := func(fresh bool) string {
		result := r.Probe(t.Context(), probe.Options{Fresh: fresh, Evidence: true})
		probetest.OK().Match(t, result)
		if result.RemoteAddress != s.Listener.Addr().String() {
			t.Errorf("remote %q", result.RemoteAddress)
		}
		return string(result.Evidence.Body)
	}
	first := peer(false)
	if peer(false) != first {
		t.Error("the connection was not kept")
	}
	if peer(true) == first {
		t.Error("a fresh probe used the kept connection")
	}
}

func TestAProxyIsUsed(t *testing.T) {
	target := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		fmt.Fprint(w, "hello", r.Header["Proxy-Authorization"])
	}) // which is none of its business
	plain := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		fmt.Fprint(w, "via proxy ", r.URL.String(), r.Header["Proxy-Authorization"])
	})
	probetest.OK().Match(t, run(t, "http://a.example.com/x", &meshv1.HttpProbe{ProxyUrl: plain.URL, Headers: map[string]string{"Proxy-Authorization": "Basic x"},
		Expect: []string{`response.body == "via proxy http://a.example.com/x[Basic x]"`}}))
	refuse := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) { w.WriteHeader(407) })
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_CONNECT, "answered CONNECT with 407").Match(t, run(t, "https://a.example.com/", &meshv1.HttpProbe{ProxyUrl: refuse.URL}))
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "a.example.com")
	secure := httptest.NewUnstartedServer(target.Config.Handler)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	tunnel := probetest.Listen(t, func(c net.Conn) {
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		if !strings.HasPrefix(string(b[:n]), "CONNECT a.example.com:443 HTTP/1.1\r\n") || !strings.Contains(string(b[:n]), "Proxy-Authorization: Basic x") {
			return
		}
		up, err := net.Dial("tcp", secure.Listener.Addr().String())
		if err != nil {
			return
		}
		defer up.Close()
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, c); up.Close() }()
		_, _ = io.Copy(c, up)
	})
	r := run(t, "https://a.example.com/", &meshv1.HttpProbe{ProxyUrl: "http://" + tunnel, Headers: map[string]string{"Proxy-Authorization": "Basic x"},
		Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Expect: []string{`response.body == "hello[]"`}})
	probetest.OK().Match(t, r)
	if r.RemoteAddress != tunnel {
		t.Errorf("remote %s", r.RemoteAddress)
	}
}
