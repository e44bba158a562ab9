package grpc_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	ggrpc "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	alphapb "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/grpc"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shop is the service of a user: what it is asked decides what it answers.
type shop struct {
	testpb.UnimplementedTestServiceServer
	calls atomic.Int32
}

func (s *shop) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	s.calls.Add(1)
	md, _ := metadata.FromIncomingContext(ctx)
	_ = ggrpc.SetHeader(ctx, metadata.Pairs("x-shard", "7", "x-raw-bin", "\x00\xff"))
	_ = ggrpc.SetTrailer(ctx, metadata.Pairs("x-cost", "3"))
	if r.ResponseStatus != nil {
		st, err := status.New(codes.Code(r.ResponseStatus.Code), r.ResponseStatus.Message).WithDetails(&errdetails.ErrorInfo{Reason: "CARD_EXPIRED", Domain: "shop"}, &testpb.Payload{Body: []byte("x")})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	return &testpb.SimpleResponse{Username: strings.Join(md["x-user"], ","), Payload: &testpb.Payload{Body: make([]byte, r.ResponseSize)}}, nil
}

func (s *shop) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	for range r.ResponseParameters {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte("tick")}}); err != nil {
			return err
		}
	}
	if len(r.ResponseParameters) > 0 {
		<-stream.Context().Done() // a stream without an end
	}
	return nil
}

// start serves what register registers.
func start(t testing.TB, register func(*ggrpc.Server), options ...ggrpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := ggrpc.NewServer(options...)
	register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

const unary = "grpc.testing.TestService/UnaryCall"

func calling(method, request string, o *meshv1.GrpcProbe) *meshv1.GrpcProbe {
	if o == nil {
		o = &meshv1.GrpcProbe{}
	}
	o.Call = &meshv1.GrpcCall{Method: method, Request: request}
	return o
}

func TestAMethodIsCalledByWhatTheServersReflectionTells(t *testing.T) {
	for name, register := range map[string]func(*ggrpc.Server){
		"v1": func(s *ggrpc.Server) { reflection.RegisterV1(s) },
		"v1alpha alone": func(s *ggrpc.Server) {
			alphapb.RegisterServerReflectionServer(s, reflection.NewServer(reflection.ServerOptions{Services: s}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}); register(s) })
			r := run(t, "grpc://"+address, calling(unary, `{"response_size": 3}`, &meshv1.GrpcProbe{Metadata: map[string]string{"x-user": "eve"}, Expect: []string{
				`response.json.username == "eve"`, `response.json.payload.body == "AAAA"`, `response.json.oauthScope == ""`, `response.body.contains("eve")`,
				`response.headers["x-shard"] == "7" && response.headers["x-cost"] == "3"`, `response.headers["x-raw-bin"] == "AP8="`, `response.grpc.status == "OK"`}}))
			probetest.OK().Match(t, r)
			if r.Grpc.Status != "OK" || r.Grpc.Serving != "" || r.Grpc.MessageBytes == 0 || r.Timings.Processing == nil {
				t.Errorf("got %v", r)
			}
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "has no method Sell; it has EmptyCall").Match(t, run(t, "grpc://"+address, calling("grpc.testing.TestService/Sell", "", nil)))
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, `unknown field "sise"`).Match(t, run(t, "grpc://"+address, calling(unary, `{"sise": 3}`, nil)))
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "takes a stream of requests").Match(t, run(t, "grpc://"+address, calling("grpc.testing.TestService/FullDuplexCall", "", nil)))
			probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "reflection does not know the service shop.None").Match(t, run(t, "grpc://"+address, calling("shop.None/Sell", "", nil)))
		})
	}
	bare := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}) })
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "has no reflection (UNIMPLEMENTED); turn it on there, or give grpc.call.descriptor_set").Match(t, run(t, "grpc://"+bare, calling(unary, "", nil)))
}

func TestDescriptorsInTheCheckNeedNoReflection(t *testing.T) {
	address := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}) })
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_messages_proto),
		protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_empty_proto), protodesc.ToFileDescriptorProto(testpb.File_grpc_testing_test_proto)}}
	encoded, err := proto.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	message, _ := structpb.NewStruct(map[string]any{"responseSize": 2})
	probetest.OK().Match(t, run(t, "grpc://"+address, &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: unary, Message: message, DescriptorSet: encoded}, Expect: []string{`response.json.payload.body == "AAA="`}}))
	r := run(t, "grpc://"+address, &meshv1.GrpcProbe{Call: &meshv1.GrpcCall{Method: "grpc.testing.TestService/UnimplementedCall", DescriptorSet: encoded}})
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "the server has no method /grpc.testing.TestService/UnimplementedCall (UNIMPLEMENTED").Match(t, r)
}

