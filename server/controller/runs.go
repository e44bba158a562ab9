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
	// waiting are the probers, by bare name, with the servers that were asked to bring them the run and may still do so.
	waiting map[string][]string
}

// askLocked sends a confirmation to the session that holds the prober, wherever that is.
func (c *Controller) askLocked(a scheduler.Confirm) bool {
	if a.Local && c.sessions[a.Prober] == nil {
		return true // the server that has its session has the same wish
	}
	a.Run.Traceparent = c.traceparent("confirm", a.Run.GetCheck(), a.Prober)
	if a.Local {
		return c.sessions[a.Prober].RunNow(a.Run)
	}
	return len(c.sendLocked(a.Prober, a.Run)) > 0
}

// sendLocked sends a run to every session of the prober, and gives the servers that took it. While it moves there are two, one of them dead, and nobody knows which; a
// prober does not do a run twice.
func (c *Controller) sendLocked(prober string, run *meshv1.RunNow) (servers []string) {
	for _, h := range c.presences.of(prober) {
		var sent bool
		if h.session != nil {
			sent = h.session.RunNow(run)
		} else if c.deps.Peers != nil {
			sent = c.deps.Peers.Ask(h.server, prober, run)
		}
		if sent {
			servers = append(servers, h.server)
		}
	}
	return servers
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
	r := &run{results: make(chan *meshv1.Result, len(probers)), refusals: make(chan *meshv1.AssignmentFailure, len(probers)), waiting: map[string][]string{}}
	var asked []string
	timeout := e.GetTimeout().AsDuration()
	online := false
	for _, p := range probers {
		name := spec.ID(p)
		if _, twice := r.waiting[name]; twice {
			continue
		}
		asked = append(asked, spec.Name(spec.Probers, name))
		r.waiting[name] = nil
		online = online || len(c.presences.of(name)) > 0
	}
	if !online {
		return nil, 0, nil, noProber(check, asked)
	}
	c.runs[id] = r
	for _, p := range asked {
		name := spec.ID(p)
		if len(c.presences.of(name)) == 0 {
			c.refuseLocked(name, id, "it has no session: see `probemesh get probers`")
			continue
		}
		now := &meshv1.RunNow{RunId: id, Check: check, Fresh: true, Deadline: timestamppb.New(time.Now().Add(timeout + runGrace)), Traceparent: c.traceparent("run", check, name)}
		if c.mind.Assignments(name)[check] == nil {
			now.Assignment = c.mind.AssignmentFor(check)
		}
		if r.waiting[name] = c.sendLocked(name, now); len(r.waiting[name]) == 0 {
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

// sessionEnded is why a run is not waited for any more.
const sessionEnded = "its session ended before it answered"

// abandonLocked tells those who wait for a prober one of whose sessions has ended, unless the same process has another: what it was asked it may still answer there, and
// the news of the end may have overtaken the answer.
func (c *Controller) abandonLocked(prober string, ended *held, reason string) {
	for id, r := range c.runs {
		i := slices.Index(r.waiting[prober], ended.server)
		if i < 0 {
			continue
		}
		r.waiting[prober] = slices.Delete(r.waiting[prober], i, i+1)
		if len(r.waiting[prober]) > 0 {
			continue
		}
		for _, h := range c.presences.of(prober) {
			if h.boot == ended.boot {
				r.waiting[prober] = append(r.waiting[prober], h.server)
			}
		}
		if len(r.waiting[prober]) == 0 {
			c.failLocked(prober, id, reason)
		}
	}
}

// answerLocked gives a result to whoever waits for it.
func (c *Controller) answerLocked(res *meshv1.Result) {
	r := c.runs[res.GetRunId()]
	name := spec.ID(res.GetProber())
	if r == nil {
		return
	}
	if _, waits := r.waiting[name]; !waits {
		return // it has answered before, or was not asked
	}
	delete(r.waiting, name)
	r.results <- res
}

// refuseLocked takes a refusal: when two servers were asked, the other may still bring the run.
func (c *Controller) refuseLocked(prober, runID, reason string) {
	r := c.runs[runID]
	if r == nil {
		return
	}
	if servers := r.waiting[prober]; len(servers) > 1 {
		r.waiting[prober] = servers[1:]
		return
	}
	c.failLocked(prober, runID, reason)
}

// failLocked says to whoever waits that a prober will not answer.
func (c *Controller) failLocked(prober, runID, reason string) {
	r := c.runs[runID]
	if _, waits := r.waiting[prober]; !waits {
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
