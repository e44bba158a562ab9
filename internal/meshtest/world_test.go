package meshtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// world runs a plan on a mesh. One goroutine breaks and mends; another looks, every half second, whether what must hold does (watch).
type world struct {
	*mesh
	plan  plan
	made  time.Time
	begun time.Time      // the faults
	met   map[string]int // faults that began, by kind
	apart []span         // when servers were kept from each other, or stopped
	under []*fault       // under way, in the order in which they end
	log   []string
	w     *watch
	users *users
}

// fault is a planned one that has begun.
type fault struct {
	planned
	name string // kind and whom it really met
	ends time.Time
	undo func()
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%6.1fs %s", time.Since(w.begun).Seconds(), fmt.Sprintf(format, args...)))
}

// run plays the schedule, and mends what is left at its end.
func (w *world) run() {
	w.begun = time.Now()
	next := 0
	for {
		now := time.Since(w.begun)
		w.mend(time.Now())
		for next < len(w.plan.faults) && w.plan.faults[next].at <= now {
			w.begin(w.plan.faults[next])
			next++
		}
		if next == len(w.plan.faults) && len(w.under) == 0 {
			break
		}
		until := time.Now().Add(time.Hour)
		if next < len(w.plan.faults) {
			until = w.begun.Add(w.plan.faults[next].at)
		}
		if len(w.under) > 0 && w.under[0].ends.Before(until) {
			until = w.under[0].ends
		}
		w.look(until)
	}
	w.etcd.LoseAnswers(0)
	w.etcd.LoseRequests(0)
	w.note("everything is mended")
}

// look watches until a time.
func (w *world) look(until time.Time) {
	for {
		w.w.look()
		left := time.Until(until)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, lookEvery))
	}
}

// mend ends what is over.
func (w *world) mend(now time.Time) {
	for len(w.under) > 0 && !now.Before(w.under[0].ends) {
		f := w.under[0]
		w.under = w.under[1:]
		w.note("over: %s", f.name)
		f.undo()
		w.w.ended(f)
	}
}

// whom resolves a role at the moment of the fault.
func (w *world) whom(node string) string {
	lead := w.leader()
	switch {
	case node == "leader" && lead != nil:
		return lead.name
	case node == "leader":
		return w.plan.servers[0]
	case node == "follower":
		for _, n := range w.plan.servers {
			if lead == nil || n != lead.name {
				return n
			}
		}
	}
	return node
}

// begin makes a fault, unless the same one is under way.
func (w *world) begin(p planned) {
	f := &fault{planned: p, ends: time.Now().Add(p.lasts)}
	f.node, f.other = w.whom(p.node), w.whom(p.other)
	if f.other != "" && f.other == f.node { // roles that are the same one now: the next one
		f.other = w.plan.servers[(slices.Index(w.plan.servers, f.node)+1)%len(w.plan.servers)]
	}
	f.name = p.kind
	for _, x := range []string{f.node, f.other} {
		if x != "" {
			f.name += " " + x
		}
	}
	for _, u := range w.under {
		if u.name == f.name || stops[u.kind] && stops[f.kind] && u.node == f.node {
			w.note("not twice: %s", f.name)
			return
		}
	}
	w.met[f.kind]++
	if splits[f.kind] {
		w.apart = append(w.apart, span{time.Now(), f.ends})
	}
	w.w.begins(f)
	undo := w.make(f)
	if undo == nil {
		w.note("%s", f.name)
		return
	}
	w.note("begins: %s (%s)", f.name, p.lasts)
	f.undo = undo
	w.under = append(w.under, f)
	slices.SortStableFunc(w.under, func(a, b *fault) int { return a.ends.Compare(b.ends) })
}

// span is a time.
type span struct{ from, to time.Time }

// splits are faults that keep servers from hearing each other, or have one forget what it knew.
var splits = map[string]bool{"kill": true, "host dies": true, "quit": true, "lose the disk of": true, "pause": true, "slow": true, "cut off datacenter": true,
	"one way from datacenter": true, "one way between servers": true, "one way from": true, "one way to": true}

// stops are faults after which the server is started again.
var stops = map[string]bool{"kill": true, "host dies": true, "quit": true, "lose the disk of": true}

