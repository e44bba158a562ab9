package tls_test

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// The issuers are told by what answers, and told alike by the evidence of what does not.
func TestWhoIssuedTheChainIsToldWhetherOrNotItVerifies(t *testing.T) {
	ca := probetest.NewCA(t)
	sub := ca.Sub(t)
	chain := func(change func(*x509.Certificate)) stdtls.Certificate {
		pair := sub.Make(t, nil, change)
		pair.Certificate = append(pair.Certificate, sub.DER(), ca.DER())
		return pair
	}
	trusted := &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}
	want := []string{"CN=Test Sub-CA", "CN=Test CA"} // the root issued two of them
	probeOnce := runnerOf(t, serve(t, chain(nil), nil), trusted)
	for range 2 { // of which the second is the same as before
		r := probeOnce(probe.Options{})
		probetest.OK().Match(t, r)
		if !slices.Equal(r.GetTls().GetIssuers(), want) {
			t.Errorf("got %q", r.GetTls().GetIssuers())
		}
	}
	expired := chain(func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().AddDate(0, 0, -9), time.Now().AddDate(0, 0, -1)
	})
	r := run(t, serve(t, expired, nil), trusted)
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "expired on").Match(t, r)
	if c := r.GetEvidence().GetCertificates(); len(c) != 3 || c[0].GetIssuer() != want[0] || c[1].GetIssuer() != want[1] {
		t.Errorf("got %v", c)
	}
	r = run(t, serve(t, chain(nil), nil), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, MinDaysLeft: 3000}})
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "min_days_left is 3000").Match(t, r)
	if !slices.Equal(r.GetTls().GetIssuers(), want) {
		t.Errorf("got %q", r.GetTls().GetIssuers())
	}
}

func TestAnotherIssuerIsToldAtOnce(t *testing.T) {
	one, two := probetest.NewCA(t), probetest.NewCA(t)
	first, second := one.Sub(t).Make(t, nil, nil), two.Make(t, nil, nil)
	var pair atomic.Pointer[stdtls.Certificate]
	pair.Store(&first)
	address := serve(t, first, func(c *stdtls.Config) {
		c.Certificates = nil
		c.GetCertificate = func(*stdtls.ClientHelloInfo) (*stdtls.Certificate, error) { return pair.Load(), nil }
	})
	probeOnce := runnerOf(t, address, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}})
	if r := probeOnce(probe.Options{}); !slices.Equal(r.GetTls().GetIssuers(), []string{"CN=Test Sub-CA"}) {
		t.Errorf("got %v", r)
	}
	pair.Store(&second)
	if r := probeOnce(probe.Options{}); !slices.Equal(r.GetTls().GetIssuers(), []string{"CN=Test CA"}) {
		t.Errorf("got %v", r)
	}
}
