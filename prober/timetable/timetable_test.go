package timetable

import (
	"context"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// testClock is a local clock with an offset that a test may step.
type testClock struct {
	mu     sync.Mutex
	offset time.Duration
}

func (c *testClock) Local() time.Time { return time.Now() }
func (c *testClock) Offset() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}
func (c *testClock) step(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// diary records starts by check.
type diary struct {
	mu     sync.Mutex
	starts map[string][]time.Time
	lags   []time.Duration
}

func (d *diary) note(check string, due time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.starts == nil {
		d.starts = map[string][]time.Time{}
	}
	d.starts[check] = append(d.starts[check], time.Now())
	d.lags = append(d.lags, time.Since(due))
}

// run runs a timetable in the bubble until the test function returns.
func run(t *testing.T, clock Clock, inFlight int, probe Probe, during func(*Timetable)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tt := New(clock, inFlight, probe)
		done := make(chan error, 1)
		go func() { done <- tt.Run(ctx, 2*time.Second) }()
		during(tt)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestProbesStartInPhaseForADay(t *testing.T) {
	var d diary
	run(t, &testClock{}, 8, func(_ context.Context, check string, due time.Time) { d.note(check, due) }, func(tt *Timetable) {
		for i := range 20 {
			tt.Set(fmt.Sprint("checks/c", i), time.Minute, time.Duration(i)*3*time.Second)
		}
		time.Sleep(24 * time.Hour)
	})
	for i := range 20 {
		starts := d.starts[fmt.Sprint("checks/c", i)]
		if len(starts) < 1439 || len(starts) > 1441 {
			t.Fatalf("check %d started %d times in a day of 1440 minutes", i, len(starts))
		}
		for _, s := range starts {
			late := time.Duration(s.UnixNano()%int64(time.Minute)) - time.Duration(i)*3*time.Second
			if late < 0 || late > Slot {
				t.Fatalf("check %d started %v off its phase; want 0 to %v", i, late, Slot)
			}
		}
	}
}

// While the offset wanders by less than a slot and every wake-up is late, as on a machine that does other work, a check stays in its slot: no start comes a slot earlier or later than the one before.
func TestAWanderingOffsetAndLateWakeUpsMoveNoCheckToAnotherSlot(t *testing.T) {
	clock := &testClock{}
	var mu sync.Mutex
	starts := map[string][]time.Time{}
	var late atomic.Int64
	run(t, &lateClock{testClock: clock, late: &late}, 512, func(_ context.Context, check string, _ time.Time) {
		mu.Lock()
		defer mu.Unlock()
		starts[check] = append(starts[check], time.Now())
	}, func(tt *Timetable) {
		for i := range 500 {
			tt.Set(fmt.Sprint("checks/c", i), time.Second, time.Duration(i)*1999*time.Microsecond)
		}
		for i := range 100 {
			clock.step([]time.Duration{700 * time.Microsecond, -700 * time.Microsecond}[i%2])
			late.Store(int64(time.Duration(i%7) * time.Millisecond))
			time.Sleep(237 * time.Millisecond)
		}
	})
	for check, all := range starts {
		for i := 1; i < len(all); i++ {
			if off := (all[i].Sub(all[i-1]) - time.Second).Abs(); off > 10*time.Millisecond {
				t.Fatalf("%s: %v off its interval", check, off)
			}
		}
	}
	if len(starts) != 500 {
		t.Errorf("%d checks started; want 500", len(starts))
	}
}

// lateClock takes its time to tell the time, as if the process had been kept from running meanwhile.
type lateClock struct {
	*testClock
	late *atomic.Int64
}

func (c *lateClock) Local() time.Time {
	time.Sleep(time.Duration(c.late.Load()))
	return time.Now()
}

func TestAHangingTargetDelaysNoOther(t *testing.T) {
	var d diary
	hang := func(ctx context.Context, check string, due time.Time) {
		d.note(check, due)
		if check == "checks/hang" {
			<-ctx.Done()
		}
	}
	run(t, &testClock{}, 2, hang, func(tt *Timetable) {
		tt.Set("checks/hang", time.Second, 0)
		tt.Set("checks/good", time.Second, 0)
		time.Sleep(time.Minute + 500*time.Millisecond)
		if s := tt.Stats(); s.Skipped < 58 || s.Running != 1 {
			t.Errorf("stats %+v; want about 59 skipped and 1 running", s)
		}
	})
	if n := len(d.starts["checks/hang"]); n != 1 {
		t.Errorf("the hanging check ran %d times at once", n)
	}
	if n := len(d.starts["checks/good"]); n < 59 {
		t.Errorf("the good check started %d times in a minute; want 60", n)
	}
}

func TestAFullHouseStartsLateAndSkipsNothing(t *testing.T) {
	var d diary
	slow := func(_ context.Context, check string, due time.Time) {
		d.note(check, due)
		time.Sleep(time.Second)
	}
	run(t, &testClock{}, 2, slow, func(tt *Timetable) {
		for i := range 10 { // ten probes of 1 s on two places take 5 s of the interval of 10 s
			tt.Set(fmt.Sprint("checks/c", i), 10*time.Second, 0)
		}
		time.Sleep(101 * time.Second)
		if s := tt.Stats(); s.Skipped != 0 {
			t.Errorf("%d starts were skipped", s.Skipped)
		}
	})
	var worst time.Duration
	for _, l := range d.lags {
		worst = max(worst, l)
	}
	if len(d.lags) < 100 || worst < 4*time.Second || worst > 4*time.Second+10*Slot {
		t.Errorf("%d starts, worst lag %v; want at least 100, and 4s", len(d.lags), worst)
	}
}

func TestAClockStepMakesNeitherBurstNorGap(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour, 17 * time.Second, -29 * time.Second} {
		clock := &testClock{}
		var d diary
		run(t, clock, 512, func(_ context.Context, check string, due time.Time) { d.note(check, due) }, func(tt *Timetable) {
			for i := range 60 {
				tt.Set(fmt.Sprint("checks/c", i), time.Minute, time.Duration(i)*time.Second)
			}
			time.Sleep(10*time.Minute + 500*time.Millisecond)
			clock.step(step)
			time.Sleep(10 * time.Minute)
		})
		perSecond := map[int64]int{}
		for check, starts := range d.starts {
			for i, s := range starts {
				perSecond[s.Unix()]++
				if i > 0 {
					if gap := s.Sub(starts[i-1]); gap < 30*time.Second-Slot || gap > 90*time.Second+Slot {
						t.Fatalf("step %v: %s waited %v between two starts", step, check, gap)
					}
				}
			}
			last := starts[len(starts)-1]
			phase := time.Duration(last.Add(-step).UnixNano() % int64(time.Minute))
			var want int
			fmt.Sscanf(check, "checks/c%d", &want)
			if off := phase - time.Duration(want)*time.Second; off < 0 || off > Slot {
				t.Fatalf("step %v: %s is %v off its new phase", step, check, off)
			}
		}
		for s, n := range perSecond {
			if n > 2 {
				t.Fatalf("step %v: %d starts in second %d; 1 is usual", step, n, s)
			}
		}
	}
}

func TestStoppingGivesProbesAMoment(t *testing.T) {
	var finished, cancelled atomic.Int32
	probe := func(ctx context.Context, check string, _ time.Time) {
		wait := time.Second
		if check == "checks/long" {
			wait = time.Minute
		}
		select {
		case <-time.After(wait):
			finished.Add(1)
		case <-ctx.Done():
			cancelled.Add(1)
		}
	}
	run(t, &testClock{}, 4, probe, func(tt *Timetable) {
		tt.Set("checks/short", time.Hour, 30*time.Minute)
		tt.Set("checks/long", time.Hour, 30*time.Minute)
		time.Sleep(30*time.Minute + 100*time.Millisecond)
	})
	if finished.Load() != 1 || cancelled.Load() != 1 {
		t.Errorf("%d finished, %d cancelled; want 1 and 1", finished.Load(), cancelled.Load())
	}
}

func TestAStandstillIsNotCaughtUp(t *testing.T) {
	table := NewTable()
	start := time.Unix(1_000_000_020, 0)
	for i := range 100 {
		table.Set(fmt.Sprint("checks/c", i), time.Minute, time.Duration(i)*600*time.Millisecond, start, 0)
	}
	run, missed := 0, 0
	for _, s := range table.Pop(nil, start.Add(time.Hour), 0) {
		if s.Missed {
			missed++
		} else {
			run++
		}
	}
	if run > 1 || missed < 99 {
		t.Errorf("%d started and %d missed after an hour's standstill; want all missed", run, missed)
	}
}

// Whatever the offset does, starts of a check stay between half and one and a half intervals apart, and one start follows the other.
func TestGapsStayBoundedWhateverTheOffsetDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		interval := time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Hour)).Draw(t, "interval"))
		phase := time.Duration(rapid.Int64Range(0, int64(interval)-1).Draw(t, "phase"))
		now := time.Unix(0, rapid.Int64Range(0, 1<<61).Draw(t, "now"))
		table := NewTable()
		table.Set("checks/a", interval, phase, now, 0)
		last, _ := table.Next()
		for range 20 {
			offset := time.Duration(rapid.Int64Range(-int64(2*time.Hour), int64(2*time.Hour)).Draw(t, "offset"))
			if got := table.Pop(nil, last, offset); len(got) != 1 {
				t.Fatalf("%d starts when one was due", len(got))
			}
			next, _ := table.Next()
			if gap := next.Sub(last); gap < interval/2 || gap > interval+interval/2 {
				t.Fatalf("gap %v with interval %v", gap, interval)
			}
			last = next
		}
	})
}

