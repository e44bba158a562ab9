//go:build linux

package e2e

import (
	"fmt"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A server is killed and stays away, while its probers go on. When it is back on the same data, the history has a sample of every interval of every
// prober, and nobody was paged: neither of the check nor of the mesh. One of the probers is killed during the absence and started again at once; it may
// lack what it did not probe meanwhile, and no more than the last moments before its kill (package spool: 100 ms of results), which is one sample here.
func TestHistoryHasNoGapAfterTheServerWasGone(t *testing.T) {
	if testing.Short() {
		t.Skip("the server is away for half a minute; run without -short")
	}
	t.Parallel()
	absence := 30 * time.Second
	if d, err := time.ParseDuration(os.Getenv("PROBEMESH_E2E_ABSENCE")); err == nil && d > 0 {
		absence = d
	}
	m := startMesh(t, "server", nil)
	startProber(t, m, "a-1", "a")
	victim, victimDir := startProber(t, m, "b-1", "b")
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops", "mesh_incidents: true") + webCheck("shop", target.url(), pace, 2, 2, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)
	begun := time.Now()
	until(t, "assignments are on the prober's disk", func() (bool, string) {
		_, err := os.Stat(victimDir + "/assignments")
		return err == nil, fmt.Sprint(err)
	})

	m.proc.kill()
	gone := time.Now()
	time.Sleep(absence / 2)
	killed := time.Now()
	victim.kill()
	launchProber(t, m.grpc, "b-1", "b", victimDir)
	time.Sleep(time.Until(gone.Add(absence)))
	m.start()
	back := time.Now()
	m.awaitProber("a-1")
	m.awaitProber("b-1")
	attached := time.Now()
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)
	ended := time.Now()

	for _, prober := range []string{"a-1", "b-1"} {
		var gaps []gap
		var samples int
		until(t, "the history of "+prober+" is whole", func() (bool, string) {
			samples, gaps = m.gaps("shop", prober, begun, ended, pace)
			if prober == "b-1" {
				gaps = without(gaps, killed, pace)
			}
			return samples > 0 && len(gaps) == 0, fmt.Sprintf("%d samples, gaps %v", samples, gaps)
		})
		_, all := m.gaps("shop", prober, begun, ended, pace)
		t.Logf("%s: %d samples over %s, gaps %v", prober, samples, ended.Sub(begun).Round(time.Second), all)
	}
	if got := hook.all(); len(got) != 0 {
		t.Errorf("somebody was paged: %s", story(got))
	}
	if list := m.allIncidents(); len(list) != 0 {
		t.Errorf("there are incidents: %v", list)
	}
	t.Logf("the server was away for %s; probers were attached again %s after its start", back.Sub(gone).Round(time.Second), attached.Sub(back).Round(100*time.Millisecond))
}

// gap is a stretch between two samples that is longer than the interval.
type gap struct {
	from    time.Time
	missing int
}

func (g gap) String() string {
	return fmt.Sprintf("%d missing after %s", g.missing, g.from.Format("15:04:05.000"))
}

// gaps looks for intervals without a sample of probe_success between two times. Probes begin at a fixed phase of the interval, so that two that are not
// neighbours are at least two intervals apart, less what a busy machine starts them late.
func (m *mesh) gaps(check, prober string, from, to time.Time, interval time.Duration) (samples int, found []gap) {
	m.t.Helper()
	resp, err := m.history.QueryRange(m.ctx(), &meshv1.QueryRangeRequest{
		Check: "checks/" + check, Prober: "probers/" + prober, StartTime: timestamppb.New(from), EndTime: timestamppb.New(to),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	last := from
	see := func(at time.Time) {
		if n := int(at.Sub(last)/(interval/2)+1)/2 - 1; n > 0 {
			found = append(found, gap{last, n})
		}
		last = at
	}
	for _, s := range resp.GetSeries() {
		for _, p := range s.GetPoints() {
			samples++
			see(p.GetTime().AsTime())
		}
	}
	see(to.Add(-interval))
	return samples, found
}

// without leaves out a gap of one sample and the time of a restart after a kill.
func without(gaps []gap, killed time.Time, interval time.Duration) []gap {
	var rest []gap
	for _, g := range gaps {
		if d := killed.Sub(g.from); d > -interval && d < 2*interval+200*time.Millisecond && g.missing <= 2 {
			continue
		}
		rest = append(rest, g)
	}
	return rest
}
