package http_test

import (
	"crypto/tls"
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestAFreshProbeShakesHandsInFullWhereOthersResume(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	tell := func(w nethttp.ResponseWriter, r *nethttp.Request) { fmt.Fprint(w, "resumed ", r.TLS.DidResume) }
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(tell))
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	t.Cleanup(s.Close)
	clear := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) { nethttp.Redirect(w, r, s.URL, nethttp.StatusFound) })
	quic := serve3(t, ca, tell)
	for name, c := range map[string]struct {
		uri string
		o   *meshv1.HttpProbe
	}{
		"http/1.1":   {s.URL, &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP1}},
		"negotiated": {s.URL, &meshv1.HttpProbe{}},
		"http/2":     {s.URL, &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP2}},
		"http/3":     {quic, &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP3}},
		"redirect":   {clear.URL, &meshv1.HttpProbe{}},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.Tls = &meshv1.TlsConfig{CaPem: ca.PEM, ResumeSessions: true, FullEvery: 1000}
			check, target := probetest.Check(t, c.uri, 10*time.Second, func(k *meshv1.Check) { k.Http = c.o })
			r, err := http.Compile(check, target, probetest.Env())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			var got []string
			for _, fresh := range []bool{false, false, true, true, false} {
				result := r.Probe(t.Context(), probe.Options{Fresh: fresh, Evidence: true})
				probetest.OK().Match(t, result)
				got = append(got, strings.TrimPrefix(string(result.GetEvidence().GetBody()), "resumed "))
			}
			if all := strings.Join(got, " "); all != "false true false false true" {
				t.Errorf("resumed: %s", all)
			}
		})
	}
	t.Run("kept", func(t *testing.T) {
		o := &meshv1.HttpProbe{KeepAlive: true, Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ResumeSessions: true, FullEvery: 1000}}
		check, target := probetest.Check(t, s.URL, 10*time.Second, func(k *meshv1.Check) { k.Http = o })
		r, err := http.Compile(check, target, probetest.Env())
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for range 2 {
			probetest.OK().Match(t, r.Probe(t.Context(), probe.Options{}))
			result := r.Probe(t.Context(), probe.Options{Fresh: true, Evidence: true})
			if string(result.GetEvidence().GetBody()) != "resumed false" || result.GetTimings().GetHandshake() == nil {
				t.Errorf("got %v", result)
			}
		}
	})
}

func TestATokenIsFetchedThroughTheProxyOfTheCheck(t *testing.T) {
	asked := make(chan string, 10)
	proxy := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		asked <- r.URL.String() + " " + r.Header.Get("Proxy-Authorization") + " " + r.Header.Get("Authorization")
		switch r.Host {
		case "auth.invalid":
			fmt.Fprint(w, `{"access_token": "token", "token_type": "Bearer"}`)
		case "target.invalid":
		default:
			w.WriteHeader(nethttp.StatusBadGateway)
		}
	})
	direct := newOAuthServer(t)
	o := func(url string, without bool) *meshv1.HttpProbe {
		return &meshv1.HttpProbe{ProxyUrl: proxy.URL, Headers: map[string]string{"Proxy-Authorization": "Basic p"},
			Oauth2: &meshv1.OAuth2ClientCredentials{TokenUrl: url, ClientId: "c", AuthStyle: meshv1.OAuth2ClientCredentials_BODY, WithoutProxy: without}}
	}
	probetest.OK().Match(t, run(t, "http://target.invalid/", o("http://auth.invalid/token", false)))
	for _, want := range []string{"http://auth.invalid/token Basic p ", "http://target.invalid/ Basic p Bearer token"} {
		if got := <-asked; got != want {
			t.Errorf("the proxy was asked for %q, want %q", got, want)
		}
	}
	probetest.OK().Match(t, run(t, "http://target.invalid/", o(direct.url, true)))
	if got := <-asked; direct.tokens.Load() != 1 || got != "http://target.invalid/ Basic p Bearer token-1" {
		t.Errorf("%d tokens came directly, and then the proxy was asked for %q", direct.tokens.Load(), got)
	}
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_CONNECT, "no token from https://auth.invalid/token, so the target was not asked: proxy ").
		Match(t, run(t, "http://target.invalid/", o("https://auth.invalid/token", false)))
}