func BenchmarkPop(b *testing.B) {
	table := NewTable()
	now := time.Unix(1_000_000_000, 0)
	for i := range 100_000 {
		table.Set(fmt.Sprint("checks/c", i), time.Minute, time.Duration(i)*600*time.Microsecond, now, 0)
	}
	var starts []Start
	b.ReportAllocs()
	for n := 0; n < b.N; {
		now, _ = table.Next()
		starts = table.Pop(starts[:0], now, 0)
		n += len(starts)
	}
}

// A target that swallows packets takes the whole timeout; when that is the interval, the probe before still runs at each start. Its votes must come once an
// interval all the same, or they would go stale between.
func TestAProbeAsLongAsTheIntervalRunsOnceAnInterval(t *testing.T) {
	const interval = 2 * time.Second
	var d diary
	var longest atomic.Int64
	run(t, &testClock{}, 8, func(_ context.Context, check string, due time.Time) {
		d.note(check, due)
		longest.Store(max(longest.Load(), int64(time.Since(due))))
		time.Sleep(interval)
	}, func(tt *Timetable) {
		tt.Set("checks/hole", interval, 0)
		time.Sleep(100 * interval)
		if s := tt.Stats(); s.Skipped > 1 {
			t.Errorf("%d starts were skipped", s.Skipped)
		}
	})
	if n := len(d.starts["checks/hole"]); n < 98 {
		t.Errorf("%d starts in 100 intervals, want one an interval", n)
	}
	if l := time.Duration(longest.Load()); l > interval {
		t.Errorf("a start was %s late", l)
	}
}

