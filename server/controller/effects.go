package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

// effect is an action on the store, with the reign under which it was wished for: an effect never outlives its term.
type effect struct {
	action scheduler.Action
	key    string
	reign  *reign
	wished time.Time
	known  int64 // the revision of the store up to which the wish rests on what the store told
}

// effectTimeout bounds the life of an effect, from the wish to the answer. It is shorter than the mind's own, after which the effect is wished for anew: one that
// waited longer for a worker, because the store is away, rests on votes that may be old, and is dropped.
const effectTimeout = 4 * time.Second

// retryAfter is when a failed effect is wished for again.
const retryAfter = time.Second

func keyOf(a scheduler.Action) string {
	switch a := a.(type) {
	case scheduler.Open:
		return a.Key
	case scheduler.Escalate:
		return a.Key
	case scheduler.Resolve:
		return a.Key
	case scheduler.MoveRows:
		return scheduler.TableKey(a.Table.GetDatacenter())
	case scheduler.PutBuild:
		return scheduler.BuildKey(a.Build.GetName())
	case scheduler.DropBuild:
		return scheduler.BuildKey(a.Name)
	case scheduler.Together:
		return "together/" + keyOf(a.Actions[0])
	}
	return ""
}

// enqueueLocked hands an effect to the workers, or gives the events that say that it could not. Without a reign it is dropped: the mind of a server
// that does not lead wishes for nothing, but its reign may just have ended.
func (c *Controller) enqueueLocked(a scheduler.Action) []scheduler.Event {
	if c.reign == nil {
		return nil
	}
	e := effect{action: a, key: keyOf(a), reign: c.reign, wished: time.Now(), known: c.revision}
	select {
	case c.effects <- e:
		c.waits.begin(e.key, e.wished)
		return nil
	default:
		c.m.effectsRefused.Add(context.Background(), 1)
		if t, ok := a.(scheduler.Together); ok {
			var failed []scheduler.Event
			for _, a := range t.Actions {
				failed = append(failed, scheduler.EffectFailed{Key: keyOf(a), Retry: retryAfter})
			}
			return failed
		}
		return []scheduler.Event{scheduler.EffectFailed{Key: e.key, Retry: retryAfter}}
	}
}

// work carries out effects until ctx ends.
func (c *Controller) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-c.effects:
			c.carryOut(e)
		}
	}
}

func (c *Controller) carryOut(e effect) {
	name, traceID := describe(e.action)
	left := effectTimeout - time.Since(e.wished)
	if left <= 0 || e.reign.ctx.Err() != nil {
		c.m.effectsExpired.Add(context.Background(), 1)
		c.waited(e, false)
		return
	}
	ctx, cancel := context.WithTimeout(e.reign.ctx, left)
	defer cancel()
	ctx, span := c.deps.Tracer.Start(parent(ctx, traceID), name, trace.WithAttributes(attribute.String("probemesh.key", e.key), attribute.Int64("probemesh.term", e.reign.Term)))
	defer span.End()
	revision, err := c.commit(ctx, e)
	c.m.effect(name, err, time.Since(e.wished))
	c.waited(e, answered(err))
	if err == nil {
		if c.failing.CompareAndSwap(true, false) {
			c.log.Info("effects can be written again", "term", e.reign.Term)
		}
		if revision != 0 && revision <= e.known {
			// It was written before the wish, and the watch, which is past that, has not told: without a look it would be wished for again and again.
			c.log.Warn("the store has told of later changes, but not of this one; it is read anew", "key", e.key, "term", e.reign.Term, "revision", revision)
			c.deps.Store.Doubt()
			return
		}
		c.logEffect(e, revision)
		c.wrote(e, revision)
		return
	}
	span.SetStatus(codes.Error, err.Error())
	switch {
	case errors.Is(err, store.ErrFenced):
		c.log.Warn("an effect of an old term was refused by its fence", "key", e.key, "term", e.reign.Term)
		e.reign.cancel(errors.New("the leader's key is gone: another server leads"))
		return
	case e.reign.ctx.Err() != nil:
		return
	}
	if t, ok := e.action.(scheduler.Together); ok {
		c.log.Debug("what was to be written together is written one by one", "key", e.key, "effects", len(t.Actions), "err", err)
		for _, a := range t.Actions {
			c.carryOut(effect{action: a, key: keyOf(a), reign: e.reign, wished: e.wished, known: e.known})
		}
		return
	}
	switch {
	case errors.Is(err, store.ErrConflict):
		c.log.Debug("an effect met a newer state and is decided anew", "key", e.key, "err", err)
		c.deps.Store.Doubt() // a newer state that the store has not told of, nor will
	case c.failing.CompareAndSwap(false, true):
		c.log.Error("an effect could not be written; it and all others are tried again until they are", "key", e.key, "term", e.reign.Term, "err", err)
	default:
		c.log.Debug("an effect could not be written", "key", e.key, "term", e.reign.Term, "err", err)
	}
	c.apply(scheduler.EffectFailed{Key: e.key, Retry: retryAfter})
}

