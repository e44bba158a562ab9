package history

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// faulty comes between a history and its store and fails or stalls as it is told.
type faulty struct {
	storage.Appendable
	commit *atomic.Pointer[error] // what commits fail with, if not nil
	add    *atomic.Pointer[error] // what appends of samples fail with, if not nil
	stall  chan struct{}          // commits wait until it is closed, if not nil
}

func (f *faulty) Appender(ctx context.Context) storage.Appender {
	return &faultyAppender{Appender: f.Appendable.Appender(ctx), f: f}
}

type faultyAppender struct {
	storage.Appender
	f *faulty
}

func (a *faultyAppender) Append(ref storage.SeriesRef, l labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	if err := a.f.add.Load(); err != nil {
		return 0, *err
	}
	return a.Appender.Append(ref, l, t, v)
}

func (a *faultyAppender) Commit() error {
	if a.f.stall != nil {
		<-a.f.stall
	}
	if err := a.f.commit.Load(); err != nil {
		return errors.Join(*err, a.Appender.Rollback())
	}
	return a.Appender.Commit()
}

func openFaulty(t *testing.T, stall chan struct{}) (h *History, commit, add *atomic.Pointer[error], log *lines) {
	t.Helper()
	commit, add, log = &atomic.Pointer[error]{}, &atomic.Pointer[error]{}, &lines{}
	h = openTest(t, Config{}, Dependencies{Log: log.logger(), Wrap: func(a storage.Appendable) storage.Appendable {
		return &faulty{Appendable: a, commit: commit, add: add, stall: stall}
	}})
	return h, commit, add, log
}

// run runs h until the test ends.
func run(t *testing.T, h *History) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestAFullDiskIsSaidSoAndTheRetryFindsTheStoreOpenAgain(t *testing.T) {
	h, commit, _, log := openFaulty(t, nil)
	run(t, h)
	at := now().Add(-time.Minute)
	entries := []Entry{httpOK("p", at, time.Second)}
	full := fmt.Errorf("write to WAL: %w", syscall.ENOSPC)
	commit.Store(&full)
	err := h.Append(t.Context(), entries)
	if !fault.IsReason(err, meshv1.ErrorReason_HISTORY_UNAVAILABLE) || !strings.Contains(err.Error(), "the disk is full") || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Append on a full disk: %v", err)
	}
	commit.Store(nil)
	retry := time.NewTicker(10 * time.Millisecond)
	defer retry.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for err != nil && ctx.Err() == nil {
		<-retry.C
		err = h.Append(ctx, entries)
	}
	if err != nil {
		t.Fatalf("the history did not come back: %v\n%s", err, log)
	}
	if got := query(t, h, &meshv1.QueryRangeRequest{Check: "shop"}); len(got["probers/p"]) != 1 {
		t.Errorf("stored %v, want the one result", got)
	}
	if !strings.Contains(log.String(), "the history cannot be written to") || !strings.Contains(log.String(), "the history is open again") {
		t.Errorf("the log does not tell the story:\n%s", log)
	}
}

func TestAFailedAppendWritesNothingAndMayBeRepeated(t *testing.T) {
	h, _, add, _ := openFaulty(t, nil)
	broken := errors.New("input/output error")
	add.Store(&broken)
	entries := []Entry{httpOK("p", now(), time.Second)}
	if err := h.Append(t.Context(), entries); !fault.IsReason(err, meshv1.ErrorReason_HISTORY_UNAVAILABLE) {
		t.Fatalf("Append: %v", err)
	}
	if err := h.RecordVerdicts(t.Context(), []VerdictSample{{Check: "shop", Verdict: meshv1.CheckStatus_UP, Time: now()}}); !fault.IsReason(err, meshv1.ErrorReason_HISTORY_UNAVAILABLE) {
		t.Fatalf("RecordVerdicts: %v", err)
	}
	add.Store(nil)
	if got := query(t, h, &meshv1.QueryRangeRequest{Check: "shop"}); len(got) != 0 {
		t.Errorf("a failed append left %v", got)
	}
	if err := h.Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	if got := query(t, h, &meshv1.QueryRangeRequest{Check: "shop"}); len(got["probers/p"]) != 1 {
		t.Errorf("stored %v, want the one result", got)
	}
}

func TestQuestionsAreAnsweredWhileAnAppendHangs(t *testing.T) {
	stall := make(chan struct{})
	h, _, _, _ := openFaulty(t, stall)
	hung := make(chan error, 1)
	go func() { hung <- h.Append(context.Background(), []Entry{httpOK("p", now(), time.Second)}) }()
	if got := query(t, h, &meshv1.QueryRangeRequest{Check: "shop"}); len(got) != 0 {
		t.Errorf("got %v before the commit", got)
	}
	close(stall)
	if err := <-hung; err != nil {
		t.Fatal(err)
	}
	if got := query(t, h, &meshv1.QueryRangeRequest{Check: "shop"}); len(got["probers/p"]) != 1 {
		t.Errorf("got %v after the commit", got)
	}
}

func TestConfigurationsThatAreNotValidListTheirFaults(t *testing.T) {
	err := Config{Retention: time.Minute, MaxBytes: 1, VerdictPeriod: time.Hour, MaxQueries: -1, QueryTimeout: 1, MaxSamples: 1, MaxGroups: 1, OutOfOrder: day}.Validate()
	if err == nil {
		t.Fatal("it was found valid")
	}
	if n := strings.Count(err.Error(), "history: "); n != 9 {
		t.Errorf("%d faults, want 9:\n%v", n, err)
	}
	if err := (Config{Dir: "x"}).Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
}
