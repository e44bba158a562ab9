package scheduler

import (
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const late = meshv1.Result_SLOW

// A target at which every probe is late, and answers in the end, is asked no more than once an interval beside the timetable.
func TestATargetThatIsAlwaysLateIsAskedOnceAnInterval(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	const intervals = 20
	for range intervals {
		for _, d := range []string{"ams", "fra", "iad"} {
			r.after(18 * time.Second)
			r.votes("shop", late, d)
			r.after(2 * time.Second)
			r.votes("shop", ok, "ams", "fra", "iad") // the runs, and the probe itself
		}
	}
	// A round asks the three of them.
	if most := 3 * (intervals + 2); len(r.asked) > most || len(r.asked) < most-6 {
		t.Errorf("%d runs asked for in %d intervals; want at most %d, and not much less", len(r.asked), intervals, most)
	}
	if r.s.Counters.ConfirmationsRefused == 0 {
		t.Error("what was refused was not counted")
	}
	r.votes("shop", late, "ams")
	asked := len(r.asked)
	r.votes("shop", fail, "ams")
	if len(r.asked) == asked {
		t.Error("nobody was asked when it failed in the end")
	}
}

// A target that stumbles and is then silent is confirmed as fast as one that was never late.
func TestTheSecondLateProbeAsksAtOnceToo(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	r.votes("shop", late, "ams")
	r.after(2 * time.Second)
	r.votes("shop", ok, "ams", "fra", "iad")
	r.after(15 * time.Second)
	asked := len(r.asked)
	r.votes("shop", late, "fra")
	if len(r.asked) != asked+3 {
		t.Errorf("%d runs asked for at the second late probe; want 3", len(r.asked)-asked)
	}
}