func TestTheStatusesOfTheCheckDecide(t *testing.T) {
	address := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}); reflection.Register(s) })
	denied := `{"responseStatus": {"code": 7, "message": "no card"}}`
	r := run(t, "grpc://"+address, calling(unary, denied, nil))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "/"+unary+" answered PERMISSION_DENIED: no card; without expectations it must be OK").Match(t, r)
	if e := r.Evidence; e.StatusLine != "PERMISSION_DENIED" || string(e.Body) != "no card" || len(e.Records) != 2 || !strings.Contains(e.Records[0], "CARD_EXPIRED") || len(e.Headers) == 0 {
		t.Errorf("evidence %v", e)
	}
	probetest.OK().Match(t, run(t, "grpc://"+address, calling(unary, denied, &meshv1.GrpcProbe{Statuses: []string{"PERMISSION_DENIED", "UNAUTHENTICATED"}, Expect: []string{
		`response.grpc.message == "no card"`, `response.grpc.details[0].reason == "CARD_EXPIRED"`, `response.grpc.details[1].body == "eA=="`, `response.json == null`}})))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "answered OK, not PERMISSION_DENIED").Match(t,
		run(t, "grpc://"+address, calling(unary, "", &meshv1.GrpcProbe{Statuses: []string{"PERMISSION_DENIED"}, Expect: []string{"true"}})))
	h := health.NewServer()
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "says NOT_SERVING").Match(t, run(t, "grpc://"+serve(t, h), &meshv1.GrpcProbe{Statuses: []string{"OK"}}))
	probetest.OK().Match(t, run(t, "grpc://"+serve(t, h)+"/none", &meshv1.GrpcProbe{Statuses: []string{"NOT_FOUND"}}))
}

func TestStreamsGiveTheirFirstMessage(t *testing.T) {
	address := start(t, func(s *ggrpc.Server) {
		testpb.RegisterTestServiceServer(s, &shop{})
		reflection.Register(s)
		healthpb.RegisterHealthServer(s, health.NewServer())
	})
	const streaming = "grpc.testing.TestService/StreamingOutputCall"
	probetest.OK().Match(t, run(t, "grpc://"+address, calling(streaming, `{"responseParameters": [{}, {}]}`, &meshv1.GrpcProbe{Expect: []string{`response.json.payload.body == "dGljaw=="`}})))
	probetest.OK().Match(t, run(t, "grpc://"+address, calling(streaming, "", &meshv1.GrpcProbe{Expect: []string{`response.json == null`}})))
	r := run(t, "grpc://"+address, &meshv1.GrpcProbe{Watch: true, Expect: []string{`response.json.status == "SERVING"`}})
	probetest.OK().Match(t, r)
	if r.Grpc.Serving != "SERVING" {
		t.Errorf("got %v", r)
	}
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "does not know the service").Match(t, run(t, "grpc://"+address+"/none", &meshv1.GrpcProbe{Watch: true}))
}

func TestAnswersMayBeCompressedAndHaveALimit(t *testing.T) {
	address := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}); reflection.Register(s) },
		ggrpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *ggrpc.UnaryServerInfo, h ggrpc.UnaryHandler) (any, error) {
			_ = ggrpc.SetSendCompressor(ctx, gzip.Name)
			return h(ctx, r)
		}))
	for _, o := range []*meshv1.GrpcProbe{{}, {Compression: meshv1.GrpcProbe_GZIP}} {
		probetest.OK().Match(t, run(t, "grpc://"+address, calling(unary, `{"responseSize": 40000}`, o)))
		// It has 90 bytes when compressed.
		probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "has more than 65536 bytes; raise grpc.message_limit").Match(t, run(t, "grpc://"+address, calling(unary, `{"responseSize": 90000}`, o)))
	}
	probetest.OK().Match(t, run(t, "grpc://"+address, calling(unary, `{"responseSize": 90000}`, &meshv1.GrpcProbe{MessageLimit: 100_000})))
	plain := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}); reflection.Register(s) })
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "has more than 1000 bytes").Match(t, run(t, "grpc://"+plain, calling(unary, `{"responseSize": 1001}`, &meshv1.GrpcProbe{MessageLimit: 1000})))
}

// counting is a server whose reflection calls are counted, and whose methods may go away.
type counting struct {
	asked atomic.Int32
	gone  atomic.Bool
}

func (c *counting) options() []ggrpc.ServerOption {
	return []ggrpc.ServerOption{
		ggrpc.ChainStreamInterceptor(func(srv any, ss ggrpc.ServerStream, _ *ggrpc.StreamServerInfo, h ggrpc.StreamHandler) error {
			c.asked.Add(1)
			return h(srv, ss)
		}),
		ggrpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *ggrpc.UnaryServerInfo, h ggrpc.UnaryHandler) (any, error) {
			if c.gone.Load() {
				return nil, status.Error(codes.Unimplemented, "unknown method")
			}
			return h(ctx, r)
		}),
	}
}

