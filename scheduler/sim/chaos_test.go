package sim

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"
)

var (
	seeds   = flag.Int("sim.seeds", 300, "how many seeds the simulation of mixed faults runs")
	oneSeed = flag.Uint64("sim.seed", 0, "run this seed only, with -v print its trace")
)

const chaosTime = 10 * time.Minute

// Goal: whatever dies, the promises hold. Method: each seed is a mesh of its own and ten minutes of faults and six of calm; the package doc says what is checked.
func TestPromisesHoldUnderMixedFaults(t *testing.T) {
	if *oneSeed != 0 {
		r := Chaos(Options{Seed: *oneSeed, Trace: func(line string) { t.Log(line) }}, chaosTime)
		for _, v := range r.Violations {
			t.Errorf("seed %d: %s", *oneSeed, v)
		}
		return
	}
	var sum Report
	bad := 0
	n := howMany()
	for seed := uint64(1); seed <= uint64(n); seed++ {
		r := Chaos(Options{Seed: seed}, chaosTime)
		sum.Faults, sum.Opened, sum.Effects, sum.Repeats, sum.Runs = sum.Faults+r.Faults, sum.Opened+r.Opened, sum.Effects+r.Effects, sum.Repeats+r.Repeats, sum.Runs+r.Runs
		if len(r.Violations) > 0 {
			bad++
			t.Errorf("seed %d: %s\nreplay: go test ./scheduler/sim -run TestPromisesHoldUnderMixedFaults -sim.seed=%d -v", seed, r.Violations[0], seed)
			if bad == 10 {
				t.Fatal("ten seeds failed; giving up")
			}
		}
	}
	t.Logf("%d seeds: %d faults, %d incidents of checks, %d notifications had their effect once (%d repeats were dropped), %d runs were asked for",
		n, sum.Faults, sum.Opened, sum.Effects, sum.Repeats, sum.Runs)
	if sum.Opened < n || sum.Effects < sum.Opened {
		t.Errorf("the schedule is too tame to prove anything: %d incidents", sum.Opened)
	}
}

func TestSameSeedGivesTheSameTrace(t *testing.T) {
	for _, seed := range []uint64{3, 11, 42} {
		if a, b := traceOf(seed), traceOf(seed); a != b {
			x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
			for i := range x {
				if i >= len(y) || x[i] != y[i] {
					t.Fatalf("seed %d: line %d differs:\n%s\n%s", seed, i, x[i], y[min(i, len(y)-1)])
				}
			}
		}
	}
}

func traceOf(seed uint64) string {
	var b strings.Builder
	Chaos(Options{Seed: seed, Trace: func(line string) { fmt.Fprintln(&b, line) }}, 5*time.Minute)
	return b.String()
}

// howMany seeds are played: with -short, and no number given, a fifth.
func howMany() int {
	if n := *seeds; !testing.Short() || n != 300 {
		return n
	}
	return 60
}
