// Package grpc is the kind grpc: one call of grpc.health.v1.Health/Check over a connection of its own.
//
// A status that the server itself sends is an answer, good or bad, and the expectations may judge it. What keeps the call from being answered
// (connection, TLS, a peer that does not speak gRPC) is a failure of its class.
package grpc

import (
	"context"
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of what a server may send.
const (
	maxHeaders = 64 << 10
	maxMessage = 64 << 10
)

// runner runs one check of kind grpc.
type runner struct {
	plan      *probe.Plan
	options   *meshv1.GrpcProbe
	target    *spec.Target
	config    *stdtls.Config // nil without TLS
	dialer    probe.Dialer
	agent     string
	authority string
}

// Compile makes a runner of a check of kind grpc whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	o := c.GetGrpc()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, target: t, dialer: probe.Dialer{Family: o.GetIpFamily()}, agent: env.UserAgent}
	r.authority = net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
	if o.GetAuthority() != "" {
		r.authority = o.Authority
	}
	if t.Secure {
		if r.config, err = env.TLSConfig(o.GetTls(), t.Host); err != nil {
			return nil, err
		}
	}
	plan.Talk = r.talk
	return r, nil
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {}

// call is one probe: what happened below the call, which gRPC itself tells in text only.
type call struct {
	runner   *runner
	attempt  *probe.Attempt
	answered atomic.Bool
	mu       sync.Mutex
	err      error // why no connection came about
}

func (c *call) fail(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		// Kept as a failure at once: later the attempt may be in another phase.
		c.err = probe.Classify(err, c.attempt)
	}
	return err
}

func (c *call) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	c := &call{runner: r, attempt: a}
	a.Meeting(r.target.Host)
	conn, err := r.client(c)
	if err != nil {
		return nil, &probe.Failure{Class: meshv1.Result_PROBER, Sentence: "this prober cannot make a gRPC client: " + err.Error()}
	}
	defer conn.Close()
	pairs := make([]string, 0, 2*len(r.options.GetMetadata())+2)
	for k, v := range r.options.GetMetadata() {
		pairs = append(pairs, k, v)
	}
	if t := a.Options().Traceparent; t != "" {
		pairs = append(pairs, "traceparent", t)
	}
	got := &answer{}
	resp, err := healthpb.NewHealthClient(conn).Check(metadata.AppendToOutgoingContext(ctx, pairs...),
		&healthpb.HealthCheckRequest{Service: r.target.Service}, grpc.Header(&got.header), grpc.Trailer(&got.trailer))
	if err != nil && !c.answered.Load() {
		return nil, c.unanswered(ctx, err)
	}
	got.status = status.Convert(err)
	if got.status.Code() == codes.DeadlineExceeded && time.Since(a.Start()) > a.Timeout()*9/10 {
		// The server was told the deadline and may say that it has passed before it has here: nothing else has been answered.
		return nil, &probe.Failure{Class: meshv1.Result_TIMEOUT, Phase: meshv1.Result_PROCESSING,
			Sentence: fmt.Sprintf("wait for the answer of %s: timed out after %s", a.Remote(), a.Timeout())}
	}
	if m := got.status.Message(); strings.HasPrefix(m, "unexpected HTTP status code") || strings.HasPrefix(m, "malformed") {
		return got, probe.Failf(a, meshv1.Result_PROTOCOL, "the server does not speak gRPC: %s", m)
	}
	if err == nil {
		got.serving = serving(resp.GetStatus())
	}
	return got, nil
}

// client makes a connection that is dialled at the first call and never kept.
func (r *runner) client(c *call) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if r.config != nil {
		transport = &handshaker{TransportCredentials: credentials.NewTLS(r.config), call: c}
	}
	return grpc.NewClient("passthrough:///"+net.JoinHostPort(r.target.Host, strconv.Itoa(int(r.target.Port))),
		grpc.WithContextDialer(c.dial),
		grpc.WithTransportCredentials(transport),
		grpc.WithAuthority(r.authority),
		grpc.WithUserAgent(r.agent),
		grpc.WithStatsHandler(c),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Minute, MaxDelay: time.Minute}, MinConnectTimeout: r.plan.Timeout}),
	)
}

// dial connects for gRPC.
func (c *call) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := c.runner.dialer.Dial(ctx, c.attempt, "tcp", c.runner.target.Host, c.runner.target.Port)
	if err != nil {
		return nil, c.fail(err)
	}
	c.attempt.Connecting(conn.RemoteAddr().String())
	if c.runner.config == nil {
		c.attempt.Enter(meshv1.Result_PROCESSING)
	}
	return conn, nil
}

// unanswered is the failure of a call that got no answer from a gRPC server.
func (c *call) unanswered(ctx context.Context, err error) error {
	if known := c.failure(); known != nil && ctx.Err() == nil {
		return known
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s := status.Convert(err)
	m := s.Message()
	switch {
	case s.Code() == codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case strings.Contains(m, syscall.ECONNRESET.Error()), strings.Contains(m, syscall.EPIPE.Error()):
		return syscall.ECONNRESET
	case strings.Contains(m, "EOF"):
		return io.ErrUnexpectedEOF
	}
	return probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the server does not speak gRPC: %s", m)
}

// handshaker tells the attempt of the TLS handshake.
type handshaker struct {
	credentials.TransportCredentials
	call *call
}

// ClientHandshake implements credentials.TransportCredentials. What is verified is the name that the TLS options say, whatever the authority is.
func (h *handshaker) ClientHandshake(ctx context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	a := h.call.attempt
	a.Enter(meshv1.Result_HANDSHAKE)
	conn, info, err := h.TransportCredentials.ClientHandshake(ctx, h.call.runner.config.ServerName, raw)
	if err != nil {
		probe.NoteHandshakeError(a, err)
		if errors.Is(err, context.Canceled) {
			return nil, nil, err
		}
		return nil, nil, h.call.fail(err)
	}
	if t, ok := info.(credentials.TLSInfo); ok {
		a.Secured(&t.State, !h.call.runner.config.InsecureSkipVerify)
	}
	a.Enter(meshv1.Result_PROCESSING)
	return conn, info, nil
}

// Info implements credentials.TransportCredentials. It names no server, so that the authority of the check may differ from the name that is verified.
func (h *handshaker) Info() credentials.ProtocolInfo {
	info := h.TransportCredentials.Info()
	//lint:ignore SA1019 gRPC still reads it
	info.ServerName = ""
	return info
}

// Clone implements credentials.TransportCredentials.
func (h *handshaker) Clone() credentials.TransportCredentials {
	return &handshaker{TransportCredentials: h.TransportCredentials.Clone(), call: h.call}
}

// HandleRPC implements stats.Handler: it learns that the server answered, and when.
func (c *call) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.OutPayload:
		c.attempt.Restart(meshv1.Result_PROCESSING)
	case *stats.InHeader, *stats.InTrailer:
		if !c.answered.Swap(true) {
			c.attempt.Enter(meshv1.Result_TRANSFER)
		}
	}
}

// TagRPC implements stats.Handler.
func (c *call) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// TagConn implements stats.Handler.
func (c *call) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *call) HandleConn(context.Context, stats.ConnStats) {}
