// Package linktest has a server for tests of probers: it behaves as session_service.proto says, keeps a history in memory, and can be told to misbehave.
// It lives on an in-memory listener, so it works in a testing/synctest bubble.
package linktest

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Network connects probers and servers by address.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
}

// NewNetwork returns one without servers.
func NewNetwork() *Network { return &Network{listeners: map[string]*bufconn.Listener{}} }

// DialOption makes a prober's connections go over the network.
func (n *Network) DialOption() grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		n.mu.Lock()
		l := n.listeners[address]
		n.mu.Unlock()
		if l == nil {
			return nil, errors.New("connection refused")
		}
		return l.DialContext(ctx)
	})
}

// Server is a server of the mesh as one prober sees it. Its exported fields are set before Start.
type Server struct {
	meshv1.UnimplementedSessionServiceServer
	// Address it listens on.
	Address string
	// Addresses it names in Welcome; default: its own.
	Addresses []string
	// Servers it names in Welcome; default: none, as an older server.
	Servers []*meshv1.ServerAddress
	// Name of it, without `servers/`; default: its address.
	Name string
	// ClockOffset is added to its clock.
	ClockOffset time.Duration
	// Window of results in Welcome; default 5000.
	Window int32
	// Greet, if set, is asked at each Hello; an error ends the session.
	Greet func(*meshv1.Hello) error
	// Deaf: it takes no result into its history and acknowledges none.
	Deaf bool
	// Forgetful: it acknowledges results but keeps none of them, for loads that memory would not hold.
	Forgetful bool

	network *Network
	grpc    *grpc.Server
	health  *health.Server

	mu       sync.Mutex // guards everything below
	frozen   bool
	wanted   map[string]*meshv1.Assignment
	intended bool
	stream   *stream
	hellos   []*meshv1.Hello
	acks     []*meshv1.AssignmentAck
	refusals []*meshv1.RunRefusal
	goodbyes int
	batches  []*meshv1.ResultBatch
	largest  int
	ok       int64  // results that say so
	other    int64  // that say something else
	why      string // what the last one of those says
}

// Start listens.
func (s *Server) Start(n *Network) {
	l := bufconn.Listen(256 << 10)
	n.mu.Lock()
	n.listeners[s.Address] = l
	n.mu.Unlock()
	s.network = n
	s.register()
	go s.grpc.Serve(l) // ends with Stop
}

// Serve serves on a listener of a real network until that is closed, in place of Start and Stop.
func (s *Server) Serve(l net.Listener) error {
	s.register()
	return s.grpc.Serve(l)
}

func (s *Server) register() {
	s.grpc, s.health = grpc.NewServer(), health.NewServer()
	healthv1.RegisterHealthServer(s.grpc, s.health)
	s.mu.Lock()
	if s.wanted == nil {
		s.wanted = map[string]*meshv1.Assignment{}
	}
	s.mu.Unlock()
	meshv1.RegisterSessionServiceServer(s.grpc, s)
}

// Stop ends all sessions and listens no more; what it holds stays, and Start begins again.
func (s *Server) Stop() {
	s.network.mu.Lock()
	delete(s.network.listeners, s.Address)
	s.network.mu.Unlock()
	s.grpc.Stop()
}

// Healthy makes the health service say that the server is serving, as it does from the start, or that it is not.
func (s *Server) Healthy(yes bool) {
	status := healthv1.HealthCheckResponse_NOT_SERVING
	if yes {
		status = healthv1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
}

// Freeze makes the server silent, with its streams open, or wakes it up.
func (s *Server) Freeze(frozen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = frozen
}

// Want sets what the prober shall run. It is sent with the next digest, within 30 s, or by Sync.
func (s *Server) Want(intendedShrink bool, all ...*meshv1.Assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = map[string]*meshv1.Assignment{}
	for _, a := range all {
		s.wanted[a.GetCheck().GetName()] = a
	}
	s.intended = intendedShrink
}

// Say sends a message to the prober; false without a session.
func (s *Server) Say(m *meshv1.ServerMessage) bool {
	s.mu.Lock()
	st := s.stream
	s.mu.Unlock()
	return st != nil && st.send(m) == nil
}

// Sync asks for the inventory, after which the prober gets the difference.
func (s *Server) Sync() bool {
	return s.Say(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_InventoryRequest{InventoryRequest: &meshv1.InventoryRequest{}}})
}

