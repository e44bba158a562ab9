package scheduler

import (
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestSilentProbersAreOneIncidentOfTheMesh(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.check(tcpCheck("blog", 2))
	r.votes("blog", ok, "ams", "fra", "iad")
	r.apply(ReceiverPut{&meshv1.Receiver{Name: "receivers/oncall", MeshIncidents: true}})
	for _, p := range []string{"ams-1", "fra-1", "iad-1"} {
		r.apply(ProberOffline{Name: p})
	}
	r.after(4 * time.Minute)
	r.want("shop", "UNKNOWN STALE_VOTES")
	r.wantOwed("OPENED ")
	for range 2 {
		for _, c := range []string{"shop", "blog"} {
			r.votes(c, ok, "ams", "fra", "iad")
		}
		r.after(40 * time.Second)
	}
	r.wantOwed("OPENED ", "RESOLVED ")
}

func TestProberThatLeftAndCameBackGetsRowsAgain(t *testing.T) {
	r := newRig(t)
	r.probers("fra")
	r.apply(r.prober("fra-2", "fra"), ProberOnline{Name: "fra-2"})
	r.after(20 * time.Minute)
	load := func(name string) (n int) {
		tab := r.s.roster.tables["fra"]
		for i := range tab.Row {
			if ownerName(tab.Table, i) == name {
				n++
			}
		}
		return n
	}
	if n := load("fra-2"); n < 1800 || n > 2300 {
		t.Fatalf("fra-2 has %d rows, want about half", n)
	}
	r.apply(ProberOffline{Name: "fra-2", Leaving: true})
	if n := load("fra-2"); n != 0 {
		t.Fatalf("fra-2 said goodbye and keeps %d rows", n)
	}
	r.apply(ProberOnline{Name: "fra-2"})
	r.after(20 * time.Minute)
	if n := load("fra-2"); n < 1800 {
		t.Fatalf("fra-2 came back and has %d rows", n)
	}
	moved := r.s.Counters.RowsMoved
	r.after(time.Hour)
	if r.s.Counters.RowsMoved != moved || r.s.roster.unsettled {
		t.Fatal("rows go on moving without a cause")
	}
}

func TestForgottenProbersLeaveATableThatSettles(t *testing.T) {
	r := newRig(t)
	r.probers("fra")
	r.apply(EnrolmentGone{"probers/fra-1"}, ProberOffline{Name: "fra-1"})
	r.after(time.Minute)
	rev := r.rev
	r.after(10 * time.Minute)
	if r.rev != rev {
		t.Fatalf("the table was written %d times more", r.rev-rev)
	}
}
