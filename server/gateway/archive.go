package gateway

import (
	"context"
	"math"
	"sync"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/history"
)

// archived is a result on its way to the history.
type archived struct {
	result  *meshv1.Result
	backlog bool
}

// waiting are the results of a session that wait for the history, at most archiveQueue. It takes memory, and has a goroutine, only while there are some: a channel with as much
// room would cost ten thousand sessions three gigabytes, most of it at the moment when they all begin.
type waiting struct {
	mu   sync.Mutex // guards everything below
	list []archived
	busy bool // somebody has claimed the list and has not settled all of it
}

// put adds a result; false when there is no room.
func (w *waiting) put(a archived) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.list) >= archiveQueue {
		return false
	}
	w.list = append(w.list, a)
	return true
}

// claim tells whether the caller is to take what is there to the history: something is, and nobody else does.
func (w *waiting) claim() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy || len(w.list) == 0 {
		return false
	}
	w.busy = true
	return true
}

// take gives the oldest results, at most so many, into a slice that is written anew.
func (w *waiting) take(into []archived, most int) []archived {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.list), most)
	into = append(into[:0], w.list[:n]...)
	rest := copy(w.list, w.list[n:])
	clear(w.list[rest:])
	if w.list = w.list[:rest]; rest == 0 && cap(w.list) > batchMax {
		w.list = nil
	}
	return into
}

// settled says that what was taken is in the history. When nothing came meanwhile, the claim is given back and more is false.
func (w *waiting) settled() (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = len(w.list) > 0
	return w.busy
}

// idle tells whether everything that was put is in the history.
func (w *waiting) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list) == 0 && !w.busy
}

// queue hands results to the archive without ever waiting for it. Once one had no room, all are left out until they are asked for again: a later one
// that found room would be taken for a sign that the prober has nothing before it.
func (s *session) queue(ctx context.Context, b *meshv1.ResultBatch, backlog bool) {
	left := int64(0)
	for _, r := range b.GetResults() {
		if r.GetSequence() == 0 {
			continue // SLOW: a vote's shadow, not for the history
		}
		// In this order: catchUp raises the barrier before it clears behind, also in the middle of a batch.
		if s.behind.Load() || (backlog && !s.resumed(r.GetSequence())) {
			left++
			continue
		}
		if !s.waiting.put(archived{result: r, backlog: backlog}) {
			left++
			s.behind.Store(true)
			s.g.log.Warn("the history is behind: results wait in the prober's spool", "prober", s.name, "from_sequence", r.GetSequence())
		}
	}
	if left > 0 {
		s.g.m.dropped(context.Background(), "history", left)
	}
	if s.waiting.claim() {
		// Not waited for at the end of the session: it may hang with its disk, which must not keep the prober's name taken.
		go s.archive(ctx)
	}
}

// again is a barrier that no pong lifts: the Resend is repeated.
const again = math.MaxUint64

// resumed tells whether a number of the backlog may be taken. After a Resend, what comes may have been on its way already; what begins at the number
// asked for, or below, has certainly nothing missing before it.
func (s *session) resumed(sequence uint64) bool {
	at := s.barrier.Load()
	if at == 0 {
		return true
	}
	if sequence <= s.resendFrom.Load() {
		s.barrier.CompareAndSwap(at, 0)
		return true
	}
	s.skipped = at
	return false
}

// pass takes a pong. That of the ping behind a Resend says that the prober has gone back: what comes from here on is what was asked for. But if some
// backlog was skipped before it came, it may have been of that already (the prober no longer has the number asked for), and so it is asked for again.
func (s *session) pass(pong uint64) {
	at := s.barrier.Load()
	switch {
	case at == 0 || at == again || pong < at:
	case s.skipped == at:
		s.barrier.CompareAndSwap(at, again)
	default:
		s.barrier.CompareAndSwap(at, 0)
	}
}

// archive appends the results that wait to the history and settles their numbers, until none waits. A failure is tried again for as long as the session lives.
func (s *session) archive(ctx context.Context) {
	l := &s.ledger
	var batch []archived
	for more := true; more; {
		batch = s.waiting.take(batch, batchMax)
		if !s.store(ctx, batch) {
			return
		}
		for _, a := range batch {
			if a.backlog {
				l.passed(a.result.GetSequence())
			}
			l.settle(a.result.GetSequence(), a.result.GetSequence())
		}
		s.acked.Store(l.acked)
		s.gap.Store(len(l.islands) > 0)
		more = s.waiting.settled()
		signal(s.ackable)
	}
}

// store appends a batch, again and again until the history takes it; false when ctx ended first.
func (s *session) store(ctx context.Context, batch []archived) bool {
	entries, checks := make([]history.Entry, len(batch)), make([]string, len(batch))
	for i := range batch {
		entries[i] = history.Entry{Result: batch[i].result, Prober: s.id, Datacenter: s.hello.GetDatacenter()}
		checks[i] = batch[i].result.GetCheck()
	}
	for i, uri := range s.g.mesh.URIs(checks) {
		entries[i].URI = uri
	}
	failing := false
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		begin := time.Now()
		err := s.g.archive.Append(ctx, entries)
		s.g.m.archived(len(entries), err, time.Since(begin))
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !failing {
			failing = true
			s.g.log.Error("the history does not take results; verdicts and alerts go on, results wait", "prober", s.name, "err", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}
