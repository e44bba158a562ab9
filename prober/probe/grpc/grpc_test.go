package grpc_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	ggrpc "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/grpc"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, uri string, o *meshv1.GrpcProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, uri, o)
}

// short is the timeout of probes that are to run into it.
const short = 600 * time.Millisecond

// within is run with a timeout.
func within(t *testing.T, timeout time.Duration, uri string, o *meshv1.GrpcProbe) *meshv1.Result {
	t.Helper()
	return probetest.Run(t, grpc.Compile, uri, timeout, probe.Options{}, func(c *meshv1.Check) { c.Grpc = o })
}

// serve runs a server with the health service, or the given one.
func serve(t *testing.T, h healthpb.HealthServer, options ...ggrpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := ggrpc.NewServer(options...)
	if h != nil {
		healthpb.RegisterHealthServer(s, h)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

// scripted is a health service that does what the function says.
type scripted struct {
	healthpb.UnimplementedHealthServer
	check func(context.Context, string) (*healthpb.HealthCheckResponse, error)
}

func (s scripted) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return s.check(ctx, r.Service)
}

func TestTheHealthServiceDecides(t *testing.T) {
	h := health.NewServer()
	h.SetServingStatus("shop.Cart", healthpb.HealthCheckResponse_SERVING)
	h.SetServingStatus("shop.Stock", healthpb.HealthCheckResponse_NOT_SERVING)
	address := serve(t, h)
	r := run(t, "grpc://"+address, nil)
	probetest.OK().Match(t, r)
	if r.Grpc.Status != "OK" || r.Grpc.Serving != "SERVING" || r.RemoteAddress != address || r.Timings.Connect == nil || r.Timings.Processing == nil {
		t.Errorf("got %v", r)
	}
	probetest.OK().Match(t, run(t, "grpc://"+address+"/shop.Cart", &meshv1.GrpcProbe{Expect: []string{`response.grpc.serving == "SERVING" && response.grpc.status == "OK"`}}))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "the health service says NOT_SERVING").Match(t, run(t, "grpc://"+address+"/shop.Stock", nil))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "does not know the service of the URI").Match(t, run(t, "grpc://"+address+"/shop.None", nil))
	probetest.OK().Match(t, run(t, "grpc://"+address+"/shop.None", &meshv1.GrpcProbe{Expect: []string{`response.grpc.status == "NOT_FOUND"`}}))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "no health service").Match(t, run(t, "grpc://"+serve(t, nil), nil))
}

func TestMetadataAndAuthorityAreSent(t *testing.T) {
	address := serve(t, scripted{check: func(ctx context.Context, service string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Error(codes.Unavailable, fmt.Sprint(service, "|", md[":authority"], md["x-a"], md["x-b-bin"], strings.HasPrefix(md["user-agent"][0], "probemesh/test ")))
	}})
	r := run(t, "grpc://"+address+"/svc", &meshv1.GrpcProbe{Metadata: map[string]string{"x-a": "1", "x-b-bin": "\u00e9"}, Authority: "a.example.com:7"})
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "answered UNAVAILABLE: svc|[a.example.com:7] [1] [\u00e9] true").Match(t, r)
	if r.Grpc.Status != "UNAVAILABLE" || r.Evidence.StatusLine != "UNAVAILABLE" {
		t.Errorf("got %v", r)
	}
}

func TestTLSIsVerified(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	address := serve(t, health.NewServer(), ggrpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}})))
	trusted := &meshv1.TlsConfig{CaPem: ca.PEM}
	r := run(t, "grpcs://"+address, &meshv1.GrpcProbe{Tls: trusted, Expect: []string{`response.tls.version == "1.3"`, `response.tls.days_left == 0`}})
	probetest.OK().Match(t, r)
	if r.Timings.Handshake == nil || r.Tls.GetChainExpiry() == nil {
		t.Errorf("got %v", r)
	}
	r = run(t, "grpcs://"+address, nil)
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "authority that is not trusted").Match(t, r)
	if len(r.Evidence.Certificates) != 1 {
		t.Errorf("evidence %v", r.Evidence)
	}
	probetest.OK().Match(t, run(t, "grpcs://"+address, &meshv1.GrpcProbe{Tls: trusted, Authority: "other.example.com"}))
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "does not speak TLS").Match(t, run(t, "grpcs://"+serve(t, health.NewServer()), &meshv1.GrpcProbe{Tls: trusted}))
	if r := run(t, "grpc://"+address, nil); r.ErrorClass != meshv1.Result_PROTOCOL && r.ErrorClass != meshv1.Result_CONNECTION_RESET {
		t.Errorf("got %v", r)
	}
}

func TestPeersThatDoNotAnswerAreClassified(t *testing.T) {
	refused := probetest.RefusedAddress(t)
	r := run(t, "grpc://"+refused, nil)
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connect to "+refused+": connection refused").Match(t, r)
	hang := scripted{check: func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	for name, c := range map[string]struct {
		address string
		want    probetest.Want
	}{
		"silent before settings": {probetest.Listen(t, probetest.Hang), probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out after 600ms")},
		"hanging call":           {serve(t, hang), probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out after 600ms")},
		"closes":                 {probetest.Listen(t, func(net.Conn) {}), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "")},
		"garbage":                {probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n"); probetest.Hang(c) }), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "does not speak gRPC")},
	} {
		t.Run(name, func(t *testing.T) { c.want.Match(t, within(t, patience(c.want), "grpc://"+c.address, nil)) })
	}
	large := scripted{check: func(context.Context, string) (*healthpb.HealthCheckResponse, error) {
		return nil, status.Error(codes.Internal, strings.Repeat("x", 5000))
	}}
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "answered INTERNAL: xxx").Match(t, run(t, "grpc://"+serve(t, large), nil))
}

// patience is the timeout for a peer of which one thing is wanted.
func patience(w probetest.Want) time.Duration {
	if w.Class == meshv1.Result_TIMEOUT {
		return short
	}
	return 10 * time.Second
}