// wrote tells the mind of an incident of a check that this server has written, unless the watch was faster.
func (c *Controller) wrote(e effect, revision int64) {
	var written *statev1.StoredIncident
	switch a := e.action.(type) {
	case scheduler.Open:
		written = a.Incident
	case scheduler.Escalate:
		written = a.Incident
	}
	if written.GetIncident().GetKind() != meshv1.Incident_CHECK {
		return
	}
	c.mu.Lock()
	var notes []scheduler.StatusChanged
	if c.revision < revision {
		notes = c.applyLocked([]scheduler.Event{scheduler.IncidentWritten{Key: e.key, Incident: written, ModRevision: revision}})
	}
	c.mu.Unlock()
	c.tell(notes)
}

// answered tells whether etcd has said anything of a write. What it refuses, such as for want of space, it refuses to every leader: that is no reason for another.
func answered(err error) bool { return !fault.IsReason(err, meshv1.ErrorReason_STORE_UNAVAILABLE) }

// waited notes whether etcd has answered an effect of the present reign.
func (c *Controller) waited(e effect, answered bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.reign != e.reign:
	case answered:
		c.waits.answered(e.key)
	default:
		c.waits.failed(e.key, time.Now())
	}
}

func (c *Controller) commit(ctx context.Context, e effect) (int64, error) {
	fence := e.reign.Fence
	switch a := e.action.(type) {
	case scheduler.Open:
		return c.deps.Store.OpenIncident(ctx, fence, a.Incident, a.Outbox, a.CheckRevision)
	case scheduler.Escalate:
		return c.deps.Store.UpdateIncident(ctx, fence, a.Incident, a.Outbox, a.ModRevision, a.Paid...)
	case scheduler.Resolve:
		return c.deps.Store.ResolveIncident(ctx, fence, a.Incident, a.Outbox, a.ModRevision)
	case scheduler.Together:
		return c.deps.Store.ChangeIncidents(ctx, fence, changes(a))
	case scheduler.MoveRows:
		return c.deps.Store.PutTable(ctx, fence, a.Table, a.ModRevision)
	case scheduler.PutBuild:
		return c.deps.Store.LeaderPutBuild(ctx, fence, a.Build, a.ModRevision)
	case scheduler.DropBuild:
		return 0, c.deps.Store.DropBuild(ctx, fence, a.Name, a.ModRevision)
	}
	panic("controller: an action without a way to carry it out")
}

func changes(t scheduler.Together) []store.Change {
	list := make([]store.Change, len(t.Actions))
	for n, a := range t.Actions {
		switch a := a.(type) {
		case scheduler.Open:
			list[n] = store.Change{Incident: a.Incident, CheckModRevision: a.CheckRevision}
		case scheduler.Resolve:
			list[n] = store.Change{Incident: a.Incident, ModRevision: a.ModRevision}
		}
	}
	return list
}

func describe(a scheduler.Action) (span, traceID string) {
	switch a := a.(type) {
	case scheduler.Open:
		return "incident.open", a.Incident.GetIncident().GetTraceId()
	case scheduler.Escalate:
		return "incident.escalate", a.Incident.GetIncident().GetTraceId()
	case scheduler.Resolve:
		return "incident.resolve", a.Incident.GetIncident().GetTraceId()
	case scheduler.PutBuild:
		return "build.stage", ""
	case scheduler.DropBuild:
		return "build.drop", ""
	case scheduler.Together:
		return "incident.members", ""
	}
	return "placement.move", ""
}

