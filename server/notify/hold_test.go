package notify

import (
	"sync/atomic"
	"testing"
	"time"

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
