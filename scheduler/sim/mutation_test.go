package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/scheduler"
)

// A guard is worth what happens without it: each of these switches one off and expects an invariant to notice, within so many seeds.
func mutate(t *testing.T, o Options, want string, within uint64) {
	t.Helper()
	for seed := uint64(1); seed <= within; seed++ {
		o.Seed = seed
		for _, v := range Chaos(o, chaosTime).Violations {
			if strings.Contains(v, want) {
				t.Logf("seed %d: %s", seed, v)
				return
			}
		}
	}
	t.Errorf("no violation %q in %d seeds: the invariant is blind", want, within)
}

func TestMutationWithoutFenceIsNoticed(t *testing.T) {
	mutate(t, Options{NoFence: true}, "an effect of term", 100)
}

func TestMutationVotesNeverStaleIsNoticed(t *testing.T) {
	mutate(t, Options{Mind: scheduler.Config{FreshSlack: 1000 * time.Hour}}, "rests on fresh failures from", 100)
}

func TestMutationCountingProbersInsteadOfDatacentersIsNoticed(t *testing.T) {
	mutate(t, Options{ProbersAsDomains: true}, "rests on fresh failures from", 100)
}

func TestMutationKeyOfItsOwnForEachAttemptIsNoticed(t *testing.T) {
	mutate(t, Options{KeyPerAttempt: true}, "had its effect twice", 100)
}
