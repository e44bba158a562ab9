package controller

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// runGrace is how much longer than the check's timeout an ad-hoc run is waited for.
const runGrace = 5 * time.Second

// run is an ad-hoc run that somebody waits for. Its channels have room for every answer, so answering never blocks.
type run struct {
	results  chan *meshv1.Result
	refusals chan *meshv1.AssignmentFailure
	waiting  map[string]bool // probers, bare
}

// askLocked sends a confirmation to the session that holds the prober.
func (c *Controller) askLocked(a scheduler.Confirm) bool {
	s := c.sessions[a.Prober]
	if s == nil {
		return false
	}
	a.Run.Traceparent = c.traceparent("confirm", a.Run.GetCheck(), a.Prober)
	return s.RunNow(a.Run)
}

// traceparent begins a trace for a run that is asked for; empty when tracing is off.
func (c *Controller) traceparent(what, check, prober string) string {
	_, span := c.deps.Tracer.Start(context.Background(), what, trace.WithNewRoot(),
		trace.WithAttributes(attribute.String("probemesh.check", check), attribute.String("probemesh.prober", prober)))
	defer span.End()
	sc := span.SpanContext()
	if !sc.IsValid() || !sc.IsSampled() {
		return ""
	}
	return fmt.Sprintf("00-%s-%s-%s", sc.TraceID(), sc.SpanID(), sc.TraceFlags())
}

// Run runs a check at once and streams what comes of it; see api.Mesh.
func (c *Controller) Run(ctx context.Context, check string, probers []string, send func(*meshv1.RunCheckResponse) error) error {
	id := "run-" + randomHex()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, timeout, asked, err := c.startRun(check, probers, id)
	if err != nil {
		return err
	}
	defer c.endRun(id)
	if err := send(&meshv1.RunCheckResponse{Asked: asked}); err != nil {
		return err
	}
	timer := time.NewTimer(timeout + runGrace)
	defer timer.Stop()
	var failures []*meshv1.AssignmentFailure
	for left := len(asked); left > 0; left-- {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case res := <-r.results:
			if err := send(&meshv1.RunCheckResponse{Result: res}); err != nil {
				return err
			}
		case f := <-r.refusals:
			failures = append(failures, f)
		case <-timer.C:
			results, more := c.giveUp(r, timeout+runGrace)
			for _, res := range results {
				if err := send(&meshv1.RunCheckResponse{Result: res}); err != nil {
					return err
				}
			}
			failures = append(failures, more...)
			left = 0
		}
	}
	return send(&meshv1.RunCheckResponse{Failures: failures})
}

// startRun asks the probers, and registers who waits.
func (c *Controller) startRun(check string, probers []string, id string) (*run, time.Duration, []string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.mind.Explain(check, time.Now())
	if !ok {
		return nil, 0, nil, fault.NotFound(check)
	}
	if len(probers) == 0 {
		for _, v := range e.GetStatus().GetVotes() {
			if v.GetRank() >= 0 {
				probers = append(probers, v.GetProber())
			}
		}
	}
	r := &run{results: make(chan *meshv1.Result, len(probers)), refusals: make(chan *meshv1.AssignmentFailure, len(probers)), waiting: map[string]bool{}}
	var asked []string
	timeout := e.GetTimeout().AsDuration()
	for _, p := range probers {
		name := spec.ID(p)
		if r.waiting[name] {
			continue
		}
		asked = append(asked, spec.Name(spec.Probers, name))
		r.waiting[name] = true
	}
	online := 0
	for name := range r.waiting {
		if c.sessions[name] != nil {
			online++
		}
	}
	if online == 0 {
		return nil, 0, nil, noProber(check, asked)
	}
	c.runs[id] = r
	for _, p := range asked {
		name := spec.ID(p)
		s := c.sessions[name]
		if s == nil {
			c.refuseLocked(name, id, "it has no session: see `probemesh get probers`")
			continue
		}
		now := &meshv1.RunNow{RunId: id, Check: check, Fresh: true, Deadline: timestamppb.New(time.Now().Add(timeout + runGrace)), Traceparent: c.traceparent("run", check, name)}
		if c.mind.Assignments(name)[check] == nil {
			now.Assignment = c.mind.AssignmentFor(check)
		}
		if !s.RunNow(now) {
			c.refuseLocked(name, id, "its session is busy or ending; try again")
		}
	}
	return r, timeout, asked, nil
}

func noProber(check string, asked []string) error {
	if len(asked) == 0 {
		return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_NO_PROBER, check,
			"%s is placed on no prober; see `probemesh explain check %s`, or name probers that are online", check, spec.ID(check))
	}
	return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_NO_PROBER, check, "none of the probers that shall run %s is online (%s); see `probemesh get probers`", check,
		fmt.Sprint(asked))
}

func (c *Controller) endRun(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.runs, id)
}

// giveUp ends the waiting: it gives the answers that came in the last moment, and a failure for everybody who gave none.
func (c *Controller) giveUp(r *run, waited time.Duration) (results []*meshv1.Result, failures []*meshv1.AssignmentFailure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(r.results) > 0 {
		results = append(results, <-r.results)
	}
	for len(r.refusals) > 0 {
		failures = append(failures, <-r.refusals)
	}
	for _, p := range slices.Sorted(maps.Keys(r.waiting)) {
		failures = append(failures, &meshv1.AssignmentFailure{Prober: spec.Name(spec.Probers, p), Reason: fmt.Sprintf("no answer within %s", waited)})
	}
	clear(r.waiting)
	return results, failures
}

// abandonLocked tells those who wait for a prober whose session has ended.
func (c *Controller) abandonLocked(prober string) {
	for id := range c.runs {
		c.refuseLocked(prober, id, "its session ended before it answered")
	}
}

// answerLocked gives a result to whoever waits for it.
func (c *Controller) answerLocked(res *meshv1.Result) {
	r := c.runs[res.GetRunId()]
	name := spec.ID(res.GetProber())
	if r == nil || !r.waiting[name] {
		return
	}
	delete(r.waiting, name)
	r.results <- res
}

// refuseLocked says to whoever waits that a prober will not answer.
func (c *Controller) refuseLocked(prober, runID, reason string) {
	r := c.runs[runID]
	if r == nil || !r.waiting[prober] {
		return
	}
	delete(r.waiting, prober)
	r.refusals <- &meshv1.AssignmentFailure{Prober: spec.Name(spec.Probers, prober), Reason: reason}
}

func randomHex() string {
	var b [8]byte
	// crypto/rand.Read never fails (Go 1.24).
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
