package meshtest

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("meshtest.seed", 0, "run TestSchedules with this seed only")
	firstFlag = flag.Uint64("meshtest.first", 1, "the first seed of TestSchedules")
	seedsFlag = flag.Uint64("meshtest.seeds", 60, "how many seeds TestSchedules runs; a fifth of them with -short")
	lastsFlag = flag.Duration("meshtest.lasts", 45*time.Second, "for how long faults of TestSchedules begin, in mesh time")
)

// TestSchedules lets everything go wrong, seed by seed, then mends it, and holds the mesh to what it promises, meanwhile and afterwards.
func TestSchedules(t *testing.T) {
	t.Parallel()
	n := *seedsFlag
	if testing.Short() {
		n = max(n/5, 1)
	}
	first, last := *firstFlag, *firstFlag+n-1
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	y := newTally()
	t.Cleanup(func() { t.Log(y) })
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			play(t, draw(seed, *lastsFlag), nil, y)
		})
	}
}

// play runs a plan in a bubble of its own, holds the mesh to every invariant, and counts what came of it, if it is given a tally.
func play(t *testing.T, p plan, prepare func(*mesh), y *tally) {
	t.Helper()
	var w *world
	var ended time.Time
	defer func() {
		if t.Failed() && w != nil {
			t.Logf("%s%swhat was logged meanwhile:\n%s\nreplay: go test ./internal/meshtest -run 'TestSchedules$' -meshtest.seed=%d -meshtest.lasts=%s -v", p, joined(w.log), w.journal.since(w.begun, ended), p.seed, p.lasts)
		}
	}()
	inMesh(t, func(m *mesh) {
		if prepare != nil {
			prepare(m)
		}
		w = newWorld(m, p)
		defer w.users.stop()
		defer func() { ended = time.Now() }()
		if y != nil {
			defer func() { y.add(w, max(len(w.audit.found()), failures(t))) }() // also when it ends early
		}
		w.whole()
		for _, v := range w.audit.found() {
			t.Error(v)
		}
	})
}

// failures is 1 when the test has failed.
func failures(t *testing.T) int {
	if t.Failed() {
		return 1
	}
	return 0
}

// trial is play for a mesh that is expected to fail: it gives the violations, and fails no test.
func trial(t *testing.T, p plan, prepare func(*mesh)) (found []string) {
	t.Helper()
	inMesh(t, func(m *mesh) {
		m.trial = true
		prepare(m)
		w := newWorld(m, p)
		defer w.users.stop()
		w.whole()
		found = w.audit.found()
	})
	return found
}

func newWorld(m *mesh, p plan) *world {
	w := &world{mesh: m, plan: p, begun: time.Now(), made: time.Now(), met: map[string]int{}}
	w.w = newWatch(w)
	w.users = newUsers(w)
	return w
}

// whole is everything: the mesh is started, faults come and go, and it is held to what it promises.
func (w *world) whole() {
	w.start()
	w.run()
	w.users.wait()
	w.settle()
}

func joined(lines []string) string {
	out := "what happened:\n"
	for _, l := range lines {
		out += "  " + l + "\n"
	}
	return out
}

// start makes the mesh of the plan, and waits until all is well.
func (w *world) start() {
	for _, s := range w.plan.servers {
		w.serve(s)
	}
	for _, p := range w.plan.probers {
		w.probe(p, p[:3])
	}
	for i := range w.plan.checks {
		w.check(fmt.Sprint("c", i), nil)
	}
	w.await("all are UP", 3*time.Minute, w.allUp)
	w.await("every prober is there", time.Minute, w.settled)
}

// users do what users do, one thing after the other, and again until it is done: whoever is told that it failed tries again.
type users struct {
	w    *world
	todo chan errand
	done chan struct{}
	left sync.WaitGroup
}

// becomes is what an errand makes of a check.
type becomes int

const (
	asBefore becomes = iota
	paused
	running
	unsure // it is not done yet, or perhaps it is
)

type errand struct {
	check string
	becomes
	do func() error
}

func newUsers(w *world) *users {
	u := &users{w: w, todo: make(chan errand, 1000), done: make(chan struct{})}
	go u.run()
	return u
}

func (u *users) run() {
	defer close(u.done)
	for e := range u.todo {
		for range 120 {
			err := e.do()
			u.w.w.changed(e.check, e.becomes)
			if err == nil {
				break
			}
			time.Sleep(500 * time.Millisecond)
		}
		u.left.Done()
	}
}

// wait until all is done.
func (u *users) wait() { u.left.Wait() }

func (u *users) stop() {
	close(u.todo)
	<-u.done
}

// user has something done about a check.
func (w *world) user(check string, b becomes, do func() error) {
	w.w.changed(check, unsure)
	w.users.left.Add(1)
	w.users.todo <- errand{check, b, do}
}
