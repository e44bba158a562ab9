package sim

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"sort"
	"time"

	"github.com/probemesh/probemesh/scheduler"
)

// Epoch is when every simulation begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Options shape a world. The zero value is a calm network.
type Options struct {
	// Seed is where all chance comes from.
	Seed uint64
	// Servers is how many servers there are, 1 to 5. Default 2.
	Servers int
	// Lossy: messages and answers of the store get lost, and delays vary widely.
	Lossy bool
	// Trace, if set, is given every line of the trace.
	Trace func(line string)
	// Mind are the constants of the mind.
	Mind scheduler.Config

	// Mutations switch a guard off, to show that an invariant notices.

	// NoFence: the store takes effects of terms that are over.
	NoFence bool
	// ProbersAsDomains: every prober is told to be a datacenter of its own.
	ProbersAsDomains bool
	// KeyPerAttempt: every attempt to deliver has an idempotency key of its own.
	KeyPerAttempt bool
}

// World is a whole mesh in one goroutine: servers with their minds, a store, probers, targets and receivers, on one clock.
type World struct {
	opt     Options
	rng     *rand.Rand
	now     time.Time
	queue   queue
	seq     int
	store   *store
	servers []*server
	probers map[string]*prober
	targets map[string]*target
	truth   map[string]*truth
	hook    *hook
	leader  *server
	// leaderSince is since when there is a leader that is not paused; zero when there is none.
	leaderSince time.Time
	rosterAt    time.Time // last change of sessions, enrolments, tables or checks
	violations  []string
	runs        int // confirmations sent
	joins       int // incidents that were opened as part of a group
	// orphans and empty are since when a check is part of a group that is over, and a group has no checks.
	orphans, empty map[string]time.Time
	calm           bool
}

// NewWorld is a world with servers and nothing else, one of which leads.
func NewWorld(o Options) *World {
	if o.Servers == 0 {
		o.Servers = 2
	}
	if o.Mind.Crowd == 0 {
		o.Mind.Crowd = 5 // small worlds have small crowds
	}
	w := &World{
		opt: o, rng: rand.New(rand.NewPCG(o.Seed, 7)), now: epoch, probers: map[string]*prober{}, targets: map[string]*target{}, truth: map[string]*truth{},
		hook: newHook(), rosterAt: epoch, orphans: map[string]time.Time{}, empty: map[string]time.Time{},
	}
	w.store = newStore(w)
	for i := range o.Servers {
		s := &server{w: w, name: string(rune('a' + i))}
		w.servers = append(w.servers, s)
		s.start()
	}
	w.elect()
	w.every(time.Second, w.audit)
	w.every(250*time.Millisecond, w.deliver)
	return w
}

// Run lets time pass.
func (w *World) Run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) && len(w.violations) == 0 {
		it := heap.Pop(&w.queue).(item)
		w.now = it.at
		it.do()
	}
	w.now = end
}

// Violations are the invariants found broken. The world stops at the first.
func (w *World) Violations() []string { return w.violations }

func (w *World) violate(format string, args ...any) {
	v := fmt.Sprintf(format, args...)
	w.log("VIOLATION: %s", v)
	w.violations = append(w.violations, v)
}

func (w *World) log(format string, args ...any) {
	if w.opt.Trace == nil {
		return
	}
	d := w.now.Sub(epoch).Round(time.Millisecond)
	w.opt.Trace(fmt.Sprintf("%02d:%02d:%06.3f  %s", int(d.Hours()), int(d.Minutes())%60, (d % time.Minute).Seconds(), fmt.Sprintf(format, args...)))
}

func (w *World) at(t time.Time, do func()) {
	if t.Before(w.now) {
		t = w.now
	}
	w.seq++
	heap.Push(&w.queue, item{t, w.seq, do})
}

func (w *World) after(d time.Duration, do func()) { w.at(w.now.Add(d), do) }

func (w *World) every(d time.Duration, do func()) {
	w.after(d, func() {
		do()
		w.every(d, do)
	})
}

// delay is how long a message is under way: some milliseconds, now and then a third of a second when the world is lossy.
func (w *World) delay() time.Duration {
	d := time.Millisecond + time.Duration(w.rng.Int64N(int64(20*time.Millisecond)))
	if w.opt.Lossy && w.chance(0.03) {
		d += time.Duration(w.rng.Int64N(int64(300 * time.Millisecond)))
	}
	return d
}

func (w *World) chance(p float64) bool { return w.rng.Float64() < p }

func (w *World) lost(p float64) bool { return w.opt.Lossy && !w.calm && w.chance(p) }

// Calm ends all chance losses; what was broken stays broken until it is mended.
func (w *World) Calm() { w.calm = true }

// item is something to be done at a time; those of one time are done in the order in which they were planned.
type item struct {
	at  time.Time
	seq int
	do  func()
}

type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if c := q[i].at.Compare(q[j].at); c != 0 {
		return c < 0
	}
	return q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	old := *q
	it := old[len(old)-1]
	old[len(old)-1] = item{}
	*q = old[:len(old)-1]
	return it
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
