package notify

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func TestAnswersAreClassifiedAsDocumented(t *testing.T) {
	for status, want := range map[int]outcome{
		200: delivered, 204: delivered, 299: delivered, 301: refused, 307: refused, 400: refused, 401: refused, 404: refused, 410: refused,
		408: unavailable, 425: unavailable, 429: unavailable, 500: unavailable, 502: unavailable, 503: unavailable, 504: unavailable, 599: unavailable,
	} {
		if got := classify(status); got != want {
			t.Errorf("%d is %s, want %s", status, got, want)
		}
	}
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "1.5": 0, "0": time.Second, "30": 30 * time.Second, " 7 ": 7 * time.Second, "3600": 10 * time.Minute,
		"99999999999999999999":          10 * time.Minute,
		"Sun, 01 Mar 2026 12:00:45 GMT": 45 * time.Second,
		"Sun, 01 Mar 2026 11:00:00 GMT": time.Second,
		"Sun, 01 Mar 2026 13:00:00 GMT": 10 * time.Minute,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q is %s, want %s", value, got, want)
		}
	}
}

func TestPausesGrowWithFullJitterAndStayWithinTheirBounds(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	for n, most := range map[int]time.Duration{1: 2 * time.Second, 2: 4 * time.Second, 5: 32 * time.Second, 7: 2 * time.Minute, 1000: 2 * time.Minute} {
		low, high := time.Hour, time.Duration(0)
		for range 2000 {
			d := pause(unavailable, 0, n, chance)
			low, high = min(low, d), max(high, d)
		}
		if low < time.Second || high > most {
			t.Errorf("after %d failures the pause is between %s and %s, want 1s to %s", n, low, high, most)
		}
		if spread := most - time.Second; low > time.Second+spread/20 || high < most-spread/20 {
			t.Errorf("after %d failures the pause is only between %s and %s: that is no full jitter up to %s", n, low, high, most)
		}
	}
	if got := pause(refused, 5*time.Second, 1, chance); got != 2*time.Minute {
		t.Errorf("after a refusal the pause is %s, want 2m", got)
	}
	if got := pause(unavailable, 5*time.Minute, 1, chance); got != 5*time.Minute {
		t.Errorf("the pause is %s, want the 5m of Retry-After", got)
	}
}

func TestRetryAfterHoldsBackEverythingForTheReceiver(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		first := s.store.owe(1, "ops", opened, 1)
		s.sender.respond = func(_ context.Context, _ *meshv1.Receiver, m message) answer {
			if m.key == first && m.notification.Attempt == 1 {
				return answer{outcome: unavailable, err: "busy", retryAfter: 5 * time.Minute}
			}
			return ok()
		}
		s.lead()
		synctest.Wait()
		began := time.Now()
		second := s.store.owe(2, "ops", opened, 1)
		s.wait(10 * time.Minute)
		for _, id := range []string{first, second} {
			at := s.sender.times(id)
			if last := at[len(at)-1]; last.Sub(began) != 5*time.Minute {
				t.Errorf("%s was sent after %s, want after the 5m that the receiver asked for", id, last.Sub(began))
			}
		}
		s.wantOwed()
	})
}

func TestRefusedIsTriedEveryTwoMinutesAndAtOnceWhenTheReceiverChanges(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		id := s.store.owe(1, "ops", opened, 1)
		s.sender.respond = func(context.Context, *meshv1.Receiver, message) answer { return fail(refused, "404 Not Found") }
		began := time.Now()
		s.lead()
		s.wait(5 * time.Minute)
		s.sender.mu.Lock()
		s.sender.respond = nil
		s.sender.mu.Unlock()
		s.store.receiver("ops", func(r *meshv1.Receiver) { r.Webhook.Url = "https://new.example.com" })
		synctest.Wait()
		var got []string
		for _, at := range s.sender.times(id) {
			got = append(got, at.Sub(began).String())
		}
		if want := "0s 2m0s 4m0s 5m0s"; strings.Join(got, " ") != want {
			t.Errorf("sent after %v, want %s", got, want)
		}
		s.wantOwed()
	})
}

