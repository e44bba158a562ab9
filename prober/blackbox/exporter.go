package blackbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"

	"github.com/probemesh/probemesh/prober/probe"
)

// InFlightDefault is how many probes of /probe may run at once unless said otherwise: 2,000 targets a minute, two thirds of them silent for 10 s, keep 222 busy.
const InFlightDefault = 256

// TimeoutOffset is how much sooner than the scrape a probe ends, so that its answer arrives.
const TimeoutOffset = 500 * time.Millisecond

// timeoutDefault is how long a probe may take that neither the scrape nor the module bounds.
const timeoutDefault = 120 * time.Second

// timeoutMost is the longest that a probe may take whatever a request asks for.
const timeoutMost = 10 * time.Minute

// Options of an Exporter.
type Options struct {
	// File is the configuration file; empty for [Builtin].
	File string
	// InFlight is how many probes may run at once, at least 1; 0 for InFlightDefault. More are answered with 503.
	InFlight int
	// Env is what the prober can do, where its probes may go, and how it names itself to targets.
	Env probe.Env
	// Log takes what happens; nil: nowhere.
	Log *slog.Logger
	// Meter makes the instruments; nil: none.
	Meter metric.Meter
}

// Exporter answers /probe. Its methods may be called by several goroutines at once.
type Exporter struct {
	options Options
	log     *slog.Logger
	metrics *metrics
	slots   chan struct{}
	bodies  budget

	reload sync.Mutex // one Reload at a time
	active atomic.Pointer[loaded]
}

// loaded is a configuration that is in use, and what is kept for it.
type loaded struct {
	config  *Config
	clients *clients
}

// New reads the configuration. The error says what is wrong with it. Close gives back what the exporter keeps.
func New(o Options) (*Exporter, error) {
	if o.InFlight < 0 {
		return nil, errors.New("blackbox: the number of probes at once must be at least 1")
	}
	if o.InFlight == 0 {
		o.InFlight = InFlightDefault
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Meter == nil {
		o.Meter = metricnoop.Meter{}
	}
	e := &Exporter{options: o, log: o.Log, slots: make(chan struct{}, o.InFlight), bodies: budget{left: bodyBudget}}
	var err error
	if e.metrics, err = newMetrics(o.Meter); err != nil {
		return nil, err
	}
	if err := e.Reload(); err != nil {
		return nil, err
	}
	return e, nil
}

// Reload reads the configuration file again. When it is not right the error says so and the one before stays in use. Probes that run end as they began.
func (e *Exporter) Reload() error {
	e.reload.Lock()
	defer e.reload.Unlock()
	c, err := e.read()
	e.metrics.reloaded(context.Background(), err == nil, time.Now())
	if err != nil {
		return err
	}
	for _, name := range sortedKeys(c.Modules) {
		for _, d := range c.Modules[name].doubts() {
			e.log.Warn("blackbox module may not mean what it says", "module", name, "why", d)
		}
	}
	before := e.active.Swap(&loaded{config: c, clients: newClients(e.options.Env.Fence)})
	if before != nil {
		before.clients.close()
	}
	return nil
}

func (e *Exporter) read() (*Config, error) {
	if e.options.File == "" {
		return Builtin(), nil
	}
	return Load(e.options.File)
}

// Modules are the names of the modules in use, in order.
func (e *Exporter) Modules() []string { return sortedKeys(e.active.Load().config.Modules) }

// Close gives back what is kept between probes. No request may be running or follow.
func (e *Exporter) Close() { e.active.Load().clients.close() }
