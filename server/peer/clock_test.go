package peer

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestClockThatIsAnHourOffMakesNoVoteOldAndNoRunLate(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour, 300 * time.Millisecond} {
		inWorld(t, func(w *world) {
			a := w.start("a", "a1", func(_ *Config, d *Deps) {
				d.Fill = append(d.Fill, func(b *peerv1.Beat) { b.Time = timestamppb.New(b.GetTime().AsTime().Add(off)) })
			})
			b := w.start("b", "b1")
			time.Sleep(2 * time.Second)
			a.attach("p1")
			probed := time.Now()
			a.cast([]*meshv1.Result{{Prober: "probers/p1", Check: "checks/c", Sequence: 1, StartTime: timestamppb.New(probed.Add(off))}})
			synctest.Wait()
			b.mu.Lock()
			got := b.votes["servers/a"]["probers/p1 checks/c"].GetStartTime().AsTime()
			b.mu.Unlock()
			want := probed
			if off.Abs() < clockSlack {
				want = probed.Add(off) // too little to be sure of
			}
			if d := got.Sub(want).Abs(); d > 10*time.Millisecond {
				t.Errorf("clock %s ahead: b takes a vote to be %s from when it was", off, d)
			}
			deadline := time.Now().Add(10 * time.Second)
			run := &meshv1.RunNow{RunId: "r", Deadline: timestamppb.New(deadline)}
			b.peers.mu.Lock()
			asks := make(chan *peerv1.Run, 1)
			o := b.peers.others["servers/a"]
			kept := o.asks
			o.asks = asks
			b.peers.mu.Unlock()
			b.peers.Ask("servers/a", "p1", run)
			b.peers.mu.Lock()
			o.asks = kept
			b.peers.mu.Unlock()
			want = deadline
			if off.Abs() >= clockSlack {
				want = deadline.Add(off)
			}
			if d := (<-asks).GetRun().GetDeadline().AsTime().Sub(want).Abs(); d > 10*time.Millisecond {
				t.Errorf("clock %s ahead: the deadline of a run is %s from where it should be", off, d)
			}
			if !run.GetDeadline().AsTime().Equal(deadline) {
				t.Error("the caller's run was changed")
			}
		})
	}
}

func TestClockOfAnotherServerIsJudgedByTheBeatThatWasHeldUpLeast(t *testing.T) {
	var s skew
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, delay := range []time.Duration{3 * time.Second, 2 * time.Millisecond, 4 * time.Second} {
		s.note(now.Add(time.Minute-delay), now)
	}
	if got := s.offset(); got != time.Minute-2*time.Millisecond {
		t.Errorf("the clock is %s ahead, want a minute less two milliseconds", got)
	}
	for range clockWindow {
		s.note(now, now)
	}
	if got := s.offset(); got != 0 {
		t.Errorf("the clock is %s ahead after it was set right", got)
	}
	if s.note(now.Add(-time.Minute), now) || s.offset() != 0 {
		t.Error("one beat that was held up for a minute counts")
	}
}
