package http

import (
	"crypto/tls"
	nethttp "net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shares compiles checks that share what they can.
func shares(t *testing.T) func(uri string, options *meshv1.HttpProbe) *runner {
	env := probetest.Env()
	env.Shared = probe.NewShared()
	return func(uri string, options *meshv1.HttpProbe) *runner {
		c := spec.Effective(&meshv1.Check{Name: "checks/a", Uri: uri, Timeout: durationpb.New(5 * time.Second), Http: options}, 1)
		target, err := spec.ParseURI(uri)
		if err != nil {
			t.Fatal(err)
		}
		made, err := Compile(c, target, env)
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
}

func TestChecksThatAskAlikeShareHowTheyAskAndNotWhom(t *testing.T) {
	compile := shares(t)
	var asked []string
	servers := [2]*httptest.Server{}
	for i := range servers {
		servers[i] = httptest.NewServer(nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) {
			asked = append(asked, r.Host+r.URL.Path+" "+r.Header.Get("X-Of"))
		}))
		t.Cleanup(servers[i].Close)
	}
	of := func(who string) *meshv1.HttpProbe { return &meshv1.HttpProbe{Headers: map[string]string{"X-Of": who}} }
	one, two, other := compile(servers[0].URL+"/1", of("a")), compile(servers[1].URL+"/2", of("a")), compile(servers[0].URL+"/3", of("b"))
	if one.manner != two.manner || one.manner == other.manner {
		t.Errorf("shared with the same options: %t, and with others: %t", one.manner == two.manner, one.manner == other.manner)
	}
	for _, r := range []*runner{one, two, other, one} {
		probetest.OK().Match(t, r.Probe(t.Context(), probe.Options{}))
	}
	a, b := servers[0].Listener.Addr().String(), servers[1].Listener.Addr().String()
	for i, want := range []string{a + "/1 a", b + "/2 a", a + "/3 b", a + "/1 a"} {
		if asked[i] != want {
			t.Errorf("asked %s, want %s", asked[i], want)
		}
	}
}

func TestChecksOfOneHostShareTheirTLSButNeverSessions(t *testing.T) {
	compile := shares(t)
	pinned := func() *meshv1.HttpProbe { return &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{MinVersion: "1.3"}} }
	one := compile("https://a.example/1", pinned())
	for _, c := range []struct {
		name    string
		other   *runner
		shared  bool
		version uint16
	}{
		{"the same", compile("https://a.example/2", pinned()), true, tls.VersionTLS13},
		{"another host", compile("https://b.example/1", pinned()), false, tls.VersionTLS13},
		{"another version of TLS", compile("https://a.example/1", nil), false, tls.VersionTLS12},
		{"another version of HTTP", compile("https://a.example/1", &meshv1.HttpProbe{Version: meshv1.HttpProbe_HTTP1, Tls: pinned().Tls}), false, tls.VersionTLS13},
	} {
		if shared := c.other.secured == one.secured; shared != c.shared || c.other.secured.named.MinVersion != c.version || c.other.secured.named.ServerName != c.other.url.Hostname() {
			t.Errorf("%s: shared %t, want %t; %+v", c.name, shared, c.shared, c.other.secured.named)
		}
	}
	resuming := func() *meshv1.HttpProbe { return &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{ResumeSessions: true}} }
	if first, second := compile("https://a.example/1", resuming()), compile("https://a.example/1", resuming()); first.secured == second.secured ||
		first.secured.named.ClientSessionCache == second.secured.named.ClientSessionCache {
		t.Error("two checks share their sessions")
	}
}
