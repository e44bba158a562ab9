package controller

import (
	"context"
	"sync"

	"github.com/probemesh/probemesh/server/api"
)

// hub tells subscriptions which names have changed. The zero value is ready.
type hub struct {
	mu   sync.Mutex
	subs map[*subscription]struct{}
}

func (h *hub) publish(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.add(name)
	}
}

func (h *hub) subscribe() api.Subscription {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &subscription{hub: h, names: map[string]struct{}{}, signal: make(chan struct{}, 1)}
	if h.subs == nil {
		h.subs = map[*subscription]struct{}{}
	}
	h.subs[s] = struct{}{}
	return s
}

// subscription gathers names until they are asked for: its memory is bounded by the number of names.
type subscription struct {
	hub    *hub
	signal chan struct{}
	mu     sync.Mutex
	names  map[string]struct{}
}

func (s *subscription) add(name string) {
	s.mu.Lock()
	s.names[name] = struct{}{}
	s.mu.Unlock()
	select {
	case s.signal <- struct{}{}:
	default:
	}
}

// Next waits until something has changed and gives the names.
func (s *subscription) Next(ctx context.Context) ([]string, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.signal:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.names))
	for n := range s.names {
		names = append(names, n)
	}
	clear(s.names)
	return names, nil
}

// Close ends the subscription.
func (s *subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.subs, s)
}
