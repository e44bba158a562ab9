package tls_test

import (
	stdtls "crypto/tls"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tls"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, address string, o *meshv1.TlsProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, address, o)
}

// short is the timeout of probes that are to run into it.
const short = 400 * time.Millisecond

// within is run with a timeout.
func within(t *testing.T, timeout time.Duration, address string, o *meshv1.TlsProbe) *meshv1.Result {
	t.Helper()
	return probetest.Run(t, tls.Compile, "tls://"+address, timeout, probe.Options{}, func(c *meshv1.Check) { c.Tls = o })
}

// serve completes handshakes with a certificate and then hangs.
func serve(t *testing.T, pair stdtls.Certificate, change func(*stdtls.Config)) string {
	config := &stdtls.Config{Certificates: []stdtls.Certificate{pair}}
	if change != nil {
		change(config)
	}
	return probetest.Listen(t, func(c net.Conn) {
		s := stdtls.Server(c, config)
		if s.Handshake() == nil {
			probetest.Hang(s)
		}
	})
}

func TestAHandshakeShowsTheChainAndItsDays(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, 20*24*time.Hour+time.Minute, "127.0.0.1", "a.example.com")
	address := serve(t, pair, nil)
	trusted := &meshv1.TlsConfig{CaPem: ca.PEM}
	r := run(t, address, &meshv1.TlsProbe{Tls: trusted, Expect: []string{`response.tls.days_left == 20`, `response.tls.version == "1.3"`,
		`response.tls.chain_length == 1`, `response.tls.subject == "CN=leaf"`, `response.tls.cipher.startsWith("TLS_")`}})
	probetest.OK().Match(t, r)
	if r.Tls.GetChainExpiry() == nil || !r.Tls.GetEarliestExpiry().AsTime().Equal(r.Tls.GetChainExpiry().AsTime()) || r.Timings.Handshake == nil {
		t.Errorf("got %v", r)
	}
	r = run(t, address, &meshv1.TlsProbe{Tls: trusted, Expect: []string{`response.tls.days_left >= 30`}})
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "response.tls.days_left is 20").Match(t, r)
	if len(r.Evidence.Certificates) != 1 || len(r.Evidence.Certificates[0].Names) != 2 || len(r.Evidence.Certificates[0].Sha256) != 64 {
		t.Errorf("evidence %v", r.Evidence)
	}
	expired, _, _ := ca.Issue(t, -time.Hour, "127.0.0.1")
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "expired on").Match(t, run(t, serve(t, expired, nil), &meshv1.TlsProbe{Tls: trusted}))
	probetest.OK().Match(t, run(t, serve(t, expired, nil), &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{InsecureSkipVerify: true}, Expect: []string{`response.tls.days_left == -1`}}))
	old := serve(t, pair, func(c *stdtls.Config) { c.MinVersion, c.MaxVersion = stdtls.VersionTLS10, stdtls.VersionTLS10 })
	probetest.OK().Match(t, run(t, old, &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, MinVersion: "1.0"}, Expect: []string{`response.tls.version == "1.0"`}}))
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "").Match(t, run(t, old, &meshv1.TlsProbe{Tls: trusted}))
}

func TestPeersThatDoNotSpeakTLSAreClassified(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  probetest.Want
	}{
		"silent":  {probetest.Hang, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_HANDSHAKE, "timed out after 400ms")},
		"closes":  {func(net.Conn) {}, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_HANDSHAKE, "")},
		"garbage": {func(c net.Conn) { _, _ = c.Write([]byte("220 mail.example.com ESMTP\r\n")); probetest.Hang(c) }, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "does not speak TLS")},
	} {
		t.Run(name, func(t *testing.T) { c.want.Match(t, within(t, short, probetest.Listen(t, c.serve), nil)) })
	}
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "refused").Match(t, run(t, probetest.RefusedAddress(t), nil))
}
