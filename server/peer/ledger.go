package peer

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/probemesh/probemesh/internal/spool"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
)

const (
	// windowMin and windowMax bound the bytes of history that may be on their way without an acknowledgement. Between them the window is what the follower
	// acknowledges in about windowTime: so history does not fill the buffers of a slow link, in which beats would wait.
	windowMin  = frameBytes
	windowMax  = 1 << 20
	windowTime = 200 * time.Millisecond
	// gather is how long the newest entries wait for more, so that a message has more than one.
	gather = 50 * time.Millisecond
	// readMax is how many entries are read from the journal at once.
	readMax = 200
	// freshMax is how many new entries may wait that are not subject to the rate.
	freshMax = 20_000
)

// ledger is how far a follower is with the journal, and what may be sent to it. Safe for concurrent use.
type ledger struct {
	rate float64

	mu     sync.Mutex // guards everything below
	more   chan struct{}
	sent   uint64 // up to here it was sent
	flying []flight
	bytes  int // of flying
	window int
	tokens float64
	filled time.Time
}

// flight is a message that was sent and not acknowledged.
type flight struct {
	position uint64
	bytes    int
	at       time.Time
}

func newLedger(position uint64, rate int) *ledger {
	return &ledger{rate: float64(rate), more: make(chan struct{}, 1), sent: position, window: 4 * windowMin, tokens: readMax, filled: time.Now()}
}

// fresh says that the journal has n more entries: they may be sent on top of the rate.
func (l *ledger) fresh(n int) {
	l.mu.Lock()
	l.tokens = min(l.tokens+float64(n), freshMax)
	l.mu.Unlock()
	signal(l.more)
}

// allowance is how many entries may be sent now; when it is 0, wait says when to ask again at the latest.
func (l *ledger) allowance(now time.Time) (n int, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Half a second of the rate at most; what fresh entries have added stays.
	if l.tokens < l.rate/2 {
		l.tokens = min(l.rate/2, l.tokens+now.Sub(l.filled).Seconds()*l.rate)
	}
	l.filled = now
	if len(l.flying) >= windowFrames || l.bytes >= l.window {
		return 0, time.Second
	}
	if l.tokens < 1 {
		return 0, max(time.Duration((1-l.tokens)/l.rate*float64(time.Second)), time.Millisecond)
	}
	return int(min(l.tokens, readMax)), 0
}

// depart notes a message on its way.
func (l *ledger) depart(position uint64, bytes, entries int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flying = append(l.flying, flight{position, bytes, now})
	l.bytes += bytes
	l.sent = position
	l.tokens -= float64(entries)
}

// acknowledge takes what the follower has; false when that was never sent. The window grows while acknowledgements come soon, and shrinks when they come late.
func (l *ledger) acknowledge(position uint64, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if position > l.sent {
		return false
	}
	for len(l.flying) > 0 && l.flying[0].position <= position {
		switch took := now.Sub(l.flying[0].at); {
		case took < windowTime:
			l.window = min(windowMax, l.window+l.flying[0].bytes)
		case took > 2*windowTime:
			l.window = max(windowMin, l.window/2)
		}
		l.bytes -= l.flying[0].bytes
		l.flying = l.flying[1:]
	}
	signal(l.more)
	return true
}

// read gives the sending goroutine the journal, message by message, from where the follower is. It waits for the disk, as the sending goroutine must not.
func (f *feed) read(ctx context.Context) error {
	j, l := f.p.journal, f.ledger
	r := j.spool.NewReader()
	defer r.Close()
	r.Seek(l.sent + 1)
	for {
		n, wait := l.allowance(time.Now())
		if n > 0 {
			until := j.last()
			list := r.Payloads(n, until)
			if err := f.depart(ctx, list); err != nil {
				return err
			}
			wait = time.Second
			if len(list) == n {
				continue
			}
			// It has everything. What comes next may gather a little.
			if err := sleep(ctx, gather); err != nil {
				return err
			}
		}
		if err := l.await(ctx, wait); err != nil {
			return err
		}
	}
}

// await returns when something may have changed, or the time is over.
func (l *ledger) await(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	case <-l.more:
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// depart hands entries over in messages that stay under frameBytes, unless one entry alone is larger.
func (f *feed) depart(ctx context.Context, list []spool.Payload) error {
	for len(list) > 0 {
		n, size := 0, 0
		for n < len(list) {
			if size += len(list[n].Bytes) + 6; size > frameBytes && n > 0 {
				size -= len(list[n].Bytes) + 6
				break
			}
			n++
		}
		encoded := make([][]byte, n)
		for i := range encoded {
			encoded[i] = list[i].Bytes
		}
		position := list[n-1].Sequence
		for {
			// The window may have room for one message and not for all.
			if room, wait := f.ledger.room(); !room {
				if err := f.ledger.await(ctx, wait); err != nil {
					return err
				}
				continue
			}
			break
		}
		h := raw(&peerv1.History{Position: position, Dropped: f.p.journal.dropped.Load()}, protowire.Number(fieldHistoryEntries), encoded)
		f.ledger.depart(position, size, n, time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f.frames <- h:
		}
		list = list[n:]
	}
	return nil
}

// room tells whether one more message may be on its way.
func (l *ledger) room() (bool, time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.flying) < windowFrames && l.bytes < l.window, time.Second
}
