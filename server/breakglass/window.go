package breakglass

import (
	"time"

	"github.com/probemesh/probemesh/scheduler"
)

const (
	// gather is how long the first outages of a window are waited for, so that a mass of them is seen to be one.
	gather = time.Second
	// span is how long a window is.
	span = 10 * time.Second
	// most is how many outages in one window are told one by one.
	most = 20
)

// window decides which outages are told one by one and which together. It is one for each transition, and has no clock.
type window struct {
	begun   time.Time
	total   int
	grouped bool
	waiting []scheduler.BreakGlass
}

func (w *window) add(now time.Time, b scheduler.BreakGlass) {
	if w.begun.IsZero() {
		w.begun = now
	}
	w.total++
	w.waiting = append(w.waiting, b)
}

// flush gives what is to be told now: each batch is one message. At most 20 messages about one outage each come of a window, and two about many.
func (w *window) flush(now time.Time) (batches [][]scheduler.BreakGlass) {
	if w.begun.IsZero() || now.Sub(w.begun) < gather {
		return nil
	}
	over := now.Sub(w.begun) >= span
	switch {
	case len(w.waiting) == 0:
	case w.total <= most:
		for _, b := range w.waiting {
			batches = append(batches, []scheduler.BreakGlass{b})
		}
		w.waiting = nil
	case !w.grouped || over:
		w.grouped = true
		batches, w.waiting = append(batches, w.waiting), nil
	}
	if over {
		*w = window{}
	}
	return batches
}

// drop forgets an outage that needs no message any more.
func (w *window) drop(key string) {
	kept := w.waiting[:0]
	for _, b := range w.waiting {
		if b.Outage.Key != key {
			kept = append(kept, b)
		}
	}
	w.waiting = kept
}
