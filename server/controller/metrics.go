package controller

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/server/store"
)

type metrics struct {
	verdicts       metric.Int64Counter
	opened         metric.Int64Counter
	effects        metric.Float64Histogram
	effectsRefused metric.Int64Counter
	effectsExpired metric.Int64Counter
	voteAge        metric.Float64Histogram
	folding        metric.Float64Histogram
	rivals         metric.Int64Counter
	// own and relayed tell from where a vote came.
	own, relayed metric.MeasurementOption
}

func newMetrics(meter metric.Meter, c *Controller) (*metrics, error) {
	m := metrics{
		own:     metric.WithAttributeSet(attribute.NewSet(attribute.String("source", "session"))),
		relayed: metric.WithAttributeSet(attribute.NewSet(attribute.String("source", "peer"))),
	}
	var errs [9]error
	m.verdicts, errs[0] = meter.Int64Counter("probemesh_verdict_changes_total", metric.WithDescription("Verdicts that changed, by new verdict and reason."))
	m.opened, errs[1] = meter.Int64Counter("probemesh_incidents_total", metric.WithDescription("Incidents opened, escalated and resolved by this server as the leader, by reason."))
	m.effects, errs[2] = meter.Float64Histogram("probemesh_decision_latency_seconds",
		metric.WithDescription("From the mind's wish to etcd's answer, by kind of effect and outcome (ok, fenced, conflict, error)."))
	m.effectsRefused, errs[3] = meter.Int64Counter("probemesh_effects_refused_total", metric.WithDescription("Effects that found the queue full and were wished for again later."))
	m.voteAge, errs[4] = meter.Float64Histogram("probemesh_vote_age_seconds", metric.WithDescription("From the end of a probe to its vote being counted here, by whether its prober has its session here (source session) or another server passed it on (source peer)."))
	m.folding, errs[5] = meter.Float64Histogram("probemesh_cast_seconds", metric.WithDescription("Time to count one batch of results, waiting for the mind included."))
	m.effectsExpired, errs[7] = meter.Int64Counter("probemesh_effects_expired_total",
		metric.WithDescription("Effects that waited for a worker until their reign or their time was over, and were dropped; the mind wishes for them anew."))
	m.rivals, errs[8] = meter.Int64Counter("probemesh_prober_rivals_total", metric.WithDescription("Sessions ended because another process of that name had one at another server before."))
	errs[6] = observe(meter, c)
	return &m, errors.Join(errs[:]...)
}

// observe registers the gauges that are read from the controller when somebody asks.
func observe(meter metric.Meter, c *Controller) error {
	checks, err1 := meter.Int64ObservableGauge("probemesh_checks", metric.WithDescription("Checks, by verdict."))
	probers, err2 := meter.Int64ObservableGauge("probemesh_probers", metric.WithDescription("Enrolled probers, by state."))
	leading, err3 := meter.Int64ObservableGauge("probemesh_leader", metric.WithDescription("1 if this server leads, else 0."))
	term, err4 := meter.Int64ObservableGauge("probemesh_term", metric.WithDescription("The present leader's term."))
	queue, err5 := meter.Int64ObservableGauge("probemesh_effect_queue_length", metric.WithDescription("Effects that wait for a worker."))
	votes, err6 := meter.Int64ObservableCounter("probemesh_votes_total", metric.WithDescription("Results by what became of them: counted, or why not."))
	confirms, err7 := meter.Int64ObservableCounter("probemesh_confirmations_total", metric.WithDescription("Runs asked for to confirm, by whether a budget allowed them."))
	lag, err8 := meter.Int64ObservableGauge("probemesh_assignments_out_of_sync", metric.WithDescription("Sessions whose prober has not acknowledged what it should run."))
	undecided, err9 := meter.Int64ObservableGauge("probemesh_undecided_checks", metric.WithDescription("Checks whose votes call for an incident to be opened or resolved while etcd has no quorum."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9); err != nil {
		return err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		for v, n := range c.mind.CountVerdicts() {
			o.ObserveInt64(checks, n, metric.WithAttributes(attribute.String("verdict", v.String())))
		}
		states := map[meshv1.Prober_State]int64{meshv1.Prober_ONLINE: 0, meshv1.Prober_OFFLINE: 0, meshv1.Prober_DRAINED: 0}
		for _, n := range c.mind.Probers() {
			if p, ok := c.mind.Prober(n); ok {
				states[p.GetState()]++
			}
		}
		for s, n := range states {
			o.ObserveInt64(probers, n, metric.WithAttributes(attribute.String("state", s.String())))
		}
		o.ObserveInt64(leading, map[bool]int64{true: 1}[c.reign != nil])
		o.ObserveInt64(term, c.leader.GetTerm())
		o.ObserveInt64(queue, int64(len(c.effects)))
		k := c.mind.Counters
		for what, n := range map[string]int64{"counted": k.Votes, "unknown_check": k.UnknownCheck, "unknown_prober": k.UnknownProber, "old_check": k.OldRevision, "old": k.OldResult} {
			o.ObserveInt64(votes, n, metric.WithAttributes(attribute.String("outcome", what)))
		}
		o.ObserveInt64(confirms, k.Confirmations, metric.WithAttributes(attribute.String("outcome", "asked")))
		o.ObserveInt64(confirms, k.ConfirmationsRefused, metric.WithAttributes(attribute.String("outcome", "over_budget")))
		behind := int64(0)
		for _, s := range c.sessions {
			if !s.Facts().InSync {
				behind++
			}
		}
		o.ObserveInt64(lag, behind)
		o.ObserveInt64(undecided, c.mind.CountUndecided())
		return nil
	}, undecided, checks, probers, leading, term, queue, votes, confirms, lag)
	return err
}

func (m *metrics) verdict(n scheduler.StatusChanged) {
	m.verdicts.Add(context.Background(), 1, metric.WithAttributes(attribute.String("verdict", n.After.String()), attribute.String("reason", n.Reason.String())))
}

func (m *metrics) incident(what string, i *meshv1.Incident) {
	m.opened.Add(context.Background(), 1, metric.WithAttributes(attribute.String("event", what), attribute.String("reason", i.GetReason().String())))
}

func (m *metrics) effect(kind string, err error, took time.Duration) {
	outcome := "ok"
	switch {
	case errors.Is(err, store.ErrFenced):
		outcome = "fenced"
	case errors.Is(err, store.ErrConflict):
		outcome = "conflict"
	case err != nil:
		outcome = "error"
	}
	m.effects.Record(context.Background(), took.Seconds(), metric.WithAttributes(attribute.String("kind", kind), attribute.String("outcome", outcome)))
}

func (m *metrics) cast(results []*meshv1.Result, begin time.Time, own bool) {
	source := m.relayed
	if own {
		source = m.own
	}
	m.folding.Record(context.Background(), time.Since(begin).Seconds())
	for _, r := range results {
		end := r.GetStartTime().AsTime().Add(r.GetDuration().AsDuration())
		m.voteAge.Record(context.Background(), max(0, begin.Sub(end).Seconds()), source)
	}
}
