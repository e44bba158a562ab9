package tls_test

import (
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	nethttp "net/http"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tls"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestBenchTarget is the target process: an HTTPS server with a leaf and an intermediate. It serves until its standard input ends.
func TestBenchTarget(t *testing.T) {
	probetest.AsTarget(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ca := probetest.NewCA(t)
	sub := ca.Sub(t)
	pair := sub.Make(t, nil, nil)
	pair.Certificate = append(pair.Certificate, sub.DER())
	s := &nethttp.Server{Handler: nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) { _, _ = io.WriteString(w, "ok") }),
		TLSConfig: &stdtls.Config{Certificates: []stdtls.Certificate{pair}, NextProtos: []string{"http/1.1"}}}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ServeTLS(l, "", "") }()
	probetest.Announce(l.Addr().String(), base64.StdEncoding.EncodeToString([]byte(ca.PEM)))
	s.Close()
	<-done
}

// target starts the target process and gives its address, and its authority in PEM.
func target(b *testing.B) (address, pem string) {
	b.Helper()
	words := probetest.Target(b)
	text, err := base64.StdEncoding.DecodeString(words[1])
	if err != nil {
		b.Fatal(err)
	}
	return words[0], string(text)
}

// bareHandshake gives a function that connects and completes a verified handshake as a plain program would.
func bareHandshake(b *testing.B, address, pem string) func() {
	b.Helper()
	pool, err := spec.CertPool(pem)
	if err != nil {
		b.Fatal(err)
	}
	config := &stdtls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: -1}
	return func() {
		conn, err := stdtls.DialWithDialer(dialer, "tcp", address, config)
		if err != nil {
			b.Fatal(err)
		}
		conn.Close()
	}
}

// bareRequest gives a function that requests a page over a new connection as a plain program would.
func bareRequest(b *testing.B, address, pem string) func() {
	b.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(pem))
	client := &nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true, TLSClientConfig: &stdtls.Config{RootCAs: pool}}, Timeout: 5 * time.Second}
	return func() {
		resp, err := client.Get("https://" + address + "/")
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
	}
}

// BenchmarkTLSProbeAgainstBare is a whole probe of kind tls against a bare handshake.
func BenchmarkTLSProbeAgainstBare(b *testing.B) {
	address, pem := target(b)
	probetest.Against(b, probetest.Probing(b, tls.Compile, "tls://"+address, func(c *meshv1.Check) { c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem}} }), bareHandshake(b, address, pem))
}

// BenchmarkTLSProbeWithDemandsAgainstBare is the same with what a careful check demands.
func BenchmarkTLSProbeWithDemandsAgainstBare(b *testing.B) {
	address, pem := target(b)
	probetest.Against(b, probetest.Probing(b, tls.Compile, "tls://"+address, func(c *meshv1.Check) {
		c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem, MinDaysLeft: 14, DegradedDaysLeft: 30, MinRsaBits: 2048, MinEcBits: 256, SignatureAlgorithms: []string{"ECDSA-SHA256"}},
			Expect: []string{`response.tls.version == "1.3"`}}
	}), bareHandshake(b, address, pem))
}

// BenchmarkTLSProbeResumedAgainstBare is the same with sessions resumed nine times of ten, against the bare full handshake.
func BenchmarkTLSProbeResumedAgainstBare(b *testing.B) {
	address, pem := target(b)
	probetest.Against(b, probetest.Probing(b, tls.Compile, "tls://"+address, func(c *meshv1.Check) {
		c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem, ResumeSessions: true}}
	}), bareHandshake(b, address, pem))
}

// BenchmarkTLSProbeX25519AgainstBare is the same without post-quantum key exchange.
func BenchmarkTLSProbeX25519AgainstBare(b *testing.B) {
	address, pem := target(b)
	probetest.Against(b, probetest.Probing(b, tls.Compile, "tls://"+address, func(c *meshv1.Check) {
		c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem, Groups: []string{"X25519"}}}
	}), bareHandshake(b, address, pem))
}

// BenchmarkHTTPSProbeAgainstBare is a whole probe of kind http against net/http.
func BenchmarkHTTPSProbeAgainstBare(b *testing.B) {
	address, pem := target(b)
	probetest.Against(b, probetest.Probing(b, http.Compile, "https://"+address+"/", func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: pem}} }), bareRequest(b, address, pem))
}

// BenchmarkHTTPSProbeResumedAgainstBare is the same with sessions resumed nine times of ten, against net/http with full handshakes.
func BenchmarkHTTPSProbeResumedAgainstBare(b *testing.B) {
	address, pem := target(b)
	probetest.Against(b, probetest.Probing(b, http.Compile, "https://"+address+"/", func(c *meshv1.Check) {
		c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: pem, ResumeSessions: true}}
	}), bareRequest(b, address, pem))
}
