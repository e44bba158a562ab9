package collector

import (
	"math"
	"slices"
	"time"
)

const (
	frugalLeast  = 50              // percent of what is alive
	frugalPeriod = 2 * time.Second // between two collections, at least, where the room allows it
	frugalMost   = 2               // times what is alive may be garbage: a prober that makes so much in two seconds probes as much as a core can, and a collection looks at all of its checks
	frugalRoom   = 64 << 20        // bytes that any prober may have for garbage
	frugalLooks  = 4               // of which the lowest rate counts: what thousands of new checks take to compile, less than a second, is no reason for more room
	frugalHeld   = 4 << 20         // bytes alive below which the runtime counts as many
)

// Frugal gives a process room for the garbage of two seconds: 50 % of what is alive at least, and twice what is alive, or 64 MB, at most.
func Frugal(getenv func(string) string) (restore func()) {
	var rates [frugalLooks]float64 // of the last looks, in a ring; 0 before
	looks := 0
	return keep(getenv, policy{least: frugalLeast, look: time.Second / 2, target: func(l load) int {
		rates[looks%frugalLooks] = l.rate
		looks++
		l.rate = slices.Min(rates[:])
		return frugal(l)
	}})
}

func frugal(l load) int {
	base := float64(max(l.live, frugalHeld) + l.roots)
	room := min(l.rate*frugalPeriod.Seconds(), max(frugalMost*base, frugalRoom))
	return max(frugalLeast, int(math.Ceil(100*room/base)))
}