func TestNotificationIsGivenUpAfterItsTimeAndTheNextOneHasItsTurn(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops", giveUp(10*time.Minute))
		s.store.owe(1, "ops", opened, 1)
		began := time.Now()
		s.sender.respond = func(context.Context, *meshv1.Receiver, message) answer {
			return fail(unavailable, "POST https://x: 503")
		}
		s.lead()
		s.wait(9 * time.Minute)
		r := s.store.owe(1, "ops", resolved, 2)
		s.wait(time.Minute)
		synctest.Wait()
		s.wantOwed(r)
		last := s.store.timeline(1)[len(s.store.timeline(1))-1]
		for _, e := range s.store.timeline(1) {
			if e.Event == meshv1.TimelineEntry_NOTIFICATION_DROPPED {
				last = e
				break
			}
		}
		if last.Event != meshv1.TimelineEntry_NOTIFICATION_DROPPED || last.Time.AsTime().Sub(began) != 10*time.Minute ||
			!strings.Contains(last.Text, "given up after 10m0s") || !strings.Contains(last.Text, "POST https://x: 503") {
			t.Errorf("the timeline has %v, want the drop after 10m with the last error", last)
		}
		if len(s.sender.times(r)) == 0 {
			t.Error("RESOLVED was not tried after OPENED was given up")
		}
	})
}

func TestEntryThatWasNeverTriedIsTriedHoweverOldItIs(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops", giveUp(time.Minute))
		id := s.store.owe(1, "ops", opened, 1)
		s.wait(25 * time.Hour) // nobody leads
		s.lead()
		synctest.Wait()
		if len(s.sender.times(id)) != 1 {
			t.Error("it was dropped without having been tried")
		}
		s.wantOwed()
	})
}

func TestPausedAndDeletedReceiversDropWhatTheyAreOwedAndTheIncidentTells(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("paused", func(r *meshv1.Receiver) { r.Paused = true })
		s.store.receiver("later")
		s.store.receiver("gone")
		s.sender.respond = func(context.Context, *meshv1.Receiver, message) answer { return fail(unavailable, "down") }
		for _, r := range []string{"paused", "later", "gone", "never"} {
			s.store.owe(1, r, opened, 1)
		}
		s.lead()
		synctest.Wait()
		s.store.receiver("later", func(r *meshv1.Receiver) { r.Paused = true })
		s.store.deleteReceiver("gone")
		synctest.Wait()
		s.wantOwed()
		tried := map[string]bool{}
		for _, m := range s.sender.sent() {
			tried[m.receiver] = true
		}
		if len(tried) != 2 || !tried["receivers/later"] || !tried["receivers/gone"] {
			t.Errorf("tried %v, want only those that were there", tried)
		}
		why := map[string]string{}
		for _, e := range s.store.timeline(1) {
			if e.Event == meshv1.TimelineEntry_NOTIFICATION_DROPPED {
				why[e.Receiver] = e.Text
			}
		}
		for receiver, want := range map[string]string{
			"receivers/paused": "it is paused", "receivers/later": "it is paused", "receivers/gone": "it was deleted", "receivers/never": "it was deleted",
		} {
			if !strings.Contains(why[receiver], want) {
				t.Errorf("%s: the timeline says %q, want %q", receiver, why[receiver], want)
			}
		}
	})
}

func TestDownReceiverIsAskedOneAtATimeAndGetsEverythingWhenItIsBack(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		for i := range 2000 {
			s.store.owe(i, "ops", opened, 1)
		}
		back := time.Now().Add(time.Hour)
		s.sender.respond = func(ctx context.Context, _ *meshv1.Receiver, _ message) answer {
			if time.Now().Before(back) {
				return fail(network, "connection refused")
			}
			return after(ctx, 10*time.Millisecond, ok())
		}
		s.lead()
		s.wait(time.Hour - time.Millisecond)
		if n := len(s.sender.sent()); n > 1200 || n < 360 {
			t.Errorf("%d attempts within an hour of refusals, want one every 1s to 10s", n)
		}
		s.wait(10*time.Second + 2000/8*10*time.Millisecond + time.Second)
		if left := len(s.store.owed()); left != 0 {
			t.Errorf("%d are still owed 13.5 s after the receiver came back", left)
		}
	})
}

func TestExpiredEntriesOfADownReceiverAreDroppedInTime(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, s *stage) {
		s.store.receiver("ops", giveUp(30*time.Minute))
		for i := range 8 {
			s.store.owe(i, "ops", opened, 1)
		}
		s.wait(10 * time.Minute)
		s.sender.respond = func(context.Context, *meshv1.Receiver, message) answer { return fail(network, "connection refused") }
		s.lead()
		synctest.Wait()
		for i := range 3000 {
			s.store.owe(100+i, "ops", opened, 1)
		}
		s.wait(21*time.Minute + time.Second)
		left := 0
		for _, id := range s.store.owed() {
			if id < "000100" {
				left++
			}
		}
		if left != 0 {
			t.Errorf("%d are still owed a minute after their time was over", left)
		}
	})
}

