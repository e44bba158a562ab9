package notify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/notify"
	"github.com/probemesh/probemesh/server/store"
)

func TestEachNotificationIsDeliveredOnceAndRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a", "b")
		m.open(1, "a", "b")
		time.Sleep(time.Minute)
		m.resolve(1, "a", "b")
		time.Sleep(time.Hour)
		if got := m.recv.count(); got != 4 {
			t.Fatalf("sent %d: %s", got, m.recv.log())
		}
		if got := m.timeline(1); got != "NOTIFIED/1 NOTIFIED/1 NOTIFIED/1 NOTIFIED/1" {
			t.Fatalf("timeline %s", got)
		}
		if m.outbox() != 0 || m.n.State("receivers/a").Owed != 0 || m.n.State("receivers/a").LastDelivery.IsZero() {
			t.Fatalf("%d owed; %+v", m.outbox(), m.n.State("receivers/a"))
		}
		if s := m.recv.times("i1.OPENED.a"); s[0] > 100*time.Millisecond {
			t.Fatalf("first sent after %s", s[0])
		}
	})
}

func TestResolvedNeverComesBeforeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(key string, nth int) (notify.Answer, time.Duration) {
			if strings.HasSuffix(key, "OPENED.a") && nth < 5 {
				return down("broken"), 0
			}
			return delivered, 0
		}, "a", "b")
		m.open(1, "a", "b")
		m.resolve(1, "a", "b")
		m.open(2, "b")
		time.Sleep(time.Hour)
		log := m.recv.log()
		if strings.Index(log, "i1.RESOLVED.a") < strings.LastIndex(log, "i1.OPENED.a") || strings.Count(log, "i1.OPENED.a") != 5 {
			t.Fatalf("sent %s", log)
		}
		for _, key := range []string{"i1.OPENED.b", "i1.RESOLVED.b", "i2.OPENED.b"} {
			if at := m.recv.times(key); len(at) != 1 || at[0] > 50*time.Millisecond {
				t.Errorf("%s at %v: the broken receiver delayed it", key, at)
			}
		}
		if got := m.timeline(1); strings.Count(got, "NOTIFICATION_FAILED") != 1 || !strings.HasSuffix(got, "NOTIFIED/5 NOTIFIED/1") {
			t.Fatalf("timeline %s", got)
		}
	})
}

func TestSlowReceiverTakesNoMoreThanItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(key string, _ int) (notify.Answer, time.Duration) {
			if strings.HasSuffix(key, ".slow") {
				return delivered, time.Minute
			}
			return delivered, 0
		}, "slow", "fast")
		for i := range 30 {
			m.open(i, "slow", "fast")
		}
		time.Sleep(time.Second)
		if strings.Count(m.recv.log(), ".fast") != 30 || strings.Count(m.recv.log(), ".slow") != 8 {
			t.Fatalf("sent %s", m.recv.log())
		}
		time.Sleep(time.Hour)
		if m.outbox() != 0 || m.recv.peak() > 9 {
			t.Fatalf("%d owed, %d at once", m.outbox(), m.recv.peak())
		}
	})
}

func TestAtMost64DeliveriesAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 12 {
			names = append(names, fmt.Sprintf("r%d", i))
		}
		m := newMesh(t, func(string, int) (notify.Answer, time.Duration) { return delivered, time.Second }, names...)
		for i := range 20 {
			m.open(i, names...)
		}
		time.Sleep(time.Minute)
		if m.recv.peak() != 64 || m.outbox() != 0 || m.recv.count() != 240 {
			t.Fatalf("%d at once, %d owed, %d sent", m.recv.peak(), m.outbox(), m.recv.count())
		}
	})
}

