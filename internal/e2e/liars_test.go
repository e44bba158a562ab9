//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// One prober of nine lies, each in its own way; one is paused most of the time, which it knows and says ("ERROR"), so that it may keep its voice. Nobody is told of an outage that is none; the liar is set aside, and operators are told who and why; an outage that is real
// is announced meanwhile, and its end.
func TestLiarIsSetAsideAndPagesNobody(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nine probers for each liar; run without -short")
	}
	t.Parallel()
	program := buildBroken(t)
	for _, fault := range []string{"fail", "ok", "random", "slow", "stalled"} {
		if !everything() && fault != "random" {
			continue
		}
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			lie(t, program, fault)
		})
	}
}

const liar = "iad-1"

func lie(t *testing.T, program, fault string) {
	expect := ""
	if fault == "slow" {
		expect = `, http: {expect: [response.status == 200, 'response.duration < duration("400ms")']}` // a slow prober sees what takes too long
	}
	x := newScene(t, expect, nil)
	m, procs, dirs, users, operators, sites := x.mesh, x.procs, x.dirs, x.users, x.operators, x.sites
	switch fault {
	case "stalled":
		stop := throttle(procs[liar])
		defer stop()
	default:
		build := m.prober(liar).GetBuild()
		procs[liar].interrupt()
		procs[liar] = launchBroken(t, program, m.grpc, dirs[liar], build, fault)
		m.awaitProber(liar)
	}
	// Outages, one after the other: who says OK to all lies only then.
	var took []time.Duration
	outages := 0
	outage := func(together int) {
		n := len(users.distinct())
		began := time.Now()
		down := sites[:together]
		for _, w := range down {
			w.stop()
		}
		took = append(took, users.await(t, n+1, meshv1.Notification_OPENED).at.Sub(began))
		inTime(t, took[len(took)-1])
		until(t, "all of them are announced", func() (bool, string) { return len(users.distinct()) == n+together, story(users.distinct()) })
		if together > 1 {
			time.Sleep(8 * time.Second) // for its votes to be compared
		}
		for _, w := range down {
			w.start()
		}
		until(t, "the end of all of them is announced", func() (bool, string) { return len(users.distinct()) == n+2*together, story(users.distinct()) })
		outages += together
	}
	together := 1
	if fault == "ok" {
		together = 5
	}
	outage(together)
	if fault == "stalled" {
		outage(together)
		held(t, users, 2*outages)
		return
	}
	until(t, "operators are told of "+liar, func() (bool, string) {
		if fault == "ok" && len(operators.distinct()) == 0 {
			outage(together)
		}
		return len(operators.distinct()) > 0, fmt.Sprintf("after %d outages: %s", outages, story(users.distinct()))
	})
	told := operators.await(t, 1, meshv1.Notification_OPENED)
	if s := told.note.GetSummary(); !strings.Contains(s, liar) || !strings.Contains(s, "set aside") {
		t.Errorf("operators were told %q", s)
	}
	if p := m.prober(liar); p.GetState() != meshv1.Prober_QUARANTINED {
		t.Errorf("%s is %s", liar, p.GetState())
	}
	outage(1)
	held(t, users, 2*outages)
	t.Logf("set aside after %d outages; announced after %v; operators: %s", outages, took, told.note.GetSummary())
}

// held holds that users were told as often as they should be.
func held(t *testing.T, users *receiver, want int) {
	t.Helper()
	if n := len(users.distinct()); n != want {
		t.Errorf("users were told %d times, not %d: %s", n, want, story(users.distinct()))
	}
}

// throttle lets a process run for a fifth of the time, half a second at a time, until stop.
func throttle(p *process) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for running := true; ; running = !running {
			pause, signal := 400*time.Millisecond, syscall.SIGSTOP
			if !running {
				pause, signal = 1600*time.Millisecond, syscall.SIGCONT
			}
			select {
			case <-done:
				_ = p.cmd.Process.Signal(syscall.SIGCONT)
				return
			case <-time.After(pause):
				_ = p.cmd.Process.Signal(signal)
			}
		}
	}()
	return func() { close(done); <-ended }
}

// prober is what the mesh says of a prober.
func (m *mesh) prober(name string) *meshv1.Prober {
	m.t.Helper()
	p, err := m.probers.GetProber(m.ctx(), &meshv1.GetProberRequest{Name: "probers/" + name})
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}
