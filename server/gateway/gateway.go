package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/history"
)

// Mesh is what the gateway needs of the controller.
type Mesh interface {
	Attach(ctx context.Context, h *meshv1.Hello, s controller.Session) error
	Detach(prober string, s controller.Session, leaving bool)
	Cast(prober string, results []*meshv1.Result)
	RunRefused(prober, runID, reason string)
	Expected(prober string) (digest uint64, revision int64)
	Difference(prober string, held map[string]uint64) controller.Difference
	VerifyShrink(ctx context.Context, removals []string) error
	Addresses() []string
	// URIs gives the URI of each check, empty for one that is not known.
	URIs(checks []string) []string
	// Elsewhere gives the addresses of the leader when it is another server that probers should attach to; empty when they may stay.
	Elsewhere() []string
}

// Archive is what the gateway needs of the history. Append returns when the entries are on disk; it may block, and it may be repeated.
type Archive interface {
	Append(ctx context.Context, entries []history.Entry) error
}

// Limits of a session, told to the prober in Welcome where it must know them.
const (
	// pingEvery is how often each side pings.
	pingEvery = time.Second
	// silence ends a session: three pings.
	silence = 3 * time.Second
	// digestEvery is how often the expected digest goes with a ping.
	digestEvery = 30 * time.Second
	// frameBytes is what a message should stay under.
	frameBytes = 32 << 10
	// messageBytes is the largest message that is taken: one result with all its evidence, with room.
	messageBytes = 1 << 20
	// resultWindow is how many results may be on their way without an acknowledgement.
	resultWindow = 10_000
	// batchMax is how many results a batch may have.
	batchMax = 500
	// archiveQueue is how many results of a session wait for the history at most.
	archiveQueue = 4096
	// runQueue is how many runs wait to be sent at most.
	runQueue = 1024
	// helloTimeout is how long a prober may take to say Hello, and the store to enrol it.
	helloTimeout = 10 * time.Second
)

// Gateway serves SessionService.
type Gateway struct {
	meshv1.UnimplementedSessionServiceServer
	server  string // resource name
	mesh    Mesh
	archive Archive
	log     *slog.Logger
	m       *metrics
	stop    context.Context
}

// New makes a gateway for the server of that bare name. Sessions end when stop does.
func New(stop context.Context, server string, mesh Mesh, archive Archive, log *slog.Logger, meter metric.Meter) (*Gateway, error) {
	m, err := newMetrics(meter)
	if err != nil {
		return nil, err
	}
	return &Gateway{server: spec.Name(spec.Servers, server), mesh: mesh, archive: archive, log: log, m: m, stop: stop}, nil
}

// Register puts the gateway into a gRPC server.
func (g *Gateway) Register(r grpc.ServiceRegistrar) { meshv1.RegisterSessionServiceServer(r, g) }

// errStopping ends sessions when the server stops.
var errStopping = fault.New(codes.Unavailable, meshv1.ErrorReason_SHUTTING_DOWN, "", "this server is stopping; attach to another").Retry(time.Second)

// Session attaches one prober.
func (g *Gateway) Session(stream grpc.BidiStreamingServer[meshv1.ProberMessage, meshv1.ServerMessage]) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(g.stop, func() { cancel(errStopping) })()

	hello, err := g.receiveHello(ctx, stream)
	if err != nil {
		return err
	}
	s := newSession(g, hello, cancel)
	attach, done := context.WithTimeout(ctx, helloTimeout)
	err = g.mesh.Attach(attach, hello, s)
	done()
	if err != nil {
		g.m.refused(ctx, err)
		g.log.Warn("session refused", "prober", s.name, "boot_id", hello.GetBootId(), "err", err)
		return err
	}
	g.m.sessions.Add(ctx, 1)
	g.log.Info("prober attached", "prober", s.name, "datacenter", hello.GetDatacenter(), "build", hello.GetBuild())
	err = s.run(ctx, stream)
	g.mesh.Detach(hello.GetProber(), s, s.leaving.Load())
	g.m.sessions.Add(context.WithoutCancel(ctx), -1)
	why := ending(ctx, err)
	g.log.Info("prober detached", "prober", s.name, "why", why)
	if s.leaving.Load() {
		return nil
	}
	return why
}

// ending is why a session ended: the cause of its context when there is one, else what the stream said.
func ending(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// receiveHello takes the first message, which must be a Hello that this server understands.
func (g *Gateway) receiveHello(ctx context.Context, stream grpc.BidiStreamingServer[meshv1.ProberMessage, meshv1.ServerMessage]) (*meshv1.Hello, error) {
	type first struct {
		m   *meshv1.ProberMessage
		err error
	}
	// Recv cannot be given a deadline; it ends with the stream, which ends when this handler returns.
	got := make(chan first, 1)
	go func() {
		m, err := stream.Recv()
		got <- first{m, err}
	}()
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ending(ctx, ctx.Err())
	case <-timer.C:
		return nil, broken("no Hello came within %s of the start of the stream", helloTimeout)
	case f := <-got:
		if f.err != nil {
			return nil, f.err
		}
		h := f.m.GetHello()
		if h == nil {
			return nil, broken("the first message must be Hello")
		}
		return h, checkHello(h)
	}
}

func checkHello(h *meshv1.Hello) error {
	if h.GetProtocol() != version.Protocol {
		older := "upgrade the prober"
		if h.GetProtocol() > version.Protocol {
			older = "upgrade the servers first"
		}
		return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_PROTOCOL_UNSUPPORTED, spec.Name(spec.Probers, h.GetProber()),
			"the prober speaks protocol %d (build %q) and this server speaks %d (build %q); %s", h.GetProtocol(), h.GetBuild(), version.Protocol, version.Build(), older)
	}
	if _, err := spec.ParseName(spec.Probers, h.GetProber()); err != nil {
		return broken("%v", err)
	}
	if h.GetDatacenter() == "" {
		return broken("Hello lacks the datacenter: start the prober with --datacenter")
	}
	if h.GetBootId() == "" {
		return broken("Hello lacks the boot id")
	}
	if len(h.GetLabels()) > 32 {
		return broken("Hello has %d labels; at most 32 are allowed", len(h.GetLabels()))
	}
	return nil
}

func broken(format string, args ...any) error {
	return fault.New(codes.InvalidArgument, meshv1.ErrorReason_SESSION_BROKEN, "", "the session is broken: %s", fmt.Sprintf(format, args...))
}

func (s *session) run(ctx context.Context, stream grpc.BidiStreamingServer[meshv1.ProberMessage, meshv1.ServerMessage]) error {
	welcome := &meshv1.Welcome{
		Server: s.g.server, Addresses: s.g.mesh.Addresses(), Protocol: version.Protocol, Time: timestamppb.Now(), MessageLimit: messageBytes, ResultWindow: resultWindow,
	}
	if err := stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	if to := s.g.mesh.Elsewhere(); len(to) > 0 {
		s.Redirect(to, "another server leads")
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.send(ctx, stream) })
	group.Go(func() error { return s.archive(ctx) })
	group.Go(func() error { return s.watchSilence(ctx) })
	// Recv ends only with the stream, and the stream only with this handler: so it is not waited for when another part has failed.
	received := make(chan error, 1)
	go func() { received <- s.receive(ctx, stream) }()
	group.Go(func() error {
		select {
		case err := <-received:
			if err == nil {
				err = io.EOF
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	err := group.Wait()
	if status.Code(err) == codes.Canceled {
		return io.EOF
	}
	return err
}
