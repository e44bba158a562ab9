package http_test

import (
	"crypto/tls"
	"fmt"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Addresses of one name are probed at the same time by one runner: a probe must not be answered over the connection of another.
func TestProbesAtTheSameTimeSpeakHTTP2OverTheirOwnConnections(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "a.example.com")
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, EnableHTTP2: true, TLS: &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}},
		Config: &nethttp.Server{ErrorLog: discard(), Handler: nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			at, _ := r.Context().Value(nethttp.LocalAddrContextKey).(net.Addr)
			fmt.Fprint(w, at)
		})}}
	s.StartTLS()
	t.Cleanup(s.Close)
	port := l.Addr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // a TCP listener
	for _, version := range []meshv1.HttpProbe_Version{meshv1.HttpProbe_VERSION_UNSPECIFIED, meshv1.HttpProbe_HTTP2} {
		t.Run(version.String(), func(t *testing.T) { eachItsOwn(t, port, ca, version) })
	}
}

func eachItsOwn(t *testing.T, port int, ca *probetest.CA, version meshv1.HttpProbe_Version) {
	check, target := probetest.Check(t, fmt.Sprintf("https://a.example.com:%d/?b=2&a=1", port), 10*time.Second, func(c *meshv1.Check) {
		c.Http = &meshv1.HttpProbe{Version: version, AwsSigv4: &meshv1.AwsSigV4{AccessKeyId: "a", SecretAccessKey: "b", Region: "c", Service: "d"}, Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, Expect: []string{`response.version == "2"`, `response.body == response.remote_address`}}
	})
	runner, err := http.Compile(check, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	defer runner.Close()
	for range 30 {
		var all sync.WaitGroup
		for i := range 8 {
			addr := netip.AddrFrom4([4]byte{127, 0, 0, byte(i + 1)})
			all.Go(func() {
				r := runner.Probe(t.Context(), probe.Options{Pin: probe.Pin{Host: "a.example.com", Addr: addr}, Evidence: true})
				if r.GetOutcome() != meshv1.Result_OK || !strings.HasPrefix(r.GetRemoteAddress(), addr.String()+":") {
					t.Errorf("%s: %v %s %s", addr, r.GetOutcome(), r.GetError(), r.GetEvidence().GetBody())
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
	}
}
