// Package collector sets the garbage collector's target by what a process does, each kind of process by its own policy:
//
//   - [Frugal] is a prober's. What thousands of compiled checks hold stays for days, so that doubling it, as is Go's default, would be most of the process's memory, while the garbage of a
//     probe is small. At rest 50 % of what is alive is enough. But a collection costs by what is alive and not by what is thrown away, so that a prober that probes much would collect all
//     the time: it is given room for the garbage of two seconds.
//   - [Roomy] is a server's. While the collector looks at what is alive, it takes a core's time, and goroutines that ask for memory help it before they go on. With the sessions of an ordinary
//     mesh that is 50 ms every few seconds, and nobody notices. With ten thousand, on two cores, it is a second, in which a confirmation waits; and since probers that come at
//     once make much garbage, it happens in just that moment. So a server that holds much is given room: collections become rarer, not longer.
//
// Each keeps the target until restore is called, which puts back the one of before. With GOGC in the environment they do nothing, since the operator has said a target; GOMEMLIMIT goes before
// all of it, as Go documents. One of them at a time may be in force in a process.
package collector

import (
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// change is by which factor a target must differ from the one in force to be set: to set it stops the world for a moment.
const change = 1.25

// load is what a process holds and makes, as a policy sees it.
type load struct {
	live  uint64  // bytes alive in the heap, as of the last collection
	roots uint64  // bytes of stacks and globals, which are looked at with them
	rate  float64 // bytes allocated a second since the last look; 0 at the first
}

// policy is how the target of one kind of process is found.
type policy struct {
	least  int              // percent; what it begins with
	look   time.Duration    // how often the load is looked at
	target func(l load) int // percent
}

// keep keeps the target of a policy until restore is called.
func keep(getenv func(string) string, p policy) (restore func()) {
	if getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(p.least)
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { p.follow(done) })
	return sync.OnceFunc(func() {
		close(done)
		group.Wait()
		debug.SetGCPercent(before)
	})
}

// follow sets the target by the load until done is closed.
func (p policy) follow(done <-chan struct{}) {
	ticker := time.NewTicker(p.look)
	defer ticker.Stop()
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	set, made, since := p.least, uint64(0), time.Now()
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		metrics.Read(samples)
		all, now := samples[3].Value.Uint64(), time.Now()
		l := load{live: samples[0].Value.Uint64(), roots: samples[1].Value.Uint64() + samples[2].Value.Uint64()}
		if made > 0 {
			l.rate = float64(all-made) / now.Sub(since).Seconds()
		}
		made, since = all, now
		want := p.target(l)
		if r := float64(want) / float64(set); r >= change || r <= 1/change || want == p.least && set != want {
			debug.SetGCPercent(want)
			set = want
		}
	}
}
