// Package timetable owns when a prober starts each of its probes.
//
// A check of interval T and phase p starts whenever the mesh's clock, modulo T, equals p. [Table] is the arithmetic of that, pure; [Timetable] is the
// goroutine that waits for the next start and makes it happen.
//
// # What it promises
//
//   - Starts are gathered into slots ([Slot]): the goroutine wakes once for all that fall into one, so a probe starts at its time or up to a slot later,
//     never earlier.
//   - At most InFlight probes run at once. When all are in use a start waits, first come, first served, and its lag grows and is seen; it is not dropped.
//     A target that hangs takes one place until its check's timeout, and no more: the same check never runs twice at once.
//   - A check that still runs, or still waits, when it is due again starts anew as soon as that probe has ended, so that a target that takes the whole interval to
//     time out is still probed once an interval. A start that comes due while another is held back so is skipped, and counted ([Stats].Skipped).
//   - A process that stood still for an interval or more does not catch up: those starts are counted as [Stats].Missed, and the check goes on in phase.
//   - A step of the mesh's clock causes neither a burst nor a gap; see [Table].
package timetable

import (
	"context"
	"sync"
	"time"
)

// Slot is the width into which starts are gathered: 20 ms is below what anybody sees in a lag, and bounds wake-ups to 50 a second, which are most of what a probe costs at a moderate rate.
// Slots are those of the mesh's clock, and a check starts at the end of the one that it is due in, never earlier. Whole seconds are a multiple of slots, so that a check keeps its place in the slots
// and what comes of a late wake-up, or of an offset that wanders by milliseconds, is never a slot more or less between two starts.
const Slot = 20 * time.Millisecond

// idleMax is how many goroutines are kept for later probes: about as many as start in one slot of a busy prober. A new goroutine has a small stack, and a probe makes it grow more than once; one
// that is kept has grown.
const idleMax = 16

// Clock tells the prober's own time, and how far it is ahead of the mesh's.
type Clock interface {
	Local() time.Time
	Offset() time.Duration
}

// Probe runs one probe of a check. due is its place in the timetable on the prober's own clock. It must end when ctx does or soon after.
type Probe func(ctx context.Context, check string, due time.Time)

// Stats counts since the start.
type Stats struct {
	// Checks in the timetable.
	Checks int
	// Running probes.
	Running int
	// Waiting starts, for which all places were taken.
	Waiting int
	// Skipped starts: the check's probe before was still running or waiting, and another start was held back for it already.
	Skipped int64
	// Missed starts: the process stood still.
	Missed int64
}

// state is what a check does that is not at rest.
type state uint8

const (
	runs  state = iota + 1
	waits       // in waiting
	gone        // in waiting, and removed: it is passed over there
)

// Timetable starts probes. Safe for concurrent use.
type Timetable struct {
	clock    Clock
	probe    Probe
	inFlight int
	wake     chan struct{}

	mu      sync.Mutex // guards everything below
	table   *Table
	busy    map[string]state // checks that run or wait
	held    map[string]Start // starts that came due while their check was busy
	popped  []Start          // used again by startDue
	waiting []Start          // first come, first served; at most one a check
	gone    int              // of those in waiting that are passed over
	running int
	idle    int        // goroutines that wait for an element of next and are not promised one
	next    chan Start // one element for each goroutine that was idle and is to run something; closed when no probe starts any more
	stopped bool       // no probe starts any more
	skipped int64
	missed  int64
	probes  sync.WaitGroup // goroutines that run probes, or wait to
}

// New returns a timetable that runs at most inFlight probes at once; inFlight must be positive.
func New(clock Clock, inFlight int, probe Probe) *Timetable {
	if inFlight <= 0 {
		panic("timetable: no probe may run")
	}
	return &Timetable{clock: clock, probe: probe, inFlight: inFlight, wake: make(chan struct{}, 1), table: NewTable(), busy: map[string]state{}, held: map[string]Start{}, next: make(chan Start, idleMax)}
}

// Set puts a check in, or changes it; interval must be positive. It may be called before Run.
func (t *Timetable) Set(check string, interval, phase time.Duration) {
	t.mu.Lock()
	t.table.Set(check, interval, phase, t.clock.Local(), t.clock.Offset())
	t.mu.Unlock()
	t.nudge()
}

