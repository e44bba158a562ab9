package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// checks answers GetCheck and RunCheck with whatever the test wants.
type checks struct {
	meshv1.UnimplementedCheckServiceServer
	get func(context.Context) error
	run func(grpc.ServerStreamingServer[meshv1.RunCheckResponse]) error
}

func (c *checks) GetCheck(ctx context.Context, _ *meshv1.GetCheckRequest) (*meshv1.Check, error) {
	return &meshv1.Check{}, c.get(ctx)
}

func (c *checks) RunCheck(_ *meshv1.RunCheckRequest, s grpc.ServerStreamingServer[meshv1.RunCheckResponse]) error {
	return c.run(s)
}

// buffer is a log that may be written and read at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start serves over bufconn. stop ends the server with the given grace and gives what Serve returned.
func start(t *testing.T, c Config, service *checks) (conn *grpc.ClientConn, log *buffer, stop func() error) {
	t.Helper()
	log = &buffer{}
	server, health := NewServer(c, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), nil)
	meshv1.RegisterCheckServiceServer(server, service)
	listener := bufconn.Listen(1 << 20)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, server, health, listener, 2*time.Second) }()
	conn, err := Dial("mesh", DialOptions{Dialer: func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }})
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		conn.Close()
		return err
	})
	t.Cleanup(func() { stop() })
	return conn, log, stop
}

func get(conn *grpc.ClientConn) error {
	_, err := meshv1.NewCheckServiceClient(conn).GetCheck(context.Background(), &meshv1.GetCheckRequest{})
	return err
}

func TestErrorsCrossTheWireAsDocumented(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     error
		code    codes.Code
		reason  meshv1.ErrorReason
		message string
		logged  bool
	}{
		{"a fault", fault.NotFound("checks/x"), codes.NotFound, meshv1.ErrorReason_RESOURCE_NOT_FOUND, "checks/x does not exist", false},
		{"a wrapped fault", fmt.Errorf("reading: %w", fault.NotFound("checks/x")), codes.NotFound, meshv1.ErrorReason_RESOURCE_NOT_FOUND, "checks/x does not exist", false},
		{"a fault of ours", fault.Internal(errors.New("secret"), "the table is damaged"), codes.Internal, meshv1.ErrorReason_INTERNAL_FAULT, "the table is damaged", true},
		{"any error", errors.New("secret"), codes.Internal, meshv1.ErrorReason_INTERNAL_FAULT,
			"CheckService.GetCheck met a fault of the server, which its log describes; trying again may help", true},
		{"a bare status", status.Error(codes.NotFound, "secret"), codes.Internal, meshv1.ErrorReason_INTERNAL_FAULT,
			"CheckService.GetCheck met a fault of the server, which its log describes; trying again may help", true},
		{"a relayed fault", fault.NotFound("checks/x").GRPCStatus().Err(), codes.NotFound, meshv1.ErrorReason_RESOURCE_NOT_FOUND, "checks/x does not exist", false},
		{"a cancelled context", fmt.Errorf("read: %w", context.Canceled), codes.Canceled, 0, "read: context canceled", false},
		{"a deadline", context.DeadlineExceeded, codes.DeadlineExceeded, 0, "context deadline exceeded", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, log, stop := start(t, Config{}, &checks{get: func(context.Context) error { return c.err }})
			got, ok := fault.From(get(conn))
			if !ok || got.Code != c.code || got.Reason != c.reason || got.Message != c.message {
				t.Errorf("got %+v, want %s %s %q", got, c.code, c.reason, c.message)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if n := strings.Count(log.String(), "level=ERROR"); (n == 1) != c.logged || n > 1 {
				t.Errorf("logged %d errors:\n%s", n, log)
			}
			if strings.Contains(fmt.Sprint(got), "secret") {
				t.Errorf("the cause crossed the wire: %v", got)
			}
		})
	}
}

