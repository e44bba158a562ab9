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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of what a server may send besides the message itself.
const (
	maxHeaders = 64 << 10  // a list of headers, as HTTP/2 counts it
	slack      = 256 << 10 // everything else on the connection: frames, headers, settings, pings, TLS
	window     = 64 << 10  // flow control: what may be on its way at once
)

// call is one probe: what happened on its connection, which gRPC itself tells in text only.
type call struct {
	runner    *runner
	attempt   *probe.Attempt
	config    *stdtls.Config // nil without TLS
	dials     atomic.Int32
	left      atomic.Int64 // bytes that the server may still send
	headers   atomic.Bool  // of the answer have come
	trailers  atomic.Bool  // of the answer have come: the status is the server's own
	reflected atomic.Bool  // reflection has ended with the server's own status
	mu        sync.Mutex
	err       error // why the connection did not come about, or ended
}

// allow lets the server send so many bytes more.
func (c *call) allow(n int64) { c.left.Add(n) }

// fail notes why the connection is of no use. What is noted first stays.
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

// client makes a connection that is dialled at the first call and never kept.
func (r *runner) client(c *call) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if c.config != nil {
		transport = &handshaker{TransportCredentials: credentials.NewTLS(c.config), call: c}
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
		// Windows that do not grow, and buffers for one call.
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
		grpc.WithReadBufferSize(4<<10),
		grpc.WithWriteBufferSize(4<<10),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: time.Minute, MaxDelay: time.Minute}, MinConnectTimeout: r.plan.Timeout}),
	)
}

// dial connects for gRPC, once: a server that ends the connection before the call could otherwise make gRPC connect again and again until the time is up.
func (c *call) dial(ctx context.Context, _ string) (net.Conn, error) {
	if c.dials.Add(1) > 1 {
		return nil, c.fail(probe.Failf(c.attempt, meshv1.Result_CONNECTION_RESET, "wait for the answer of %s: the server ended the connection before it took the call", c.attempt.Remote()))
	}
	conn, err := c.runner.dialer.Dial(ctx, c.attempt, "tcp", c.runner.target.Host, c.runner.target.Port)
	if err != nil {
		return nil, c.fail(err)
	}
	c.attempt.Connecting(conn.RemoteAddr().String())
	if c.config == nil {
		c.attempt.Enter(meshv1.Result_PROCESSING)
	}
	return &metered{Conn: conn, call: c, bound: true, tell: c.config == nil}, nil
}

// metered is a connection that says why it ended, and that ends when the server has sent more than it may.
type metered struct {
	net.Conn
	call  *call
	bound bool // count the bytes
	tell  bool // say why it ended
}

// Read implements net.Conn.
func (m *metered) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if m.bound && m.call.left.Add(-int64(n)) < 0 {
		return 0, m.call.fail(probe.Failf(m.call.attempt, meshv1.Result_PROTOCOL, "the server sent too many bytes: more than %d besides what was asked for", slack))
	}
	if err != nil && m.tell && !errors.Is(err, net.ErrClosed) {
		if errors.Is(err, io.EOF) {
			_ = m.call.fail(io.ErrUnexpectedEOF)
		} else {
			_ = m.call.fail(err)
		}
	}
	return n, err
}

// Write implements net.Conn.
func (m *metered) Write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	if err != nil && m.tell && !errors.Is(err, net.ErrClosed) {
		_ = m.call.fail(err)
	}
	return n, err
}

// handshaker is the TLS of a probe as gRPC wants it.
type handshaker struct {
	credentials.TransportCredentials
	call *call
}

// ClientHandshake implements credentials.TransportCredentials. What is verified is the name that the TLS options say, whatever the authority is.
func (h *handshaker) ClientHandshake(ctx context.Context, _ string, plain net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := h.call
	conn, err := probe.Handshake(ctx, c.attempt, plain, c.config)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, nil, err
		}
		return nil, nil, c.fail(err)
	}
	state := conn.ConnectionState()
	if state.NegotiatedProtocol != "h2" {
		conn.Close()
		return nil, nil, c.fail(probe.Failf(c.attempt, meshv1.Result_TLS, "TLS handshake with %s: the server does not negotiate HTTP/2 (ALPN h2), which gRPC needs", c.attempt.Remote()))
	}
	c.attempt.Enter(meshv1.Result_PROCESSING)
	info := credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	return &metered{Conn: conn, call: c, tell: true}, info, nil
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

// isReflection marks the context of a call of reflection.
type isReflection struct{}

// TagRPC implements stats.Handler.
func (c *call) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	for _, path := range reflections {
		if info.FullMethodName == path {
			return context.WithValue(ctx, isReflection{}, true)
		}
	}
	return ctx
}

// HandleRPC implements stats.Handler: it learns that the server answered, and when.
func (c *call) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if ctx.Value(isReflection{}) != nil {
		switch s.(type) {
		case *stats.InTrailer:
			c.reflected.Store(true)
		}
		return
	}
	switch s.(type) {
	case *stats.OutPayload:
		c.attempt.Restart(meshv1.Result_PROCESSING)
	case *stats.InHeader:
		if !c.headers.Swap(true) {
			c.attempt.Enter(meshv1.Result_TRANSFER)
		}
	case *stats.InTrailer:
		if !c.headers.Swap(true) {
			c.attempt.Enter(meshv1.Result_TRANSFER)
		}
		c.trailers.Store(true)
	}
}

// TagConn implements stats.Handler.
func (c *call) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *call) HandleConn(context.Context, stats.ConnStats) {}

// unanswered is the failure of a call whose status is not the server's own but gRPC's here.
func (c *call) unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s := status.Convert(err)
	m, _, _ := strings.Cut(s.Message(), "\n") // behind the first line is a page of HTML
	remote := c.attempt.Remote()
	switch {
	case s.Code() == codes.DeadlineExceeded:
		return context.DeadlineExceeded
	case strings.Contains(m, "RST_STREAM"):
		_, code, _ := strings.Cut(m, "error code: ")
		return probe.Failf(c.attempt, meshv1.Result_CONNECTION_RESET, "call of %s: the server reset the call (RST_STREAM %s)", remote, code)
	case strings.Contains(strings.ToLower(m), "goaway"):
		_, code, _ := strings.Cut(m, "goaway: ")
		return probe.Failf(c.attempt, meshv1.Result_CONNECTION_RESET, "call of %s: the server ended the connection (GOAWAY %s)", remote, code)
	case strings.Contains(m, "larger than max"):
		return probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the answer of %s has more than %d bytes; raise grpc.message_limit if that is right", remote, c.runner.options.GetMessageLimit())
	}
	if known := c.failure(); known != nil {
		return known
	}
	if c.headers.Load() {
		return probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the server breaks the rules of gRPC: %s", m)
	}
	return probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the server does not speak gRPC: %s", m)
}

// late tells whether a deadline that the server says has passed is the probe's own, of which it was told.
func (c *call) late(code codes.Code) error {
	a := c.attempt
	if code != codes.DeadlineExceeded || time.Since(a.Start()) <= a.Timeout()*9/10 {
		return nil
	}
	return &probe.Failure{Class: meshv1.Result_TIMEOUT, Phase: meshv1.Result_PROCESSING, Sentence: fmt.Sprintf("wait for the answer of %s: timed out after %s", a.Remote(), a.Timeout())}
}
