package scheduler

import (
	"fmt"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// What is due in the very call of Apply that explains what was held must neither be looked at for ever nor be lost.
func TestOpeningThatIsDueAsOthersAreExplainedIsHeldForTheNextTime(t *testing.T) {
	r, places := massRig(t, 8, func(int, *meshv1.Check) {})
	for i := range 6 {
		r.votes(fmt.Sprintf("c%04d", i), fail, places...) // no address is known of these any more
	}
	for end := r.now.Add(3 * time.Second); len(r.s.mass.held) == 0; r.after(10 * time.Millisecond) {
		if r.now.After(end) {
			t.Fatal("nothing is held")
		}
	}
	r.after(r.s.mass.until.Sub(r.now) - 1050*time.Millisecond)
	r.votes("c0006", fail, places[:3]...)
	r.after(900 * time.Millisecond)
	// The process stands still for a moment: c0006 has been patient for long enough, and the time of the others has come.
	r.now = r.now.Add(200 * time.Millisecond)
	r.apply()
	r.after(4 * time.Second)
	if n := r.written()["open"]; n != 7 {
		t.Fatalf("%d of 7 are told of; %v", n, r.written())
	}
}
