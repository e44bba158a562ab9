package sim

import (
	"fmt"
	"sort"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// detect measures how long fault-free outages take to be an incident.
func detect(t testing.TB, m mode, interval, timeout time.Duration, probers, quorum, rounds int) []time.Duration {
	var all []time.Duration
	for i := range rounds {
		w := NewWorld(Options{Seed: uint64(i + 1)})
		w.store.putReceiver(&meshv1.Receiver{Name: "receivers/ops"})
		for p := range probers {
			w.AddProber(fmt.Sprintf("dc%d-1", p), fmt.Sprintf("dc%d", p), "1.0")
		}
		c := newCheck(fmt.Sprint("c", i), interval, timeout, probers, quorum)
		w.putCheck(c)
		w.Run(2*interval + time.Duration(w.rng.Int64N(int64(interval))))
		w.setTarget(c.GetUri(), m)
		w.Run(3 * interval)
		if len(w.violations) > 0 || len(w.truth[c.GetName()].detected) != 1 {
			t.Fatalf("round %d: %v, detected %v", i, w.violations, w.truth[c.GetName()].detected)
		}
		all = append(all, w.truth[c.GetName()].detected...)
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	return all
}

func summary(d []time.Duration) (mean, p99, worst time.Duration) {
	for _, x := range d {
		mean += x
	}
	return mean / time.Duration(len(d)), d[len(d)*99/100], d[len(d)-1]
}

// Goal: the promise "fast". Method: 200 meshes without faults; the target dies at a random moment.
func TestFaultFreeDetection(t *testing.T) {
	for _, c := range []struct {
		mode             mode
		interval, d      time.Duration
		probers, quorum  int
		meanMost, atMost time.Duration
	}{
		{modeDown, time.Minute, 60 * time.Millisecond, 5, 3, 7 * time.Second, 0},
		{modeDown, time.Minute, 60 * time.Millisecond, 3, 2, 12 * time.Second, 0},
		{modeDown, 30 * time.Second, 60 * time.Millisecond, 1, 1, 17 * time.Second, 0},
		{modeBlackhole, time.Minute, 10 * time.Second, 5, 3, 20 * time.Second, 0},
	} {
		rounds := 200
		if testing.Short() {
			rounds = 50
		}
		mean, p99, worst := summary(detect(t, c.mode, c.interval, 10*time.Second, c.probers, c.quorum, rounds))
		bound := c.interval/time.Duration(c.probers) + 2*c.d + time.Second
		t.Logf("%-9s interval %s, %d probers, quorum %d: mean %s, p99 %s, worst %s; bound interval/n + 2d + 1s = %s", c.mode, c.interval, c.probers, c.quorum,
			mean.Round(time.Millisecond), p99.Round(time.Millisecond), worst.Round(time.Millisecond), bound)
		if worst > bound {
			t.Errorf("%s: the worst of %d took %s, the bound is %s", c.mode, rounds, worst, bound)
		}
		if mean > c.meanMost {
			t.Errorf("%s: mean %s, want at most %s", c.mode, mean, c.meanMost)
		}
	}
}
