package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/version"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
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
	// Servers gives the records of all servers, sorted by name, and a channel that is closed when they change. The records are not changed.
	Servers() ([]*statev1.ServerRecord, <-chan struct{})
	// URIs gives the URI of each check, empty for one that is not known.
	URIs(checks []string) []string
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
	// deaf is how late this server may look at a session before it counts as one that was not listening: it was paused, or has too little CPU. What a prober says passes three or
	// more goroutines, each of which waits for as long, and so does the ping that it answers: ten such waits leave two of the three seconds.
	deaf = 100 * time.Millisecond
	// lateMax is how often in a row that keeps a session: a server that is always so late must give up those that are gone, too.
	lateMax = 3
	// digestEvery is how often the expected digest goes with a ping.
	digestEvery = 30 * time.Second
	// frameBytes is what a message should stay under.
	frameBytes = 32 << 10
	// frameRoom is what a message has besides its items.
	frameRoom = 64
	// messageBytes is what Welcome promises that a message may have: one result with all its evidence, with room.
	messageBytes = 1 << 20
	// batchMax is how many results a batch may have.
	batchMax = 500
	// archiveQueue is how many results of a session wait for the history at most.
	archiveQueue = 4096
	// resultWindow is how many results may be on their way without an acknowledgement. It is less than the queue: a history that stalls is no reason to
	// throw backlog away and to ask for it again.
	resultWindow = 4000
	// inboxQueue is how many control messages of a prober wait to be answered; a prober that does not read what it is sent is not read from either.
	inboxQueue = 64
	// inventoryMax is how many assignments a prober may list.
	inventoryMax = 1_000_000
	// verifyTimeout bounds the second read of the store that a large shrink needs.
	verifyTimeout = 10 * time.Second
	// runQueue is how many runs wait to be sent at most.
	runQueue = 1024
	// helloTimeout is how long a prober may take to say Hello, and the store to enrol it.
	helloTimeout = 10 * time.Second
	// admittedAtOnce is how many probers are attached at the same time. When the thousands of a dead server come at once, those that wait cost nothing: what the
	// sessions that are there say is read meanwhile. Most of an attachment is one short hold of the controller's mutex; only a prober that is new waits for etcd.
	admittedAtOnce = 64
	// bulkAtOnce is how many sessions at a time do what all of them do when they begin or end together: detach, compare assignments, count STATE. The controller's mutex is
	// handed on in the order in which it was asked for, so a vote waits behind no more than these, and not behind ten thousand.
	bulkAtOnce = 4
	// stateChunk is how many votes of a STATE batch are counted under one hold of the mutex: about 0.1 ms.
	stateChunk = 100
	// admissionMax is how long a prober waits for that. It gives up after 5 s itself, and tries the next server; so is told earlier.
	admissionMax = 3 * time.Second
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
	places  directory
	// admission has an element for each prober that is being attached.
	admission chan struct{}
	// bulk has an element for each session in inTurn.
	bulk   chan struct{}
	turned turned
}

// inTurn does something that many sessions want to do at the same time, a few at once. f must not wait for anything but the controller's mutex.
func (g *Gateway) inTurn(f func()) {
	g.bulk <- struct{}{}
	defer func() { <-g.bulk }()
	f()
}

// New makes a gateway for the server of that bare name. Sessions end when stop does.
func New(stop context.Context, server string, mesh Mesh, archive Archive, log *slog.Logger, meter metric.Meter) (*Gateway, error) {
	m, err := newMetrics(meter)
	if err != nil {
		return nil, err
	}
	return &Gateway{server: spec.Name(spec.Servers, server), mesh: mesh, archive: archive, log: log, m: m, stop: stop, places: directory{mesh: mesh},
		admission: make(chan struct{}, admittedAtOnce), bulk: make(chan struct{}, bulkAtOnce)}, nil
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
		return g.refuse(stream.Context(), hello, err)
	}
	s := newSession(g, hello, cancel)
	s.facts.Address = addressOf(stream.Context())
	if err = g.attach(ctx, hello, s); err != nil {
		return g.refuse(stream.Context(), hello, err)
	}
	g.turned.forget(hello)
	g.m.sessions.Add(ctx, 1)
	g.log.Info("prober attached", "prober", s.name, "datacenter", hello.GetDatacenter(), "build", hello.GetBuild())
	err = s.run(ctx, stream)
	g.inTurn(func() { g.mesh.Detach(hello.GetProber(), s, s.leaving.Load()) })
	g.m.sessions.Add(context.WithoutCancel(ctx), -1)
	why := ending(ctx, err)
	g.log.Info("prober detached", "prober", s.name, "why", why)
	if s.leaving.Load() {
		return nil
	}
	return why
}

// refuse counts and logs that a session is not to be, and remembers whose; hello is nil when none came.
func (g *Gateway) refuse(ctx context.Context, hello *meshv1.Hello, err error) error {
	if hello == nil && ctx.Err() != nil {
		return err // whoever it was has gone, and is told nothing
	}
	from := addressOf(ctx)
	g.m.refused(ctx, err)
	g.turned.note(hello, from, err, time.Now())
	g.log.Warn("session refused", "prober", spec.Name(spec.Probers, clip(hello.GetProber())), "boot_id", clip(hello.GetBootId()), "address", from, "err", err)
	return err
}