// ways makes trouble with ways for as long as the fault lasts.
func (w *world) ways(f *fault, t trouble) func() {
	w.net.set(f.name, &t)
	return func() { w.net.set(f.name, nil) }
}

func from(node string) func(a, b string) bool { return func(a, _ string) bool { return a == node } }
func to(node string) func(a, b string) bool   { return func(_, b string) bool { return b == node } }

func fromTo(x, y string) func(a, b string) bool {
	return func(a, b string) bool { return a == x && b == y }
}

func either(f, g func(a, b string) bool) func(a, b string) bool {
	return func(a, b string) bool { return f(a, b) || g(a, b) }
}

// in tells whether a node is in a datacenter. It asks the plan, since the network asks it.
func (w *world) in(datacenter string) func(string) bool {
	return func(node string) bool {
		return homes[node] == datacenter || homes[node] == "" && strings.HasPrefix(node, datacenter+"-")
	}
}

// make carries a fault out. It gives what undoes it; nil when it is over already.
func (w *world) make(f *fault) func() {
	switch f.kind {
	case "kill", "host dies", "quit", "lose the disk of", "history stalls at", "pause", "slow":
		return w.breakServer(f)
	case "cut off datacenter":
		return w.ways(f, trouble{on: between(w.in(f.node)), stall: true})
	case "one way from datacenter":
		in := w.in(f.node)
		return w.ways(f, trouble{on: func(a, b string) bool { return in(a) && !in(b) }, stall: true})
	case "one way between servers":
		return w.ways(f, trouble{on: fromTo(f.node, f.other), stall: true})
	case "one way from", "one way from prober":
		return w.ways(f, trouble{on: from(f.node), stall: true})
	case "one way to", "one way to prober":
		return w.ways(f, trouble{on: to(f.node), stall: true})
	case "slow to etcd from":
		return w.ways(f, trouble{on: fromTo(f.node, "etcd"), delay: time.Duration(f.n) * time.Millisecond})
	case "one way to etcd from":
		return w.ways(f, trouble{on: fromTo(f.node, "etcd"), stall: true})
	case "one way from etcd to":
		return w.ways(f, trouble{on: fromTo("etcd", f.node), stall: true})
	case "prober is cut off":
		return w.ways(f, trouble{on: between(one(f.node)), stall: true})
	case "prober restarts", "prober loses its disk":
		return w.breakProber(f)
	case "clock jumps at":
		w.skews.set(f.node, time.Duration(f.n)*time.Millisecond)
		return nil
	case "target is down", "target is down from", "all targets are down", "edit", "pause check", "delete and make again", "new check":
		return w.change(f)
	case "receiver fails":
		w.box.set(func(b *inbox) { b.failing = true })
		return func() { w.box.set(func(b *inbox) { b.failing = false }) }
	case "receiver loses answers":
		w.box.set(func(b *inbox) { b.losing = true })
		return func() { w.box.set(func(b *inbox) { b.losing = false }) }
	case "receiver is slow":
		w.box.set(func(b *inbox) { b.slow = time.Duration(f.n) * time.Millisecond })
		return func() { w.box.set(func(b *inbox) { b.slow = 0 }) }
	}
	return w.breakEtcd(f)
}

func (w *world) breakServer(f *fault) func() {
	name := f.node
	s := w.servers[name]
	switch f.kind {
	case "kill", "lose the disk of":
		w.kill(name)
		if f.kind == "lose the disk of" {
			w.w.lost(name)
			return func() { w.serveAnew(name) }
		}
		return func() { w.serve(name) }
	case "host dies":
		// Nobody is told: its connections are neither closed nor reset before it is back.
		w.net.set("host of "+name, &trouble{on: between(one(name)), stall: true})
		w.kill(name)
		return func() {
			w.net.set("host of "+name, nil)
			w.serve(name)
		}
	case "quit":
		w.quit(name)
		return func() { w.serve(name) }
	case "pause":
		// What a stopped process does: nothing comes in or goes out, and what was under way goes on when it wakes. Its timers run on, which those of a stopped
		// process do not; but nobody is told of what they do before it wakes.
		return w.ways(f, trouble{on: either(from(name), to(name)), stall: true})
	case "slow":
		return w.ways(f, trouble{on: either(from(name), to(name)), delay: time.Duration(f.n) * time.Millisecond})
	}
	s.archive.stall(true)
	return func() { s.archive.stall(false) }
}

