package gateway

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/history"
)

// session is one prober's stream.
type session struct {
	g      *Gateway
	hello  *meshv1.Hello
	id     string // bare name
	name   string // resource name
	cancel context.CancelCauseFunc

	inbox    chan *meshv1.ProberMessage // what the sending goroutine must answer
	runs     chan *meshv1.RunNow
	redirect chan *meshv1.Redirect
	woken    chan struct{}
	ackable  chan struct{}
	entries  chan archived

	heard   atomic.Int64 // when the prober was last heard, Unix nanoseconds
	leaving atomic.Bool
	acked   atomic.Uint64
	leftOut atomic.Uint64 // lowest sequence that the history's queue had no room for, 0 when none

	// mu guards facts.
	mu    sync.Mutex
	facts controller.SessionFacts
}

// archived is a result on its way to the history.
type archived struct {
	entry    history.Entry
	sequence uint64
	backlog  bool
}

var _ controller.Session = (*session)(nil)

func newSession(g *Gateway, h *meshv1.Hello, cancel context.CancelCauseFunc) *session {
	s := &session{
		g: g, hello: h, id: h.GetProber(), name: spec.Name(spec.Probers, h.GetProber()), cancel: cancel,
		inbox: make(chan *meshv1.ProberMessage, 64), runs: make(chan *meshv1.RunNow, runQueue), redirect: make(chan *meshv1.Redirect, 1),
		woken: make(chan struct{}, 1), ackable: make(chan struct{}, 1), entries: make(chan archived, archiveQueue),
	}
	s.facts.Since = time.Now()
	s.heard.Store(time.Now().UnixNano())
	return s
}

// BootID is the prober's process.
func (s *session) BootID() string { return s.hello.GetBootId() }

// Wake says that what the prober should run has changed.
func (s *session) Wake() { signal(s.woken) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// RunNow queues a run.
func (s *session) RunNow(r *meshv1.RunNow) bool {
	select {
	case s.runs <- r:
		return true
	default:
		s.g.m.dropped(context.Background(), "run", 1)
		return false
	}
}

// Redirect asks the prober to attach elsewhere. A second one before the first is sent is dropped.
func (s *session) Redirect(addresses []string, reason string) {
	select {
	case s.redirect <- &meshv1.Redirect{Addresses: addresses, Reason: reason, Delay: durationpb.New(0)}:
	default:
	}
}

// End ends the session.
func (s *session) End(reason string) {
	s.cancel(fault.New(codes.Aborted, meshv1.ErrorReason_PROBER_NAME_TAKEN, s.name, "this session was replaced: %s", reason))
}

// Facts are what the session knows of its prober.
func (s *session) Facts() controller.SessionFacts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.facts
}

// watchSilence ends the session when the prober has not been heard for too long.
func (s *session) watchSilence(ctx context.Context) error {
	t := time.NewTicker(pingEvery / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-t.C:
			if quiet := now.Sub(time.Unix(0, s.heard.Load())); quiet > silence {
				err := fault.New(codes.Unavailable, meshv1.ErrorReason_SESSION_BROKEN, s.name, "nothing was heard of %s for %s", s.name, quiet.Round(100*time.Millisecond))
				s.cancel(err)
				return err
			}
		}
	}
}

type receiver interface {
	Recv() (*meshv1.ProberMessage, error)
}

// receive takes messages until the stream ends. Votes are counted here, before anything else is done with them.
func (s *session) receive(ctx context.Context, stream receiver) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		s.heard.Store(time.Now().UnixNano())
		switch x := m.GetMessage().(type) {
		case *meshv1.ProberMessage_Results:
			if err := s.results(x.Results); err != nil {
				s.cancel(err)
				return err
			}
			continue
		case *meshv1.ProberMessage_RunRefusal:
			s.g.mesh.RunRefused(s.id, x.RunRefusal.GetRunId(), x.RunRefusal.GetReason())
			continue
		case *meshv1.ProberMessage_Goodbye:
			s.leaving.Store(true)
			s.g.log.Info("prober says goodbye", "prober", s.name, "reason", x.Goodbye.GetReason())
			s.cancel(errGoodbye)
			return nil
		case *meshv1.ProberMessage_Hello:
			err := broken("a second Hello came")
			s.cancel(err)
			return err
		}
		select {
		case s.inbox <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errGoodbye ends a session whose prober stops.
var errGoodbye = errors.New("the prober stops")

// results counts a batch's votes and hands it to the archive.
func (s *session) results(b *meshv1.ResultBatch) error {
	if len(b.GetResults()) > batchMax {
		return broken("a batch has %d results; at most %d are allowed", len(b.GetResults()), batchMax)
	}
	for _, r := range b.GetResults() {
		r.Prober = s.name
		if r.GetStartTime() == nil || r.GetOutcome() == meshv1.Result_OUTCOME_UNSPECIFIED {
			return broken("result %d of %s lacks its start time or outcome", r.GetSequence(), r.GetCheck())
		}
	}
	s.g.m.received(b)
	switch b.GetKind() {
	case meshv1.ResultBatch_LIVE:
		s.g.mesh.Cast(s.id, b.GetResults())
		s.queue(b, false)
	case meshv1.ResultBatch_STATE:
		s.g.mesh.Cast(s.id, b.GetResults())
	case meshv1.ResultBatch_BACKLOG:
		s.queue(b, true)
	default:
		return broken("a batch of results lacks its kind")
	}
	return nil
}

// queue hands results to the archive without ever waiting for it.
func (s *session) queue(b *meshv1.ResultBatch, backlog bool) {
	for _, r := range b.GetResults() {
		if r.GetSequence() == 0 {
			continue // SLOW: a vote's shadow, not for the history
		}
		if low := s.leftOut.Load(); low != 0 && r.GetSequence() > low {
			s.g.m.dropped(context.Background(), "history", 1)
			continue // it comes again from `low` on
		}
		a := archived{sequence: r.GetSequence(), backlog: backlog, entry: history.Entry{Result: r, Prober: s.id, Datacenter: s.hello.GetDatacenter()}}
		select {
		case s.entries <- a:
		default:
			s.g.m.dropped(context.Background(), "history", 1)
			if s.leftOut.CompareAndSwap(0, r.GetSequence()) {
				s.g.log.Warn("the history is behind: results wait in the prober's spool", "prober", s.name, "from_sequence", r.GetSequence())
			}
		}
	}
}

// archive appends results to the history and settles their numbers. A failure is tried again for as long as the session lives.
func (s *session) archive(ctx context.Context) error {
	l := ledger{}
	if f := s.hello.GetFirstSequence(); f > 0 {
		l.acked = f - 1
	}
	batch := make([]archived, 0, batchMax)
	for {
		batch = batch[:0]
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-s.entries:
			batch = append(batch, a)
		}
		for len(batch) < batchMax {
			select {
			case a := <-s.entries:
				batch = append(batch, a)
				continue
			default:
			}
			break
		}
		if err := s.store(ctx, batch); err != nil {
			return err
		}
		for _, a := range batch {
			if a.backlog {
				l.passed(a.sequence)
			}
			l.settle(a.sequence, a.sequence)
		}
		s.acked.Store(l.acked)
		signal(s.ackable)
	}
}