func TestAPanicEndsOneCallOnly(t *testing.T) {
	conn, log, _ := start(t, Config{}, &checks{
		get: func(context.Context) error { panic("ouch") },
		run: func(grpc.ServerStreamingServer[meshv1.RunCheckResponse]) error { panic("stream ouch") },
	})
	for range 2 {
		if err := get(conn); !fault.IsReason(err, meshv1.ErrorReason_INTERNAL_FAULT) {
			t.Fatalf("unary: %v, want INTERNAL_FAULT", err)
		}
		stream, err := meshv1.NewCheckServiceClient(conn).RunCheck(context.Background(), &meshv1.RunCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = stream.Recv(); !fault.IsReason(err, meshv1.ErrorReason_INTERNAL_FAULT) {
			t.Fatalf("stream: %v, want INTERNAL_FAULT", err)
		}
	}
	if text := log.String(); strings.Count(text, "rpc handler panicked") != 4 || !strings.Contains(text, "rpc_test.go") {
		t.Errorf("want four logged panics with their stacks:\n%s", text)
	}
}

func TestACallWithoutDeadlineGetsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _, stop := start(t, Config{}, &checks{get: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}})
		begin := time.Now()
		if err := get(conn); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("%v, want DEADLINE_EXCEEDED", err)
		}
		if took := time.Since(begin); took != UnaryTimeout {
			t.Errorf("ended after %s, want %s", took, UnaryTimeout)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAStreamHasNoDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn, _, stop := start(t, Config{}, &checks{run: func(s grpc.ServerStreamingServer[meshv1.RunCheckResponse]) error {
			select {
			case <-time.After(3 * time.Hour):
				return nil
			case <-s.Context().Done():
				return s.Context().Err()
			}
		}})
		stream, err := meshv1.NewCheckServiceClient(conn).RunCheck(context.Background(), &meshv1.RunCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("%v, want the end of the stream after three hours", err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// A call that does not end costs the server its grace, not more.
func TestServeStopsWithinItsGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		entered := make(chan struct{})
		conn, _, stop := start(t, Config{}, &checks{get: func(ctx context.Context) error {
			close(entered)
			<-ctx.Done()
			return ctx.Err()
		}})
		failed := make(chan error, 1)
		go func() { failed <- get(conn) }()
		<-entered
		begin := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("stopped after %s, want the grace of 2s", took)
		}
		if err := <-failed; status.Code(err) != codes.Unavailable && status.Code(err) != codes.Canceled {
			t.Errorf("the call ended with %v, want UNAVAILABLE or CANCELLED", err)
		}
	})
}

func TestServeReportsAListenerThatFails(t *testing.T) {
	listener := bufconn.Listen(1)
	listener.Close()
	server, health := NewServer(Config{}, nil, nil)
	if err := Serve(context.Background(), server, health, listener, time.Second); err == nil || !strings.Contains(err.Error(), "serve gRPC on") {
		t.Errorf("%v, want the failure of the listener", err)
	}
}

func TestHealthReflectionAndChannelzAreThere(t *testing.T) {
	conn, _, _ := start(t, Config{}, &checks{})
	h, err := healthv1.NewHealthClient(conn).Check(context.Background(), &healthv1.HealthCheckRequest{})
	if err != nil || h.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	want := []string{"grpc.channelz.v1.Channelz", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
		"grpc.reflection.v1alpha.ServerReflection", "probemesh.v1.CheckService"}
	v1, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := v1.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	answer, err := v1.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range answer.GetListServicesResponse().GetService() {
		got = append(got, s.GetName())
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("services %v, want %v", got, want)
	}
	alpha, err := reflectionv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 older clients speak it
	if err := alpha.Send(&reflectionv1alpha.ServerReflectionRequest{MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	old, err := alpha.Recv()
	//lint:ignore SA1019 older clients speak it
	if err != nil || len(old.GetListServicesResponse().GetService()) != len(want) {
		t.Errorf("v1alpha: %v, %v", old, err)
	}
}

func TestATooLargeMessageIsRefused(t *testing.T) {
	conn, _, _ := start(t, Config{MessageBytesMax: 1000}, &checks{get: func(context.Context) error { return nil }})
	_, err := meshv1.NewCheckServiceClient(conn).GetCheck(context.Background(), &meshv1.GetCheckRequest{Name: strings.Repeat("x", 2000)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v, want RESOURCE_EXHAUSTED", err)
	}
}

func TestDialRefusesWhatIsNoAddress(t *testing.T) {
	for address, want := range map[string]string{
		"":          "the address of the server is empty; give host:port, for example 127.0.0.1:7700",
		"localhost": `"localhost" is not the address of a server`,
	} {
		if _, err := Dial(address, DialOptions{}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", address, err, want)
		}
	}
}