// Tally counts the results that came live or late: those that are OK and the others. SLOW ones do not count, since the probe's end counts. why is
// what the last one of the others says.
func (s *Server) Tally() (ok, other int64, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ok, s.other, s.why
}

// tallyLocked counts a batch.
func (s *Server) tallyLocked(b *meshv1.ResultBatch) {
	if b.GetKind() == meshv1.ResultBatch_STATE {
		return
	}
	for _, r := range b.GetResults() {
		switch r.GetOutcome() {
		case meshv1.Result_OK:
			s.ok++
		case meshv1.Result_SLOW:
		default:
			s.other++
			s.why = r.GetError()
		}
	}
}

// Holding is how many assignments the prober said it holds when it last acknowledged an update; -1 when it never did.
func (s *Server) Holding() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.acks) == 0 {
		return -1
	}
	return int(s.acks[len(s.acks)-1].GetHeld())
}

// Attached tells whether there is a session.
func (s *Server) Attached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stream != nil
}

// Seen is what came from the prober, oldest first.
type Seen struct {
	Hellos   []*meshv1.Hello
	Acks     []*meshv1.AssignmentAck
	Refusals []*meshv1.RunRefusal
	Goodbyes int
	Batches  []*meshv1.ResultBatch
	Largest  int // bytes of the largest message
}

// Seen returns what came.
func (s *Server) Seen() Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Seen{append([]*meshv1.Hello(nil), s.hellos...), append([]*meshv1.AssignmentAck(nil), s.acks...), append([]*meshv1.RunRefusal(nil), s.refusals...),
		s.goodbyes, append([]*meshv1.ResultBatch(nil), s.batches...), s.largest}
}

// Results returns all results of a kind in the order in which they came.
func (v Seen) Results(kinds ...meshv1.ResultBatch_Kind) []*meshv1.Result {
	var out []*meshv1.Result
	for _, b := range v.Batches {
		for _, k := range kinds {
			if b.GetKind() == k {
				out = append(out, b.GetResults()...)
			}
		}
	}
	return out
}

// History is what a history makes of it: LIVE and BACKLOG without repeats and SLOW, by check and start time.
func (v Seen) History() map[string]*meshv1.Result {
	out := map[string]*meshv1.Result{}
	for _, r := range v.Results(meshv1.ResultBatch_LIVE, meshv1.ResultBatch_BACKLOG) {
		if r.GetOutcome() != meshv1.Result_SLOW {
			out[r.GetCheck()+" "+r.GetStartTime().AsTime().Format(time.RFC3339Nano)] = r
		}
	}
	return out
}

// Now is the server's clock.
func (s *Server) Now() time.Time { return time.Now().Add(s.ClockOffset) }

type stream struct {
	meshv1.SessionService_SessionServer
	mu sync.Mutex
}

func (st *stream) send(m *meshv1.ServerMessage) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.Send(m)
}

// ServerName is its resource name.
func (s *Server) ServerName() string {
	if s.Name == "" {
		return "servers/" + s.Address
	}
	return "servers/" + s.Name
}

// Session is the server's side of the protocol.
func (s *Server) Session(raw meshv1.SessionService_SessionServer) error {
	st := &stream{SessionService_SessionServer: raw}
	m, err := st.Recv()
	if err != nil {
		return err
	}
	hello := m.GetHello()
	if s.Greet != nil {
		if err := s.Greet(hello); err != nil {
			return err
		}
	}
	addresses, window := s.Addresses, s.Window
	if len(addresses) == 0 {
		addresses = []string{s.Address}
	}
	if window == 0 {
		window = 5000
	}
	err = st.send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Welcome{Welcome: &meshv1.Welcome{Server: s.ServerName(), Addresses: addresses, Servers: s.Servers,
		Protocol: 1, Time: timestamppb.New(s.Now()), MessageLimit: 32 << 10, ResultWindow: window}}})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.hellos = append(s.hellos, hello)
	s.stream = st
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.stream == st {
			s.stream = nil
		}
	}()
	if hello.GetDigest() != s.digest() {
		s.Sync()
	}
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { s.pingAll(st, done) })
	err = s.receive(st, &ledger{floor: hello.GetFirstSequence() - 1, have: map[uint64]bool{}})
	close(done)
	group.Wait()
	return err
}

