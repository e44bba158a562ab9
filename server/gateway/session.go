package gateway

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
)

// session is one prober's stream.
type session struct {
	g      *Gateway
	hello  *meshv1.Hello
	id     string // bare name
	name   string // resource name
	cancel context.CancelCauseFunc
	began  time.Time

	inbox    chan *meshv1.ProberMessage // what the sending goroutine must answer
	runs     runs
	woken    chan struct{}
	ackable  chan struct{}
	waiting  waiting // for the history
	ledger   ledger  // of whoever has claimed what waits
	verified chan shrinkAnswer

	heard   atomic.Int64 // when the prober was last heard, nanoseconds since began
	leaving atomic.Bool
	acked   atomic.Uint64
	behind  atomic.Bool   // the history's queue had no room: everything is left out until it is asked for again
	barrier atomic.Uint64 // BACKLOG is left out until the pong of this ping, or until it begins at resendFrom; 0: it is not
	// resendFrom is the number that was asked for last.
	resendFrom atomic.Uint64
	skipped    uint64      // the barrier at which BACKLOG was left out last; the receiving goroutine's
	gap        atomic.Bool // results above acked are in the history, and one below is not

	// mu guards facts.
	mu    sync.Mutex
	facts controller.SessionFacts
}

var _ controller.Session = (*session)(nil)

func newSession(g *Gateway, h *meshv1.Hello, cancel context.CancelCauseFunc) *session {
	s := &session{
		g: g, hello: h, id: h.GetProber(), name: spec.Name(spec.Probers, h.GetProber()), cancel: cancel, began: time.Now(),
		inbox: make(chan *meshv1.ProberMessage, inboxQueue), runs: runs{some: make(chan struct{}, 1)},
		woken: make(chan struct{}, 1), ackable: make(chan struct{}, 1), verified: make(chan shrinkAnswer, 1),
	}
	s.facts.Since = s.began
	if f := h.GetFirstSequence(); f > 0 {
		s.acked.Store(f - 1)
		s.ledger.acked = f - 1
	}
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
	if s.runs.put(r) {
		return true
	}
	s.g.m.dropped(context.Background(), "run", 1)
	return false
}

// runs wait to be sent, at most runQueue. It takes memory only while there are some: a channel with as much room would take eight kilobytes of each of ten thousand sessions, and the
// garbage collector would look at all of it.
type runs struct {
	some chan struct{} // set when the list is not empty

	mu   sync.Mutex // guards list
	list []*meshv1.RunNow
}

// put adds a run; false when there is no room.
func (q *runs) put(r *meshv1.RunNow) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= runQueue {
		return false
	}
	q.list = append(q.list, r)
	signal(q.some)
	return true
}

// take gives all that wait, in their order.
func (q *runs) take() (list []*meshv1.RunNow) {
	q.mu.Lock()
	defer q.mu.Unlock()
	list, q.list = q.list, nil
	return list
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

// hear notes a sign of life, on the monotonic clock: a step of the server's wall clock is no silence of the prober.
func (s *session) hear() { s.heard.Store(int64(time.Since(s.began))) }

// listen waits for the end of the session, and ends it when the prober has not been heard for too long.
func (s *session) listen(ctx context.Context, ended <-chan error) error {
	// One timer that is set to when the silence would be too long costs ten thousand sessions a thirteenth of what looking four times a second would.
	t := time.NewTimer(silence)
	defer t.Stop()
	due := time.Now().Add(silence)
	var w watch
	for {
		select {
		case <-ctx.Done():
			return ctx.Err() // what is being sent or received may be blocked
		case err := <-ended:
			return err
		case <-t.C:
			quiet := time.Since(s.began) - time.Duration(s.heard.Load())
			after := w.look(time.Since(due), quiet)
			if after == 0 {
				err := fault.New(codes.Unavailable, meshv1.ErrorReason_SESSION_BROKEN, s.name, "nothing was heard of %s for %s", s.name, quiet.Round(100*time.Millisecond))
				s.cancel(err)
				return err
			}
			due = time.Now().Add(after)
			t.Reset(after)
		}
	}
}

// watch decides whether a silent session ends.
type watch struct {
	late int // how often in a row the server looked too late
}

// look is told how late the server looks, and for how long nothing was heard. It gives after how long to look again; 0: the session ends.
func (w *watch) look(late, quiet time.Duration) (after time.Duration) {
	if w.late++; late > deaf && w.late <= lateMax {
		// This server did not run: what the prober said meanwhile is still to be read. To cut all sessions off would only make it busier: they would all come back.
		return pingEvery
	}
	w.late = 0
	if quiet > silence {
		return 0
	}
	return silence - quiet + time.Millisecond
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
		if ctx.Err() != nil {
			return ctx.Err() // it came while the session was ending: nobody is attached any more
		}
		s.hear()
		if err := checkSize(m); err != nil {
			s.cancel(err)
			return err
		}
		switch x := m.GetMessage().(type) {
		case *meshv1.ProberMessage_Results:
			if err := s.results(ctx, x.Results); err != nil {
				s.cancel(err)
				return err
			}
			continue
		case *meshv1.ProberMessage_Pong:
			s.g.m.roundTrip(x.Pong)
			s.pass(x.Pong.GetId())
			continue
		case *meshv1.ProberMessage_RunRefusal:
			s.g.mesh.RunRefused(s.id, x.RunRefusal.GetRunId(), x.RunRefusal.GetReason())
			continue
		case *meshv1.ProberMessage_Goodbye:
			s.leaving.Store(true)
			s.g.log.Info("prober says goodbye", "prober", s.name, "reason", clip(x.Goodbye.GetReason()))
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
func (s *session) results(ctx context.Context, b *meshv1.ResultBatch) error {
	if len(b.GetResults()) > batchMax {
		return broken("a batch has %d results; at most %d are allowed", len(b.GetResults()), batchMax)
	}
	for _, r := range b.GetResults() {
		r.Prober = s.name
		if r.GetStartTime().CheckValid() != nil || r.GetOutcome() == meshv1.Result_OUTCOME_UNSPECIFIED {
			return broken("result %d of %s lacks its start time or outcome", r.GetSequence(), clip(r.GetCheck()))
		}
	}
	s.g.m.received(b)
	switch b.GetKind() {
	case meshv1.ResultBatch_LIVE:
		s.judgeTimes(b.GetResults(), time.Now())
		s.g.mesh.Cast(s.id, b.GetResults())
		s.queue(ctx, b, false)
	case meshv1.ResultBatch_STATE:
		for chunk := range slices.Chunk(b.GetResults(), stateChunk) {
			s.g.inTurn(func() { s.g.mesh.Cast(s.id, chunk) })
		}
	case meshv1.ResultBatch_BACKLOG:
		s.queue(ctx, b, true)
	default:
		return broken("a batch of results lacks its kind")
	}
	return nil
}