func (w *world) breakProber(f *fault) func() {
	w.stopProber(f.node)
	if f.kind == "prober loses its disk" {
		w.probers[f.node].dir = w.t.TempDir()
		w.w.lost(f.node)
		w.probe(f.node, w.net.where(f.node))
		return nil
	}
	return func() {
		if w.probers[f.node].cancel == nil { // nobody has started it meanwhile, on an empty disk
			w.probe(f.node, w.net.where(f.node))
		}
	}
}

func (w *world) breakEtcd(f *fault) func() {
	e, d := w.etcd, time.Duration(f.n)*time.Millisecond
	switch f.kind {
	case "etcd is lost":
		e.SetLeaderless(true)
		return func() { e.SetLeaderless(false) }
	case "etcd is slow":
		e.SetDelay(d)
		return func() { e.SetDelay(0) }
	case "etcd answers late":
		e.SetAnswerDelay(d)
		return func() { e.SetAnswerDelay(0) }
	case "etcd loses answers":
		e.LoseAnswers(f.n)
	case "etcd loses requests":
		e.LoseRequests(f.n)
	case "etcd resets connections":
		w.net.set(f.name, &trouble{on: between(one("etcd")), close: true})
		w.net.set(f.name, nil)
	case "watch events are lost":
		e.HideEvents(f.n)
		return func() { e.HideEvents(0) }
	case "watches are silent":
		e.SetStarved(true)
		return func() { e.SetStarved(false) }
	case "watches break, compacted":
		e.BreakWatches()
		e.Compact(0)
	case "leader's lease is revoked":
		e.RevokeLeaseOf(store.LeaderKey)
	case "leases are not renewed":
		e.MuteLeases(true)
		return func() { e.MuteLeases(false) }
	case "reads are stale":
		e.SetStale(int64(f.n))
		return func() { e.SetStale(0) }
	default:
		w.t.Fatalf("there is no fault %q", f.kind)
	}
	return nil
}

// change is what targets and users do. Users try again until it is done: they are told when it is not.
func (w *world) change(f *fault) func() {
	set := func(key string, down bool) { w.target.set(key, down) }
	switch f.kind {
	case "target is down":
		set(f.node, true)
		return func() { set(f.node, false) }
	case "target is down from":
		set(f.node+"@"+f.other, true)
		return func() { set(f.node+"@"+f.other, false) }
	case "all targets are down":
		for i := range w.plan.checks - 1 {
			set(fmt.Sprint("checks/c", i, "@*"), true)
		}
		return func() {
			for i := range w.plan.checks - 1 {
				set(fmt.Sprint("checks/c", i, "@*"), false)
			}
		}
	case "edit":
		w.user(f.node, asBefore, func() error {
			return w.edit(f.node, func(k *meshv1.Check) { k.DisplayName = fmt.Sprint("edited at ", time.Now().Unix()) })
		})
	case "pause check":
		w.user(f.node, paused, func() error { return w.edit(f.node, func(k *meshv1.Check) { k.Paused = true }) })
		return func() {
			w.user(f.node, running, func() error { return w.edit(f.node, func(k *meshv1.Check) { k.Paused = false }) })
		}
	case "delete and make again":
		w.user(f.node, asBefore, func() error {
			if err := w.admin.DeleteCheck(w.t.Context(), f.node, ""); err != nil && w.exists(f.node) {
				return err
			}
			return nil
		})
		w.user(f.node, running, func() error {
			if !w.exists(f.node) {
				_, err := w.admin.CreateCheck(w.t.Context(), w.spec(f.node))
				return err
			}
			return nil
		})
	case "new check":
		w.user(f.node, asBefore, func() error {
			if name := "checks/late"; !w.exists(name) {
				_, err := w.admin.CreateCheck(w.t.Context(), w.spec(name))
				return err
			}
			return nil
		})
	}
	return nil
}