// store appends a batch, again and again until the history takes it.
func (s *session) store(ctx context.Context, batch []archived) error {
	entries, checks := make([]history.Entry, len(batch)), make([]string, len(batch))
	for i := range batch {
		entries[i], checks[i] = batch[i].entry, batch[i].entry.Result.GetCheck()
	}
	for i, uri := range s.g.mesh.URIs(checks) {
		entries[i].URI = uri
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		begin := time.Now()
		err := s.g.archive.Append(ctx, entries)
		s.g.m.archived(len(entries), err, time.Since(begin))
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if wait == 100*time.Millisecond {
			s.g.log.Error("the history does not take results; verdicts and alerts go on, results wait", "prober", s.name, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

type sender interface {
	Send(*meshv1.ServerMessage) error
}

// send owns everything that is sent. Its order is by urgency: answers and runs first, then acknowledgements, then assignments.
func (s *session) send(ctx context.Context, stream grpc.ServerStreamingServer[meshv1.ServerMessage]) error {
	y := newSyncer(s, stream)
	if err := y.begin(); err != nil {
		return err
	}
	ping := time.NewTicker(pingEvery)
	defer ping.Stop()
	var pings uint64
	for {
		// What is urgent overtakes: select alone chooses at random.
		select {
		case r := <-s.runs:
			if err := stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_RunNow{RunNow: r}}); err != nil {
				return err
			}
			continue
		default:
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-s.runs:
			err = stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_RunNow{RunNow: r}})
		case m := <-s.inbox:
			err = s.answer(ctx, y, stream, m)
		case <-ping.C:
			pings++
			err = s.ping(y, stream, pings)
		case <-s.ackable:
			err = s.acknowledge(stream)
		case r := <-s.redirect:
			err = stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Redirect{Redirect: r}})
		case <-s.woken:
			err = y.push(false)
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) answer(ctx context.Context, y *syncer, stream sender, m *meshv1.ProberMessage) error {
	switch x := m.GetMessage().(type) {
	case *meshv1.ProberMessage_Ping:
		now := timestamppb.Now()
		s.mu.Lock()
		s.facts.ClockOffset, s.facts.RoundTrip = x.Ping.GetClockOffset().AsDuration(), x.Ping.GetRoundTripTime().AsDuration()
		s.facts.Spooled, s.facts.Dropped = x.Ping.GetSpooled(), x.Ping.GetDropped()
		s.mu.Unlock()
		return stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Pong{Pong: &meshv1.Pong{
			Id: x.Ping.GetId(), OriginateTime: x.Ping.GetOriginateTime(), ReceiveTime: now, TransmitTime: timestamppb.Now(),
		}}})
	case *meshv1.ProberMessage_Pong:
		s.g.m.roundTrip(x.Pong)
		return nil
	case *meshv1.ProberMessage_Inventory:
		return y.inventory(x.Inventory)
	case *meshv1.ProberMessage_AssignmentAck:
		return y.ack(ctx, x.AssignmentAck)
	}
	return nil
}

func (s *session) ping(y *syncer, stream sender, n uint64) error {
	p := &meshv1.Ping{Id: n, OriginateTime: timestamppb.Now()}
	if n%uint64(digestEvery/pingEvery) == 0 {
		if d, ok := y.expected(); ok {
			p.ExpectedDigest = &d
		}
	}
	return stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Ping{Ping: p}})
}

// acknowledge sends how far the history is, and asks for what it had to leave out once its queue is empty.
func (s *session) acknowledge(stream sender) error {
	if err := stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_ResultAck{ResultAck: &meshv1.ResultAck{Sequence: s.acked.Load()}}}); err != nil {
		return err
	}
	low := s.leftOut.Load()
	if low == 0 || len(s.entries) > 0 {
		return nil
	}
	s.leftOut.Store(0)
	s.g.log.Info("the history has caught up; asking for what it left out", "prober", s.name, "from_sequence", low)
	return stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Resend{Resend: &meshv1.Resend{FromSequence: low}}})
}
