package grpc_test

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

	ggrpc "google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/grpc"
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
	s := ggrpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	testpb.RegisterTestServiceServer(s, &shop{})
	reflection.Register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	_, _ = os.Stdout.WriteString("address " + l.Addr().String() + "\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	s.Stop()
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

// probing gives a function that probes once.
func probing(b *testing.B, address string, o *meshv1.GrpcProbe) func() {
	c, t := probetest.Check(b, "grpc://"+address, 5*time.Second, func(c *meshv1.Check) { c.Grpc = o })
	r, err := grpc.Compile(c, t, probetest.Env())
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

// bare gives a function that asks the health service as a plain program would, over a new connection.
func bare(b *testing.B, address string) func() {
	return func() {
		conn, err := ggrpc.NewClient("passthrough:///"+address, ggrpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
			b.Fatal(r, err)
		}
	}
}

// BenchmarkGRPCProbe is a whole probe of the health service.
func BenchmarkGRPCProbe(b *testing.B) {
	once := probing(b, target(b), nil)
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkGRPCProbeCall is a call of a method whose descriptors are known, with an expectation of its answer.
func BenchmarkGRPCProbeCall(b *testing.B) {
	once := probing(b, target(b), calling(unary, `{"response_size": 100}`, &meshv1.GrpcProbe{Expect: []string{`response.json.payload.body != ""`}}))
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkGRPCProbeAgainstBare does a probe and a plain call in turns, so that a noisy machine disturbs them alike, and reports the CPU time of both and their ratio.
func BenchmarkGRPCProbeAgainstBare(b *testing.B) {
	address := target(b)
	probeOnce, bareOnce := probing(b, address, nil), bare(b, address)
	var probed, bared time.Duration
	for b.Loop() {
		begin := cpu(b)
		for range 50 {
			probeOnce()
		}
		middle := cpu(b)
		for range 50 {
			bareOnce()
		}
		probed, bared = probed+middle-begin, bared+cpu(b)-middle
	}
	b.ReportMetric(bared.Seconds()/probed.Seconds(), "cpu-ratio")
	b.ReportMetric(float64(probed.Microseconds())/float64(b.N*50), "probe-cpu-us")
	b.ReportMetric(float64(bared.Microseconds())/float64(b.N*50), "bare-cpu-us")
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
