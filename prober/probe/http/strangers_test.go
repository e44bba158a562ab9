package http_test

import (
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// stranger is a host that no check names; it notes what it is sent.
type stranger struct {
	url      string
	requests atomic.Int32
	got      atomic.Value // string: method, headers that are not harmless, body
}

func newStranger(t *testing.T) *stranger {
	s := &stranger{}
	s.url = serve(t, func(_ nethttp.ResponseWriter, r *nethttp.Request) {
		s.requests.Add(1)
		b, _ := io.ReadAll(r.Body)
		s.got.Store(fmt.Sprintf("%s %s%s%s %s", r.Method, r.Header.Get("Authorization"), r.Header.Get("X-Api-Key"), r.Header.Get("Cookie"), b))
	}).URL
	return s
}

func TestABodyIsNotCarriedToAHostThatARedirectNames(t *testing.T) {
	for _, status := range []int{nethttp.StatusTemporaryRedirect, nethttp.StatusPermanentRedirect} {
		other := newStranger(t)
		s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
			switch r.URL.Path {
			case "/away":
				nethttp.Redirect(w, r, other.url+"/x", status)
			case "/home":
				nethttp.Redirect(w, r, "/end", status)
			default:
				echo(w, r)
			}
		})
		o := &meshv1.HttpProbe{Body: "password=s3cret", Headers: map[string]string{"X-Api-Key": "k", "Cookie": "c=1"}, BearerToken: "t"}
		probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "the redirect from "+s.URL+"/away to "+other.url+"/x with status").
			Match(t, run(t, s.URL+"/away", proto.CloneOf(o)))
		if n := other.requests.Load(); n != 0 {
			t.Errorf("status %d: the other host was sent %d requests, the last one %v", status, n, other.got.Load())
		}
		o.Expect = []string{`response.body == "POST||password=s3cret"`}
		probetest.OK().Match(t, run(t, s.URL+"/home", proto.CloneOf(o)))
		o.Expect, o.SendBodyToOtherHosts = nil, true
		probetest.OK().Match(t, run(t, s.URL+"/away", proto.CloneOf(o)))
		if got := other.got.Load(); got != "POST  password=s3cret" {
			t.Errorf("with send_body_to_other_hosts the other host was sent %q", got)
		}
		other.requests.Store(0)
		probetest.OK().Match(t, run(t, s.URL+"/away", &meshv1.HttpProbe{Method: "DELETE"})) // nothing to carry
		if got := other.got.Load(); got != "DELETE  " {
			t.Errorf("without a body the other host was sent %q", got)
		}
	}
}

func TestABodyIsNotCarriedFromTLSIntoTheClear(t *testing.T) {
	other := newStranger(t)
	secure := httptest.NewTLSServer(nethttp.RedirectHandler(other.url, nethttp.StatusPermanentRedirect))
	t.Cleanup(secure.Close)
	r := run(t, secure.URL, &meshv1.HttpProbe{Body: "s3cret", Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}})
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "nor from https to http").Match(t, r)
	if other.requests.Load() != 0 {
		t.Errorf("it was sent %v", other.got.Load())
	}
}

func TestWhatTheTargetNamesIsNotSentTheSecretsOfAStep(t *testing.T) {
	other, partner := newStranger(t), newStranger(t)
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/next" {
			fmt.Fprintf(w, `{"other": %q, "partner": "%s/p", "own": "http://%s/own", "path": "/%s"}`, other.url, partner.url, r.Host, strings.TrimPrefix(other.url, "http:/"))
			return
		}
		w.Header().Set("X-Got", r.Header.Get("X-Api-Key"))
	})
	probeStep := func(name string, change func(o *meshv1.HttpProbe, s *meshv1.HttpStep)) *meshv1.Result {
		step := &meshv1.HttpStep{Name: "next", Url: "${v}"}
		o := &meshv1.HttpProbe{BearerToken: "t", Steps: []*meshv1.HttpStep{{Url: "/next", Captures: []*meshv1.Capture{{Name: "v", JsonPath: name}}}, step}}
		change(o, step)
		return run(t, s.URL, o)
	}
	key := []*meshv1.HttpHeader{{Name: "x-api-key", Value: "s3cret"}}
	refused := func(sentence string) probetest.Want {
		return probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_TRANSFER, "step next: it cannot be sent: a captured value leads to "+other.url+", and "+sentence)
	}
	refused("header x-api-key is not sent").Match(t, probeStep("other", func(_ *meshv1.HttpProbe, s *meshv1.HttpStep) { s.Headers = key }))
	refused("header x-api-key is not sent").Match(t, probeStep("path", func(_ *meshv1.HttpProbe, s *meshv1.HttpStep) { s.Headers = key }))
	refused("the body is not sent").Match(t, probeStep("other", func(_ *meshv1.HttpProbe, s *meshv1.HttpStep) { s.Body = "s3cret" }))
	if n := other.requests.Load(); n != 0 {
		t.Fatalf("the host that the target named was sent %v", other.got.Load())
	}
	probetest.OK().Match(t, probeStep("other", func(*meshv1.HttpProbe, *meshv1.HttpStep) {})) // nothing to keep from it
	probetest.OK().Match(t, probeStep("other", func(o *meshv1.HttpProbe, s *meshv1.HttpStep) { o.SendBodyToOtherHosts, s.Body = true, "b" }))
	if got := other.got.Load(); got != "POST  b" {
		t.Errorf("with send_body_to_other_hosts it was sent %q", got)
	}
	probetest.OK().Match(t, probeStep("own", func(o *meshv1.HttpProbe, s *meshv1.HttpStep) {
		s.Headers, o.Expect = key, []string{`response.headers["x-got"] == "s3cret"`}
	}))
	probetest.OK().Match(t, probeStep("partner", func(o *meshv1.HttpProbe, s *meshv1.HttpStep) {
		s.Headers = key
		o.Steps = append(o.Steps, &meshv1.HttpStep{Url: partner.url + "/${v}"}) // so the check names it
	}))
	if got := partner.got.Load(); !strings.HasPrefix(fmt.Sprint(got), "GET  ") || partner.requests.Load() != 2 {
		t.Errorf("the host that another step names was sent %q", got)
	}
}
