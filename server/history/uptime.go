package history

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// covers is how many sampling periods a recorded verdict holds at most.
const covers = 3

// GetUptime is part of HistoryService.
func (s *service) GetUptime(ctx context.Context, r *meshv1.GetUptimeRequest) (*meshv1.Uptime, error) {
	var v []fault.Violation
	now := time.Now()
	check := readName(&v, "check", spec.Checks, r.Check)
	first, last := readPeriod(&v, r.StartTime, r.EndTime, day, now)
	last = min(last, now.UnixMilli()) // nothing is known of the future
	if first >= last && len(v) == 0 {
		v = append(v, fault.Violation{Field: "start_time", Problem: "the period is empty; it must begin before it ends, and in the past"})
	}
	if time.Duration(last-first) > maxUptime/time.Millisecond {
		v = append(v, fault.Violation{Field: "start_time", Problem: fmt.Sprintf("the period is longer than %d days", maxUptime/day)})
	}
	if len(v) > 0 {
		return nil, fault.Invalid(v...)
	}
	var u *meshv1.Uptime
	err := s.h.ask(ctx, "grpc", func(ctx context.Context, st *store) (err error) {
		u, err = s.h.uptime(ctx, st, check, first, last)
		return err
	})
	if err != nil {
		return nil, answerError(err)
	}
	return u, nil
}

// uptime reads and counts; first is before last, both in Unix milliseconds.
func (h *History) uptime(ctx context.Context, st *store, check string, first, last int64) (*meshv1.Uptime, error) {
	hold := covers * h.config.VerdictPeriod.Milliseconds()
	verdicts, err := st.read(ctx, first-hold, last, keep, equal(model.MetricNameLabel, metricVerdict), equal("check", check))
	if err != nil {
		return nil, err
	}
	var samples []point
	for _, s := range verdicts {
		samples = append(samples, s.points...) // there is one series
	}
	up, down := verdictTimes(samples, first, last, hold)
	u := &meshv1.Uptime{
		Check:       spec.Name(spec.Checks, check),
		StartTime:   timestamppb.New(time.UnixMilli(first)),
		EndTime:     timestamppb.New(time.UnixMilli(last)),
		Up:          durationpb.New(up),
		Down:        durationpb.New(down),
		Unmonitored: durationpb.New(time.Duration(last-first)*time.Millisecond - up - down),
	}
	if up+down > 0 {
		a := float64(up) / float64(up+down)
		u.Availability = &a
	}
	u.Probers, err = h.proberUptimes(ctx, st, check, first, last)
	return u, err
}

// verdictTimes gives the time from first to last in which the verdict was UP or DEGRADED, and in which it was DOWN. A sample holds until the next one, and for
// hold at most; samples are sorted by time, and all times are in milliseconds.
func verdictTimes(samples []point, first, last, hold int64) (up, down time.Duration) {
	for i, s := range samples {
		from, to := max(s.t, first), min(s.t+hold, last)
		if i+1 < len(samples) {
			to = min(to, samples[i+1].t)
		}
		if to <= from {
			continue
		}
		d := time.Duration(to-from) * time.Millisecond
		switch meshv1.CheckStatus_Verdict(s.v) {
		case meshv1.CheckStatus_UP, meshv1.CheckStatus_DEGRADED:
			up += d
		case meshv1.CheckStatus_DOWN:
			down += d
		}
	}
	return up, down
}

// outcomeAt is one result as the uptime of a prober counts it.
type outcomeAt struct {
	t        int64 // Unix milliseconds
	outcome  meshv1.Result_Outcome
	duration float64 // seconds
}

// seen is what is stored of one prober, each part sorted by time once sort was called.
type seen struct{ success, errors, durations []point }

