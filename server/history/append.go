package history

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// futureLimit is how far ahead of this server's clock a result may begin. One from the far future would make all others too old for the store.
const futureLimit = 10 * time.Minute

// Entry is one result with what it does not say itself. The history keeps nothing of it after Append has returned.
type Entry struct {
	// Result is the result.
	Result *meshv1.Result
	// Prober is who ran it, `probers/fra-1` or `fra-1`.
	Prober string
	// Datacenter is where.
	Datacenter string
	// URI is what was probed, the check's URI at that revision.
	URI string
}

// done is a result that is in the store once the commit has succeeded.
type done struct {
	group             *group
	start             int64
	errored, degraded bool
}

// tally is the work space of one append.
type tally struct {
	samples []sample
	done    []done
	fates   [fateCount]int64
	written int64
}

var tallies = sync.Pool{New: func() any { return new(tally) }}

// Append writes results and returns when the store's log has them. Results of any age and order, and repeats, are welcome; those that cannot be kept (too old, in
// the future, malformed) are counted, logged and skipped, so that one of them does not hold up the others. Batches of a hundred or more are the cheapest. An error (reason
// HISTORY_UNAVAILABLE) means that the caller must append all of the entries again later. A disk that hangs makes Append hang; ctx is looked at only before
// it begins.
func (h *History) Append(ctx context.Context, entries []Entry) error {
	if len(entries) == 0 {
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
	began := time.Now()
	t := tallies.Get().(*tally)
	defer func() {
		clear(t.done)
		*t = tally{samples: t.samples[:0], done: t.done[:0]}
		tallies.Put(t)
	}()
	app := s.appendable.Appender(ctx)
	for i := range entries {
		f, err := h.add(app, &entries[i], began, t)
		if err != nil {
			return h.rollback(app, err)
		}
		t.fates[f]++
	}
	if err := app.Commit(); err != nil {
		h.instruments.failures.Add(ctx, 1)
		h.fail(err)
		return unavailable(err)
	}
	for _, d := range t.done {
		d.group.wrote(d.start, d.errored, d.degraded)
	}
	h.account(ctx, t, began)
	return nil
}

// rollback gives an append up because of err.
func (h *History) rollback(app storage.Appender, err error) error {
	h.instruments.failures.Add(context.Background(), 1)
	if e := app.Rollback(); e != nil {
		// New series may be in memory and not in the log: only opening the store again makes the two agree.
		h.fail(errors.Join(err, e))
	}
	return unavailable(err)
}

// account counts what an append has done, and complains of what it left out.
func (h *History) account(ctx context.Context, t *tally, began time.Time) {
	ctx = context.WithoutCancel(ctx)
	for f, n := range t.fates {
		if n > 0 {
			h.instruments.results.Add(ctx, n, h.instruments.fates[f])
			h.complaints[f].add(h.log, fate(f), n, began)
		}
	}
	h.instruments.samples.Add(ctx, t.written)
	h.instruments.appendTime.Record(ctx, time.Since(began).Seconds())
}

// add puts one result into the appender. An error is one of the store, not of the result.
func (h *History) add(app storage.Appender, e *Entry, now time.Time, t *tally) (fate, error) {
	r := e.Result
	if !r.GetStartTime().IsValid() || e.Prober == "" || r.Check == "" {
		return malformed, nil
	}
	switch r.Outcome {
	case meshv1.Result_OK, meshv1.Result_FAIL, meshv1.Result_ERROR:
	case meshv1.Result_SLOW:
		return slow, nil
	default:
		return malformed, nil
	}
	start := r.StartTime.Seconds*1000 + int64(r.StartTime.Nanos)/1_000_000
	if start > now.Add(futureLimit).UnixMilli() {
		return inFuture, nil
	}
	g := h.groups.of(spec.ID(r.Check), spec.ID(e.Prober), r.CheckRevision, e.Datacenter, e.URI)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.has(start) {
		return repeated, nil
	}
	t.samples = samplesOf(r, e.URI, t.samples[:0])
	if errored := r.Outcome == meshv1.Result_ERROR; !errored && g.errored && start > g.newest {
		t.samples = append(t.samples, sample{slot: slotError})
	}
	degraded := r.Degraded != "" || r.Outcome == meshv1.Result_ERROR && g.degraded // an ERROR says nothing of the target
	if !degraded && g.degraded && start > g.newest {
		t.samples = append(t.samples, sample{slot: slotDegraded})
	}
	for i, v := range t.samples {
		f, err := g.append(app, v, start)
		if err != nil {
			return f, err
		}
		if f != written && i == 0 {
			return f, nil
		}
		if f == written {
			t.written++
		}
	}
	t.done = append(t.done, done{g, start, r.Outcome == meshv1.Result_ERROR, degraded})
	return written, nil
}

// append puts one sample into the appender. The caller holds g.mu.
func (g *group) append(app storage.Appender, v sample, at int64) (fate, error) {
	ref := &g.refs[v.slot]
	switch v.slot {
	case slotTLSVersion:
		g.relabel(app, ref, &g.version, v.text, at)
	case slotTLSCipher:
		g.relabel(app, ref, &g.cipher, v.text, at)
	}
	got, err := storage.SeriesRef(0), error(nil)
	if *ref != 0 {
		// Without labels this fails when the store has dropped the series since; then they are needed.
		got, err = app.Append(*ref, labels.EmptyLabels(), at, v.value)
	}
	if *ref == 0 || errors.Is(err, tsdb.ErrInvalidSample) {
		got, err = app.Append(0, g.labelsOf(v.slot, v.text), at, v.value)
	}
	switch {
	case err == nil:
		*ref = got
		return written, nil
	case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrOutOfOrderSample):
		return tooOld, nil
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		return repeated, nil
	default:
		return malformed, err
	}
}

// relabel ends the series of the old label value, with the store's marker, when a slot's label value has changed. The caller holds g.mu.
func (g *group) relabel(app storage.Appender, ref *storage.SeriesRef, old *string, text string, at int64) {
	if *old == text {
		return
	}
	if *ref != 0 && at > g.newest {
		// Best effort: without the marker the old value is shown for five more minutes.
		_, _ = app.Append(*ref, labels.EmptyLabels(), at, math.Float64frombits(value.StaleNaN))
	}
	*ref, *old = 0, text
}

// complaint keeps a reason for leaving results out from filling the log.
type complaint struct {
	mu     sync.Mutex
	last   time.Time
	silent int64
}

// add notes n results with fate f, and logs once a minute. Repeats and results that are slow are part of the daily work.
func (c *complaint) add(log *slog.Logger, f fate, n int64, now time.Time) {
	var message string
	switch f {
	case tooOld:
		message = "results are older than the out-of-order window and were left out of the history"
	case inFuture:
		message = "results begin in the future and were left out of the history; compare the clocks of this server and its probers"
	case malformed:
		message = "results without start, check, prober or outcome were left out of the history"
	default:
		return
	}
	c.mu.Lock()
	n += c.silent
	speak := c.last.IsZero() || now.Sub(c.last) >= complainEvery
	if speak {
		c.last, c.silent = now, 0
	} else {
		c.silent = n
	}
	c.mu.Unlock()
	if speak {
		log.Warn(message, "count", n)
	}
}
