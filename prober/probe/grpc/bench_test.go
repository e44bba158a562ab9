package grpc_test

import (
	"context"
	"net"
	"testing"
	"time"

	ggrpc "google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"

	"github.com/probemesh/probemesh/prober/probe/grpc"
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
	s := ggrpc.NewServer()
	healthpb.RegisterHealthServer(s, health.NewServer())
	testpb.RegisterTestServiceServer(s, &shop{})
	reflection.Register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	probetest.Announce(l.Addr().String())
	s.Stop()
	<-done
}

// target starts the target process and gives its address.
func target(b *testing.B) string { return probetest.Target(b)[0] }

// probing gives a function that probes the target once.
func probing(b *testing.B, address string, o *meshv1.GrpcProbe) func() {
	return probetest.Probing(b, grpc.Compile, "grpc://"+address, func(c *meshv1.Check) { c.Grpc = o })
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
	probetest.Measure(b, probing(b, target(b), nil))
}

// BenchmarkGRPCProbeCall is a call of a method whose descriptors are known, with an expectation of its answer.
func BenchmarkGRPCProbeCall(b *testing.B) {
	probetest.Measure(b, probing(b, target(b), calling(unary, `{"response_size": 100}`, &meshv1.GrpcProbe{Expect: []string{`response.json.payload.body != ""`}})))
}

// BenchmarkGRPCProbeAgainstBare compares with a plain call.
func BenchmarkGRPCProbeAgainstBare(b *testing.B) {
	address := target(b)
	probetest.Against(b, probing(b, address, nil), bare(b, address))
}
