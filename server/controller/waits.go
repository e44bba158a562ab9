package controller

import "time"

// waits knows since when each effect of the present reign has been waiting for an answer of etcd. An effect that failed is wished for again by the mind, and has waited
// since its first wish; one that the mind does not wish for again within a while is over.
type waits struct {
	since map[string]wait
}

type wait struct {
	begun  time.Time
	failed time.Time // zero while it is under way
}

// waitsFor is how long after a failure an effect counts as waiting without being wished for again: the mind does so after retryAfter, at its next look.
const waitsFor = retryAfter + 2*time.Second

// begin notes a wish.
func (w *waits) begin(key string, now time.Time) {
	if w.since == nil {
		w.since = map[string]wait{}
	}
	if x, ok := w.since[key]; ok && (x.failed.IsZero() || now.Sub(x.failed) < waitsFor) {
		w.since[key] = wait{begun: x.begun}
		return
	}
	w.since[key] = wait{begun: now}
}

// answered notes that etcd has answered, whatever it said.
func (w *waits) answered(key string) { delete(w.since, key) }

// failed notes that etcd has not answered in time, or has said that it cannot.
func (w *waits) failed(key string, now time.Time) {
	if x, ok := w.since[key]; ok {
		w.since[key] = wait{begun: x.begun, failed: now}
	}
}

// end forgets everything: the reign is over.
func (w *waits) end() { clear(w.since) }

// oldest is for how long the oldest effect has been waiting; 0 when none is.
func (w *waits) oldest(now time.Time) time.Duration {
	age := time.Duration(0)
	for key, x := range w.since {
		if !x.failed.IsZero() && now.Sub(x.failed) >= waitsFor {
			delete(w.since, key)
			continue
		}
		age = max(age, now.Sub(x.begun))
	}
	return age
}