// attach makes the session known, when it is its turn.
func (g *Gateway) attach(ctx context.Context, h *meshv1.Hello, s *session) error {
	begin := time.Now()
	timer := time.NewTimer(admissionMax)
	defer timer.Stop()
	select {
	case g.admission <- struct{}{}:
	case <-ctx.Done():
		return ending(ctx, ctx.Err())
	case <-timer.C:
		return fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, s.name,
			"more probers attach to this server than it can take in at once: %s waited for %s; it should try another server, or this one again", s.name, admissionMax).Retry(time.Second)
	}
	defer func() { <-g.admission }()
	g.m.admitted(ctx, time.Since(begin))
	ctx, done := context.WithTimeout(ctx, helloTimeout)
	defer done()
	return g.mesh.Attach(ctx, h, s)
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
		if errors.Is(f.err, io.EOF) {
			return nil, broken("it ended before Hello")
		}
		if f.err != nil {
			return nil, f.err
		}
		if err := checkSize(f.m); err != nil {
			return nil, err
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
	if _, err := spec.ParseName(spec.Probers, h.GetProber()); err != nil || h.GetProber() != spec.ID(h.GetProber()) {
		return broken("Hello names the prober %q; a name is 1 to 63 characters of a-z, 0-9 and -, without `probers/`", clip(h.GetProber()))
	}
	// The datacenter is part of keys in the store, so it has to be a name as well.
	if _, err := spec.ParseName("datacenters", h.GetDatacenter()); err != nil || h.GetDatacenter() != spec.ID(h.GetDatacenter()) {
		return broken("Hello names the datacenter %q; start the prober with --datacenter, 1 to 63 characters of a-z, 0-9 and -", clip(h.GetDatacenter()))
	}
	if h.GetBootId() == "" || len(h.GetBootId()) > textMax {
		return broken("Hello lacks the boot id, or it is longer than %d bytes", textMax)
	}
	return checkExtent(h)
}

// textMax and listMax bound what Hello says of the prober: it is stored, and is part of every status.
const (
	textMax = 200
	listMax = 64
)

func checkExtent(h *meshv1.Hello) error {
	if len(h.GetLabels()) > 32 {
		return broken("Hello has %d labels; at most 32 are allowed", len(h.GetLabels()))
	}
	for k, v := range h.GetLabels() {
		if k == "" || len(k) > 63 || len(v) > textMax {
			return broken("Hello has a label of %d bytes with a value of %d; keys have 1 to 63 and values at most %d", len(k), len(v), textMax)
		}
	}
	if len(h.GetMachine()) > listMax {
		return broken("Hello says %d things of its machine; at most %d are allowed", len(h.GetMachine()), listMax)
	}
	if len(h.GetCapabilities()) > listMax || len(h.GetBuild()) > textMax {
		return broken("Hello has %d capabilities and a build of %d bytes; at most %d and %d are allowed", len(h.GetCapabilities()), len(h.GetBuild()), listMax, textMax)
	}
	for _, c := range h.GetCapabilities() {
		if len(c) > 63 {
			return broken("Hello has a capability of %d bytes; at most 63 are allowed", len(c))
		}
	}
	return nil
}

// checkSize holds a prober to what Welcome said. gRPC's own limit is that of the whole server, which takes much larger messages of users.
func checkSize(m *meshv1.ProberMessage) error {
	if n := proto.Size(m); n > messageBytes {
		return broken("a message has %d bytes; at most %d are allowed, as message_limit in Welcome says", n, messageBytes)
	}
	return nil
}

// clip cuts what a stranger sent to what a message can show.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "..."
	}
	return s
}

func broken(format string, args ...any) error {
	return fault.New(codes.InvalidArgument, meshv1.ErrorReason_SESSION_BROKEN, "", "the session is broken: %s", fmt.Sprintf(format, args...))
}

func (s *session) run(ctx context.Context, stream grpc.BidiStreamingServer[meshv1.ProberMessage, meshv1.ServerMessage]) error {
	addresses := s.g.mesh.Addresses()
	places, changed := s.g.places.read()
	// Enrolment may have taken seconds. Taken as it is now, the clock would look that much ahead to the prober, until its first pong.
	halfway := s.began.Add(time.Since(s.began) / 2)
	welcome := &meshv1.Welcome{
		Server: s.g.server, Addresses: addresses, Protocol: version.Protocol, Time: timestamppb.New(halfway), MessageLimit: messageBytes, ResultWindow: resultWindow,
		Servers: places,
	}
	if err := stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// The first side that ends ends the session. The other is not waited for: Send and Recv may be blocked by a prober that neither reads nor speaks, and are
	// freed by gRPC when this handler returns. A session that rests has no other goroutines: each more is a stack that the garbage collector looks at, times ten thousand.
	ended := make(chan error, 2)
	go func() { ended <- s.send(ctx, stream, places, changed) }()
	go func() { ended <- s.receive(ctx, stream) }()
	err := s.listen(ctx, ended)
	if status.Code(err) == codes.Canceled || errors.Is(err, context.Canceled) {
		return io.EOF
	}
	return err
}