// TestEverythingIsDeliveredInOrderWhateverFails runs reign after reign over a store and receivers that fail at random, with crashes at random
// moments, and then checks the promises.
func TestEverythingIsDeliveredInOrderWhateverFails(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			inBubble(t, Config{Seed: seed + 1, MaxInFlight: 12, PerReceiver: 4}, func(t *testing.T, s *stage) {
				scramble(t, s, rand.New(rand.NewPCG(seed, 1)))
			})
		})
	}
}

func scramble(t *testing.T, s *stage, chance *rand.Rand) {
	roll := func(p float64) bool { return chance.Float64() < p } // called under the store's or the sender's mutex, or from here
	calm := false
	s.sender.respond = func(ctx context.Context, _ *meshv1.Receiver, _ message) answer {
		s.store.mu.Lock()
		bad, slow, delay := !calm && roll(0.4), roll(0.2), time.Duration(chance.IntN(3000))*time.Millisecond
		s.store.mu.Unlock()
		switch {
		case bad && slow:
			return after(ctx, delay, fail(timeout, "no answer"))
		case bad:
			return fail(unavailable, "503")
		}
		return after(ctx, delay, ok())
	}
	flaky := func() error {
		if !calm && roll(0.2) {
			return errStore
		}
		return nil
	}
	s.store.failSettle, s.store.failAmend = flaky, flaky
	for r := range 4 {
		s.store.receiver(fmt.Sprint("r", r))
	}
	type pair struct{ opened, resolved string }
	var pairs []pair
	reigns := 0
	for i := range 60 {
		r := fmt.Sprint("r", i%4)
		pairs = append(pairs, pair{opened: s.store.owe(i, r, opened, 1)})
		if i%10 == 0 { // the leader crashes, is deposed, or ends well
			reigns++
			stop := s.lead()
			s.wait(time.Duration(s.random(chance, 20000)) * time.Millisecond)
			if s.random(chance, 2) == 0 {
				s.depose()
			}
			if err := stop(); err != nil {
				t.Fatalf("Run returned %v after its context had ended", err)
			}
			s.depose()
		}
		pairs[i].resolved = s.store.owe(i, r, resolved, 2)
	}
	s.store.locked(func() { calm = true })
	s.lead()
	s.wait(10 * time.Minute)
	s.wantOwed()
	took, sends := map[string]time.Time{}, map[string]int{}
	for _, m := range s.sender.sent() {
		if !m.took {
			continue
		}
		if sends[m.key]++; sends[m.key] == 1 {
			took[m.key] = m.at
		}
	}
	for _, p := range pairs {
		if sends[p.opened] == 0 || sends[p.resolved] == 0 || took[p.resolved].Before(took[p.opened]) {
			t.Errorf("%s was taken %d times, %s %d times, in order: %v", p.opened, sends[p.opened], p.resolved, sends[p.resolved], !took[p.resolved].Before(took[p.opened]))
		}
		// Only the end of a reign may make a notification be taken twice.
		if n := max(sends[p.opened], sends[p.resolved]); n > reigns+1 {
			t.Errorf("%s was taken %d times in %d reigns", p.opened, n, reigns+1)
		}
	}
}

// random draws under the store's mutex, which the fakes draw under too.
func (s *stage) random(chance *rand.Rand, n int) int {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	return chance.IntN(n)
}

func TestQueueForgetsReceiversAndIncidentsThatAreOver(t *testing.T) {
	q, now := newQueue(), time.Unix(1000, 0)
	q.setReceiver("receivers/ops", &meshv1.Receiver{Name: "receivers/ops"}, now)
	for i := range 100 {
		q.put(&statev1.OutboxEntry{Id: fmt.Sprint(i), CreateTime: timestamppb.New(now), Notification: &meshv1.Notification{
			Incident: fmt.Sprint("incidents/", i/2), Receiver: "receivers/ops"}}, int64(i+1), now)
	}
	for i, _ := q.next(now, limits{100, 100}); i != nil; i, _ = q.next(now, limits{100, 100}) {
		q.done(i, true, now)
	}
	q.setReceiver("receivers/ops", nil, now)
	if len(q.items) != 0 || len(q.lanes) != 0 || q.inFlight != 0 || len(q.settled) != 100 {
		t.Errorf("left: %d entries, %d lanes, %d in flight, %d tombstones (want 100)", len(q.items), len(q.lanes), q.inFlight, len(q.settled))
	}
	r := &reign{queue: q}
	r.apply(store.Batch{Snapshot: true}, now)
	if len(q.settled) != 0 {
		t.Errorf("%d tombstones are left after a snapshot without the entries", len(q.settled))
	}
}
