package tls_test

import (
	"bufio"
	"context"
	stdtls "crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	nethttp "net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tls"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// targetVariable makes the test binary the target of the benchmarks, in a process of its own so that only the client's work is measured.
const targetVariable = "PROBEMESH_BENCH_TLS_TARGET"

// TestBenchTarget is the target process: an HTTPS server with a leaf and an intermediate. It serves until its standard input ends.
func TestBenchTarget(t *testing.T) {
	if os.Getenv(targetVariable) == "" {
		t.Skip("it is only run by the benchmarks")
	}
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
	_, _ = os.Stdout.WriteString("address " + l.Addr().String() + " " + base64.StdEncoding.EncodeToString([]byte(ca.PEM)) + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Close()
	<-done
}

// target starts the target process and gives its address and its authority.
func target(b *testing.B) (address, pem string) {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchTarget$", "-test.v")
	cmd.Env = append(os.Environ(), targetVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "address" {
			text, err := base64.StdEncoding.DecodeString(f[2])
			if err != nil {
				b.Fatal(err)
			}
			return f[1], string(text)
		}
	}
	b.Fatal("the target did not start")
	return "", ""
}

// probing gives a function that probes a URI once.
func probing(b *testing.B, uri string, compile probetest.Compiler, change func(*meshv1.Check)) func() {
	b.Helper()
	c, t := probetest.Check(b, uri, 5*time.Second, change)
	r, err := compile(c, t, probetest.Env())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.Close)
	return func() {
		if got := r.Probe(context.Background(), probe.Options{}); got.Outcome != meshv1.Result_OK {
			b.Fatal(got)
		}
	}
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

// against does both in turns, so that a noisy machine disturbs them alike, and reports how much CPU time of this process a probe takes in relation to a bare loop ("times-bare"; 1.1 is promised), and each in microseconds.
func against(b *testing.B, probeOnce, bareOnce func()) {
	b.Helper()
	var probed, bared time.Duration
	for b.Loop() {
		begin := cpu(b)
		for range 25 {
			probeOnce()
		}
		middle := cpu(b)
		for range 25 {
			bareOnce()
		}
		probed, bared = probed+middle-begin, bared+cpu(b)-middle
	}
	b.ReportMetric(probed.Seconds()/bared.Seconds(), "times-bare")
	b.ReportMetric(probed.Seconds()*1e6/float64(b.N*25), "probe-us")
	b.ReportMetric(bared.Seconds()*1e6/float64(b.N*25), "bare-us")
}

// BenchmarkTLSProbeAgainstBare is a whole probe of kind tls against a bare handshake.
func BenchmarkTLSProbeAgainstBare(b *testing.B) {
	address, pem := target(b)
	against(b, probing(b, "tls://"+address, tls.Compile, func(c *meshv1.Check) { c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem}} }), bareHandshake(b, address, pem))
}

// BenchmarkTLSProbeWithDemandsAgainstBare is the same with what a careful check demands.
func BenchmarkTLSProbeWithDemandsAgainstBare(b *testing.B) {
	address, pem := target(b)
	against(b, probing(b, "tls://"+address, tls.Compile, func(c *meshv1.Check) {
		c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem, MinDaysLeft: 14, DegradedDaysLeft: 30, MinRsaBits: 2048, MinEcBits: 256, SignatureAlgorithms: []string{"ECDSA-SHA256"}},
			Expect: []string{`response.tls.version == "1.3"`}}
	}), bareHandshake(b, address, pem))
}

// BenchmarkTLSProbeResumedAgainstBare is the same with sessions resumed nine times of ten, against the bare full handshake.
func BenchmarkTLSProbeResumedAgainstBare(b *testing.B) {
	address, pem := target(b)
	against(b, probing(b, "tls://"+address, tls.Compile, func(c *meshv1.Check) {
		c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem, ResumeSessions: true}}
	}), bareHandshake(b, address, pem))
}

// BenchmarkTLSProbeX25519AgainstBare is the same without post-quantum key exchange.
func BenchmarkTLSProbeX25519AgainstBare(b *testing.B) {
	address, pem := target(b)
	against(b, probing(b, "tls://"+address, tls.Compile, func(c *meshv1.Check) {
		c.Tls = &meshv1.TlsProbe{Tls: &meshv1.TlsConfig{CaPem: pem, Groups: []string{"X25519"}}}
	}), bareHandshake(b, address, pem))
}

// BenchmarkHTTPSProbeAgainstBare is a whole probe of kind http against net/http.
func BenchmarkHTTPSProbeAgainstBare(b *testing.B) {
	address, pem := target(b)
	against(b, probing(b, "https://"+address+"/", http.Compile, func(c *meshv1.Check) { c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: pem}} }), bareRequest(b, address, pem))
}

// BenchmarkHTTPSProbeResumedAgainstBare is the same with sessions resumed nine times of ten, against net/http with full handshakes.
func BenchmarkHTTPSProbeResumedAgainstBare(b *testing.B) {
	address, pem := target(b)
	against(b, probing(b, "https://"+address+"/", http.Compile, func(c *meshv1.Check) {
		c.Http = &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: pem, ResumeSessions: true}}
	}), bareRequest(b, address, pem))
}

// cpu is the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
