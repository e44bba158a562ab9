package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

const (
	opened   = meshv1.Notification_OPENED
	resolved = meshv1.Notification_RESOLVED
)

// inBubble runs a test on fakes in fake time.
func inBubble(t *testing.T, cfg Config, f func(t *testing.T, s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newStage(t, cfg)) })
}

func TestResolvedIsNeverSentBeforeOpenedIsAnswered(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		// RESOLVED has the lower key and, once the attempts of OPENED are written, the lower revision: only the ordinal may decide.
		o := s.store.owe(1, "ops", opened, 1)
		r := s.store.owe(1, "ops", resolved, 2)
		s.sender.respond = func(_ context.Context, _ *meshv1.Receiver, m message) answer {
			if m.key == o && m.notification.Attempt <= 3 {
				return fail(unavailable, "down")
			}
			return ok()
		}
		stop := s.lead()
		s.wait(3 * time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, m := range s.sender.sent() {
			order = append(order, fmt.Sprint(m.key, "#", m.attempt))
		}
		want := []string{o + "#1", o + "#2", o + "#3", o + "#4", r + "#1"}
		if strings.Join(order, " ") != strings.Join(want, " ") {
			t.Errorf("sent %q, want %q", order, want)
		}
		s.wantOwed()
	})
}

// A break-glass message may have been taken, and its answer been lost: what follows when etcd is back must be the same message to the receiver.
func TestOpenedOfWhatWasDueWithoutEtcdHasTheKeyOfItsBreakGlassMessage(t *testing.T) {
	for _, c := range []struct {
		transition meshv1.Notification_Transition
		glass      string
		want       string
	}{
		{meshv1.Notification_OPENED, "", "i1.OPENED.ops"},
		{meshv1.Notification_OPENED, "outage-b3", "outage-b3.OPENED.ops"},
		{meshv1.Notification_RESOLVED, "outage-b3", "i1.RESOLVED.ops"},
	} {
		n := &meshv1.Notification{Transition: c.transition, BreakGlassKey: c.glass, Receiver: "receivers/ops"}
		if got := keyOf("i1."+c.transition.String()+".ops", n); got != c.want {
			t.Errorf("%s with break-glass key %q: %q, want %q", c.transition, c.glass, got, c.want)
		}
	}
}

func TestOrderSurvivesANewReignAfterFailedAttempts(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		o := s.store.owe(1, "ops", opened, 1)
		s.store.owe(1, "ops", resolved, 2)
		s.sender.respond = func(context.Context, *meshv1.Receiver, message) answer { return fail(unavailable, "down") }
		stop := s.lead()
		s.wait(time.Second / 2)
		stop()
		s.depose()
		s.sender.respond = nil
		s.lead()
		synctest.Wait()
		got := s.sender.sent()
		if len(got) != 3 || got[1].key != o || got[1].attempt != 2 {
			t.Errorf("the new leader sent %+v; want OPENED first, as attempt 2", got)
		}
		s.wantOwed()
	})
}

func TestWhatIsInTheWorksIsBounded(t *testing.T) {
	inBubble(t, Config{MaxInFlight: 10, PerReceiver: 3}, func(t *testing.T, s *stage) {
		for r := range 6 {
			s.store.receiver(fmt.Sprint("r", r))
			for i := range 40 {
				s.store.owe(i, fmt.Sprint("r", r), opened, 1)
			}
		}
		s.sender.respond = func(ctx context.Context, _ *meshv1.Receiver, _ message) answer { return after(ctx, time.Second, ok()) }
		s.lead()
		s.wait(5 * time.Minute)
		s.wantOwed()
		if s.sender.top > 10 || s.sender.top < 6 {
			t.Errorf("%d were in the works at once, want 6 to 10", s.sender.top)
		}
		for r, n := range s.sender.topEach {
			if n > 3 {
				t.Errorf("%d for %s were in the works at once, want at most 3", n, r)
			}
		}
	})
}

func TestSlowReceiversDoNotHoldUpOthers(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		for r := range 12 { // with 8 each they could take all 64 places
			s.store.receiver(fmt.Sprint("slow", r))
			for i := range 50 {
				s.store.owe(i, fmt.Sprint("slow", r), opened, 1)
			}
		}
		s.sender.respond = func(ctx context.Context, r *meshv1.Receiver, _ message) answer {
			if strings.HasPrefix(r.Name, "receivers/slow") {
				return after(ctx, time.Minute, fail(timeout, "no answer within 1m"))
			}
			return after(ctx, 20*time.Millisecond, ok())
		}
		s.lead()
		s.wait(time.Second)
		s.store.receiver("ops")
		id := s.store.owe(1, "ops", opened, 1)
		asked := time.Now()
		synctest.Wait()
		if at := s.sender.times(id); len(at) != 1 || at[0].Sub(asked) > 0 {
			t.Errorf("a quick receiver was told at %v, want at once (%v)", at, asked)
		}
	})
}

func TestFailedDeletionIsRepeatedWithoutSendingAgain(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		id := s.store.owe(1, "ops", opened, 1)
		s.store.failSettle, s.store.loseAnswer = failing(5), true
		s.lead()
		s.wait(time.Minute)
		if n := len(s.sender.times(id)); n != 1 {
			t.Errorf("sent %d times, want once", n)
		}
		if s.store.settles != 7 {
			t.Errorf("%d attempts to delete, want 5 that fail, one whose answer is lost, and one more", s.store.settles)
		}
		s.wantOwed()
		if tl := s.store.timeline(1); len(tl) != 1 || tl[0].Event != meshv1.TimelineEntry_NOTIFIED {
			t.Errorf("timeline %v, want the delivery once", tl)
		}
	})
}

