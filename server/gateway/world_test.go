package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/rpc"
	"github.com/probemesh/probemesh/internal/version"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/history"
)

// fakeMesh is a controller that believes everything and remembers it.
type fakeMesh struct {
	mu       sync.Mutex
	sessions map[string]controller.Session
	detached []string // name, and " leaving" when it left
	cast     []*meshv1.Result
	refused  []string
	wanted   map[string]*meshv1.Assignment
	servers  []*statev1.ServerRecord
	changed  chan struct{}
	slow     time.Duration // of Attach
	verify   func(ctx context.Context, removals []string) error
	verified [][]string
}

func (m *fakeMesh) Attach(_ context.Context, h *meshv1.Hello, s controller.Session) error {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sessions[h.GetProber()] = s
	return nil
}

func (m *fakeMesh) Detach(prober string, _ controller.Session, leaving bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if leaving {
		prober += " leaving"
	}
	m.detached = append(m.detached, prober)
}

func (m *fakeMesh) Cast(_ string, results []*meshv1.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cast = append(m.cast, results...)
}

func (m *fakeMesh) RunRefused(prober, runID, reason string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refused = append(m.refused, prober+" "+runID+" "+reason)
}

func (m *fakeMesh) Expected(string) (uint64, int64) { panic("not used by the gateway's sessions") }

func (m *fakeMesh) Difference(_ string, held map[string]uint64) controller.Difference {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := controller.Difference{Revision: 7}
	var digest assignment.Digest
	for name, a := range m.wanted {
		digest.Add(name, a.GetFingerprint())
		if held[name] != a.GetFingerprint() {
			d.Upserts = append(d.Upserts, a)
		}
	}
	for name := range held {
		if m.wanted[name] == nil {
			d.Removals = append(d.Removals, name)
		}
	}
	d.Digest = uint64(digest)
	return d
}

func (m *fakeMesh) VerifyShrink(ctx context.Context, removals []string) error {
	m.mu.Lock()
	m.verified = append(m.verified, removals)
	verify := m.verify
	m.mu.Unlock()
	return verify(ctx, removals)
}

func (m *fakeMesh) Addresses() []string { return []string{"a:1", "b:1"} }

func (m *fakeMesh) Servers() ([]*statev1.ServerRecord, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.servers, m.changed
}

// place sets the servers.
func (m *fakeMesh) place(names ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.servers = nil
	for _, n := range names {
		m.servers = append(m.servers, &statev1.ServerRecord{Name: "servers/" + n, Datacenter: "dc-" + n, GrpcAddress: n + ":1"})
	}
	if m.changed != nil {
		close(m.changed)
	}
	m.changed = make(chan struct{})
}

func (m *fakeMesh) URIs(checks []string) []string { return make([]string, len(checks)) }

// want sets what the prober shall run.
func (m *fakeMesh) want(all ...*meshv1.Assignment) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wanted = map[string]*meshv1.Assignment{}
	for _, a := range all {
		m.wanted[a.GetCheck().GetName()] = a
	}
}

func (m *fakeMesh) session(name string) controller.Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sessions[name]
}

func (m *fakeMesh) votes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.cast)
}

func (m *fakeMesh) gone() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.detached...)
}

// fakeArchive keeps sequence numbers.
type fakeArchive struct {
	mu      sync.Mutex
	taken   map[uint64]int
	whole   uint64 // up to here nothing is missing
	failing bool
	stalled chan struct{} // while it is set, Append waits for it, whatever becomes of its context
}

func (a *fakeArchive) Append(_ context.Context, entries []history.Entry) error {
	a.mu.Lock()
	stalled := a.stalled
	a.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failing {
		return errors.New("the disk is full")
	}
	for _, e := range entries {
		a.taken[e.Result.GetSequence()]++
	}
	return nil
}

func (a *fakeArchive) stall() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stalled == nil {
		a.stalled = make(chan struct{})
	}
}

func (a *fakeArchive) release() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stalled != nil {
		close(a.stalled)
		a.stalled = nil
	}
}

func (a *fakeArchive) fail(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failing = yes
}

// lacks gives the lowest number up to last that is not in it, 0 when there is none.
func (a *fakeArchive) lacks(last uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.taken[a.whole+1] > 0 {
		a.whole++
	}
	if a.whole < last {
		return a.whole + 1
	}
	return 0
}

// world is a gateway in a bubble.
type world struct {
	t       *testing.T
	mesh    *fakeMesh
	archive *fakeArchive
	stop    context.CancelFunc
	dial    func() *grpc.ClientConn
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		stop, cancel := context.WithCancel(context.Background())
		w := &world{t: t, stop: cancel,
			mesh:    &fakeMesh{sessions: map[string]controller.Session{}, wanted: map[string]*meshv1.Assignment{}, verify: func(context.Context, []string) error { return nil }},
			archive: &fakeArchive{taken: map[uint64]int{}}}
		w.mesh.place("a", "b")
		g, err := New(stop, "a", w.mesh, w.archive, slog.New(slog.DiscardHandler), noop.Meter{})
		if err != nil {
			t.Fatal(err)
		}
		l := bufconn.Listen(256 << 10)
		server, _ := rpc.NewServer(rpc.Config{}, nil, nil)
		g.Register(server)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(l) // ends with Stop
		}()
		w.dial = func() *grpc.ClientConn {
			c, err := grpc.NewClient("passthrough:///a", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		}
		defer func() {
			w.archive.release()
			cancel()
			server.Stop()
			<-done
		}()
		f(w)
	})
}

