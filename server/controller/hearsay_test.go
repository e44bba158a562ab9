package controller

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

// movedSession remembers where it was sent.
type movedSession struct {
	fakeSession
	mu sync.Mutex
	to []string
}

func (s *movedSession) Redirect(to []string, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = to
}

func (s *movedSession) sentTo() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to
}

// A leader that is cut off from etcd gives up, and holds itself for the last leader that it heard of. Its probers must not stay with it.
func TestServerCutOffFromEtcdSendsItsProbersToTheLeaderThatOthersKnow(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		for name, address := range map[string]string{"servers/a": "a:7700", "servers/b": "b:7700", "servers/c": "c:7700"} {
			lease, err := w.etcd.Client(t).Grant(t.Context(), 3600)
			if err != nil {
				t.Fatal(err)
			}
			if err := w.store.PublishServer(t.Context(), lease.ID, &statev1.ServerRecord{Name: name, GrpcAddress: address}); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		leader, term := "a:7700", int64(1)
		w.c.deps.Ask = func(_ context.Context, address string) (string, int64, error) {
			if address == "b:7700" {
				return "", 0, errors.New("no route to b")
			}
			mu.Lock()
			defer mu.Unlock()
			return leader, term, nil
		}
		s := &movedSession{fakeSession: fakeSession{boot: "boot-fra-1"}}
		if err := w.c.Attach(t.Context(), w.hello("fra-1"), s); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if to := s.sentTo(); to != nil {
			t.Fatalf("the leader sent its prober to %v", to)
		}

		w.link.Cut()
		time.Sleep(time.Minute)
		if to := s.sentTo(); to != nil {
			t.Fatalf("the prober was sent to %v although no other server leads yet", to)
		}
		mu.Lock()
		leader, term = "c:7700", 2
		mu.Unlock()
		time.Sleep(10 * time.Second)
		if to := s.sentTo(); len(to) != 1 || to[0] != "c:7700" {
			t.Fatalf("the prober was sent to %v, want c:7700, which leads the newer term", to)
		}
		w.link.Mend()
	})
}
