package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// turnWait is how long a question waits for its turn before it is refused.
const turnWait = 5 * time.Second

// errBusy is why a question was refused.
var errBusy = errors.New("too many questions are being answered; try again, or ask for less at a time")

// ask runs one question: in its turn, within the time limit, against a store that stays open meanwhile. iface is `grpc` or `http`, for the figures. Errors
// of the history itself (failed, closed, busy) are fault errors with reason HISTORY_UNAVAILABLE.
func (h *History) ask(ctx context.Context, iface string, question func(context.Context, *store) error) (err error) {
	began := time.Now()
	defer func() { h.instruments.query(ctx, iface, time.Since(began).Seconds(), err) }()
	wait := time.NewTimer(h.turnWait)
	defer wait.Stop()
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return unavailable(errBusy)
	}
	s, release, err := h.open()
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithTimeout(ctx, h.config.QueryTimeout)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	err = question(ctx, s)
	if err != nil && s.life.Err() != nil {
		return unavailable(errors.New("the store is being closed"))
	}
	return err
}

// point is one stored sample; t is in Unix milliseconds.
type point struct {
	t int64
	v float64
}

// series is one series as stored, oldest point first.
type series struct {
	labels labels.Labels
	points []point
}

// read gives every series that the matchers select, with the points from first to last, both inclusive, in Unix milliseconds. take is asked for every point
// and says whether to keep it, or fails.
func (s *store) read(ctx context.Context, first, last int64, take func(*series, point) error, matchers ...*labels.Matcher) ([]series, error) {
	q, err := s.db.Querier(first, last)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	var out []series
	var it chunkenc.Iterator
	set := q.Select(ctx, true, &storage.SelectHints{Start: first, End: last}, matchers...)
	for set.Next() {
		found := series{labels: set.At().Labels()}
		it = set.At().Iterator(it)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			if kind != chunkenc.ValFloat {
				continue
			}
			t, v := it.At()
			if t < first || t > last || value.IsStaleNaN(v) {
				continue
			}
			if err := take(&found, point{t, v}); err != nil {
				return nil, err
			}
		}
		if err := it.Err(); err != nil {
			return nil, fmt.Errorf("read series %v: %w", found.labels, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(found.points) > 0 {
			out = append(out, found)
		}
	}
	return out, set.Err()
}

// keep takes every point.
func keep(s *series, p point) error {
	s.points = append(s.points, p)
	return nil
}

// equal is the matcher name="value".
func equal(name, value string) *labels.Matcher {
	return labels.MustNewMatcher(labels.MatchEqual, name, value)
}
