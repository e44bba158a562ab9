//go:build linux

package gateway

import (
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// stormSize is how many probers there are: 200, fewer with -short, or as PROBEMESH_STORM says. Ten thousand take some minutes and 4 GB of memory.
func stormSize(t *testing.T) int {
	if s := os.Getenv("PROBEMESH_STORM"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 60 {
			t.Fatalf("PROBEMESH_STORM=%q: want a number of probers, 60 or more", s)
		}
		return n
	}
	if testing.Short() {
		return 60
	}
	return 200
}

// TestProbersThatComeAtOnceDelayNoConfirmation has as many checks as probers, each check on three of them. All probers but those of a few checks lose their sessions
// and come back within 50 ms, as after the death of their server: Hello, digests, the newest result of each check. Meanwhile the few checks fail, one after the other:
// one prober says so, the controller asks the two others on their sessions, and with their answers the incident is written down. The times of these steps are compared
// with those before the storm.
//
// Whatever the times are, each outage must become one incident, no other check may have one, and all probers must be back with all that they should run.
func TestProbersThatComeAtOnceDelayNoConfirmation(t *testing.T) {
	count := stormSize(t)
	failing := min(60, max(6, count/12))
	s := newStorm(t, count, failing)
	checks := make([]string, failing)
	for i := range checks {
		checks[i] = stormCheck(i)
	}
	half := min(15, failing/2)
	calm := s.outages(checks[:half], func() bool { return true })
	s.measure(t, "calm", calm)

	// First their sessions end here, as when a network is cut; then they come, as from a server that has died.
	moving := count - stormNear
	begin := time.Now()
	var leaving sync.WaitGroup
	leaving.Go(func() { s.call("Leave", 0, nil) })
	sessions := func() int { return s.c.Server().Sessions }
	remaining := checks[half:]
	ending := s.outages(remaining[:len(remaining)/2], func() bool { return sessions() > stormNear })
	s.until("their sessions have ended", func() bool { return sessions() == stormNear })
	t.Logf("%d of %d sessions ended at once, within %s", moving, count, time.Since(begin).Round(time.Millisecond))
	leaving.Wait()
	s.measure(t, "while they end", ending)
	s.call("Connect", 0, nil)
	begin = time.Now()
	done := make(chan time.Duration, 1)
	go func() { // joined by the receive below
		var welcomed time.Duration
		s.call("Come", 50*time.Millisecond, &welcomed)
		s.until("all probers are told that they run what they should", func() bool { return s.inSync() == count })
		done <- welcomed
	}()
	rough := s.outages(remaining[len(ending):], func() bool { return len(done) == 0 })
	t.Logf("%d of %d probers came at once; all were welcomed after %s, and in sync after %s", moving, count, (<-done).Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	s.measure(t, "storm", rough)
	if len(rough) == 0 {
		t.Fatal("all were back before the first outage: nothing was measured")
	}
	s.check(slices.Concat(calm, ending, rough))

	limit := 10 * time.Second // of a test among others on a busy machine
	if os.Getenv("PROBEMESH_STORM") != "" {
		limit = time.Second
	}
	worst := slices.MaxFunc(rough, func(a, b outage) int { return int(a.opened - b.opened) })
	if late := worst.opened - median(calm); late > limit {
		t.Errorf("%s was written down %s later than is usual without a storm; at most %s is promised", worst.check, late.Round(time.Millisecond), limit)
	}
}

// outage is how long after the first failure was said the steps of one outage were done.
type outage struct {
	check  string
	asked  time.Duration // a prober has been asked to probe at once
	opened time.Duration // the others have answered, the verdict is DOWN, the incident is in the store, and this server knows
}

func median(all []outage) time.Duration {
	var d []time.Duration
	for _, o := range all {
		d = append(d, o.opened)
	}
	slices.Sort(d)
	return d[len(d)/2]
}

// measure prints the distribution.
func (s *storm) measure(t *testing.T, when string, all []outage) {
	t.Helper()
	for _, step := range []struct {
		name string
		of   func(outage) time.Duration
	}{{"asked", func(o outage) time.Duration { return o.asked }}, {"opened", func(o outage) time.Duration { return o.opened }}} {
		var d []time.Duration
		for _, o := range all {
			d = append(d, step.of(o).Round(100*time.Microsecond))
		}
		slices.Sort(d)
		if len(d) > 0 {
			t.Logf("%s, first failure to %s: least %s, median %s, p90 %s, most %s (%d outages)", when, step.name, d[0], d[len(d)/2], d[len(d)*9/10], d[len(d)-1], len(d))
		}
	}
}

// check holds what is there in the end against what happened.
func (s *storm) check(outages []outage) {
	s.t.Helper()
	want := map[string]bool{}
	for _, o := range outages {
		want[o.check] = true
	}
	open, _, err := s.store.ListOpenIncidents(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, v := range open {
		i := v.Value.GetIncident()
		if i.GetKind() == meshv1.Incident_CHECK && !want[i.GetCheck()] {
			s.t.Errorf("%s: an incident without an outage: %v", i.GetCheck(), i.GetReason())
		}
		delete(want, i.GetCheck())
	}
	closed, _, err := s.store.ListClosedIncidents(s.t.Context(), "", 100)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(want) > 0 || len(closed) > 0 {
		s.t.Errorf("without an incident: %v; closed ones: %d", want, len(closed))
	}
	if n := s.c.Server().Sessions; n != s.count {
		s.t.Errorf("%d sessions; want %d", n, s.count)
	}
	far := s.farState()
	for _, line := range slices.Concat(s.near.state().Lost, far.Lost[:min(10, len(far.Lost))]) {
		s.t.Log(line)
	}
	if len(far.Lost) > 0 {
		s.t.Logf("%d far probers lost sessions by themselves", len(far.Lost))
	}
}
