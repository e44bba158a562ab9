package peer

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
)

// asked is a run that a follower asked for.
type asked struct{ prober, run string }

// askedMax is how many runs of a follower are remembered for a refusal; runGrace is how long without a deadline of the run's own, and after it.
const (
	askedMax = 10_000
	runGrace = time.Minute
)

// refusalQueue is how many refusals wait for one follower at most.
const refusalQueue = 256

// feed is one server that follows this one.
type feed struct {
	p      *Peers
	other  *other
	boot   string
	cancel context.CancelCauseFunc
	work   chan struct{} // there is something to send
	lane   *lane
	ledger *ledger
	frames chan *peerv1.History // the next of the journal

	mu       sync.Mutex // guards everything below
	beat     *peerv1.Beat
	refusals []*peerv1.Refusal
	runs     map[asked]time.Time // until when a refusal makes sense
}

// newFeed makes the feed of a follower. Called with the mutex of p held.
func newFeed(p *Peers, o *other, s *peerv1.Start) *feed {
	f := &feed{p: p, other: o, boot: s.GetBootId(), cancel: func(error) {}, work: make(chan struct{}, 1), lane: &lane{stale: true}, frames: make(chan *peerv1.History),
		runs: map[asked]time.Time{}}
	position := uint64(0)
	if s.GetJournal() == p.journal.id {
		position = min(s.GetPosition(), p.journal.last())
	}
	o.acked = position
	f.ledger = newLedger(position, p.cfg.CatchUp)
	return f
}

// state queues presence and votes. It does not block.
func (f *feed) state(i item) {
	if left := f.lane.put(i); left > 0 {
		f.p.m.superseded(left)
	}
	signal(f.work)
}

// fresh says that the journal has n more entries.
func (f *feed) fresh(n int) { f.ledger.fresh(n) }

// pulse has a beat sent before everything else; one that was not sent yet is replaced.
func (f *feed) pulse(b *peerv1.Beat) {
	f.mu.Lock()
	f.beat = b
	f.mu.Unlock()
	signal(f.work)
}

// run serves the follower until one of its parts ends. The others are not waited for: Send and Recv may be blocked by a follower that neither reads nor speaks, and
// are freed by gRPC when the handler returns; the journal's disk may hang.
func (f *feed) run(ctx context.Context, stream followStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.p.mu.Lock()
	f.cancel = cancel
	over := f.other.feed != f
	f.p.mu.Unlock()
	if over {
		return errReplaced
	}
	p := f.p
	started := &peerv1.Started{Server: p.name, BootId: p.cfg.BootID, Journal: p.journal.id, Protocol: Protocol, Datacenter: p.cfg.Datacenter,
		Remembered: p.remembered(f.other.name, time.Now())}
	if err := stream.Send(&peerv1.FollowResponse{Message: &peerv1.FollowResponse_Started{Started: started}}); err != nil {
		return err
	}
	p.log.Info("a server follows", "server", f.other.name, "boot_id", f.boot)
	heard := make(chan struct{}, 1)
	ended := make(chan error, 4)
	for _, part := range []func() error{
		func() error { return f.send(ctx, stream) },
		func() error { return f.receive(ctx, stream, heard) },
		func() error { return f.read(ctx) },
		func() error { return f.watch(ctx, heard) },
	} {
		go func() { ended <- part() }()
	}
	err := ending(ctx, <-ended)
	if status.Code(err) == codes.Canceled || errors.Is(err, context.Canceled) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// watch ends the stream when nothing was heard of the follower for SilentAfter. It counts looks and not time: while this process stands still, nobody can be heard.
func (f *feed) watch(ctx context.Context, heard <-chan struct{}) error {
	tick := time.NewTicker(SilentAfter / 6)
	defer tick.Stop()
	quiet := 0
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-heard:
			quiet = 0
		case <-tick.C:
			if quiet++; quiet > 6 {
				return broken("nothing was heard of %s for %s", f.other.name, SilentAfter)
			}
		}
	}
}

// receive takes what the follower says until the stream ends.
func (f *feed) receive(ctx context.Context, stream followStream, heard chan<- struct{}) error {
	p := f.p
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		switch x := m.GetMessage().(type) {
		case *peerv1.FollowRequest_Acknowledgement:
			if !f.ledger.acknowledge(x.Acknowledgement.GetPosition(), time.Now()) {
				return broken("%s acknowledged history that it was not sent", f.other.name)
			}
			p.mu.Lock()
			if f.other.feed == f {
				f.other.acked = max(f.other.acked, x.Acknowledgement.GetPosition())
			}
			p.mu.Unlock()
		case *peerv1.FollowRequest_Run:
			f.ask(x.Run)
			if !p.mesh.RunHere(x.Run.GetProber(), x.Run.GetRun()) {
				f.refuse(&peerv1.Refusal{Prober: x.Run.GetProber(), RunId: x.Run.GetRun().GetRunId(), Reason: "it has no session at " + p.name + ", or that is busy"})
			}
		case *peerv1.FollowRequest_Start:
			return broken("a second Start came")
		}
	}
}

// ask remembers who asked for a run, so that a refusal finds its way.
func (f *feed) ask(r *peerv1.Run) {
	now := time.Now()
	until := now.Add(runGrace)
	if d := r.GetRun().GetDeadline(); d.IsValid() {
		until = until.Add(max(0, min(time.Until(d.AsTime()), time.Hour)))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.runs) >= askedMax {
		maps.DeleteFunc(f.runs, func(_ asked, until time.Time) bool { return until.Before(now) })
	}
	if len(f.runs) < askedMax {
		f.runs[asked{r.GetProber(), r.GetRun().GetRunId()}] = until
	}
}

// asked tells whether this follower asked for the run, and forgets it.
func (f *feed) asked(a asked) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.runs[a]
	delete(f.runs, a)
	return ok
}

func (f *feed) refuse(r *peerv1.Refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.refusals) >= refusalQueue {
		f.p.m.dropped("refusal", 1)
		return
	}
	f.refusals = append(f.refusals, r)
	signal(f.work)
}

// send owns everything that is sent. The order is that of urgency; history comes when there is nothing else.
func (f *feed) send(ctx context.Context, stream followStream) error {
	out := &output{lane: f.lane}
	for {
		m := f.urgent()
		if m == nil {
			m = out.next(f.p.local)
		}
		if m == nil {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-f.work:
				continue
			case h := <-f.frames:
				m = &peerv1.FollowResponse{Message: &peerv1.FollowResponse_History{History: h}}
			}
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		if out.carried > 0 {
			f.p.m.relayed(out.carried)
			out.carried = 0
		}
	}
}

// urgent is the beat or the refusal that is due.
func (f *feed) urgent() *peerv1.FollowResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.beat; b != nil {
		f.beat = nil
		return &peerv1.FollowResponse{Message: &peerv1.FollowResponse_Beat{Beat: b}}
	}
	if len(f.refusals) > 0 {
		r := f.refusals[0]
		f.refusals = f.refusals[1:]
		return &peerv1.FollowResponse{Message: &peerv1.FollowResponse_Refusal{Refusal: r}}
	}
	return nil
}
