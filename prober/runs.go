package prober

import (
	"context"
	"fmt"
	"sync"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	runsMax        = 128  // runs at once; more are refused
	runsRemembered = 4096 // run ids by which repeats are known
)

// Why a run was refused or dropped: the label of the metric.
const (
	refusedLate      = "late"
	refusedUnknown   = "unknown_check"
	refusedIncapable = "incapable"
	refusedBusy      = "busy"
	refusedMalformed = "malformed"
	refusedRepeat    = "repeat"
	refusedStopping  = "stopping"
)

// runs are the probes that were asked for. They have places of their own, so that scheduled probes never delay a confirmation.
type runs struct {
	ctx    context.Context // of all runs, which no single call of the link owns; ends a moment after the prober was told to stop
	cancel context.CancelFunc
	group  sync.WaitGroup

	mu       sync.Mutex // guards everything below
	running  int
	stopping bool
	seen     map[string]bool
	order    []string // of seen, oldest first
}

func newRuns(ctx context.Context) *runs {
	ctx, cancel := context.WithCancel(ctx)
	return &runs{ctx: ctx, cancel: cancel, seen: map[string]bool{}}
}

// begin takes a place; otherwise it says why not.
func (r *runs) begin(id string) (refused, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.seen[id]:
		return refusedRepeat, ""
	case r.stopping:
		return refusedStopping, "the prober stops"
	case r.running >= runsMax:
		return refusedBusy, fmt.Sprintf("the prober runs %d probes that were asked for already", runsMax)
	}
	if len(r.order) == runsRemembered {
		delete(r.seen, r.order[0])
		r.order = r.order[1:]
	}
	r.seen[id] = true
	r.order = append(r.order, id)
	r.running++
	r.group.Add(1)
	return "", ""
}

func (r *runs) finish() {
	r.mu.Lock()
	r.running--
	r.mu.Unlock()
	r.group.Done()
}

// stop lets no run begin, gives the others until grace is over, and waits for them.
func (r *runs) stop(grace time.Duration) {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	timer := time.AfterFunc(grace, r.cancel)
	r.group.Wait()
	timer.Stop()
	r.cancel()
}

// Run starts a probe that a server asks for, or refuses it. It returns at once.
func (a *agent) Run(m *meshv1.RunNow) {
	id := m.GetRunId()
	check := m.GetCheck()
	if m.GetAssignment() != nil {
		check = m.GetAssignment().GetCheck().GetName()
	}
	if id == "" || check == "" {
		a.refuse(m, check, refusedMalformed, "the run has no run_id or no check")
		return
	}
	if d := m.GetDeadline(); d != nil && !a.clock.Mesh().Before(d.AsTime()) {
		a.refuse(m, check, refusedLate, fmt.Sprintf("its deadline passed %v ago", a.clock.Mesh().Sub(d.AsTime()).Round(time.Millisecond)))
		return
	}
	if refused, reason := a.runs.begin(id); refused != "" {
		a.refuse(m, check, refused, reason)
		return
	}
	go func() {
		defer a.runs.finish()
		a.run(m, check)
	}()
}

// run runs what was asked for.
func (a *agent) run(m *meshv1.RunNow, check string) {
	o := order{runID: m.GetRunId(), fresh: m.GetFresh(), traceparent: m.GetTraceparent()}
	j := a.job(check)
	if m.GetAssignment() != nil {
		made, refusal := a.make(m.GetAssignment())
		if refusal != nil {
			a.refuse(m, check, refusedIncapable, refusal.GetReason())
			return
		}
		j, o.foreign = made, true
		defer made.retire()
	}
	if j == nil || !j.use() {
		a.mu.RLock()
		refusal := a.refusals[check]
		a.mu.RUnlock()
		if refusal != nil {
			a.refuse(m, check, refusedIncapable, refusal.GetReason())
		} else {
			a.refuse(m, check, refusedUnknown, fmt.Sprintf("the prober does not hold %s", check))
		}
		return
	}
	defer j.done()
	a.conduct(a.runs.ctx, j, o)
}

// refuse counts, and answers unless it is a repeat, which is dropped: the first one answers.
func (a *agent) refuse(m *meshv1.RunNow, check, why, reason string) {
	a.metrics.refused(why)
	a.log.Debug("run refused", "check", check, "run_id", m.GetRunId(), "reason", reason, "why", why)
	if why != refusedRepeat && m.GetRunId() != "" {
		a.link.Refuse(m.GetRunId(), reason)
	}
}
