package http

import (
	nethttp "net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// compiled is the runner of a check of uri.
func compiled(t *testing.T, uri string, o *meshv1.HttpProbe) *runner {
	t.Helper()
	c, target := probetest.Check(t, uri, 10*time.Second, func(c *meshv1.Check) { c.Http = o })
	made, err := Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(made.Close)
	r, ok := made.(*runner)
	if !ok {
		t.Fatalf("a runner of type %T", made)
	}
	return r
}

// A prober has many thousands of plain checks, of which hardly any meets TLS.
func TestAPlainCheckHasNothingOfTLSUntilARedirectLeadsToIt(t *testing.T) {
	secure := httptest.NewTLSServer(nethttp.NotFoundHandler())
	t.Cleanup(secure.Close)
	clear := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/away" {
			nethttp.Redirect(w, r, secure.URL, nethttp.StatusFound)
		}
	}))
	t.Cleanup(clear.Close)

	r := compiled(t, clear.URL, &meshv1.HttpProbe{FollowRedirects: new(true)})
	probetest.OK().Match(t, r.Probe(t.Context(), probe.Options{}))
	if r.secured != nil || r.bare != nil || r.usual != nil || r.fresh != nil || r.foreign != nil {
		t.Errorf("a plain check made %+v %+v, or transports, although it has met no TLS", r.secured, r.bare)
	}

	r = compiled(t, clear.URL+"/away", &meshv1.HttpProbe{FollowRedirects: new(true)})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			// The certificate of the server that it is redirected to is signed by nobody, and so it is judged.
			if got := r.Probe(t.Context(), probe.Options{}); got.GetOutcome() != meshv1.Result_FAIL || got.GetErrorClass() != meshv1.Result_TLS {
				t.Errorf("the redirect to a server whom nobody vouches for gave %v", got)
			}
		})
	}
	all.Wait()
	if r.secured == nil || r.secured.own.MinVersion != 0x0303 {
		t.Errorf("the check met TLS with %+v, want TLS 1.2 at least", r.secured)
	}
}

// What a check says of TLS is judged when it is compiled, whatever its scheme.
func TestOptionsOfTLSAreNotPutOff(t *testing.T) {
	for uri, o := range map[string]*meshv1.HttpProbe{
		"http://192.0.2.1/":   {Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}},
		"http://192.0.2.2/":   {KeepAlive: true},
		"http://192.0.2.3/":   {ProxyUrl: "http://192.0.2.4:3128"},
		"https://192.0.2.5/":  {},
		"https://192.0.2.6/a": {Tls: &meshv1.TlsConfig{MinVersion: spec.DefaultMinVersion}},
	} {
		if r := compiled(t, uri, o); r.secured == nil {
			t.Errorf("%s with %v has nothing of TLS yet", uri, o)
		}
	}
}
