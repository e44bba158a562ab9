package tls_test

import (
	"context"
	stdtls "crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tls"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// runnerOf compiles a check that lives for several probes.
func runnerOf(t *testing.T, address string, o *meshv1.TlsProbe) func(probe.Options) *meshv1.Result {
	t.Helper()
	c, target := probetest.Check(t, "tls://"+address, 10*time.Second, func(c *meshv1.Check) { c.Tls = o })
	r, err := tls.Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return func(o probe.Options) *meshv1.Result {
		got := r.Probe(context.Background(), o)
		probetest.Promises(t, got)
		return got
	}
}

func TestSessionsAreResumedAndEveryNthHandshakeIsAFullOne(t *testing.T) {
	ca := probetest.NewCA(t)
	for version, most := range map[string]uint16{"1.2": stdtls.VersionTLS12, "1.3": stdtls.VersionTLS13} {
		t.Run(version, func(t *testing.T) {
			address := serve(t, ca.Make(t, nil, nil), func(c *stdtls.Config) { c.MaxVersion = most })
			once := runnerOf(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ResumeSessions: true, FullEvery: 4}, Expect: []string{`response.tls.days_left > 300`}})
			for i := range 12 {
				r := once(probe.Options{})
				probetest.OK().Match(t, r)
				if r.Tls.Resumed != (i%4 != 0) || r.Tls.Version != version || r.Tls.ChainExpiry == nil {
					t.Errorf("probe %d: %v", i, r.Tls)
				}
			}
			if r := once(probe.Options{Fresh: true}); r.Tls.Resumed {
				t.Error("a confirmation resumed a session")
			}
		})
	}
}

// TestARenewedCertificateIsSeenAsSoonAsTheKeptOneFails: the kept certificate has three seconds more than the check demands. Once these are over the session is not resumed, and what the server has then decides.
func TestARenewedCertificateIsSeenAsSoonAsTheKeptOneFails(t *testing.T) {
	ca := probetest.NewCA(t)
	end := time.Now().Add(24*time.Hour + 3*time.Second).Truncate(time.Second)
	old, renewed := ca.Make(t, nil, func(c *x509.Certificate) { c.NotAfter = end }), ca.Make(t, nil, nil)
	for name, c := range map[string]struct {
		next *stdtls.Certificate
		want probetest.Want
	}{
		"renewed":     {&renewed, probetest.OK()},
		"not renewed": {&old, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "tls.min_days_left is 1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var current atomic.Pointer[stdtls.Certificate]
			current.Store(&old)
			address := serve(t, old, func(s *stdtls.Config) {
				s.Certificates = nil
				s.GetCertificate = func(*stdtls.ClientHelloInfo) (*stdtls.Certificate, error) { return current.Load(), nil }
			})
			once := runnerOf(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ResumeSessions: true, FullEvery: 1000, MinDaysLeft: 1}})
			probetest.OK().Match(t, once(probe.Options{}))
			current.Store(c.next)
			if r := once(probe.Options{}); !r.Tls.GetResumed() || !r.Tls.EarliestExpiry.AsTime().Equal(end) {
				t.Fatalf("not resumed: %v", r)
			}
			<-time.After(time.Until(end.Add(-24*time.Hour)) + 10*time.Millisecond)
			r := once(probe.Options{})
			c.want.Match(t, r)
			if r.Tls.GetResumed() {
				t.Error("resumed a session whose certificate fails")
			}
		})
	}
}

func TestAServerThatForgetsItsTicketsIsVerifiedInFull(t *testing.T) {
	ca := probetest.NewCA(t)
	pair := ca.Make(t, nil, nil)
	address := probetest.Listen(t, func(c net.Conn) {
		s := stdtls.Server(c, &stdtls.Config{Certificates: []stdtls.Certificate{pair}}) // keys of its own for each connection
		if s.Handshake() == nil {
			probetest.Hang(s)
		}
	})
	once := runnerOf(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ResumeSessions: true}})
	for range 3 {
		r := once(probe.Options{})
		probetest.OK().Match(t, r)
		if r.Tls.Resumed {
			t.Error("resumed")
		}
	}
}

// TestATicketThatDoesNotComeIsWaitedForOnceAndNotInTheResult: some servers give none.
func TestATicketThatDoesNotComeIsWaitedForOnceAndNotInTheResult(t *testing.T) {
	ca := probetest.NewCA(t)
	address := serve(t, ca.Make(t, nil, nil), func(c *stdtls.Config) { c.SessionTicketsDisabled = true })
	once := runnerOf(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ResumeSessions: true}})
	begin := time.Now()
	r := once(probe.Options{})
	if took, told := time.Since(begin), r.Duration.AsDuration(); took < 250*time.Millisecond || told > took-200*time.Millisecond {
		t.Errorf("it took %s, and the result tells %s", took, told)
	}
	begin = time.Now()
	for range 20 {
		probetest.OK().Match(t, once(probe.Options{}))
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("twenty probes took %s", took)
	}
}