func TestDescriptorsAreKeptAndAskedForAgainWhenTheMethodIsGone(t *testing.T) {
	c := &counting{}
	s := &shop{}
	address := start(t, func(g *ggrpc.Server) { testpb.RegisterTestServiceServer(g, s); reflection.Register(g) }, c.options()...)
	check, target := probetest.Check(t, "grpc://"+address, 10*time.Second, func(k *meshv1.Check) { k.Grpc = calling(unary, "", nil) })
	r, err := grpc.Compile(check, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	once := func(want probetest.Want) { want.Match(t, r.Probe(t.Context(), probe.Options{})) }
	once(probetest.OK())
	for range 20 {
		wg.Go(func() { once(probetest.OK()) })
	}
	wg.Wait()
	if c.asked.Load() != 1 || s.calls.Load() != 21 {
		t.Errorf("reflection was asked %d times for %d calls", c.asked.Load(), s.calls.Load())
	}
	c.gone.Store(true)
	once(probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "the server has no method"))
	if c.asked.Load() != 2 {
		t.Errorf("reflection was asked %d times", c.asked.Load())
	}
	c.gone.Store(false)
	once(probetest.OK())
}

func TestAClientCertificateIsPresentedAndAuthorityStays(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	_, cert, key := ca.Issue(t, time.Hour, "prober")
	config := &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool()}
	var authority atomic.Value
	address := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}); reflection.Register(s) }, ggrpc.Creds(credentials.NewTLS(config)),
		ggrpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *ggrpc.UnaryServerInfo, h ggrpc.UnaryHandler) (any, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			authority.Store(md[":authority"][0])
			return h(ctx, r)
		}))
	o := &meshv1.GrpcProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ClientCertificatePem: cert, ClientKeyPem: key}, Authority: "shop.example.com"}
	probetest.OK().Match(t, run(t, "grpcs://"+address, calling(unary, "", o)))
	if authority.Load() != "shop.example.com" {
		t.Errorf("authority %v", authority.Load())
	}
	r := run(t, "grpcs://"+address, calling(unary, "", &meshv1.GrpcProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}))
	// The server's alert may be overtaken by the reset with which it ends the connection.
	if r.Outcome != meshv1.Result_FAIL || r.ErrorClass != meshv1.Result_TLS && r.ErrorClass != meshv1.Result_CONNECTION_RESET {
		t.Errorf("without a certificate: %v", r)
	}
}

func TestSessionsAreResumedWhenAskedForAndNotByAConfirmation(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	address := serve(t, health.NewServer(), ggrpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}})))
	check, target := probetest.Check(t, "grpcs://"+address, 10*time.Second, func(k *meshv1.Check) {
		k.Grpc = &meshv1.GrpcProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM, ResumeSessions: true}}
	})
	r, err := grpc.Compile(check, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for i, o := range []probe.Options{{}, {}, {Fresh: true}} {
		got := r.Probe(t.Context(), o)
		probetest.OK().Match(t, got)
		if got.Tls.GetResumed() != (i == 1) {
			t.Errorf("probe %d: resumed %v", i, got.Tls.GetResumed())
		}
	}
}

func TestAPinnedAddressIsCalledByTheNameOfTheURI(t *testing.T) {
	address := serve(t, scripted{check: func(ctx context.Context, _ string) (*healthpb.HealthCheckResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		return nil, status.Error(codes.Unavailable, md[":authority"][0])
	}})
	_, port, _ := net.SplitHostPort(address)
	r := probetest.Run(t, grpc.Compile, "grpc://shop.invalid:"+port, 10*time.Second, probe.Options{Pin: probe.Pin{Host: "shop.invalid", Addr: netip.MustParseAddr("127.0.0.1")}}, nil)
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "UNAVAILABLE: shop.invalid:"+port).Match(t, r)
	if r.RemoteAddress != address {
		t.Errorf("called %s", r.RemoteAddress)
	}
}

func TestATLSServerWithoutHTTP2IsNamed(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	address := probetest.Listen(t, func(c net.Conn) {
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
		probetest.Hang(s)
	})
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "does not negotiate HTTP/2 (ALPN h2)").Match(t, run(t, "grpcs://"+address, &meshv1.GrpcProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}))
}

func TestAHangingMethodIsATimeout(t *testing.T) {
	address := start(t, func(s *ggrpc.Server) { testpb.RegisterTestServiceServer(s, &shop{}); reflection.Register(s) },
		ggrpc.ChainUnaryInterceptor(func(ctx context.Context, _ any, _ *ggrpc.UnaryServerInfo, _ ggrpc.UnaryHandler) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}))
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out after 600ms").Match(t, within(t, short, "grpc://"+address, calling(unary, "", nil)))
}
