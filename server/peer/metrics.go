package peer

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

type metrics struct {
	beats     metric.Int64Counter
	breaks    metric.Int64Counter
	votes     metric.Int64Counter
	voteDrops metric.Int64Counter
	history   metric.Int64Counter
	snapshots metric.Int64Counter
	drops     metric.Int64Counter
	refusals  metric.Int64Counter
	stills    metric.Float64Counter

	registration metric.Registration

	mu      sync.Mutex // guards dropsOf
	dropsOf map[string]int64
}

func newMetrics(meter metric.Meter, p *Peers) (*metrics, error) {
	m := &metrics{dropsOf: map[string]int64{}}
	var errs []error
	counter := func(name, help string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithDescription(help))
		errs = append(errs, err)
		return c
	}
	m.beats = counter("probemesh_peer_beats_heard_total", "Beats heard of other servers.")
	m.breaks = counter("probemesh_peer_streams_broken_total", "Streams to other servers, and attempts to open one, that ended, by whether the connection was refused.")
	m.votes = counter("probemesh_peer_votes_total", "Results that may be votes, sent to followers and received from servers that are followed; one of three servers sends each result twice.")
	m.voteDrops = counter("probemesh_peer_votes_superseded_total", "Results and presences that a follower was too slow for, and that a snapshot stood in for.")
	m.history = counter("probemesh_peer_history_total", "Entries for the history taken from other servers' journals.")
	m.snapshots = counter("probemesh_peer_snapshots_total", "Snapshots of presence and votes sent to followers: one at the start of each stream, and one whenever a follower was too slow.")
	m.drops = counter("probemesh_peer_drops_total", "Runs and refusals that found a queue full.")
	m.refusals = counter("probemesh_peer_followers_refused_total", "Attempts to follow this server that were refused, by reason.")
	var err error
	m.stills, err = meter.Float64Counter("probemesh_peer_stood_still_seconds_total", metric.WithUnit("s"), metric.WithDescription("Time in which this process did not run at all, in stretches of 600 ms or longer."))
	errs = append(errs, err, m.observe(meter, p))
	return m, errors.Join(errs...)
}

// observe registers what is read when asked for. None of it waits for a disk.
func (m *metrics) observe(meter metric.Meter, p *Peers) error {
	var errs []error
	gauge := func(name, help string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithDescription(help))
		errs = append(errs, err)
		return g
	}
	silence, err := meter.Float64ObservableGauge("probemesh_peer_silence_seconds", metric.WithUnit("s"), metric.WithDescription("How long another server has not been heard."))
	errs = append(errs, err)
	lag := gauge("probemesh_peer_history_lag_results", "Results of this server's probers that another server does not have in its history yet.")
	held := gauge("probemesh_peer_journal_results", "Results in the journal: not every other server has them.")
	bytes := gauge("probemesh_peer_journal_bytes", "Bytes that the journal takes.")
	dropped, err := meter.Int64ObservableCounter("probemesh_peer_journal_dropped_total", metric.WithDescription("Results that the journal dropped because it was full: other servers will not have them."))
	errs = append(errs, err)
	elsewhere, err := meter.Int64ObservableCounter("probemesh_peer_journal_dropped_elsewhere_total", metric.WithDescription("Results that another server's journal dropped, as it says: this server may lack them."))
	errs = append(errs, err)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := time.Now()
		for _, v := range p.Views() {
			server := metric.WithAttributes(attribute.String("server", v.Server))
			o.ObserveFloat64(silence, v.Silence(now).Seconds(), server)
			o.ObserveInt64(lag, int64(v.Position-v.Acknowledged), server)
		}
		o.ObserveInt64(held, p.journal.held.Load())
		o.ObserveInt64(bytes, p.journal.bytes.Load())
		o.ObserveInt64(dropped, p.journal.dropped.Load())
		m.mu.Lock()
		defer m.mu.Unlock()
		for server, n := range m.dropsOf {
			o.ObserveInt64(elsewhere, n, metric.WithAttributes(attribute.String("server", server)))
		}
		return nil
	}, silence, lag, held, bytes, dropped, elsewhere)
	return err
}

func (m *metrics) unregister() {
	if m.registration != nil {
		_ = m.registration.Unregister() // it cannot fail twice
	}
}

func (m *metrics) broke(refused bool) {
	m.breaks.Add(context.Background(), 1, metric.WithAttributes(attribute.Bool("refused", refused)))
}

func (m *metrics) refused(reason string) {
	m.refusals.Add(context.Background(), 1, metric.WithAttributes(attribute.String("reason", reason)))
}

func (m *metrics) heard(votes int) {
	m.votes.Add(context.Background(), int64(votes), metric.WithAttributes(attribute.String("direction", "received")))
}

func (m *metrics) relayed(votes int) {
	m.votes.Add(context.Background(), int64(votes), metric.WithAttributes(attribute.String("direction", "sent")))
}

func (m *metrics) superseded(n int) { m.voteDrops.Add(context.Background(), int64(n)) }

func (m *metrics) took(entries int) { m.history.Add(context.Background(), int64(entries)) }

func (m *metrics) dropped(what string, n int64) {
	m.drops.Add(context.Background(), n, metric.WithAttributes(attribute.String("queue", what)))
}

func (m *metrics) stood(still time.Duration) { m.stills.Add(context.Background(), still.Seconds()) }

// dropsElsewhere notes how much another server's journal has dropped.
func (m *metrics) dropsElsewhere(server string, n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropsOf[server] = max(m.dropsOf[server], n)
}
