package drill

import (
	"context"
	"fmt"
	"slices"
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

// audit is what the histories of a mesh's servers have and lack.
type audit struct {
	samples int
	// missing counts results that should be there, impossible those that say that a target answered which did not, failed those that say the opposite: a
	// prober on a busy machine may well time out.
	missing, impossible, failed int
	lacks, lies                 []string
}

// concludeHistory waits until the history of every server is whole, and adds what is missing as a figure.
func (r *Run) concludeHistory(ctx context.Context, m *Mesh) error {
	r.mu.Lock()
	from := r.watched[m]
	r.mu.Unlock()
	to := time.Now().Add(-r.Interval)
	begin := time.Now()
	truth := r.Truth()
	var a audit
	err := Until(ctx, "the history is whole", drainLimit, func() (bool, string) {
		a = audit{}
		for _, s := range m.Servers() {
			r.inspect(ctx, m, s, from, to, truth, &a)
		}
		return a.missing == 0, fmt.Sprint(a.missing)
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.Say("%d results are missing from the history; they are waited for no longer", a.missing)
	}
	r.AtMost("results_missing", "results", float64(a.missing), 0, "after the drain every server has a result of every prober for every interval", a.lacks...)
	r.AtMost("results_impossible", "results", float64(a.impossible), 0, "no result says that a target answered while it did not", a.lies...)
	r.Inform("results_failed_while_up", "results", float64(a.failed), "probes that failed although the target answered: this machine was too busy")
	r.Inform("results", "results", float64(a.samples), "results in the histories of all servers together")
	r.Inform("history_whole_after_seconds", "seconds", time.Since(begin).Seconds(), "from the end of the drill until nothing was missing any more")
	return nil
}

// inspect looks at the history of one server.
func (r *Run) inspect(ctx context.Context, m *Mesh, s *localmesh.Member, from, to time.Time, truth []Outage, a *audit) {
	for _, check := range m.checks {
		series, err := m.Samples(ctx, s, check, from, to)
		if err != nil {
			a.missing++
			a.lacks = append(a.lacks, fmt.Sprintf("%s: %v", s, err))
			return
		}
		for _, p := range m.Probers() {
			var times []time.Time
			for _, x := range series[p.Name] {
				times = append(times, x.At)
				switch says(truth, check, x, r.Timeout()) {
				case impossible:
					a.impossible++
					a.lies = append(a.lies, fmt.Sprintf("%s: %s says that %s answered at %s", s, p.Name, check, clock(x.At)))
				case contrary:
					a.failed++
				}
			}
			a.samples += len(times)
			for _, g := range r.excused(p.Name, Gaps(times, from, to, r.Interval)) {
				a.missing += g.Missing
				a.lacks = append(a.lacks, fmt.Sprintf("%s lacks %d of %s by %s after %s", s, g.Missing, check, p.Name, clock(g.From)))
			}
		}
	}
}

// Sample is one result in a history: when the probe began, and whether it succeeded. Own: it was the prober's own fault, and says nothing of the target.
type Sample struct {
	At      time.Time
	OK, Own bool
}

type saying int

const (
	consistent saying = iota
	// impossible: it succeeded while the target was down all the time. One that was only cut off may well answer those that are cut off with it.
	impossible
	// contrary: it failed while the target was up all the time.
	contrary
)

// says holds a result against the truth. A probe takes up to the timeout, so one that was under way when the target changed may say either.
func says(truth []Outage, check string, x Sample, timeout time.Duration) saying {
	end := x.At.Add(timeout)
	if x.Own {
		return consistent
	}
	for _, o := range truth {
		switch {
		case o.Check != check || end.Before(o.Down) || !o.Up.IsZero() && x.At.After(o.Up):
			continue // up all the time, as far as this outage goes
		case x.OK && o.Fault != Unreachable && x.At.After(o.Down.Add(clockSlack)) && (o.Up.IsZero() || end.Before(o.Up)):
			return impossible
		}
		return consistent
	}
	if !x.OK {
		return contrary
	}
	return consistent
}

// clockSlack is how far a prober's correction of its clock may be off; all clocks of a drill are one.
const clockSlack = 50 * time.Millisecond

// Samples are the results of a check in one server's history, in order of time, by the bare name of the prober.
func (m *Mesh) Samples(ctx context.Context, s *localmesh.Member, check string, from, to time.Time) (map[string][]Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out := map[string][]Sample{}
	for _, metric := range []string{"probe_success", "probemesh_probe_error"} {
		resp, err := m.Client(s).History.QueryRange(ctx, &meshv1.QueryRangeRequest{
			Check: "checks/" + check, Metric: metric, StartTime: timestamppb.New(from), EndTime: timestamppb.New(to),
		})
		if err != nil {
			return nil, err
		}
		own := metric != "probe_success"
		for _, x := range resp.GetSeries() {
			prober := bare(x.GetProber())
			for _, p := range x.GetPoints() {
				if !own || p.GetValue() > 0 { // the result after an error says 0
					out[prober] = append(out[prober], Sample{At: p.GetTime().AsTime(), OK: !own && p.GetValue() > 0, Own: own})
				}
			}
		}
	}
	for _, list := range out {
		slices.SortFunc(list, func(a, b Sample) int { return a.At.Compare(b.At) })
	}
	return out, nil
}