// proberUptimes is the period as each prober saw it, sorted by prober.
func (h *History) proberUptimes(ctx context.Context, st *store, check string, first, last int64) ([]*meshv1.ProberUptime, error) {
	byProber := map[string]*seen{}
	total := 0
	limited := func(s *series, p point) error {
		if total++; total > h.config.MaxSamples {
			return fault.Invalid(fault.Violation{Field: "start_time",
				Problem: fmt.Sprintf("the period has more than %d samples; ask for a shorter one", h.config.MaxSamples)})
		}
		return keep(s, p)
	}
	for _, metric := range []string{metricSuccess, metricError, metricDuration} {
		found, err := st.read(ctx, first, last, limited, equal(model.MetricNameLabel, metric), equal("check", check))
		if err != nil {
			return nil, err
		}
		for _, s := range found {
			prober := s.labels.Get("prober")
			if byProber[prober] == nil {
				byProber[prober] = &seen{}
			}
			switch o := byProber[prober]; metric {
			case metricSuccess:
				o.success = append(o.success, s.points...)
			case metricError:
				o.errors = append(o.errors, s.points...)
			case metricDuration:
				o.durations = append(o.durations, s.points...)
			}
		}
	}
	var interval time.Duration
	if h.deps.Interval != nil {
		interval = h.deps.Interval(spec.Name(spec.Checks, check))
	}
	var out []*meshv1.ProberUptime
	for prober, o := range byProber {
		if results := o.results(); len(results) > 0 {
			out = append(out, proberUptime(spec.Name(spec.Probers, prober), results, interval))
		}
	}
	slices.SortFunc(out, func(a, b *meshv1.ProberUptime) int { return cmp.Compare(a.Prober, b.Prober) })
	return out, nil
}

// results puts the parts together again, sorted by time.
func (o *seen) results() []outcomeAt {
	byTime := func(a, b point) int { return cmp.Compare(a.t, b.t) }
	slices.SortFunc(o.success, byTime)
	slices.SortFunc(o.durations, byTime)
	out := make([]outcomeAt, 0, len(o.success)+len(o.errors))
	d := 0
	for _, p := range o.success {
		for d < len(o.durations) && o.durations[d].t < p.t {
			d++
		}
		r := outcomeAt{t: p.t, outcome: meshv1.Result_FAIL}
		if p.v == 1 {
			r.outcome = meshv1.Result_OK
		}
		if d < len(o.durations) && o.durations[d].t == p.t {
			r.duration = o.durations[d].v
		}
		out = append(out, r)
	}
	for _, p := range o.errors {
		if p.v == 1 { // a 0 only ends an error; its result is among the successes
			out = append(out, outcomeAt{t: p.t, outcome: meshv1.Result_ERROR})
		}
	}
	slices.SortFunc(out, func(a, b outcomeAt) int { return cmp.Compare(a.t, b.t) })
	return out
}

// proberUptime counts the results of one prober, at least one, sorted by time. Without an interval, the median distance of the results stands for it.
func proberUptime(prober string, results []outcomeAt, interval time.Duration) *meshv1.ProberUptime {
	u := &meshv1.ProberUptime{Prober: prober, Results: int64(len(results)), LastOutcome: results[len(results)-1].outcome}
	var total float64
	gaps := make([]int64, 0, len(results))
	for i, r := range results {
		if r.outcome == meshv1.Result_OK {
			u.Ok++
			total += r.duration
		}
		if i > 0 {
			gaps = append(gaps, r.t-results[i-1].t)
		}
	}
	if u.Ok > 0 {
		u.MeanDuration = durationpb.New(time.Duration(math.Round(total / float64(u.Ok) * float64(time.Second))))
	}
	every := interval.Milliseconds()
	if every <= 0 && len(gaps) > 0 {
		sorted := slices.Sorted(slices.Values(gaps))
		every = sorted[len(sorted)/2]
	}
	for _, g := range gaps {
		if every > 0 && g > 2*every {
			u.Missing += (g+every/2)/every - 1
		}
	}
	return u
}
