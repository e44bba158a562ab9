package link

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/prober/clock"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

var quiet = slog.New(slog.DiscardHandler)

func result(n int) *meshv1.Result {
	return &meshv1.Result{Check: fmt.Sprint("checks/c", n), Sequence: uint64(n), Outcome: meshv1.Result_OK}
}

func TestTheOutboxSendsByPriority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox()
		o.open([]*meshv1.Result{result(5)}, frameBytes)
		o.push(result(4), Routine)
		o.push(result(3), Changed)
		o.push(result(2), Run)
		var got []uint64
		for {
			m, wait := o.next(time.Now())
			if m == nil && wait == 0 {
				break
			}
			if m == nil {
				if wait > time.Second {
					t.Fatalf("an unchanged result waits %v", wait)
				}
				time.Sleep(wait)
				continue
			}
			got = append(got, m.GetResults().GetResults()[0].GetSequence())
		}
		if !slices.Equal(got, []uint64{2, 3, 5, 4}) {
			t.Errorf("sent in the order %v; want run, changed, state, routine: 2 3 5 4", got)
		}
	})
}

func TestMessagesStayBelow32KiB(t *testing.T) {
	o := newOutbox()
	for i := range 4000 {
		r := result(i + 1)
		r.Error = strings.Repeat("e", i%1500)
		o.push(r, Changed)
	}
	sent := 0
	for {
		m, _ := o.next(time.Now())
		if m == nil {
			break
		}
		if n := proto.Size(m); n > frameBytes {
			t.Fatalf("a message of %d bytes", n)
		}
		if n := len(m.GetResults().GetResults()); n > batchResults {
			t.Fatalf("a batch of %d results", n)
		} else {
			sent += n
		}
	}
	if sent != 4000 {
		t.Errorf("%d results sent; want 4000", sent)
	}
}

func TestALargeInventoryGoesInPieces(t *testing.T) {
	o := newOutbox()
	var items []*meshv1.InventoryItem
	for i := range 5000 {
		items = append(items, &meshv1.InventoryItem{Check: fmt.Sprint("checks/check-", i), Fingerprint: uint64(i)})
	}
	o.list(items, 9)
	seen, last := 0, false
	for !last {
		m, _ := o.next(time.Now())
		if proto.Size(m) > frameBytes {
			t.Fatalf("a message of %d bytes", proto.Size(m))
		}
		seen += len(m.GetInventory().GetItems())
		last = m.GetInventory().GetLast()
	}
	o.list(nil, 0)
	if m, _ := o.next(time.Now()); seen != 5000 || !m.GetInventory().GetLast() {
		t.Errorf("%d items; an empty inventory is %v", seen, m)
	}
}

func TestAFullQueueRefuses(t *testing.T) {
	o := newOutbox()
	for i := range queueMax[Run] {
		if !o.push(result(i), Run) {
			t.Fatalf("full after %d", i)
		}
	}
	if o.push(result(1), Run) {
		t.Error("the queue has no bound")
	}
}

// filled is a spool with n results.
func filled(t *testing.T, n int) *spool.Spool {
	t.Helper()
	s, err := spool.Open(spool.Config{Dir: t.TempDir(), Boot: strings.Repeat("b", 32)}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		r := result(i + 1)
		r.StartTime = timestamppb.New(time.Unix(int64(i), 0))
		s.Append(r, i == 0, nil)
	}
	return s
}

// drain asks b for batches for d, and acknowledges when ack is set.
func drain(b *backlog, d time.Duration, ack bool) (sequences []uint64) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		results, wait := b.next(time.Now(), frameBytes)
		for _, r := range results {
			sequences = append(sequences, r.GetSequence())
		}
		if n := len(results); n > 0 && ack {
			b.acked(results[n-1].GetSequence())
		} else if n == 0 {
			time.Sleep(max(wait, 10*time.Millisecond))
		}
	}
	return sequences
}

func TestTheBacklogKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 30_000)
		defer s.Close()
		b := newBacklog(s, clock.New(), 30_000, 5000)
		defer b.close()
		got := drain(b, 10*time.Second, true)
		if n := len(got); n > 10*backlogRate+backlogBurst || n < 9*backlogRate {
			t.Errorf("%d results in ten seconds; want at most 2000 a second", n)
		}
		got = append(got, drain(b, 10*time.Second, true)...)
		if len(got) != 30_000 || !slices.IsSorted(got) {
			t.Errorf("%d results, sorted %v", len(got), slices.IsSorted(got))
		}
	})
}

func TestTheBacklogStopsAtTheWindowAndResendGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 3000)
		defer s.Close()
		b := newBacklog(s, clock.New(), 3000, 1000)
		defer b.close()
		if got := drain(b, time.Minute, false); len(got) != 1000 {
			t.Fatalf("%d results on their way; the window is 1000", len(got))
		}
		b.resend(500, 3000)
		got := drain(b, time.Minute, true)
		if len(got) != 2501 || got[0] != 500 {
			t.Fatalf("%d results from %d on; want 2501 from 500 on", len(got), got[0])
		}
		s.Append(result(3001), false, nil)
		b.extend(3001)
		if got := drain(b, time.Second, true); !slices.Equal(got, []uint64{3001}) {
			t.Errorf("after the extension: %v", got)
		}
	})
}

func TestAResultFromBeforeTheFirstSessionIsCorrected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := filled(t, 2)
		defer s.Close()
		c := clock.New()
		now := c.Local()
		c.Observe(clock.Sample{Sent: now, Received: now.Add(time.Hour), Answered: now.Add(time.Hour), Returned: now})
		b := newBacklog(s, c, 2, 100)
		defer b.close()
		got, _ := b.next(time.Now(), frameBytes)
		if got[0].GetStartTime().GetSeconds() != 3600 || got[1].GetStartTime().GetSeconds() != 1 {
			t.Errorf("start times %v and %v; want the first an hour later, the second as it is", got[0].GetStartTime(), got[1].GetStartTime())
		}
	})
}

func TestAddressesAreTriedInTurnAndRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "servers.json")
	b := openBook(Config{Book: path, Servers: []string{"a:1", "b:1"}}, quiet)
	b.remember("servers/a", "a:1", []string{"b:1", "c:1", ""}, nil)
	b = openBook(Config{Book: path, Servers: []string{"a:1", "b:1"}}, quiet)
	b.prefer([]string{"x:1"})
	var got []string
	for range 5 {
		address, _ := b.next()
		got = append(got, address)
	}
	if !slices.Equal(got, []string{"x:1", "a:1", "b:1", "c:1", "a:1"}) {
		t.Errorf("tried %v", got)
	}
	os.WriteFile(path, []byte("{garbage"), 0o600)
	if address, _ := openBook(Config{Book: path, Servers: []string{"a:1"}}, quiet).next(); address != "a:1" {
		t.Errorf("with a file of garbage: %s", address)
	}
}

func TestBackoffGrowsToTenSeconds(t *testing.T) {
	for failures, limit := range map[int]time.Duration{0: 0, 1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: 10 * time.Second, 1000: 10 * time.Second} {
		if got := backoff(failures, 1); got != limit {
			t.Errorf("after %d failures up to %v; want %v", failures, got, limit)
		}
		if got := backoff(failures, 0); got != 0 {
			t.Errorf("after %d failures at least %v; want 0: the jitter is full", failures, got)
		}
	}
}

func BenchmarkEncodeBatch(b *testing.B) {
	var results []*meshv1.Result
	for i := range 200 {
		r := result(i + 1)
		r.StartTime = timestamppb.Now()
		r.RemoteAddress = "192.0.2.7:443"
		r.Http = &meshv1.HttpResult{Status: 200, Version: "1.1"}
		results = append(results, r)
	}
	b.ReportAllocs()
	for b.Loop() {
		o := newOutbox()
		o.open(results, frameBytes)
		for m, _ := o.next(time.Now()); m != nil; m, _ = o.next(time.Now()) {
			if _, err := proto.Marshal(m); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(results))/b.Elapsed().Seconds(), "results/s")
}
