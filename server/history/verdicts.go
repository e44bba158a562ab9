package history

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// VerdictSample is what the mesh holds true of a check at one moment.
type VerdictSample struct {
	// Check is `checks/shop` or `shop`.
	Check string
	// Verdict is the verdict.
	Verdict meshv1.CheckStatus_Verdict
	// Time is when it was read.
	Time time.Time
	// Since is since when it holds; the zero time is not recorded.
	Since time.Time
}

// verdictSeries is one of the two series of a check.
type verdictSeries struct{ metric, check string }

// verdictRefs is where the verdict series are in the store, a bounded cache that starts again when it is full.
type verdictRefs struct {
	limit int
	mu    sync.Mutex
	refs  map[verdictSeries]storage.SeriesRef
}

func newVerdictRefs(limit int) *verdictRefs {
	return &verdictRefs{limit: limit, refs: make(map[verdictSeries]storage.SeriesRef)}
}

func (v *verdictRefs) get(of verdictSeries) storage.SeriesRef {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refs[of]
}

func (v *verdictRefs) put(of verdictSeries, ref storage.SeriesRef) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.refs) >= v.limit {
		clear(v.refs)
	}
	v.refs[of] = ref
}

func (v *verdictRefs) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.refs)
}

// RecordVerdicts writes the verdicts of all checks at one moment; the controller calls it every Config.VerdictPeriod. Uptime rests on these samples. It
// returns when the store's log has them; after an error the moment is lost, and there is no need to repeat it: a gap of less than three periods is filled by the
// sample before it.
func (h *History) RecordVerdicts(ctx context.Context, verdicts []VerdictSample) error {
	if len(verdicts) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s, release, err := h.open()
	if err != nil {
		return err
	}
	defer release()
	app := s.appendable.Appender(ctx)
	for _, v := range verdicts {
		if err := h.appendVerdict(ctx, app, verdictSeries{metricVerdict, spec.ID(v.Check)}, v.Time, float64(v.Verdict)); err != nil {
			return h.rollback(app, err)
		}
		if v.Since.IsZero() {
			continue
		}
		if err := h.appendVerdict(ctx, app, verdictSeries{metricSince, spec.ID(v.Check)}, v.Time, float64(v.Since.UnixMilli())/1000); err != nil {
			return h.rollback(app, err)
		}
	}
	if err := app.Commit(); err != nil {
		h.instruments.failures.Add(ctx, 1)
		h.fail(err)
		return unavailable(err)
	}
	return nil
}

// appendVerdict adds one sample. One that is too old for the store is counted and no error.
func (h *History) appendVerdict(ctx context.Context, app storage.Appender, of verdictSeries, at time.Time, value float64) error {
	ref := h.verdicts.get(of)
	got, err := storage.SeriesRef(0), error(nil)
	if ref != 0 {
		got, err = app.Append(ref, labels.EmptyLabels(), at.UnixMilli(), value)
	}
	if ref == 0 || errors.Is(err, tsdb.ErrInvalidSample) {
		got, err = app.Append(0, labels.FromStrings(model.MetricNameLabel, of.metric, "check", of.check, "job", job), at.UnixMilli(), value)
	}
	switch {
	case err == nil:
		if got != ref {
			h.verdicts.put(of, got)
		}
		return nil
	case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrOutOfOrderSample),
		errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		h.instruments.results.Add(ctx, 1, h.instruments.fates[tooOld])
		h.complaints[tooOld].add(h.log, tooOld, 1, time.Now())
		return nil
	}
	return err
}

// LastVerdicts are the newest verdicts that were recorded with their Since in the period before now, one of each check, in any order.
func (h *History) LastVerdicts(ctx context.Context, now time.Time, period time.Duration) ([]VerdictSample, error) {
	newest := func(s *series, p point) error {
		s.points = append(s.points[:0], p)
		return nil
	}
	var out []VerdictSample
	err := h.ask(ctx, "verdicts", func(ctx context.Context, st *store) error {
		first, last := now.Add(-period).UnixMilli(), now.UnixMilli()
		verdicts, err := st.read(ctx, first, last, newest, equal(model.MetricNameLabel, metricVerdict))
		if err != nil {
			return err
		}
		sinces, err := st.read(ctx, first, last, newest, equal(model.MetricNameLabel, metricSince))
		if err != nil {
			return err
		}
		since := make(map[string]point, len(sinces))
		for _, s := range sinces {
			since[s.labels.Get("check")] = s.points[0]
		}
		for _, s := range verdicts {
			check := s.labels.Get("check")
			if p, ok := since[check]; ok && p.t == s.points[0].t {
				out = append(out, VerdictSample{Check: spec.Name(spec.Checks, check), Verdict: meshv1.CheckStatus_Verdict(s.points[0].v), Time: time.UnixMilli(p.t), Since: time.UnixMilli(int64(p.v*1000 + 0.5))})
			}
		}
		return nil
	})
	if err != nil {
		return nil, answerError(err)
	}
	return out, nil
}
