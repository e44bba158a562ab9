package notify

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// While a break-glass message may have told the same, OPENED waits; what the leader takes out of the outbox meanwhile is never sent, and what it leaves is sent soon.
func TestOpenedWaitsUntilItIsKnownWhoWasToldWithoutEtcd(t *testing.T) {
	var held atomic.Bool
	var revision atomic.Int64
	held.Store(true)
	inBubble(t, Config{Hold: func(string, int64) (time.Duration, int64) {
		if held.Load() {
			return 100 * time.Millisecond, 0
		}
		return 0, revision.Load()
	}}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.receiver("chat")
		toldOps, toldChat := s.store.owe(1, "ops", opened, 1), s.store.owe(1, "chat", opened, 1)
		end := s.store.owe(2, "ops", resolved, 2)
		stop := s.lead()
		s.wait(10 * time.Second)
		s.wantOwed(toldChat, toldOps)
		if sent := s.sender.sent(); len(sent) != 1 || sent[0].key != end {
			t.Fatalf("sent %v, want %s alone", sent, end)
		}
		// The mind knows of the adoption before this follower does.
		s.store.locked(func() { s.store.lag = 5 * time.Second; revision.Store(s.store.rev + 1) })
		held.Store(false)
		s.wait(time.Second)
		s.store.set(store.KindOutbox, toldOps, nil)
		s.wait(20 * time.Second)
		s.wantOwed()
		if sent := s.sender.sent(); len(sent) != 2 || sent[1].key != toldChat {
			t.Fatalf("sent %v, want %s at last", sent, toldChat)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// The leader opened the incident just before etcd was lost, and its notification was still owed; a break-glass message told the same meanwhile, and perhaps only its answer was lost.
func TestOpenedOfAnIncidentThatTookAnOutageInHasTheKeyOfItsBreakGlassMessage(t *testing.T) {
	inBubble(t, Config{OutageKey: func(check, incident string) string {
		if incident == "incidents/000001" {
			return "outage-b3"
		}
		return ""
	}}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.store.owe(1, "ops", opened, 1)
		other := s.store.owe(2, "ops", opened, 2)
		stop := s.lead()
		s.wait(10 * time.Second)
		s.wantOwed()
		keys := map[string]bool{}
		for _, m := range s.sender.sent() {
			keys[m.key] = true
		}
		if len(keys) != 2 || !keys["outage-b3.OPENED.ops"] || !keys[other] {
			t.Errorf("sent under %v, want outage-b3.OPENED.ops and %s", keys, other)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// What a receiver may have taken under one key is not sent to it under another: neither when the leader had tried before it took the outage in, nor when the first attempt had the outage's key.
func TestOpenedKeepsTheKeyOfItsFirstAttempt(t *testing.T) {
	var key atomic.Value
	key.Store("")
	inBubble(t, Config{OutageKey: func(_, incident string) string {
		if key.Load() == "" {
			return ""
		}
		return key.Load().(string) + incident[len("incidents/"):]
	}}, func(t *testing.T, s *stage) {
		s.store.receiver("ops")
		s.sender.respond = func(context.Context, *meshv1.Receiver, message) answer { return answer{outcome: network, err: "EOF"} }
		first := s.store.owe(1, "ops", opened, 1)
		stop := s.lead()
		s.wait(3 * time.Second)
		key.Store("outage-")
		s.wait(3 * time.Second)
		s.store.owe(2, "ops", opened, 2)
		s.wait(10 * time.Second)
		key.Store("")
		s.wait(5 * time.Minute)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		stop = s.lead()
		s.wait(5 * time.Minute)
		keys := map[string]int{}
		for _, m := range s.sender.sent() {
			keys[m.key]++
		}
		if len(keys) != 2 || keys[first] < 3 || keys["outage-000002.OPENED.ops"] < 3 {
			t.Errorf("sent under %v, want %s and outage-000002.OPENED.ops, each several times", keys, first)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	})
}