// A probe needs a stack that has grown, so that probes of different checks take turns on goroutines; what a moment with many probes needs besides is let go of.
func TestProbesTakeTurnsOnFewGoroutines(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	probe := func(context.Context, string, time.Time) {
		id, _, _ := strings.Cut(string(debug.Stack()), "[")
		mu.Lock()
		seen[id]++
		mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	run(t, &testClock{}, 100, probe, func(tt *Timetable) {
		for i := range 10 {
			tt.Set(fmt.Sprint("checks/", i), time.Second, time.Duration(i)*100*time.Millisecond)
		}
		time.Sleep(time.Minute)
		mu.Lock()
		if len(seen) != 1 {
			t.Errorf("probes one after the other ran on %d goroutines, want 1", len(seen))
		}
		clear(seen)
		mu.Unlock()
		for i := range 100 {
			tt.Set(fmt.Sprint("checks/", i), time.Minute, 30*time.Second)
		}
		time.Sleep(3 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(seen) < 100 {
			t.Errorf("100 probes at once ran on %d goroutines", len(seen))
		}
		tt.mu.Lock()
		defer tt.mu.Unlock()
		if tt.idle != idleMax || tt.running != 0 {
			t.Errorf("%d goroutines are kept while %d probes run, want %d and 0", tt.idle, tt.running, idleMax)
		}
	})
}
