package link

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/prober/clock"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	backlogRate  = 2000 // results a second
	backlogBurst = 200  // results in one message at most
	backlogStep  = 50   // results for which it is worth waking up
	windowMin    = backlogBurst
)

// backlog reads from the spool what was not acknowledged when the session began, and what found a queue full since. Safe for concurrent use, except that
// next and close are called by one goroutine.
type backlog struct {
	clock  *clock.Clock
	reader *spool.Reader
	kept   []*meshv1.Result // read, but did not fit into the last message

	mu       sync.Mutex // guards everything below
	until    uint64     // the last number to send
	seek     uint64     // where to go on instead; 0: nowhere else
	window   int
	inFlight []flight
	flying   int
	done     bool // the reader has passed until
	tokens   float64
	refilled time.Time
}

// flight is a message that was sent.
type flight struct {
	last    uint64
	results int
}

func newBacklog(s *spool.Spool, c *clock.Clock, until uint64, window int) *backlog {
	return &backlog{clock: c, reader: s.NewReader(), until: until, window: max(window, windowMin), tokens: backlogBurst, refilled: time.Now()}
}

// extend makes the backlog go on to the number.
func (b *backlog) extend(sequence uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sequence > b.until {
		b.until, b.done = sequence, false
	}
}

// resend starts again from a number, up to the last one given out.
func (b *backlog) resend(from, last uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seek, b.until, b.done = max(from, 1), max(b.until, last), false
	b.inFlight, b.flying = nil, 0
}

// acked makes room in the window.
func (b *backlog) acked(sequence uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.inFlight) > 0 && b.inFlight[0].last <= sequence {
		b.flying -= b.inFlight[0].results
		b.inFlight = b.inFlight[1:]
	}
}

// next returns the next batch, nil when there is none now; then wait is when to ask again, 0 for not before something changes.
func (b *backlog) next(now time.Time, frame int) (results []*meshv1.Result, wait time.Duration) {
	b.mu.Lock()
	if b.seek > 0 {
		b.reader.Seek(b.seek)
		b.seek, b.kept = 0, nil
	}
	b.tokens = min(backlogBurst, b.tokens+now.Sub(b.refilled).Seconds()*backlogRate)
	b.refilled = now
	n, until := min(int(b.tokens), b.window-b.flying), b.until
	short := time.Duration(backlogStep-b.tokens) * time.Second / backlogRate
	switch {
	case b.done && len(b.kept) == 0, b.window <= b.flying:
		b.mu.Unlock()
		return nil, 0
	case b.tokens < backlogStep:
		b.mu.Unlock()
		return nil, max(short, time.Millisecond)
	}
	b.mu.Unlock()

	if len(b.kept) < n {
		for _, rec := range b.reader.Next(n-len(b.kept), until) {
			b.kept = append(b.kept, b.corrected(rec))
		}
	}
	results = b.kept[:min(n, len(b.kept))]
	results = results[:fit(results, frame)]
	b.kept = b.kept[len(results):]

	b.mu.Lock()
	defer b.mu.Unlock()
	if len(results) == 0 {
		b.done = until == b.until && b.seek == 0
		return nil, 0
	}
	b.tokens -= float64(len(results))
	b.flying += len(results)
	b.inFlight = append(b.inFlight, flight{last: results[len(results)-1].GetSequence(), results: len(results)})
	return results, 0
}

// corrected sets the start time of a result right that was taken before the first session of this boot.
func (b *backlog) corrected(rec spool.Record) *meshv1.Result {
	if rec.Unsynced && !rec.Earlier {
		rec.Result.StartTime = timestamppb.New(rec.Result.GetStartTime().AsTime().Add(-b.clock.Offset()))
	}
	return rec.Result
}

func (b *backlog) close() { b.reader.Close() }
