package drill

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// absence is a time in which a prober did not run, and owes nothing.
type absence struct {
	prober   string
	from, to time.Time
}

// Absent says that a prober (its bare name) did not run, or not in time, between two times: it owes no results of then, and those of the moments before it was
// killed that were not on its disk yet.
func (r *Run) Absent(prober string, from, to time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.absences = append(r.absences, absence{prober, from, to})
}

// Gap is a stretch of a series without a sample that should have one.
type Gap struct {
	From    time.Time
	Missing int
}

// Gaps looks for intervals without a sample between two times; samples must be in order. Probes begin at a fixed phase of the interval, so that two that are not
// neighbours are at least two intervals apart, less what a busy machine starts them late.
func Gaps(samples []time.Time, from, to time.Time, interval time.Duration) []Gap {
	var found []Gap
	last := from
	see := func(at time.Time) {
		if n := int(at.Sub(last)/(interval/2)+1)/2 - 1; n > 0 {
			found = append(found, Gap{last, n})
		}
		last = at
	}
	for _, at := range samples {
		if !at.Before(from) && !at.After(to) {
			see(at)
		}
	}
	see(to.Add(-interval))
	return found
}

// excused takes off what a prober that was away owes nothing of.
func (r *Run) excused(prober string, gaps []Gap) []Gap {
	r.mu.Lock()
	defer r.mu.Unlock()
	var rest []Gap
next:
	for _, g := range gaps {
		end := g.From.Add(time.Duration(g.Missing+1) * r.Interval)
		for _, a := range r.absences {
			if a.prober == prober && !end.Before(a.from.Add(-r.Interval)) && !g.From.After(a.to.Add(r.Interval)) {
				continue next
			}
		}
		rest = append(rest, g)
	}
	return rest
}

// drainLimit is how long a history may take to be whole after the drill: relaying, and draining at a limited rate.
const drainLimit = 45 * time.Second

// concludeHistory waits until the history of every server is whole, and adds what is missing as a figure.
func (r *Run) concludeHistory(ctx context.Context, m *Mesh) error {
	r.mu.Lock()
	from := r.watched[m]
	r.mu.Unlock()
	to := time.Now().Add(-r.Interval)
	begin := time.Now()
	var missing, samples int
	var details []string
	err := Until(ctx, "the history is whole", drainLimit, func() (bool, string) {
		missing, samples, details = 0, 0, nil
		for _, s := range m.Servers() {
			n, k, d := r.missing(ctx, m, s, from, to)
			missing, samples, details = missing+n, samples+k, append(details, d...)
		}
		return missing == 0, fmt.Sprint(missing)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.Say("%d results are missing from the history; they are waited for no longer", missing)
	}
	r.AtMost("results_missing", "results", float64(missing), 0, "after the drain every server has a result of every prober for every interval", details...)
	r.Inform("results", "results", float64(samples), "results in the histories of all servers together")
	r.Inform("history_whole_after_seconds", "seconds", time.Since(begin).Seconds(), "from the end of the drill until nothing was missing any more")
	return nil
}

// missing counts what the history of one server lacks.
func (r *Run) missing(ctx context.Context, m *Mesh, s *localmesh.Member, from, to time.Time) (missing, samples int, details []string) {
	for _, check := range m.checks {
		series, err := m.Samples(ctx, s, check, from, to)
		if err != nil {
			return missing + 1, samples, append(details, fmt.Sprintf("%s: %v", s, err))
		}
		for _, p := range m.Probers() {
			samples += len(series[p.Name])
			for _, g := range r.excused(p.Name, Gaps(series[p.Name], from, to, r.Interval)) {
				missing += g.Missing
				details = append(details, fmt.Sprintf("%s lacks %d of %s by %s after %s", s, g.Missing, check, p.Name, clock(g.From)))
			}
		}
	}
	return missing, samples, details
}

// Samples are the times of the results of a check in one server's history, by the bare name of the prober.
func (m *Mesh) Samples(ctx context.Context, s *localmesh.Member, check string, from, to time.Time) (map[string][]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := m.Client(s).History.QueryRange(ctx, &meshv1.QueryRangeRequest{Check: "checks/" + check, StartTime: timestamppb.New(from), EndTime: timestamppb.New(to)})
	if err != nil {
		return nil, err
	}
	out := map[string][]time.Time{}
	for _, x := range resp.GetSeries() {
		prober := bare(x.GetProber())
		for _, p := range x.GetPoints() {
			out[prober] = append(out[prober], p.GetTime().AsTime())
		}
	}
	return out, nil
}
