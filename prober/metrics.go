package prober

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// metrics are the instruments that events go to; what can be read when asked for is in observe.
type metrics struct {
	probes  map[outcomeOf]*tally // it does not change
	lags    metric.Float64Histogram
	refusal metric.Int64Counter
}

// outcomeOf is what probes are counted by.
type outcomeOf struct {
	kind    string
	outcome meshv1.Result_Outcome
}

// tally counts probes of one kind and outcome. It is read when asked for: to add to an instrument costs more than all else that counts a probe.
type tally struct {
	made   atomic.Int64
	labels metric.MeasurementOption
}

func newMetrics(m metric.Meter) (*metrics, error) {
	var errs [2]error
	out := &metrics{probes: map[outcomeOf]*tally{}}
	for _, kind := range jobKinds() {
		for o, name := range meshv1.Result_Outcome_name {
			out.probes[outcomeOf{kind, meshv1.Result_Outcome(o)}] = &tally{labels: metric.WithAttributeSet(attribute.NewSet(
				attribute.String("kind", kind), attribute.String("outcome", name)))}
		}
	}
	out.lags, errs[0] = m.Float64Histogram("probemesh_prober_probe_lag_seconds", metric.WithUnit("s"),
		metric.WithDescription("How late scheduled probes began, against their place in the timetable."),
		metric.WithExplicitBucketBoundaries(.002, .004, .008, .016, .032, .064, .125, .25, .5, 1, 2, 5, 10, 30))
	out.refusal, errs[1] = m.Int64Counter("probemesh_prober_runs_refused_total", metric.WithDescription("Runs that were asked for and not done, by reason."))
	return out, errors.Join(errs[:]...)
}

// probe counts a probe. Every kind of a job and every outcome has its tally.
func (m *metrics) probe(kind string, outcome meshv1.Result_Outcome) {
	if t := m.probes[outcomeOf{kind, outcome}]; t != nil {
		t.made.Add(1)
	}
}

func (m *metrics) lag(ctx context.Context, lag time.Duration) { m.lags.Record(ctx, lag.Seconds()) }

func (m *metrics) refused(reason string) {
	m.refusal.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", reason)))
}