func (s *Server) digest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var d assignment.Digest
	for name, a := range s.wanted {
		d.Add(name, a.GetFingerprint())
	}
	return uint64(d)
}

func (s *Server) pingAll(st *stream, done chan struct{}) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for id := uint64(1); ; id++ {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		frozen := s.frozen
		s.mu.Unlock()
		if frozen {
			continue
		}
		ping := &meshv1.Ping{Id: id, OriginateTime: timestamppb.New(s.Now())}
		if id%30 == 0 {
			ping.ExpectedDigest = proto.Uint64(s.digest())
		}
		st.send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Ping{Ping: ping}})
	}
}

// ledger knows what may be acknowledged.
type ledger struct {
	floor uint64
	have  map[uint64]bool
}

func (l *ledger) add(b *meshv1.ResultBatch) uint64 {
	for _, r := range b.GetResults() {
		if b.GetKind() == meshv1.ResultBatch_BACKLOG && r.GetSequence() > l.floor {
			l.floor = r.GetSequence() // what BACKLOG has passed over will not come
		} else if r.GetSequence() > l.floor {
			l.have[r.GetSequence()] = true
		}
	}
	for l.have[l.floor+1] {
		delete(l.have, l.floor+1)
		l.floor++
	}
	return l.floor
}

func (s *Server) receive(st *stream, l *ledger) error {
	var inventory map[string]uint64
	for {
		m, err := st.Recv()
		if err != nil {
			return nil // the prober has gone
		}
		s.mu.Lock()
		frozen := s.frozen
		s.largest = max(s.largest, proto.Size(m))
		s.mu.Unlock()
		if frozen {
			continue
		}
		switch m := m.GetMessage().(type) {
		case *meshv1.ProberMessage_Ping:
			now := timestamppb.New(s.Now())
			st.send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Pong{Pong: &meshv1.Pong{Id: m.Ping.GetId(),
				OriginateTime: m.Ping.GetOriginateTime(), ReceiveTime: now, TransmitTime: now}}})
		case *meshv1.ProberMessage_Inventory:
			if inventory == nil {
				inventory = map[string]uint64{}
			}
			for _, i := range m.Inventory.GetItems() {
				inventory[i.GetCheck()] = i.GetFingerprint()
			}
			if m.Inventory.GetLast() {
				s.update(st, inventory)
				inventory = nil
			}
		case *meshv1.ProberMessage_AssignmentAck:
			s.mu.Lock()
			s.acks = append(s.acks, m.AssignmentAck)
			s.mu.Unlock()
			if m.AssignmentAck.GetDigest() != s.digest() && !m.AssignmentAck.GetShrinkRefused() {
				s.Sync()
			}
		case *meshv1.ProberMessage_Results:
			if s.Deaf {
				continue
			}
			s.mu.Lock()
			s.tallyLocked(m.Results)
			if !s.Forgetful {
				s.batches = append(s.batches, m.Results)
			}
			s.mu.Unlock()
			if m.Results.GetKind() != meshv1.ResultBatch_STATE {
				st.send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_ResultAck{ResultAck: &meshv1.ResultAck{Sequence: l.add(m.Results)}}})
			}
		case *meshv1.ProberMessage_RunRefusal:
			s.mu.Lock()
			s.refusals = append(s.refusals, m.RunRefusal)
			s.mu.Unlock()
		case *meshv1.ProberMessage_Goodbye:
			s.mu.Lock()
			s.goodbyes++
			s.mu.Unlock()
			return nil
		}
	}
}

// update sends the difference between what is wanted and what is held, an assignment a message.
func (s *Server) update(st *stream, held map[string]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := &meshv1.AssignmentUpdate{Last: true, Revision: 100, IntendedShrink: s.intended}
	for name := range held {
		if s.wanted[name] == nil {
			last.Removals = append(last.Removals, name)
		}
	}
	for name, a := range s.wanted {
		if f, ok := held[name]; !ok || f != a.GetFingerprint() {
			st.send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_AssignmentUpdate{AssignmentUpdate: &meshv1.AssignmentUpdate{
				Upserts: []*meshv1.Assignment{a}, Revision: 100}}})
		}
	}
	st.send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_AssignmentUpdate{AssignmentUpdate: last}})
}
