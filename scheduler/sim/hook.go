package sim

import (
	"fmt"
	"strings"
	"time"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

// hook is the one receiver. It drops what has a key that it knows.
type hook struct {
	effects map[string]int       // by idempotency key
	owed    map[string]time.Time // since when
	told    map[string][]string  // transitions by incident, in the order in which they had an effect
	repeats int
	broken  bool
	brokeAt time.Time // when it was seen broken last
	tries   int
}

func newHook() *hook {
	return &hook{effects: map[string]int{}, owed: map[string]time.Time{}, told: map[string][]string{}}
}

// deliver is the leader's delivery: what the outbox owes is sent, in the order of the incident, and deleted when the receiver has answered.
func (w *World) deliver() {
	for _, s := range w.servers {
		if s.alive && s.ready && s.leading && !s.paused {
			s.sendOutbox()
		}
	}
}

func (s *server) sendOutbox() {
	w := s.w
	first := map[string]*statev1.OutboxEntry{}
	for _, id := range sorted(w.store.outbox) {
		o := w.store.outbox[id]
		line := o.GetNotification().GetIncident() + " " + o.GetNotification().GetReceiver()
		if f := first[line]; f == nil || o.GetOrdinal() < f.GetOrdinal() {
			first[line] = o
		}
	}
	for _, line := range sorted(first) {
		o := first[line]
		if s.delivers[o.GetId()] {
			continue
		}
		s.delivers[o.GetId()] = true
		term := s.term
		w.after(w.delay(), func() {
			if !w.hook.receive(w, o) {
				w.after(time.Second, s.guarded(func() { delete(s.delivers, o.GetId()) }))
				return
			}
			// A crash here means that the next leader sends it again, under the same key.
			w.after(w.delay(), s.guarded(func() {
				delete(s.delivers, o.GetId())
				if term == w.store.term || w.opt.NoFence {
					delete(w.store.outbox, o.GetId())
				}
			}))
		})
	}
}

// receive is one attempt. It reports whether the receiver took it.
func (h *hook) receive(w *World, o *statev1.OutboxEntry) bool {
	if h.broken || w.lost(0.1) {
		return false
	}
	n := o.GetNotification()
	key := o.GetId()
	if w.opt.KeyPerAttempt {
		h.tries++
		key = fmt.Sprint(key, "#", h.tries)
	}
	h.effects[key]++
	if h.effects[key] > 1 {
		h.repeats++
		w.log("%s gets %s a second time and drops it", n.GetReceiver(), key[strings.IndexByte(key, '.')+1:])
		return true
	}
	delete(h.owed, o.GetId())
	w.log("%s is told %s: %s", n.GetReceiver(), n.GetTransition(), n.GetSummary())
	line := n.GetIncident() + " " + n.GetReceiver()
	for _, t := range h.told[line] {
		if t == n.GetTransition().String() {
			w.violate("%s of %s had its effect twice", t, line)
		}
		if t == "RESOLVED" {
			w.violate("%s was told of %s after its end", n.GetReceiver(), n.GetTransition())
		}
	}
	if len(h.told[line]) == 0 && n.GetTransition().String() != "OPENED" {
		w.violate("%s was told %s of %s before OPENED", n.GetReceiver(), n.GetTransition(), n.GetIncident())
	}
	h.told[line] = append(h.told[line], n.GetTransition().String())
	return true
}