// Remove takes a check out. A probe of it that runs goes on to its end; one that waits is not started.
func (t *Timetable) Remove(check string) {
	t.mu.Lock()
	t.table.Remove(check)
	delete(t.held, check)
	if t.busy[check] == waits {
		t.busy[check] = gone
		t.gone++
	}
	t.mu.Unlock()
	t.nudge()
}

// Stats returns the counters.
func (t *Timetable) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{Checks: t.table.Len(), Running: t.running, Waiting: len(t.waiting) - t.gone, Skipped: t.skipped, Missed: t.missed}
}

// Run starts probes until ctx ends; then it starts no more, gives those that run up to grace to finish, cancels the rest, and returns nil when all have
// ended. It is called once.
func (t *Timetable) Run(ctx context.Context, grace time.Duration) error {
	probes, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		wait := t.startDue(probes)
		if wait >= 0 {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-t.wake:
		}
	}
	t.mu.Lock()
	t.waiting, t.gone = nil, 0
	clear(t.held)
	t.stopped = true
	close(t.next)
	t.mu.Unlock()
	stop := time.AfterFunc(grace, cancel)
	defer stop.Stop()
	t.probes.Wait()
	return nil
}

// startDue starts what is due and returns how long to wait for the next; negative when the table is empty.
func (t *Timetable) startDue(ctx context.Context) time.Duration {
	local, offset := t.clock.Local(), t.clock.Offset()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.popped = t.table.Pop(t.popped[:0], local.Add(-pastSlot(local, offset)), offset)
	for _, s := range t.popped {
		switch {
		case s.Missed:
			t.missed++
		case t.busy[s.Check] != 0:
			if _, twice := t.held[s.Check]; twice {
				t.skipped++
			} else {
				t.held[s.Check] = s
			}
		default:
			if t.running < t.inFlight {
				t.busy[s.Check] = runs
				t.startLocked(ctx, s)
			} else {
				t.busy[s.Check] = waits
				t.waiting = append(t.waiting, s)
			}
		}
	}
	next, ok := t.table.Next()
	if !ok {
		return -1
	}
	// Up to the end of the slot that the next start falls into.
	if over := pastSlot(next, offset); over > 0 {
		next = next.Add(Slot - over)
	}
	return max(0, next.Sub(local))
}

// pastSlot is how long ago at local a slot ended.
func pastSlot(local time.Time, offset time.Duration) time.Duration {
	return time.Duration(local.Add(-offset).UnixNano() % int64(Slot))
}

// startLocked has a goroutine run a probe, and after it those that wait.
func (t *Timetable) startLocked(ctx context.Context, s Start) {
	t.running++
	if t.idle > 0 {
		select {
		case t.next <- s:
			t.idle--
			return
		default: // those that were promised one have not come to take it yet
		}
	}
	t.probes.Go(func() {
		for more := true; more; s, more = t.after(ctx, s.Check) {
			t.probe(ctx, s.Check, s.Due)
		}
	})
}

// after is what a goroutine runs after the probe of a check has ended, as soon as there is something; more is false when it is to end.
func (t *Timetable) after(ctx context.Context, check string) (s Start, more bool) {
	s, more, keep := t.ended(ctx, check)
	if !more && keep {
		s, more = <-t.next
	}
	return s, more
}

// ended gives the place of a probe that has ended to the first that waits; its own check waits again if a start was held back for it. When none waits, keep tells
// whether the goroutine is counted as idle.
func (t *Timetable) ended(ctx context.Context, check string) (s Start, more, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, check)
	if again, ok := t.held[check]; ok {
		delete(t.held, check)
		t.busy[check] = waits
		t.waiting = append(t.waiting, again)
	}
	if ctx.Err() == nil {
		if s, more = t.firstLocked(); more {
			return s, true, false
		}
	}
	t.running--
	if t.stopped || t.idle >= idleMax {
		return Start{}, false, false
	}
	t.idle++
	return Start{}, false, true
}

// firstLocked takes the first that waits and is not gone. A check that was removed and put in again meanwhile has its new start in place of the old one, if that has come due.
func (t *Timetable) firstLocked() (s Start, ok bool) {
	for len(t.waiting) > 0 {
		s, t.waiting = t.waiting[0], t.waiting[1:]
		if t.busy[s.Check] == waits {
			t.busy[s.Check] = runs
			return s, true
		}
		t.gone--
		delete(t.busy, s.Check)
		if again, held := t.held[s.Check]; held {
			delete(t.held, s.Check)
			t.busy[s.Check] = runs
			return again, true
		}
	}
	return Start{}, false
}

func (t *Timetable) nudge() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}
