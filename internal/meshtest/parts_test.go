package meshtest

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/history"
)

// target is what probes meet.
type target struct {
	mu     sync.Mutex
	down   map[string]bool // by check, or check@datacenter
	probed map[string]time.Time
	seen   map[string]map[string]seen // the newest of each prober, by check
	told   map[string][]turn
	count  int
}

// seen is what a prober met.
type seen struct {
	datacenter string
	failed     time.Time // when it met a failure last
	first      time.Time // since when it has met nothing else
	last       time.Time
	ok         bool // the last time
}

func newTarget() *target {
	return &target{down: map[string]bool{}, probed: map[string]time.Time{}, seen: map[string]map[string]seen{}, told: map[string][]turn{}}
}

func (g *target) set(key string, down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down[key] = down
	check, _, _ := strings.Cut(key, "@")
	g.told[check] = append(g.told[check], turn{time.Now(), down})
}

// turn is a moment at which a target, or a part of it, began or ceased to fail.
type turn struct {
	at   time.Time
	down bool
}

// wasDown tells whether a target failed, at least from somewhere, at some time in the two minutes before.
func (g *target) wasDown(check string, before time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, until := 0, time.Time{} // how many faults are on it, and when the last ended
	for _, t := range g.told[check] {
		if t.at.After(before) {
			break
		}
		if t.down {
			n++
		} else {
			n, until = n-1, t.at
		}
	}
	return n > 0 || !until.IsZero() && before.Sub(until) < 2*time.Minute
}

// views is what each prober met last.
func (g *target) views(check string) map[string]seen {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.seen[check])
}

// contradicted tells whether a prober of a datacenter met an answer lately where another one of it met a failure.
func (g *target) contradicted(check string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	places := map[string]bool{}
	for _, s := range g.seen[check] {
		if !s.ok {
			places[s.datacenter] = true
		}
	}
	for _, s := range g.seen[check] {
		if s.ok && places[s.datacenter] && time.Since(s.last) < 40*time.Second {
			return true
		}
	}
	return false
}

type runner struct {
	g                  *target
	prober, datacenter string
	check              *meshv1.Check
}

// Probe takes 10 ms.
func (r *runner) Probe(ctx context.Context, _ probe.Options) *meshv1.Result {
	start := time.Now()
	name := r.check.GetName()
	res := &meshv1.Result{Check: name, StartTime: timestamppb.New(start), Outcome: meshv1.Result_OK}
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
		res.Outcome = meshv1.Result_ERROR
		return res
	}
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	if r.g.down[name] || r.g.down[name+"@"+r.datacenter] || r.g.down[name+"@*"] {
		res.Outcome, res.ErrorClass, res.Error = meshv1.Result_FAIL, meshv1.Result_CONNECTION_REFUSED, "connection refused"
	}
	r.g.count++
	res.Duration = durationpb.New(time.Since(start) + time.Duration(r.g.count)) // the nanoseconds number the probe, whatever clocks say
	if r.g.seen[name] == nil {
		r.g.seen[name] = map[string]seen{}
	}
	x, ok := r.g.seen[name][r.prober], res.GetOutcome() == meshv1.Result_OK
	if x.last.IsZero() || x.ok != ok {
		x.first = time.Now()
	}
	x.datacenter, x.last, x.ok = r.datacenter, start, ok
	if !ok {
		x.failed = start
	}
	r.g.seen[name][r.prober] = x
	r.g.probed[key(r.prober, res)] = start
	return res
}

func (r *runner) Close() {}

// probes is how many probes there were.
func (g *target) probes() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.probed)
}

func key(prober string, r *meshv1.Result) string {
	return fmt.Sprint(prober, " ", r.GetCheck(), " ", r.GetDuration().AsDuration().Nanoseconds())
}

// archive is the history of one server.
type archive struct {
	mu      sync.Mutex
	have    map[string]bool
	stalled chan struct{}
}

func (a *archive) Append(_ context.Context, entries []history.Entry) error {
	a.mu.Lock()
	stalled := a.stalled
	a.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range entries {
		a.have[key(e.Prober, e.Result)] = true
	}
	return nil
}

func (a *archive) stall(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case yes && a.stalled == nil:
		a.stalled = make(chan struct{})
	case !yes && a.stalled != nil:
		close(a.stalled)
		a.stalled = nil
	}
}