// parent continues the trace of the probe that led to the decision.
func parent(ctx context.Context, traceID string) context.Context {
	id, err := trace.TraceIDFromHex(traceID)
	if err != nil {
		return ctx
	}
	sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID(id[8:16]), TraceFlags: trace.FlagsSampled, Remote: true})
	return trace.ContextWithRemoteSpanContext(ctx, sc)
}

func (c *Controller) logEffect(e effect, revision int64) {
	switch a := e.action.(type) {
	case scheduler.Open:
		c.logIncident("incident opened", a.Incident.GetIncident(), len(a.Outbox), e, revision)
	case scheduler.Escalate:
		c.logIncident("incident escalated", a.Incident.GetIncident(), len(a.Outbox), e, revision)
	case scheduler.Resolve:
		c.logIncident("incident resolved", a.Incident.GetIncident(), len(a.Outbox), e, revision)
	case scheduler.PutBuild:
		level := slog.LevelInfo
		if a.Build.GetStage() == meshv1.Build_HALTED {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "build moved", "build", a.Build.GetBuild(), "stage", a.Build.GetStage().String(), "reason", a.Build.GetReason(),
			"comparisons", a.Build.GetComparisons(), "dissents", a.Build.GetDissents(), "term", e.reign.Term, "revision", revision)
	case scheduler.DropBuild:
		c.log.Info("build forgotten", "build", a.Name, "term", e.reign.Term)
	case scheduler.Together:
		for _, x := range a.Actions {
			c.logEffect(effect{action: x, key: keyOf(x), reign: e.reign, wished: e.wished}, revision)
		}
	case scheduler.MoveRows:
		c.log.Info("placement changed", "datacenter", a.Table.GetDatacenter(), "epoch", a.Table.GetEpoch(), "probers", len(a.Table.GetProbers()),
			"term", e.reign.Term, "revision", revision)
	}
}

func (c *Controller) logIncident(msg string, i *meshv1.Incident, owed int, e effect, revision int64) {
	c.m.incident(msg, i)
	c.log.Warn(msg, "incident", i.GetName(), "check", i.GetCheck(), "verdict", i.GetVerdict().String(), "reason", i.GetReason().String(), "summary", i.GetSummary(),
		"notifications", owed, "term", e.reign.Term, "revision", revision)
}

// Lead is one reign: until ctx ends, effects are carried out and what the outbox owes is delivered. It is what election.Run calls.
func (c *Controller) Lead(ctx context.Context, r election.Reign) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.ready:
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.mu.Lock()
	c.reign = &reign{Reign: r, ctx: ctx, cancel: cancel}
	notes := c.applyLocked([]scheduler.Event{scheduler.Leadership{Leading: true, Term: r.Term}})
	c.mu.Unlock()
	c.tell(notes)
	pruned := make(chan struct{})
	go func() {
		defer close(pruned)
		c.prune(ctx, r.Fence)
	}()
	err := c.deps.Notifier.Run(ctx, r.Fence)
	cancel(err)
	<-pruned
	c.mu.Lock()
	c.reign = nil
	c.waits.end()
	notes = c.applyLocked([]scheduler.Event{scheduler.Leadership{Term: r.Term}})
	c.mu.Unlock()
	c.tell(notes)
	if err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// prune drops the oldest resolved incidents now and then.
func (c *Controller) prune(ctx context.Context, fence store.Fence) {
	t := time.NewTicker(5 * time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n, err := c.deps.Store.PruneClosed(ctx, fence, c.cfg.KeepIncidents)
			switch {
			case err != nil && ctx.Err() == nil:
				c.log.Warn("old incidents could not be dropped", "err", err)
			case n > 0:
				c.log.Info("old incidents dropped", "dropped", n, "kept", c.cfg.KeepIncidents)
			}
		}
	}
}
