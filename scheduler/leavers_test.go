package scheduler

import (
	"testing"
	"time"
)

// Two probers leave and others of their datacenters take their rows. What those who left saw last is still fresh when the target goes down.
func TestOutageAfterRowsMovedIsNotHeldUpByWhoRanTheCheckBefore(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.apply(r.prober("fra-2", "fra"), r.prober("iad-2", "iad"), ProberOnline{Name: "fra-2", Server: "servers/a"}, ProberOnline{Name: "iad-2", Server: "servers/a"})
	r.after(2 * time.Second)
	r.apply(ProberOffline{Name: "fra-1", Leaving: true}, ProberOffline{Name: "iad-1", Leaving: true})
	r.after(3 * time.Second)
	if n := len(r.status("shop").GetVotes()); n != 5 {
		t.Fatalf("%d votes; want those of the two who left besides the three", n)
	}
	r.vote("shop", "fra-2", fail)
	r.vote("shop", "iad-2", fail)
	r.after(2 * time.Second)
	r.want("shop", "DOWN QUORUM_DOWN")
	if n := len(r.status("shop").GetVotes()); n != 3 {
		t.Errorf("%d votes; want those of the three who run it", n)
	}
}
