package http_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// targetVariable makes the test binary the target of the benchmarks, in a process of its own so that only the client's work is measured.
const targetVariable = "PROBEMESH_BENCH_TARGET"

// TestBenchTarget is the target process; it serves until its standard input ends.
func TestBenchTarget(t *testing.T) {
	if os.Getenv(targetVariable) == "" {
		t.Skip("it is only run by the benchmarks")
	}
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
	_, _ = os.Stdout.WriteString("secure " + base64.StdEncoding.EncodeToString([]byte(ca.PEM)) + " " + secure.URL + "\naddress " + l.Addr().String() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Close()
	<-done
}

// target starts the target process and gives its URL.
func target(b *testing.B) string {
	b.Helper()
	url, _, _ := targets(b)
	return url
}

// targets starts the target process and gives its URLs, and the authority of the second in PEM.
func targets(b *testing.B) (plain, secure, authority string) {
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
		if _, rest, ok := strings.Cut(lines.Text(), "secure "); ok {
			encoded, url, _ := strings.Cut(rest, " ")
			text, err := base64.StdEncoding.DecodeString(encoded)
			if err != nil {
				b.Fatal(err)
			}
			secure, authority = url, string(text)
		}
		if _, address, ok := strings.Cut(lines.Text(), "address "); ok {
			return "http://" + address + "/", secure, authority
		}
	}
	b.Fatal("the target did not start")
	return "", "", ""
}

// probing gives a function that probes url once.
func probing(b *testing.B, url string, o *meshv1.HttpProbe) func() {
	c, t := probetest.Check(b, url, 5*time.Second, func(c *meshv1.Check) { c.Http = o })
	r, err := http.Compile(c, t, probetest.Env())
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
	once := probing(b, target(b), nil)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkHTTPProbeExpect is a probe with expectations of status and body.
func BenchmarkHTTPProbeExpect(b *testing.B) {
	once := probing(b, target(b), &meshv1.HttpProbe{Expect: []string{`response.status == 200`, `response.body.contains("xxx")`}})
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkBareHTTP is the same request by net/http alone.
func BenchmarkBareHTTP(b *testing.B) {
	once := bare(b, target(b), "")
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
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

// against does both in turns, so that a noisy machine disturbs them alike, and reports the probe's rate in relation to the other's: "cpu-ratio" by the CPU time of this process, which
// is what one core can do, and "wall-ratio" by the clock; and both costs.
func against(b *testing.B, probeOnce, bareOnce func()) {
	var probed, bared, probedCPU, baredCPU time.Duration
	for b.Loop() {
		begin, beginCPU := time.Now(), cpu(b)
		for range 50 {
			probeOnce()
		}
		middle, middleCPU := time.Now(), cpu(b)
		for range 50 {
			bareOnce()
		}
		probed, bared = probed+middle.Sub(begin), bared+time.Since(middle)
		probedCPU, baredCPU = probedCPU+middleCPU-beginCPU, baredCPU+cpu(b)-middleCPU
	}
	b.ReportMetric(bared.Seconds()/probed.Seconds(), "wall-ratio")
	b.ReportMetric(baredCPU.Seconds()/probedCPU.Seconds(), "cpu-ratio")
	b.ReportMetric(float64(probedCPU.Microseconds())/float64(b.N*50), "cpu-us/probe")
	b.ReportMetric(float64(baredCPU.Microseconds())/float64(b.N*50), "cpu-us/bare")
	b.ReportMetric(float64(b.N*50)/probedCPU.Seconds(), "probes/cpu-s")
}

// BenchmarkHTTPProbeAgainstBare compares with a loop over net/http.
func BenchmarkHTTPProbeAgainstBare(b *testing.B) {
	url := target(b)
	against(b, probing(b, url, nil), bare(b, url, ""))
}

// BenchmarkHTTPProbeAgainstMinimal compares with the smallest client.
func BenchmarkHTTPProbeAgainstMinimal(b *testing.B) {
	url := target(b)
	against(b, probing(b, url, nil), minimal(b, url))
}

// BenchmarkHTTPSProbeAgainstBare compares with a loop over net/http that verifies the certificate too.
func BenchmarkHTTPSProbeAgainstBare(b *testing.B) {
	_, url, authority := targets(b)
	against(b, probing(b, url, &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: authority}}), bare(b, url, authority))
}

// BenchmarkHTTPSProbeResumed is the same when nine of ten handshakes resume a session.
func BenchmarkHTTPSProbeResumed(b *testing.B) {
	_, url, authority := targets(b)
	against(b, probing(b, url, &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: authority, ResumeSessions: true}}), bare(b, url, authority))
}

// cpu is the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
