package tcp_test

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

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tcp"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// targetVariable makes the test binary the target of the benchmarks, in a process of its own so that only the client's work is measured.
const targetVariable = "PROBEMESH_BENCH_TARGET"

// TestBenchTarget is the target process; it greets whoever connects until its standard input ends.
func TestBenchTarget(t *testing.T) {
	if os.Getenv(targetVariable) == "" {
		t.Skip("it is only run by the benchmarks")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "220 target ESMTP\r\n")
			c.Close()
		}
	}()
	_, _ = os.Stdout.WriteString("address " + l.Addr().String() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	l.Close()
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

// probing gives a function that probes the address once.
func probing(b *testing.B, address string, o *meshv1.TcpProbe) func() {
	c, t := probetest.Check(b, "tcp://"+address, 5*time.Second, func(c *meshv1.Check) { c.Tcp = o })
	r, err := tcp.Compile(c, t, probetest.Env())
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

// bare gives a function that connects once as a plain program would, and with read reads the greeting.
func bare(b *testing.B, address string, read bool) func() {
	buffer := make([]byte, 512)
	return func() {
		c, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		if read {
			if _, err := c.Read(buffer); err != nil {
				b.Fatal(err)
			}
		}
		c.Close()
	}
}

// dialogue is the one step of the benchmarks.
func dialogue() *meshv1.TcpProbe {
	return &meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Expect: `^220 (?P<name>\S+)`}}}
}

// BenchmarkTCPProbe is a whole probe: connect, result, timings. Run it with -cpu 1 to learn what one core does.
func BenchmarkTCPProbe(b *testing.B) {
	once := probing(b, target(b), nil)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkTCPProbeDialogue is a probe that reads a greeting.
func BenchmarkTCPProbeDialogue(b *testing.B) {
	once := probing(b, target(b), dialogue())
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkBareTCP is the same connection by net alone.
func BenchmarkBareTCP(b *testing.B) {
	once := bare(b, target(b), false)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkTCPProbeAgainstBare does both in turns, so that a noisy machine disturbs them alike, and reports what a probe costs in relation to the bare loop: "cpu-cost" by the CPU time of this
// process, and "wall-cost" by the clock. 1.25 is the most that it should.
func BenchmarkTCPProbeAgainstBare(b *testing.B) {
	address := target(b)
	against(b, probing(b, address, nil), bare(b, address, false))
}

// BenchmarkTCPDialogueAgainstBare is the same with a greeting that is read.
func BenchmarkTCPDialogueAgainstBare(b *testing.B) {
	address := target(b)
	against(b, probing(b, address, dialogue()), bare(b, address, true))
}

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
	b.ReportMetric(probed.Seconds()/bared.Seconds(), "wall-cost")
	b.ReportMetric(probedCPU.Seconds()/baredCPU.Seconds(), "cpu-cost")
	b.ReportMetric(float64(probedCPU.Microseconds())/float64(b.N*50), "cpu-us/probe")
}

// cpu is the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