// observe registers what is read when asked for. The caller unregisters it.
func (a *agent) observe(m metric.Meter) (metric.Registration, error) {
	var errs []error
	gauge := func(name, help string) metric.Int64ObservableGauge {
		g, err := m.Int64ObservableGauge(name, metric.WithDescription(help))
		errs = append(errs, err)
		return g
	}
	counter := func(name, help string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithDescription(help))
		errs = append(errs, err)
		return c
	}
	seconds := func(name, help string) metric.Float64ObservableGauge {
		g, err := m.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(help))
		errs = append(errs, err)
		return g
	}
	probes := counter("probemesh_prober_probes_total", "Probes by kind of check and outcome; SLOW ones count again when they end.")
	session := gauge("probemesh_prober_session_connected", "1 while there is a session with a server.")
	sessions := counter("probemesh_prober_sessions_total", "Sessions that began.")
	home := gauge("probemesh_prober_session_home", "1 while the session is with the prober's home server.")
	standby := gauge("probemesh_prober_standby_ready", "1 while a connection to a second server is open and that server is serving.")
	moves := counter("probemesh_prober_moves_total", "Sessions left for another: lost ones, by a server's redirect, or back to the home server.")
	gap := seconds("probemesh_prober_session_gap_seconds", "How long the prober was without a session when it had lost one the last time.")
	trimmed := counter("probemesh_prober_results_trimmed_total", "Results sent without evidence because they were too large for the server.")
	offset := seconds("probemesh_prober_clock_offset_seconds", "The prober's clock minus the mesh's; timestamps are corrected by it.")
	roundTrip := seconds("probemesh_prober_round_trip_seconds", "Round trip of the last ping.")
	held := gauge("probemesh_prober_spool_results", "Results in the spool that no server has acknowledged.")
	bytes := gauge("probemesh_prober_spool_bytes", "Bytes of the spool on disk.")
	dropped := counter("probemesh_prober_spool_dropped_total", "Results dropped because the spool was full or lost its disk.")
	queued := gauge("probemesh_prober_queue_results", "Results that wait to be sent, by queue.")
	deferred := counter("probemesh_prober_results_deferred_total", "Results that found their queue full and went as backlog.")
	lost := counter("probemesh_prober_slow_lost_total", "SLOW results that could not be sent.")
	checks := gauge("probemesh_prober_assignments", "Checks in the timetable.")
	refusals := gauge("probemesh_prober_assignments_refused", "Assignments that this prober cannot run.")
	running := gauge("probemesh_prober_probes_running", "Scheduled probes that run.")
	waiting := gauge("probemesh_prober_probes_waiting", "Scheduled probes that wait for a place.")
	canaries := gauge("probemesh_prober_canaries", "Canaries by address family, and whether they answered in the newest round.")
	blind := gauge("probemesh_prober_network_failing", "1 while no canary of the address family answers.")
	excused := counter("probemesh_prober_failures_excused_total", "Failures that were reported as errors of the prober's own because no canary of the address family answered.")
	names := gauge("probemesh_prober_alias_hosts", "Hosts whose CNAME records are in mind, by whether they are aliases.")
	forgotten := counter("probemesh_prober_alias_hosts_dropped_total", "Hosts whose CNAME records were dropped from mind to make room for others.")
	skipped := counter("probemesh_prober_probes_skipped_total", "Starts left out, because the probe before still ran or the process stood still.")
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	queues := [3]metric.MeasurementOption{metric.WithAttributes(attribute.String("queue", "run")), metric.WithAttributes(attribute.String("queue", "changed")),
		metric.WithAttributes(attribute.String("queue", "routine"))}
	busy, still := metric.WithAttributes(attribute.String("reason", "running")), metric.WithAttributes(attribute.String("reason", "standstill"))
	lostMoves, redirects, homecomings := metric.WithAttributes(attribute.String("reason", "lost")), metric.WithAttributes(attribute.String("reason", "redirect")),
		metric.WithAttributes(attribute.String("reason", "home"))
	return m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		l, s, t := a.link.Stats(), a.spool.Stats(), a.timetable.Stats()
		for _, p := range a.metrics.probes {
			if n := p.made.Load(); n > 0 {
				o.ObserveInt64(probes, n, p.labels)
			}
		}
		o.ObserveInt64(session, count(l.Server != ""))
		o.ObserveInt64(home, count(l.Server != "" && l.Server == l.Home))
		o.ObserveInt64(standby, count(l.Standby != ""))
		o.ObserveInt64(moves, l.Lost, lostMoves)
		o.ObserveInt64(moves, l.Redirected, redirects)
		o.ObserveInt64(moves, l.Homecomings, homecomings)
		o.ObserveFloat64(gap, l.Gap.Seconds())
		o.ObserveInt64(trimmed, l.Trimmed)
		o.ObserveInt64(sessions, l.Sessions)
		o.ObserveFloat64(offset, a.clock.Offset().Seconds())
		o.ObserveFloat64(roundTrip, a.clock.RoundTrip().Seconds())
		o.ObserveInt64(held, s.Held)
		o.ObserveInt64(bytes, s.DiskBytes)
		o.ObserveInt64(dropped, s.Dropped)
		for i, n := range l.Queued {
			o.ObserveInt64(queued, int64(n), queues[i])
		}
		o.ObserveInt64(deferred, l.Deferred)
		o.ObserveInt64(lost, l.Missed)
		o.ObserveInt64(checks, int64(t.Checks))
		a.mu.RLock()
		o.ObserveInt64(refusals, int64(len(a.refusals)))
		a.mu.RUnlock()
		o.ObserveInt64(running, int64(t.Running))
		o.ObserveInt64(waiting, int64(t.Waiting))
		for _, s := range a.canaries.States() {
			family := attribute.String("family", s.Family)
			o.ObserveInt64(canaries, int64(s.Answering), metric.WithAttributes(family, attribute.Bool("answering", true)))
			o.ObserveInt64(canaries, int64(s.Targets-s.Answering), metric.WithAttributes(family, attribute.Bool("answering", false)))
			o.ObserveInt64(blind, count(s.Failing), metric.WithAttributes(family))
			o.ObserveInt64(excused, s.Excused, metric.WithAttributes(family))
		}
		hosts, aliases, dropped := a.aliases.Stats()
		o.ObserveInt64(names, int64(aliases), metric.WithAttributes(attribute.Bool("alias", true)))
		o.ObserveInt64(names, int64(hosts-aliases), metric.WithAttributes(attribute.Bool("alias", false)))
		o.ObserveInt64(forgotten, dropped)
		o.ObserveInt64(skipped, t.Skipped, busy)
		o.ObserveInt64(skipped, t.Missed, still)
		return nil
	}, probes, session, home, standby, moves, gap, trimmed, sessions, offset, roundTrip, held, bytes, dropped, queued, deferred, lost, checks, refusals, running, waiting, skipped,
		canaries, blind, excused, names, forgotten)
}

func count(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}