func TestDeliveryIsSettledEvenWhenTheIncidentIsFull(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		id := s.store.owe(1, "ops", opened, 1)
		s.store.failSettle = func() error {
			return fault.New(codes.ResourceExhausted, meshv1.ErrorReason_LIMIT_EXCEEDED, "", "too large")
		}
		s.store.failDelete = failing(2)
		s.lead()
		s.wait(time.Minute)
		s.wantOwed()
		if n := len(s.sender.times(id)); n != 1 || s.store.deletes != 3 {
			t.Errorf("sent %d times, deleted %d times; want once, and 3 times", n, s.store.deletes)
		}
	})
}

func TestFencedDeletionEndsTheReignAndChangesNothing(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.receiver("slow")
		id := s.store.owe(1, "ops", opened, 1)
		slow := s.store.owe(1, "slow", opened, 1)
		s.sender.respond = func(ctx context.Context, r *meshv1.Receiver, _ message) answer {
			if r.Name == "receivers/slow" {
				return after(ctx, time.Minute, ok())
			}
			return after(ctx, time.Second, ok())
		}
		began := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- s.n.Run(t.Context(), store.Fence{CreateRevision: 1, Term: 1}) }()
		s.wait(time.Second / 2)
		s.depose()
		err := <-ended
		if !errors.Is(err, store.ErrFenced) {
			t.Errorf("Run returned %v, want ErrFenced", err)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("the reign ended after %s, want with the first fenced write after 1s", took)
		}
		s.wantOwed(id, slow)
		if tl := s.store.timeline(1); len(tl) != 0 {
			t.Errorf("timeline %v, want nothing", tl)
		}
	})
}

func TestCrashBetweenAnswerAndDeleteSendsAgainWithTheSameKey(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		id := s.store.owe(1, "ops", opened, 1)
		s.store.failSettle = func() error { return errStore } // the old leader cannot reach the store any more
		stop := s.lead()
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		s.wantOwed(id)
		s.depose()
		s.store.locked(func() { s.store.failSettle = nil })
		s.lead()
		synctest.Wait()
		if at := s.sender.times(id); len(at) != 2 || len(s.sender.sent()) != 2 {
			t.Errorf("sent %+v, want twice with key %s", s.sender.sent(), id)
		}
		s.wantOwed()
	})
}

func TestAnswerWithinTheGraceIsRecorded(t *testing.T) {
	inBubble(t, Config{Grace: time.Second}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.owe(1, "ops", opened, 1)
		s.sender.respond = func(ctx context.Context, _ *meshv1.Receiver, _ message) answer {
			return after(ctx, 900*time.Millisecond, ok())
		}
		stop := s.lead()
		synctest.Wait()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		s.wantOwed()
		if tl := s.store.timeline(1); len(tl) != 1 {
			t.Errorf("timeline %v, want the delivery", tl)
		}
	})
}

func TestReignEndsWithinTheGraceWhateverReceiversDo(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		id := s.store.owe(1, "ops", opened, 1)
		s.sender.respond = func(ctx context.Context, _ *meshv1.Receiver, _ message) answer { return after(ctx, time.Hour, ok()) }
		stop := s.lead()
		synctest.Wait()
		began := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > s.n.cfg.Grace {
			t.Errorf("Run took %s to end, want at most %s", took, s.n.cfg.Grace)
		}
		s.wantOwed(id)
		if tl := s.store.timeline(1); len(tl) != 0 {
			t.Errorf("a request that was cut off is recorded as %v", tl)
		}
	})
}

func TestSnapshotFromBeforeTheDeletionDoesNotSendTwice(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.lag = 5 * time.Second
		id := s.store.owe(1, "ops", opened, 1)
		var old store.Batch
		s.store.locked(func() { old = s.store.stateLocked() })
		s.lead()
		synctest.Wait() // delivered and deleted; the follower has not told of the deletion
		s.wantOwed()
		s.store.locked(func() { s.store.snapshot = &old })
		s.wait(time.Minute)
		if n := len(s.sender.times(id)); n != 1 {
			t.Errorf("sent %d times, want once", n)
		}
		// The same id under a new key is a new notification.
		s.store.owe(1, "ops", opened, 2)
		s.wait(time.Minute)
		if n := len(s.sender.times(id)); n != 2 {
			t.Errorf("after it was owed anew it was sent %d times in all, want twice", n)
		}
		s.wantOwed()
	})
}

func TestReignWithTwentyThousandOwedBeginsInSeconds(t *testing.T) {
	began := time.Now()
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		const receivers, incidents = 20, 1000
		for r := range receivers {
			s.store.receiver(fmt.Sprint("r", r))
			for i := range incidents {
				s.store.owe(i, fmt.Sprint("r", r), opened, 1)
			}
		}
		s.sender.respond = func(ctx context.Context, _ *meshv1.Receiver, _ message) answer {
			return after(ctx, 100*time.Millisecond, ok())
		}
		asked := time.Now()
		s.lead()
		synctest.Wait()
		if n := len(s.sender.sent()); n == 0 || time.Since(asked) > 0 {
			t.Errorf("%d were sent at once", n)
		}
		s.wait(70 * time.Second)
		if left := len(s.store.owed()); left != 0 {
			t.Errorf("%d are still owed after 70 s; 32 in flight at 100 ms make 320 a second", left)
		}
	})
	t.Logf("20,000 entries took %s of real time", time.Since(began))
}
