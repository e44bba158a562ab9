package referee

import "testing"

func TestQuick(t *testing.T) {
	lines, err := Play(t.Context(), Options{Seed: 1, Rounds: 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		t.Logf("%-22s p50 %8s p99 %8s false/M %10.1f +-%.1f missed %.3f probes/day %.0f", l.Rule.Name, l.P50.Round(100e6), l.P99.Round(100e6), l.FalsePerMillion, l.Error, l.MissedShare, l.ProbesPerDay)
		for i, c := range Classes() {
			s := l.ByClass[i]
			t.Logf("      %-12s false %4d in %3d rounds of %d, partial %d missed %d", c.Name, s.False, s.FalseRounds, s.Rounds, s.Partial, s.Missed)
		}
	}
}
