package cli

import (
	"math"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"sync"
	"time"
)

// A prober's garbage collector. What thousands of compiled checks hold stays for days, so that doubling it, as is the default, would be most of the process's memory, while the garbage of a
// probe is small: at rest 50 % of what is alive is enough. A collection costs by what is alive and not by what is thrown away, so that a prober that probes much would collect all the time: it is
// given room for the garbage of two seconds, but never more than once again what is alive, or 32 MB.
const (
	gcLeast  = 50              // percent of what is alive
	gcPeriod = 2 * time.Second // between two collections, at least, where the room allows it
	gcRoom   = 32 << 20        // bytes that any prober may have for garbage
	gcLooks  = 4               // of which the lowest rate counts: what thousands of new checks take to compile, less than a second, is no reason for more room
	gcLook   = time.Second / 2 // how often the rate of garbage is looked at
	gcChange = 1.25            // a target that differs less from the one in force is not set: to set it stops the world for a moment
	gcHeld   = 4 << 20         // bytes alive below which the runtime counts as many
)

// frugal keeps the collector's target by what the process does, unless the operator has said one (GOGC). The function returned ends that and puts back the one of before.
func frugal(getenv func(string) string) (restore func()) {
	if getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(gcLeast)
	done := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { keepGC(done) })
	return func() {
		close(done)
		group.Wait()
		debug.SetGCPercent(before)
	}
}

// keepGC looks at the rate of garbage until done is closed.
func keepGC(done <-chan struct{}) {
	ticker := time.NewTicker(gcLook)
	defer ticker.Stop()
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	set, made, since := gcLeast, uint64(0), time.Now()
	var rates [gcLooks]float64 // of the last looks, in a ring; 0 before
	for look := 0; ; look++ {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		metrics.Read(samples)
		all, now := samples[3].Value.Uint64(), time.Now()
		if made > 0 {
			rates[look%gcLooks] = float64(all-made) / now.Sub(since).Seconds()
		}
		want := gcTarget(samples[0].Value.Uint64(), samples[1].Value.Uint64()+samples[2].Value.Uint64(), slices.Min(rates[:]))
		if r := float64(want) / float64(set); r >= gcChange || r <= 1/gcChange || want == gcLeast && set != want {
			debug.SetGCPercent(want)
			set = want
		}
		made, since = all, now
	}
}

// gcTarget is the target in percent for bytes that are alive in the heap and others that are looked at with them, at a rate of garbage in bytes a second.
func gcTarget(live, roots uint64, rate float64) int {
	base := float64(max(live, gcHeld) + roots)
	room := min(rate*gcPeriod.Seconds(), max(base, gcRoom))
	return max(gcLeast, int(math.Ceil(100*room/base)))
}