// client is a prober's end of a stream, spoken by hand.
type client struct {
	t      *testing.T
	stream meshv1.SessionService_SessionClient
	cancel context.CancelFunc
	// onMessage, if set, is called with each message, in order.
	onMessage func(*meshv1.ServerMessage)

	saying sync.Mutex // a stream takes one sender at a time

	mu  sync.Mutex
	got []*meshv1.ServerMessage
	err error
	end chan struct{}
}

func hello(name string) *meshv1.Hello {
	return &meshv1.Hello{Prober: name, BootId: "boot-" + name, Build: "test", Protocol: version.Protocol, Datacenter: "fra", FirstSequence: 1}
}

// open opens a stream and says Hello; h may be nil to say nothing. With reads false, nothing is ever read.
func (w *world) open(h *meshv1.Hello, reads bool, onMessage func(*meshv1.ServerMessage)) *client {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	stream, err := meshv1.NewSessionServiceClient(w.dial()).Session(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &client{t: w.t, stream: stream, cancel: cancel, onMessage: onMessage, end: make(chan struct{})}
	if h != nil {
		c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Hello{Hello: h}})
	}
	if reads {
		go c.read()
	}
	synctest.Wait()
	return c
}

// attach opens a stream as a prober that pings each second.
func (w *world) attach(h *meshv1.Hello) *client {
	w.t.Helper()
	c := w.open(h, true, nil)
	go c.pingAll()
	return c
}

func (c *client) read() {
	defer close(c.end)
	for {
		m, err := c.stream.Recv()
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			return
		}
		c.got = append(c.got, m)
		c.mu.Unlock()
		if c.onMessage != nil {
			c.onMessage(m)
		}
	}
}

func (c *client) pingAll() {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for id := uint64(1); ; id++ {
		select {
		case <-c.end:
			return
		case <-t.C:
			c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Ping{Ping: &meshv1.Ping{Id: id, OriginateTime: timestamppb.Now(), Spooled: 5,
				ClockOffset: durationpb.New(time.Millisecond)}}})
		}
	}
}

// say sends; a stream that has ended takes nothing, which its reader tells.
func (c *client) say(m *meshv1.ProberMessage) {
	c.saying.Lock()
	defer c.saying.Unlock()
	_ = c.stream.Send(m)
}

func (c *client) results(kind meshv1.ResultBatch_Kind, sequences ...uint64) {
	b := &meshv1.ResultBatch{Kind: kind}
	for _, n := range sequences {
		b.Results = append(b.Results, result(n))
	}
	c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: b}})
}

func (c *client) ack(digest uint64, refused bool) {
	c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_AssignmentAck{AssignmentAck: &meshv1.AssignmentAck{Digest: digest, ShrinkRefused: refused, Revision: 7}}})
}

func (c *client) inventory(held map[string]uint64) {
	i := &meshv1.Inventory{Last: true}
	for name, f := range held {
		i.Items = append(i.Items, &meshv1.InventoryItem{Check: name, Fingerprint: f})
	}
	c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Inventory{Inventory: i}})
}

func result(n uint64) *meshv1.Result {
	return &meshv1.Result{Check: "checks/c", Sequence: n, StartTime: timestamppb.Now(), Outcome: meshv1.Result_OK}
}

// seen gives what came that the chosen function takes.
func seen[T any](c *client, choose func(*meshv1.ServerMessage) (T, bool)) []T {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []T
	for _, m := range c.got {
		if v, ok := choose(m); ok {
			out = append(out, v)
		}
	}
	return out
}

func (c *client) updates() []*meshv1.AssignmentUpdate {
	return seen(c, func(m *meshv1.ServerMessage) (*meshv1.AssignmentUpdate, bool) {
		return m.GetAssignmentUpdate(), m.GetAssignmentUpdate() != nil
	})
}

func (c *client) inventoriesAsked() int {
	return len(seen(c, func(m *meshv1.ServerMessage) (bool, bool) { return true, m.GetInventoryRequest() != nil }))
}

func (c *client) acked() uint64 {
	all := seen(c, func(m *meshv1.ServerMessage) (uint64, bool) {
		return m.GetResultAck().GetSequence(), m.GetResultAck() != nil
	})
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1]
}

// ended waits for the end of the stream and gives its fault.
func (c *client) ended() *fault.Error {
	c.t.Helper()
	<-c.end
	f, ok := fault.From(c.err)
	if !ok {
		c.t.Fatalf("the stream ended with %v, which is no fault", c.err)
	}
	return f
}

func digestOf(all ...*meshv1.Assignment) uint64 {
	var d assignment.Digest
	for _, a := range all {
		d.Add(a.GetCheck().GetName(), a.GetFingerprint())
	}
	return uint64(d)
}

func holding(all ...*meshv1.Assignment) map[string]uint64 {
	m := map[string]uint64{}
	for _, a := range all {
		m[a.GetCheck().GetName()] = a.GetFingerprint()
	}
	return m
}

func assigned(names ...string) []*meshv1.Assignment {
	var all []*meshv1.Assignment
	for _, n := range names {
		a := &meshv1.Assignment{Check: &meshv1.Check{Name: "checks/" + n, Uri: "https://" + n + ".example.com/health", Interval: durationpb.New(time.Minute)}}
		a.Fingerprint = assignment.Fingerprint(a)
		all = append(all, a)
	}
	return all
}

func size(m proto.Message) int { return proto.Size(m) }
