package timetable

import (
	"time"

	"github.com/probemesh/probemesh/internal/assignment"
)

// Row is one check's line in the timetable.
type Row struct {
	// Check is its name, `checks/{check}`.
	Check string
	// Interval is the time between two starts; positive.
	Interval time.Duration
	// Phase is where in the interval, on the mesh's clock, the probe starts.
	Phase time.Duration

	index int // in the heap, where its next start is planned
}

// planned is the phase that starts are planned at: the middle of the slot, where the interval is a multiple of slots, so that the offset may wander by half a slot until then.
func (r *Row) planned() time.Duration {
	if r.Interval%Slot != 0 {
		return r.Phase
	}
	return r.Phase - r.Phase%Slot + Slot/2
}

// Table is the pure part: which check is due when. It has no clock; `local` is the prober's own clock and `offset` that clock minus the mesh's. Not safe
// for concurrent use.
//
// A planned start is kept on the prober's own clock and the one after it is computed from the mesh's clock as it is known then: the first start in phase at
// least half an interval later. So whatever happens to the offset, two starts of a check are never closer than half an interval nor further apart than one
// and a half, and a step of the clock moves each check once, at its own time, instead of all of them at once.
type Table struct {
	rows map[string]*Row
	heap rowHeap
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{rows: map[string]*Row{}} }

// Len is how many checks it has.
func (t *Table) Len() int { return len(t.rows) }

// Set puts a check in, or changes it. A check whose interval and phase stay the same keeps its planned start. A new one starts at its next place in phase.
func (t *Table) Set(check string, interval, phase time.Duration, local time.Time, offset time.Duration) {
	r, ok := t.rows[check]
	if ok && r.Interval == interval && r.Phase == phase {
		return
	}
	if ok {
		r.Interval, r.Phase = interval, phase
		t.heap.fix(r.index, inPhase(local, offset, interval, r.planned()).UnixNano())
		return
	}
	r = &Row{Check: check, Interval: interval, Phase: phase}
	t.rows[check] = r
	t.heap.push(r, inPhase(local, offset, interval, r.planned()).UnixNano())
}

// Remove takes a check out; one that is not there is no fault.
func (t *Table) Remove(check string) {
	if r, ok := t.rows[check]; ok {
		delete(t.rows, check)
		t.heap.remove(r.index)
	}
}

// Next is when the first check is due, on the prober's own clock; false when the table is empty.
func (t *Table) Next() (time.Time, bool) {
	if len(t.heap) == 0 {
		return time.Time{}, false
	}
	return time.Unix(0, t.heap[0].due), true
}

// Start is one start that is due.
type Start struct {
	// Check is what to probe.
	Check string
	// Due is when it should have started, on the prober's own clock.
	Due time.Time
	// Missed tells that a whole interval or more has passed since (the process stood still): it is not to be started, only counted, lest every
	// check starts at once.
	Missed bool
}

// Pop appends to starts those that are due at local, and plans the next one of each.
func (t *Table) Pop(starts []Start, local time.Time, offset time.Duration) []Start {
	now := local.UnixNano()
	for len(t.heap) > 0 && t.heap[0].due <= now {
		r, due := t.heap[0].row, time.Unix(0, t.heap[0].due)
		starts = append(starts, Start{Check: r.Check, Due: due.Add(r.Phase - r.planned()), Missed: local.Sub(due) >= r.Interval})
		after := due.Add(r.Interval / 2)
		if after.Before(local) {
			after = local
		}
		next := inPhase(after, offset, r.Interval, r.planned())
		if !next.After(local) {
			next = inPhase(local.Add(1), offset, r.Interval, r.planned())
		}
		t.heap.fix(0, next.UnixNano())
	}
	return starts
}

// inPhase is the first moment in phase at or after local, on the prober's own clock.
func inPhase(local time.Time, offset, interval, phase time.Duration) time.Time {
	return assignment.Next(local.Add(-offset), interval, phase).Add(offset)
}
