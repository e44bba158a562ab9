package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A standby has no sessions. When it takes over, probers come to it one after the other: rows of those that are on their way must not go to the first.
func TestNewLeaderLeavesRowsWithProbersThatAreOnTheirWay(t *testing.T) {
	r := newRig(t)
	r.apply(r.prober("fra-1", "fra"), r.prober("fra-2", "fra"), ProberOnline{Name: "fra-1"}, ProberOnline{Name: "fra-2"})
	r.after(2 * time.Second)
	stored := r.s.stored(r.s.roster.tables["fra"].Table)

	standby := &rig{t: t, s: New(Config{Crowd: 5}), now: r.now, silent: map[string]bool{}}
	standby.apply(r.prober("fra-1", "fra"), r.prober("fra-2", "fra"), TablePut{Table: stored, ModRevision: 7})
	standby.after(10 * time.Minute)
	standby.apply(Leadership{Leading: true, Term: 2})
	standby.apply(ProberOnline{Name: "fra-1"})
	standby.after(20 * time.Second)
	for _, a := range standby.acted {
		if m, yes := a.(MoveRows); yes {
			t.Fatalf("the new leader moved rows 20 s after it took over: %v now own them", m.Table.GetProbers())
		}
	}

	// One that does not come within the grace has gone.
	standby.after(time.Minute)
	var last *statev1.PlacementTable
	for _, a := range standby.acted {
		if m, yes := a.(MoveRows); yes {
			last = m.Table
		}
	}
	if last == nil || len(last.GetProbers()) != 1 || last.GetProbers()[0] != "fra-1" {
		t.Fatalf("rows of a prober that never came back were not moved: %v", last.GetProbers())
	}
}

// Somebody sets the clock of the leader back by an hour, and the probers, which correct theirs by it, follow. Votes from before must not be held for the newest there
// are until the hour has passed once more.
func TestMeshClockSetBackFreezesNoVote(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.now = r.now.Add(-time.Hour)
	r.apply()
	for range 3 {
		r.votes("shop", fail, "ams", "fra", "iad")
		r.after(time.Second)
	}
	r.want("shop", "DOWN QUORUM_DOWN")
	r.wantOwed("OPENED checks/shop")
}

// Those that fall silent in the same moment are not held for UP by votes whose age nobody knows.
func TestVoteFromTheFutureIsNoVote(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.now = r.now.Add(-time.Hour)
	r.s.schedule(r.s.checks["checks/shop"], r.now)
	r.apply()
	r.want("shop", "UNKNOWN STALE_VOTES")
	r.votes("shop", ok, "ams", "fra")
	r.want("shop", "UP QUORUM_UP")
}

// A newer version may allow what this one does not, and stores it where both read: that must not end the process.
func TestStoredCheckBeyondTheLimitsIsPlacedAsFarAsTheyGo(t *testing.T) {
	r := newRig(t)
	var all []Event
	for i := range 80 {
		name := fmt.Sprintf("p%02d", i)
		all = append(all, r.prober(name, "dc"+name), ProberOnline{Name: name})
	}
	r.apply(all...)
	r.after(2 * time.Second)
	c := tcpCheck("shop", 2)
	c.Probers = 80
	r.check(c)
	if st, _ := r.s.Status("checks/shop", r.now, true); len(st.GetVotes()) != 64 {
		t.Fatalf("%d probers run it, want 64", len(st.GetVotes()))
	}
	for i := range 80 {
		r.vote("shop", fmt.Sprintf("p%02d", i), ok)
	}
	r.want("shop", "UP QUORUM_UP")
}

// A datacenter was lost; then the leader dies. The next one does not wait for votes that nobody casts any more.
func TestANewLeaderDoesNotWaitForProbersThatWereSilentBefore(t *testing.T) {
	r := up(t, quick())
	r.apply(Leadership{Term: 1}, ProberOffline{Name: "iad-1", Unheard: true})
	for range 6 {
		r.after(5 * time.Second)
		r.votes("shop", ok, "ams", "fra")
	}
	r.apply(Leadership{Leading: true, Term: 2})
	r.after(time.Second)
	for range 2 {
		r.votes("shop", fail, "ams", "fra")
		r.after(500 * time.Millisecond)
	}
	r.wantOwed("OPENED checks/shop")
}

// Those that have come back, or may still come, are waited for: what one of them sees may be its own trouble.
func TestANewLeaderWaitsForProbersThatMayStillCome(t *testing.T) {
	r := up(t, quick())
	all := []string{"ams", "fra", "iad"}
	r.apply(Leadership{Term: 1})
	for _, d := range all {
		r.apply(ProberOffline{Name: d + "-1", Unheard: true})
	}
	r.after(30 * time.Second)
	for _, d := range all {
		r.apply(ProberOnline{Name: d + "-1"})
	}
	r.apply(Leadership{Leading: true, Term: 2})
	r.after(time.Second)
	for range 2 {
		r.votes("shop", fail, "ams", "fra")
		r.after(500 * time.Millisecond)
	}
	r.wantOwed()
	r.after(4 * time.Second)
	r.votes("shop", fail, "ams", "fra")
	r.after(time.Second)
	r.wantOwed("OPENED checks/shop")
}

// A server that heard nobody, or only its own datacenter, when it was elected was cut off itself: the others come back in a moment, and are waited for as ever.
func TestANewLeaderThatWasCutOffItselfWaitsForTheOthers(t *testing.T) {
	for _, heard := range [][]string{nil, {"fra"}} {
		r := up(t, quick())
		r.apply(Leadership{Term: 1})
		for _, d := range []string{"ams", "fra", "iad"} {
			if !slices.Contains(heard, d) {
				r.apply(ProberOffline{Name: d + "-1", Unheard: true})
			}
		}
		for range 6 {
			r.after(5 * time.Second)
			r.votes("shop", ok, heard...)
		}
		r.apply(Leadership{Leading: true, Term: 2})
		r.after(time.Second) // it looks who is there before the first of them is back
		for _, d := range []string{"ams", "fra", "iad"} {
			r.apply(ProberOnline{Name: d + "-1"})
		}
		for range 2 {
			r.votes("shop", fail, "ams", "fra")
			r.after(500 * time.Millisecond)
		}
		r.wantOwed()
		r.after(4 * time.Second)
		r.votes("shop", fail, "ams", "fra")
		r.after(time.Second)
		r.wantOwed("OPENED checks/shop")
	}
}

// quick is a check whose votes are soon stale.
func quick() *meshv1.Check {
	c := tcpCheck("shop", 2)
	c.Interval, c.Timeout = durationpb.New(5*time.Second), durationpb.New(2*time.Second)
	return c
}
