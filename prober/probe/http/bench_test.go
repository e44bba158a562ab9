package http_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestBenchTarget is the target process; it serves until its standard input ends.
func TestBenchTarget(t *testing.T) {
	probetest.AsTarget(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("x", 1000)
	s := &nethttp.Server{Handler: nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) { _, _ = io.WriteString(w, body) })}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	secure := httptest.NewUnstartedServer(s.Handler)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secure.StartTLS()
	defer secure.Close()
	probetest.Announce("http://"+l.Addr().String()+"/", secure.URL, base64.StdEncoding.EncodeToString([]byte(ca.PEM)))
	s.Close()
	<-done
}

// target starts the target process and gives its URL.
func target(b *testing.B) string { return probetest.Target(b)[0] }

// secureTarget starts the target process and gives its URL of https, and its authority in PEM.
func secureTarget(b *testing.B) (url, authority string) {
	b.Helper()
	words := probetest.Target(b)
	text, err := base64.StdEncoding.DecodeString(words[2])
	if err != nil {
		b.Fatal(err)
	}
	return words[1], string(text)
}

// probing gives a function that probes url once.
func probing(b *testing.B, url string, o *meshv1.HttpProbe) func() {
	return probetest.Probing(b, http.Compile, url, func(c *meshv1.Check) { c.Http = o })
}

// bare gives a function that requests url once as a plain program would.
func bare(b *testing.B, url, authority string) func() {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(authority))
	client := &nethttp.Client{Transport: &nethttp.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}, Timeout: 5 * time.Second}
	return func() {
		resp, err := client.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			b.Fatal(err)
		}
		resp.Body.Close()
	}
}

// BenchmarkHTTPProbe is a whole probe: request, result, timings. Run it with -cpu 1 to learn what one core does.
func BenchmarkHTTPProbe(b *testing.B) {
	probetest.Measure(b, probing(b, target(b), nil))
}

// BenchmarkHTTPProbeExpect is a probe with expectations of status and body.
func BenchmarkHTTPProbeExpect(b *testing.B) {
	probetest.Measure(b, probing(b, target(b), &meshv1.HttpProbe{Expect: []string{`response.status == 200`, `response.body.contains("xxx")`}}))
}

// BenchmarkBareHTTP is the same request by net/http alone.
func BenchmarkBareHTTP(b *testing.B) {
	probetest.Measure(b, bare(b, target(b), ""))
}

// minimal gives a function that requests url once as the smallest client does that still looks at the answer: it connects, writes a fixed text, and reads to the end.
func minimal(b *testing.B, url string) func() {
	address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
	request := []byte("GET / HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: probemesh/test\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\r\n")
	buffer := make([]byte, 4096)
	return func() {
		conn, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		filled := 0
		for {
			n, err := conn.Read(buffer[filled:])
			filled += n
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		if !bytes.HasPrefix(buffer[:filled], []byte("HTTP/1.1 200 ")) || !bytes.Contains(buffer[:filled], []byte("\r\n\r\nxxx")) {
			b.Fatalf("%q", buffer[:filled])
		}
	}
}

// BenchmarkHTTPProbeAgainstBare compares with a loop over net/http.
func BenchmarkHTTPProbeAgainstBare(b *testing.B) {
	url := target(b)
	probetest.Against(b, probing(b, url, nil), bare(b, url, ""))
}

// BenchmarkHTTPProbeAgainstMinimal compares with the smallest client.
func BenchmarkHTTPProbeAgainstMinimal(b *testing.B) {
	url := target(b)
	probetest.Against(b, probing(b, url, nil), minimal(b, url))
}

// BenchmarkHTTPSProbeAgainstBare compares with a loop over net/http that verifies the certificate too.
func BenchmarkHTTPSProbeAgainstBare(b *testing.B) {
	url, authority := secureTarget(b)
	probetest.Against(b, probing(b, url, &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: authority}}), bare(b, url, authority))
}

// BenchmarkHTTPSProbeResumed is the same when nine of ten handshakes resume a session.
func BenchmarkHTTPSProbeResumed(b *testing.B) {
	url, authority := secureTarget(b)
	probetest.Against(b, probing(b, url, &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: authority, ResumeSessions: true}}), bare(b, url, authority))
}
