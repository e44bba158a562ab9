// Package collector sets the garbage collector's target of a server by how much is alive in it.
//
// While the collector looks at what is alive, it takes a core's time, and goroutines that ask for memory help it before they go on. With the thousand sessions of an
// ordinary mesh that is 50 ms every few seconds, and nobody notices. With ten thousand, on two cores, it is a second, in which a confirmation waits; and since probers that
// come at once make much garbage, it happens in just that moment. So a server that holds much is given room: collections become rarer, not longer. One that holds
// little keeps Go's default, and stays small.
//
// [Roomy] starts it. An operator's own GOGC is kept; GOMEMLIMIT goes before all of it, as Go documents.
package collector

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	usual   = 100         // percent: Go's default
	most    = 400         // percent
	small   = 64 << 20    // bytes alive up to which the default stays
	room    = 1 << 30     // bytes that garbage may have at most, where the default would not give more
	look    = time.Second // how often what is alive is looked at
	closely = 1.25        // a target that differs less from the one in force is not set: to set it stops the world for a moment
)

// Roomy keeps the target by what is alive, until restore is called, which puts back the one of before. With GOGC in the environment it does nothing.
func Roomy(getenv func(string) string) (restore func()) {
	if getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(usual)
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { keep(done) })
	return sync.OnceFunc(func() {
		close(done)
		group.Wait()
		debug.SetGCPercent(before)
	})
}

// keep looks at what is alive until it is told to end.
func keep(done <-chan struct{}) {
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	for set := usual; ; {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		metrics.Read(samples)
		want := target(samples[0].Value.Uint64() + samples[1].Value.Uint64() + samples[2].Value.Uint64())
		if r := float64(want) / float64(set); want != set && (r >= closely || r <= 1/closely || want == usual) {
			debug.SetGCPercent(want)
			set = want
		}
	}
}

// target is the collector's target in percent for so many bytes that are looked at: those alive in the heap, stacks and globals. It grows from the default at 64 MB to 400 % at 256 MB,
// and falls again where that would be more than a gigabyte.
func target(alive uint64) int {
	if alive <= small {
		return usual
	}
	percent := min(most, usual*float64(alive)/small, 100*room/float64(alive))
	return max(usual, int(math.Round(percent)))
}
