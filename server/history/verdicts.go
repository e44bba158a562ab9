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
}

// verdictRefs is where the verdict series are in the store, a bounded cache that starts again when it is full.
type verdictRefs struct {
	limit int
	mu    sync.Mutex
	refs  map[string]storage.SeriesRef
}

func newVerdictRefs(limit int) *verdictRefs {
	return &verdictRefs{limit: limit, refs: make(map[string]storage.SeriesRef)}
}

func (v *verdictRefs) get(check string) storage.SeriesRef {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refs[check]
}

func (v *verdictRefs) put(check string, ref storage.SeriesRef) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.refs) >= v.limit {
		clear(v.refs)
	}
	v.refs[check] = ref
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
		id := spec.ID(v.Check)
		ref := h.verdicts.get(id)
		got, err := storage.SeriesRef(0), error(nil)
		if ref != 0 {
			got, err = app.Append(ref, labels.EmptyLabels(), v.Time.UnixMilli(), float64(v.Verdict))
		}
		if ref == 0 || errors.Is(err, tsdb.ErrInvalidSample) {
			got, err = app.Append(0, labels.FromStrings(model.MetricNameLabel, metricVerdict, "check", id, "job", job), v.Time.UnixMilli(), float64(v.Verdict))
		}
		switch {
		case err == nil:
			if got != ref {
				h.verdicts.put(id, got)
			}
		case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrOutOfOrderSample),
			errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
			h.instruments.results.Add(ctx, 1, h.instruments.fates[tooOld])
			h.complaints[tooOld].add(h.log, tooOld, 1, time.Now())
		default:
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
