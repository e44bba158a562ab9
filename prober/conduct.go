package prober

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/prober/link"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// order says why and how a probe is run.
type order struct {
	lag         time.Duration // of a scheduled probe
	runID       string        // of a run that was asked for
	fresh       bool
	foreign     bool // of a check that is not held: no state, no SLOW
	traceparent string
}

// conduct runs a probe, completes its result and hands it over. The job is in use meanwhile.
func (a *agent) conduct(ctx context.Context, j *job, o order) {
	span, traced := a.span(ctx, j, o)
	defer span.End()
	options := probe.Options{Fresh: o.fresh, Evidence: o.runID != "", Traceparent: traceparent(traced), Aliases: a.aliases}
	start, unsynced := a.clock.Local(), !a.clock.Synced()
	slow := a.watch(j, o, start)
	r := j.runner.Probe(ctx, options)
	slow.end()
	if ctx.Err() != nil && r.GetOutcome() == meshv1.Result_ERROR {
		return // cut off because the prober stops: it says nothing of anybody
	}
	a.excuse(ctx, r)
	unsynced = unsynced && !a.clock.Synced()
	a.complete(r, j, o, start)
	if sc := span.SpanContext(); sc.HasTraceID() && sc.IsSampled() {
		r.TraceId = sc.TraceID().String()
	}
	a.metrics.probe(j.kind, r.GetOutcome())
	a.record(ctx, span, r)

	// First its number, then it is shown to others: a session that begins now reads the newest results.
	scratch, ok := a.scratch.Get().(*[]byte)
	if !ok {
		b := make([]byte, 0, 512)
		scratch = &b
	}
	encoded := a.spool.Append(r, unsynced, (*scratch)[:0])
	if len(encoded) == 0 {
		return // it cannot be encoded, which has been counted and logged: nobody could send it
	}
	changed := !o.foreign && j.learn(r, encoded, unsynced)
	switch {
	case o.runID != "":
		a.link.Send(r, link.Run)
	case changed:
		a.link.Send(r, link.Changed)
	default:
		a.link.SendRoutine(r, encoded)
	}
	if cap(encoded) <= scratchMost {
		*scratch = encoded
	}
	a.scratch.Put(scratch)
}

// scratchMost is the largest such buffer that is kept. Evidence needs more, and is rare.
const scratchMost = 4 << 10

// record tells span and log of a result, where somebody listens: nearly every probe is neither traced nor logged, and should cost nothing here.
func (a *agent) record(ctx context.Context, span trace.Span, r *meshv1.Result) {
	if span.IsRecording() {
		span.SetAttributes(attribute.String("probemesh.outcome", r.GetOutcome().String()))
		if r.GetOutcome() != meshv1.Result_OK {
			span.SetStatus(codes.Error, r.GetError())
		}
	}
	if a.log.Enabled(ctx, slog.LevelDebug) {
		a.log.Debug("probe", "check", r.GetCheck(), "outcome", r.GetOutcome(), "duration", r.GetDuration().AsDuration(), "err", r.GetError())
	}
}

// complete fills in what the runner does not know.
func (a *agent) complete(r *meshv1.Result, j *job, o order, start time.Time) {
	r.StartTime = timestamppb.New(start.Add(-a.clock.Offset()))
	r.CheckRevision = j.revision
	r.RunId = o.runID
	if o.lag > 0 {
		r.Lag = durationpb.New(o.lag)
	}
}

// slowness waits for a scheduled probe to be abnormally late. The zero value waits for nothing.
type slowness struct {
	a     *agent
	j     *job
	o     order
	start time.Time
	timer *time.Timer

	mu    sync.Mutex
	ended bool
}

// watch sends a SLOW result when a scheduled probe is abnormally late, until end is called; afterwards none is sent.
func (a *agent) watch(j *job, o order, start time.Time) *slowness {
	after := j.slowAfter()
	if after <= 0 || o.runID != "" {
		return &slowness{}
	}
	s := &slowness{a: a, j: j, o: o, start: start}
	s.timer = time.AfterFunc(after, s.tell)
	return s
}

// tell sends the result.
func (s *slowness) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	r := &meshv1.Result{Check: s.j.check, Outcome: meshv1.Result_SLOW, Duration: durationpb.New(s.a.clock.Local().Sub(s.start))}
	s.a.complete(r, s.j, s.o, s.start)
	s.a.metrics.probe(s.j.kind, r.GetOutcome())
	s.a.link.Send(r, link.Changed)
}

// end ends the wait.
func (s *slowness) end() {
	if s.timer == nil || s.timer.Stop() {
		return
	}
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
}

// span begins the span of a probe that is to be traced; else it is one that records nothing.
func (a *agent) span(ctx context.Context, j *job, o order) (trace.Span, context.Context) {
	if o.traceparent != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": o.traceparent})
	} else if !j.traced {
		return trace.SpanFromContext(ctx), ctx
	}
	ctx, span := a.tracer.Start(ctx, "probe", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("probemesh.check", j.check), attribute.String("probemesh.kind", j.kind)))
	return span, ctx
}

// traceparent is that of the span in ctx, empty when it is not sampled.
func traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}
