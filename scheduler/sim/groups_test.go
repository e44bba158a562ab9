package sim

import "testing"

func TestPromisesHoldWhenManyTurnTogether(t *testing.T) {
	if *oneSeed != 0 {
		r := CrowdChaos(Options{Seed: *oneSeed, Trace: func(line string) { t.Log(line) }}, chaosTime)
		for _, v := range r.Violations {
			t.Errorf("seed %d: %s", *oneSeed, v)
		}
		return
	}
	n := max(1, howMany()/5)
	var sum Report
	for seed := uint64(1); seed <= uint64(n); seed++ {
		r := CrowdChaos(Options{Seed: seed}, chaosTime)
		sum.Faults, sum.Opened, sum.Effects, sum.Repeats, sum.Runs, sum.Joined = sum.Faults+r.Faults, sum.Opened+r.Opened, sum.Effects+r.Effects, sum.Repeats+r.Repeats, sum.Runs+r.Runs, sum.Joined+r.Joined
		if len(r.Violations) > 0 {
			t.Errorf("seed %d: %s\nreplay: go test ./scheduler/sim -run TestPromisesHoldWhenManyTurnTogether -sim.seed=%d -v", seed, r.Violations[0], seed)
		}
	}
	t.Logf("%d seeds: %d faults, %d incidents of checks, %d of them as part of a group, %d notifications had their effect once (%d repeats were dropped), %d runs were asked for",
		n, sum.Faults, sum.Opened, sum.Joined, sum.Effects, sum.Repeats, sum.Runs)
	if sum.Joined < 10*n {
		t.Errorf("of %d incidents %d were part of a group: the schedule is too tame, or nothing is grouped", sum.Opened, sum.Joined)
	}
}
