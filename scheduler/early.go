package scheduler

import (
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// early holds results that cannot be counted yet. Servers tell each other of votes faster than etcd's watch may tell one of them of a new check, an edit or a prober:
// a vote that was dropped then would be missing there, and only there, for a whole interval. The newest of each check and prober is kept for a while, and counted when
// the check is placed anew.
type early struct {
	byCheck map[string][]earlyVote
	n       int
	// again are the checks that were placed anew and have results waiting.
	again map[string]bool
	// counting: what does not fit now is not kept once more.
	counting bool
}

type earlyVote struct {
	cast Cast
	at   time.Time
}

const (
	// earlyFor is how far one server's watch may lag behind another's.
	earlyFor = 10 * time.Second
	// earlyMax bounds the results kept; further ones are dropped. Either is in the counters as what it was at first.
	earlyMax = 20_000
)

func newEarly() early {
	return early{byCheck: map[string][]earlyVote{}, again: map[string]bool{}}
}

func (w *early) keep(now time.Time, e Cast) {
	if w.counting || e.Result.GetOutcome() == meshv1.Result_SLOW {
		return
	}
	name := e.Result.GetCheck()
	list := w.byCheck[name]
	for i := range list {
		if list[i].cast.Prober == e.Prober {
			if e.Result.GetStartTime().AsTime().After(list[i].cast.Result.GetStartTime().AsTime()) {
				list[i] = earlyVote{e, now}
			}
			return
		}
	}
	if w.n >= earlyMax {
		return
	}
	w.byCheck[name] = append(list, earlyVote{e, now})
	w.n++
}

// placed says that the check was placed anew.
func (w *early) placed(check string) {
	if len(w.byCheck[check]) > 0 {
		w.again[check] = true
	}
}

// expire forgets what has waited for too long.
func (w *early) expire(now time.Time) {
	for name, list := range w.byCheck {
		kept := list[:0]
		for _, v := range list {
			if now.Sub(v.at) < earlyFor {
				kept = append(kept, v)
			}
		}
		w.n -= len(list) - len(kept)
		if len(kept) == 0 {
			delete(w.byCheck, name)
			continue
		}
		clear(list[len(kept):])
		w.byCheck[name] = kept
	}
}

// castEarly counts what came too early for the checks that have been placed anew.
func (s *State) castEarly(now time.Time) {
	if len(s.early.again) == 0 {
		return
	}
	names := sortedKeys(s.early.again)
	clear(s.early.again)
	s.early.counting = true
	for _, name := range names {
		list := s.early.byCheck[name]
		delete(s.early.byCheck, name)
		s.early.n -= len(list)
		for _, v := range list {
			if now.Sub(v.at) < earlyFor {
				s.cast(now, v.cast)
			}
		}
	}
	s.early.counting = false
}
