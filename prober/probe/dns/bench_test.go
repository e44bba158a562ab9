package dns_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dns"
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
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(zone)}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	_, _ = os.Stdout.WriteString("address " + pc.LocalAddr().String() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = s.Shutdown()
	<-done
}

// target starts the target process and gives its address.
func target(b *testing.B) string {
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
		if _, address, ok := strings.Cut(lines.Text(), "address "); ok {
			return address
		}
	}
	b.Fatal("the target did not start")
	return ""
}

// probing gives a function that probes the server once.
func probing(b *testing.B, server string, o *meshv1.DnsProbe) func() {
	c, t := probetest.Check(b, "dns://"+server+"/a.example.com", 5*time.Second, func(c *meshv1.Check) { c.Dns = o })
	r, err := dns.Compile(c, t, probetest.Env())
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

// bare gives a function that asks the server once as a plain program would: a message packed, a new socket, a deadline, a message unpacked.
func bare(b *testing.B, server string) func() {
	return func() {
		conn, err := net.Dial("udp", server)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		q := new(mdns.Msg)
		q.SetQuestion("a.example.com.", mdns.TypeA)
		q.SetEdns0(1232, false)
		wire := &mdns.Conn{Conn: conn, UDPSize: 1232}
		if err := wire.WriteMsg(q); err != nil {
			b.Fatal(err)
		}
		m, err := wire.ReadMsg()
		if err != nil || m.Id != q.Id || len(m.Answer) != 2 {
			b.Fatal(m, err)
		}
	}
}

// BenchmarkDNSProbe is a whole probe: question, answer, result, timings. Run it with -cpu 1 to learn what one core does.
func BenchmarkDNSProbe(b *testing.B) {
	once := probing(b, target(b), nil)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkDNSProbeRules is a probe with expectations and rules.
func BenchmarkDNSProbeRules(b *testing.B) {
	once := probing(b, target(b), &meshv1.DnsProbe{Expect: []string{`"192.0.2.1" in response.dns.answers`}, Answers: []string{"192.0.2.1", "192.0.2.2"},
		AnswerSection: &meshv1.DnsSection{FailIfNoneMatchesRegexp: []string{`192\.0\.2\.1$`}}})
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkBareDNS is the same question by the library alone.
func BenchmarkBareDNS(b *testing.B) {
	once := bare(b, target(b))
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkDNSProbeAgainstBare does both in turns, so that a noisy machine disturbs them alike, and reports what a probe costs in relation to the bare loop: "cpu-times" by the CPU time of
// this process and "wall-times" by the clock.
func BenchmarkDNSProbeAgainstBare(b *testing.B) {
	server := target(b)
	probeOnce, bareOnce := probing(b, server, nil), bare(b, server)
	var probed, bared, probedCPU, baredCPU time.Duration
	for b.Loop() {
		begin, beginCPU := time.Now(), cpu(b)
		for range 200 {
			probeOnce()
		}
		middle, middleCPU := time.Now(), cpu(b)
		for range 200 {
			bareOnce()
		}
		probed, bared = probed+middle.Sub(begin), bared+time.Since(middle)
		probedCPU, baredCPU = probedCPU+middleCPU-beginCPU, baredCPU+cpu(b)-middleCPU
	}
	b.ReportMetric(probed.Seconds()/bared.Seconds(), "wall-times")
	b.ReportMetric(probedCPU.Seconds()/baredCPU.Seconds(), "cpu-times")
	b.ReportMetric(float64(probedCPU.Microseconds())/float64(b.N*200), "cpu-us/probe")
}

// cpu is the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