func TestRetriesFollowTheClassOfTheFailure(t *testing.T) {
	cases := map[string]struct {
		answer notify.Answer
		check  func(n int, gap time.Duration) bool // gap before attempt n+1
	}{
		"temporary": {down("503"), func(n int, gap time.Duration) bool { return gap <= min(2*time.Minute, time.Second<<min(n-1, 8)) }},
		"refused":   {notify.Answer{Status: 404, Error: "404"}, func(_ int, gap time.Duration) bool { return gap == 2*time.Minute }},
		"asked to wait": {notify.Answer{Status: 429, Error: "429", Temporary: true, RetryAfter: 37 * time.Second},
			func(_ int, gap time.Duration) bool { return gap == 37*time.Second }},
		"asked to wait too long": {notify.Answer{Status: 503, Error: "503", Temporary: true, RetryAfter: time.Hour},
			func(_ int, gap time.Duration) bool { return gap == 10*time.Minute }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t, func(string, int) (notify.Answer, time.Duration) { return c.answer, 0 }, "a")
				m.open(1, "a")
				time.Sleep(25 * time.Hour)
				at := m.recv.times("i1.OPENED.a")
				if len(at) < 20 {
					t.Fatalf("%d attempts", len(at))
				}
				for i := 1; i < len(at); i++ {
					if gap := at[i] - at[i-1]; !c.check(i, gap) {
						t.Fatalf("attempt %d after %s", i+1, gap)
					}
				}
				if last := at[len(at)-1]; last > 24*time.Hour || last < 23*time.Hour {
					t.Fatalf("last attempt after %s, want just before 24h", last)
				}
				if got := m.timeline(1); got != fmt.Sprintf("NOTIFICATION_FAILED/1 NOTIFICATION_DROPPED/%d", len(at)) || m.outbox() != 0 {
					t.Fatalf("timeline %s, %d owed", got, m.outbox())
				}
			})
		})
	}
}

func TestRecordsOfFailuresAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(_ string, nth int) (notify.Answer, time.Duration) { return down(fmt.Sprint("at ", nth)), 0 }, "a")
		m.open(1, "a")
		time.Sleep(12 * time.Hour)
		if n := strings.Count(m.timeline(1), "NOTIFICATION_FAILED"); n != 20 {
			t.Fatalf("%d failures recorded", n)
		}
		if s := m.n.State("receivers/a"); s.Owed != 1 || !strings.HasPrefix(s.LastError, "at ") {
			t.Fatalf("%+v", s)
		}
	})
}

func TestReceiverThatIsPausedOrGoneGetsNothingAndThatIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(down("broken")), "a", "b")
		m.open(1, "a", "b", "never")
		time.Sleep(time.Minute)
		before := m.recv.count()
		m.ok(m.store.DeleteReceiver(t.Context(), "receivers/a", ""))
		_, err := m.store.UpdateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/b", Paused: true}, "")
		m.ok(err)
		time.Sleep(time.Second)
		if got := strings.Count(m.timeline(1), "NOTIFICATION_DROPPED"); got != 3 || m.outbox() != 0 {
			t.Fatalf("%d dropped, %d owed", got, m.outbox())
		}
		time.Sleep(time.Hour)
		if m.recv.count() != before {
			t.Fatalf("sent after all: %s", m.recv.log())
		}
	})
}

func TestMendedReceiverIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mended := false
		m := newMesh(t, func(string, int) (notify.Answer, time.Duration) {
			if mended {
				return delivered, 0
			}
			return notify.Answer{Status: 404, Error: "404"}, 0
		}, "a")
		m.open(1, "a")
		time.Sleep(30 * time.Second)
		m.recv.mu.Lock()
		mended = true
		m.recv.mu.Unlock()
		_, err := m.store.UpdateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/a", GiveUpAfter: durationpb.New(time.Hour)}, "")
		m.ok(err)
		time.Sleep(time.Second)
		if m.outbox() != 0 {
			t.Fatal("the change of the receiver did not bring the retry forward")
		}
	})
}

func TestCrashBetweenAnswerAndRecordResendsUnderTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		m.open(1, "a")
		synctest.Wait()
		m.etcd.SetLeaderless(true) // the answer comes, and nothing can be written
		time.Sleep(5 * time.Second)
		_ = m.stop() // the process dies
		m.etcd.SetLeaderless(false)
		if m.outbox() != 1 {
			t.Fatalf("%d owed", m.outbox())
		}
		m.lead()
		time.Sleep(time.Minute)
		if got := m.recv.log(); got != "i1.OPENED.a i1.OPENED.a" || m.outbox() != 0 {
			t.Fatalf("sent %q, %d owed", got, m.outbox())
		}
		if got := m.timeline(1); got != "NOTIFIED/1" {
			t.Fatalf("timeline %s", got)
		}
	})
}

func TestAnswerIsRememberedWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		m.open(1, "a")
		synctest.Wait()
		m.etcd.SetLeaderless(true)
		time.Sleep(time.Hour)
		m.etcd.SetLeaderless(false)
		time.Sleep(time.Minute)
		if got := m.recv.log(); got != "i1.OPENED.a" || m.outbox() != 0 || m.timeline(1) != "NOTIFIED/1" {
			t.Fatalf("sent %q, %d owed, %s", got, m.outbox(), m.timeline(1))
		}
	})
}

func TestLostAnswersOfTheStoreDoNotDoubleAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		for i := range 10 {
			m.open(i, "a")
			m.etcd.LoseAnswers(1)
			time.Sleep(time.Minute)
			m.etcd.LoseAnswers(0)
			if got := m.timeline(i); got != "NOTIFIED/1" {
				t.Fatalf("timeline %s", got)
			}
		}
		if m.recv.count() != 10 || m.outbox() != 0 {
			t.Fatalf("sent %s", m.recv.log())
		}
	})
}

func TestOldLeaderStopsAtItsFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(string, int) (notify.Answer, time.Duration) { return delivered, 10 * time.Second }, "a")
		m.open(1, "a")
		time.Sleep(time.Second)
		oldStop := m.stop
		m.recv.mu.Lock()
		m.recv.answer = func(string, int) (notify.Answer, time.Duration) { return delivered, time.Minute }
		m.recv.mu.Unlock()
		m.lead() // while the old leader waits for its answer
		time.Sleep(30 * time.Second)
		if m.outbox() != 1 {
			t.Fatal("the old leader deleted an entry under its past fence")
		}
		if err := oldStop(); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the old Run ended with %v", err)
		}
		time.Sleep(time.Minute)
		if m.outbox() != 0 || m.timeline(1) != "NOTIFIED/1" {
			t.Fatalf("%d owed, %s", m.outbox(), m.timeline(1))
		}
	})
}

func TestEndOfTheReignLetsAnAnswerArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(key string, _ int) (notify.Answer, time.Duration) {
			if key == "i1.OPENED.a" {
				return delivered, 150 * time.Millisecond
			}
			return delivered, time.Hour
		}, "a")
		m.open(1, "a")
		m.open(2, "a")
		time.Sleep(50 * time.Millisecond)
		begun := time.Now()
		_ = m.stop()
		if d := time.Since(begun); d > 250*time.Millisecond {
			t.Fatalf("took %s", d)
		}
		if m.outbox() != 1 || m.timeline(1) != "NOTIFIED/1" || m.timeline(2) != "" {
			t.Fatalf("%d owed, %q, %q", m.outbox(), m.timeline(1), m.timeline(2))
		}
	})
}

func TestEchoOfASettledEntryIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		e := owed(1, meshv1.Notification_OPENED, 0, "a")
		synctest.Wait()         // the feed's snapshot is there
		m.etcd.SetStarved(true) // the feed will not tell of the deletion
		_, err := m.store.OpenIncident(t.Context(), m.fence, incident(1), []*statev1.OutboxEntry{e}, 0)
		m.ok(err)
		m.n.Put(e)
		time.Sleep(time.Second)
		if m.recv.count() != 1 || m.outbox() != 0 {
			t.Fatalf("sent %q, %d owed", m.recv.log(), m.outbox())
		}
		m.n.Put(e)
		m.n.Replace([]*statev1.OutboxEntry{e}, []*meshv1.Receiver{{Name: "receivers/a"}})
		time.Sleep(time.Minute)
		if got := m.recv.log(); got != e.Id {
			t.Fatalf("sent %q", got)
		}
	})
}

func TestNothingIsSentBeforeTheFirstSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receivers{begun: time.Now(), answer: always(delivered), nths: map[string]int{}}
		n := notify.New(nil, r, notify.Config{})
		n.Put(owed(1, meshv1.Notification_OPENED, 0, "a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := n.Run(ctx, store.Fence{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if r.count() != 0 {
			t.Fatalf("sent %s without knowing its receiver", r.log())
		}
	})
}
