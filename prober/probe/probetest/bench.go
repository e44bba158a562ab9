//go:build unix

package probetest

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// targetVariable makes a test binary the target of its benchmarks.
const targetVariable = "PROBEMESH_BENCH_TARGET"

// perRound is how many probes, and how many bare loops, take turns in [Against].
const perRound = 50

// AsTarget skips a test that is the target of benchmarks, in a process of its own so that only the client's work is measured, unless [Target] has started it. The test must be called TestBenchTarget.
func AsTarget(t *testing.T) {
	t.Helper()
	if os.Getenv(targetVariable) == "" {
		t.Skip("it is only run by the benchmarks")
	}
}

// Announce tells the benchmark, from the target's process, what [Target] gives it, words without spaces, and returns when the benchmark has ended.
func Announce(words ...string) {
	_, _ = os.Stdout.WriteString("target " + strings.Join(words, " ") + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// Target runs TestBenchTarget of the same test binary in another process until the benchmark ends, and gives the words that it announces.
func Target(b *testing.B) []string {
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
		if _, words, ok := strings.Cut(lines.Text(), "target "); ok {
			return strings.Fields(words)
		}
	}
	b.Fatal("the target did not start")
	return nil
}

// Probing gives a function that probes a URI once, with change made to its check; it fails the benchmark unless the outcome is OK.
func Probing(b *testing.B, compile Compiler, uri string, change func(*meshv1.Check)) func() {
	b.Helper()
	c, t := Check(b, uri, 5*time.Second, change)
	r, err := compile(c, t, Env())
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

// Measure runs a benchmark of one function.
func Measure(b *testing.B, once func()) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// Against does a probe and a bare loop in turns, so that a noisy machine disturbs them alike, and reports the probe's rate in relation to the other's: "cpu-ratio" by the CPU time of this process, which
// is what one core can do, and "wall-ratio" by the clock; both costs; and how many probes a second of CPU time makes.
func Against(b *testing.B, probeOnce, bareOnce func()) {
	b.Helper()
	var probed, bared, probedCPU, baredCPU time.Duration
	for b.Loop() {
		begin, beginCPU := time.Now(), cpu(b)
		for range perRound {
			probeOnce()
		}
		middle, middleCPU := time.Now(), cpu(b)
		for range perRound {
			bareOnce()
		}
		probed, bared = probed+middle.Sub(begin), bared+time.Since(middle)
		probedCPU, baredCPU = probedCPU+middleCPU-beginCPU, baredCPU+cpu(b)-middleCPU
	}
	count := float64(b.N * perRound)
	b.ReportMetric(bared.Seconds()/probed.Seconds(), "wall-ratio")
	b.ReportMetric(baredCPU.Seconds()/probedCPU.Seconds(), "cpu-ratio")
	b.ReportMetric(float64(probedCPU.Microseconds())/count, "cpu-us/probe")
	b.ReportMetric(float64(baredCPU.Microseconds())/count, "cpu-us/bare")
	b.ReportMetric(count/probedCPU.Seconds(), "probes/cpu-s")
}

// cpu is the CPU time that this process has used.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
