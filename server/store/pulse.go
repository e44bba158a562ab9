package store

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

const (
	// pulseEvery is how often etcd is read, and how long it may take to answer.
	pulseEvery = time.Second
	// pulseAgain is the pause after a read that failed.
	pulseAgain = 200 * time.Millisecond
	// lostAfter is for how long reads must have failed before etcd counts as lost: an election of its members takes one to two seconds.
	lostAfter = 2 * time.Second
)

// Pulse tells whether etcd answers linearizable reads, which it does as long as this server reaches a member that is part of a quorum. Make one with [NewPulse].
// Its methods may be called concurrently.
type Pulse struct {
	read func(context.Context) error
	log  *slog.Logger
	mu   sync.Mutex
	// failed is when the first of the reads began that have failed in a row, last when the last of them ended. success is whether any ever succeeded.
	failed, last time.Time
	success      bool
}

// NewPulse makes the pulse of a store: read is its [Store.Ready]. log gets when etcd is lost and when it is back; meter the metric. Both may be nil.
func NewPulse(read func(context.Context) error, log *slog.Logger, meter metric.Meter) *Pulse {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if meter == nil {
		meter = noop.Meter{}
	}
	p := &Pulse{read: read, log: log}
	lost, err := meter.Float64ObservableGauge("probemesh_store_lost_seconds", metric.WithUnit("s"),
		metric.WithDescription("Since how long etcd has not answered this server's linearizable reads; 0 while it does."))
	must(err)
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		age := 0.0
		if since, yes := p.Lost(); yes {
			age = time.Since(since).Seconds()
		}
		o.ObserveFloat64(lost, age)
		return nil
	}, lost)
	must(err)
	return p
}

// Run reads etcd every second until ctx ends; then it returns nil.
func (p *Pulse) Run(ctx context.Context) error {
	for {
		begun := time.Now()
		once, cancel := context.WithTimeout(ctx, pulseEvery)
		err := p.read(once)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		p.take(begun, err)
		pause := pulseEvery - time.Since(begun)
		if err != nil {
			pause = pulseAgain // its return is to be noticed at once
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (p *Pulse) take(begun time.Time, err error) {
	p.mu.Lock()
	since, before := p.failed, p.lostLocked()
	if err == nil {
		p.failed, p.last, p.success = time.Time{}, time.Time{}, true
	} else {
		p.last = time.Now()
		// A read that took longer than it may was not slow: this process stood still, and what etcd did meanwhile is not known.
		if soonest := p.last.Add(-pulseEvery); begun.Before(soonest) {
			begun = soonest
		}
		if p.failed.IsZero() {
			p.failed = begun
		}
	}
	after := p.lostLocked()
	p.mu.Unlock()
	switch {
	case after && !before:
		p.log.Warn("etcd does not answer: nothing can be opened, resolved or sent until it does", "since", p.since(), "err", err)
	case before && !after:
		p.log.Warn("etcd answers again", "lost_for", time.Since(since).Round(time.Millisecond))
	}
}

func (p *Pulse) lostLocked() bool { return !p.failed.IsZero() && p.last.Sub(p.failed) >= lostAfter }

func (p *Pulse) since() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// Lost is since when etcd has not answered, and whether it counts as lost: every read of two seconds has failed.
func (p *Pulse) Lost() (since time.Time, lost bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lostLocked() {
		return time.Time{}, false
	}
	return p.failed, true
}

// Answered tells whether etcd has ever answered.
func (p *Pulse) Answered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.success
}
