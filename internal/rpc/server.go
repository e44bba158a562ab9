package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	channelz "google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
)

const (
	// UnaryTimeout is the deadline that a unary call gets when its caller has set none.
	UnaryTimeout = 30 * time.Second
	// MessageBytesMax is the largest message that a server or client takes, unless told otherwise: room for an Apply of 10,000 checks of 6 KiB.
	MessageBytesMax = 64 << 20
	// StreamsMax is how many calls one connection may have open at once, unless told otherwise. Further ones wait in the client.
	StreamsMax = 1000
	// keepaliveMin is how often a client may ping at most. grpc-go clients ping every 10 s at the earliest; the default of servers, 5 min,
	// would end their connections.
	keepaliveMin = 5 * time.Second
	// keepaliveTime is how long a connection may be silent before the server asks whether the client still lives.
	keepaliveTime = 30 * time.Second
	// keepaliveTimeout is how long a side waits for the answer to that before it gives the connection up.
	keepaliveTimeout = 10 * time.Second
)

// Config is how a server behaves. The zero value is ready for use.
type Config struct {
	// UnaryTimeout is the deadline of unary calls that have none. If 0, [UnaryTimeout]. Negative: none is set.
	UnaryTimeout time.Duration
	// MessageBytesMax is the largest message that is taken, in bytes. If 0, [MessageBytesMax]. A larger one fails with RESOURCE_EXHAUSTED.
	MessageBytesMax int
	// StreamsMax is how many calls a connection may have open at once. If 0, [StreamsMax].
	StreamsMax uint32
	// TLS, if set, is what the listener speaks. If nil, plain text. See [ServerTLS].
	TLS *tls.Config
	// Options are put behind those of this package, for example a stats handler for tracing.
	Options []grpc.ServerOption
}

// NewServer makes a server with the interceptors of this package and registers reflection, health and channelz. The health service says SERVING
// for the whole server ("") until it is told otherwise; [Serve] makes it say NOT_SERVING when the server stops. The caller registers its services
// before it serves. A nil logger discards, a nil meter does not measure.
func NewServer(c Config, logger *slog.Logger, meter metric.Meter) (*grpc.Server, *health.Server) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	g := &guard{log: logger, metrics: newMetrics(meter, logger), timeout: orDefault(c.UnaryTimeout, UnaryTimeout)}
	options := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(g.unary),
		grpc.ChainStreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(orDefault(c.MessageBytesMax, MessageBytesMax)),
		grpc.MaxConcurrentStreams(orDefault(c.StreamsMax, StreamsMax)),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
	}
	if c.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(c.TLS)))
	}
	s := grpc.NewServer(append(options, c.Options...)...)
	h := health.NewServer()
	healthv1.RegisterHealthServer(s, h)
	reflection.Register(s)
	channelz.RegisterChannelzServiceToServer(s)
	return s, h
}

// Serve serves on the listener until ctx ends; then it says NOT_SERVING, takes no new calls, gives those that run `grace` to finish, ends the
// rest, and returns nil. It closes the listener. Streams that wait for something have to be ended by whoever serves them, or they use up the
// grace. It returns an error only when the listener fails.
func Serve(ctx context.Context, s *grpc.Server, h *health.Server, listener net.Listener, grace time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(listener) }()
	select {
	case err := <-failed:
		s.Stop()
		return fmt.Errorf("serve gRPC on %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	if h != nil {
		h.Shutdown()
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.GracefulStop()
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		s.Stop()
		<-stopped
	}
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", listener.Addr(), err)
	}
	return nil
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
