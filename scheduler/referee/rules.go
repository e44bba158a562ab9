package referee

import (
	"fmt"
	"time"
)

// settle is how long a system takes from one answer to the next question it asks because of it: a message or two between its places.
const settle = 100 * time.Millisecond

// Rules are the rules that are compared, each at one interval: what other systems document, and ours at several settings.
func Rules() []*Rule {
	const minute = time.Minute
	return []*Rule{
		{Name: "second opinion", Note: "one place after the other, every 60 s; a failure is repeated from a distant place at once; both failed: down", Play: each(secondOpinion(minute))},
		{Name: "three of a region", Note: "one place every 60 s; a failure is repeated from three others of its region; all failed: down", Play: each(threeOfRegion(minute))},
		{Name: "share of one run", Note: "five places at once every 60 s, one retry each; half failed: down", Play: each(shareOfRun(minute, 5, 0.5))},
		{Name: "m of n for t", Note: "five places at once every 60 s, one retry after 300 ms; three fail continuously for 60 s: down", Play: each(mOfNForT(minute, 3, 5, minute))},
		{Name: "three locations", Note: "four places at once every 60 s; three failed: down", Play: each(shareOfRun0(minute, 4, 3))},
		{Name: "n in a row", Note: "one place every 60 s; three failures in a row: down", Play: each(inARow(minute, 3))},
		{Name: "half of the regions", Note: "six places in turn, each every 60 s; the last answers of half of them are failures: down", Play: each(halfOfRegions(minute, 6))},
		{Name: "18 percent", Note: "fifteen checkers, each every 30 s and failing after three in a row; 18 % or fewer healthy: down", Play: each(eighteen(30*time.Second, 15, 3))},
		ours("ours, 5 every 60 s", minute, 5, 3),
		ours("ours, 3 every 60 s", minute, 3, 2),
		ours("ours, 5 every 150 s", 150*time.Second, 5, 3),
		ours("ours, 5 every 300 s", 5*minute, 5, 3),
	}
}

func secondOpinion(interval time.Duration) func(*watch) {
	return func(x *watch) {
		for n, t := 0, x.offset(interval); t < x.w.Length; n, t = n+1, t+interval {
			// Each run is from another place, the second opinion from another region.
			first := n*7 + x.check
			o := x.probe(first, t, 0)
			if o.ok {
				x.set(false, o.at)
				continue
			}
			if again := x.probe(x.distant(first, n), o.at+settle, 1); !again.ok {
				x.set(true, again.at)
			}
		}
	}
}

// distant is a place in another region.
func (x *watch) distant(place, n int) int {
	p := x.w.Places
	for i := range p {
		if c := (place + n + 5 + i) % len(p); p[c].Region != p[place%len(p)].Region {
			return c
		}
	}
	return place + 1
}

func threeOfRegion(interval time.Duration) func(*watch) {
	return func(x *watch) {
		first := x.check
		for n, t := 0, x.offset(interval); t < x.w.Length; n, t = n+1, t+interval {
			o := x.probe(first, t, 0)
			if o.ok {
				x.set(false, o.at)
				continue
			}
			var region []int
			p := x.w.Places
			for c := range p {
				if p[c].Region == p[first%len(p)].Region && c != first%len(p) {
					region = append(region, c)
				}
			}
			all, at := true, o.at
			for i := range 3 {
				// Others each time: they are chosen at random.
				again := x.probe(region[(i+n)%len(region)], o.at+settle, 1)
				all, at = all && !again.ok, max(at, again.at)
			}
			x.set(all, at)
		}
	}
}

// shareOfRun: all places at once, with one retry.
func shareOfRun(interval time.Duration, n int, share float64) func(*watch) {
	return func(x *watch) {
		for t := x.offset(interval); t < x.w.Length; t += interval {
			x.run(t, n, 1, int(share*float64(n)+0.999))
		}
	}
}

// shareOfRun0: all places at once, without.
func shareOfRun0(interval time.Duration, n, least int) func(*watch) {
	return func(x *watch) {
		for t := x.offset(interval); t < x.w.Length; t += interval {
			x.run(t, n, 0, least)
		}
	}
}

// run is one parallel run; it is decided when the last has answered.
func (x *watch) run(t time.Duration, n, retries, least int) {
	failed, at := 0, t
	for _, place := range x.spread(n) {
		o := x.retried(place, t, retries, 300*time.Millisecond)
		at = max(at, o.at)
		if !o.ok {
			failed++
		}
	}
	x.set(failed >= least, at)
}

func mOfNForT(interval time.Duration, m, n int, during time.Duration) func(*watch) {
	return func(x *watch) {
		since := time.Duration(-1)
		for t := x.offset(interval); t < x.w.Length; t += interval {
			failed, at := 0, t
			for _, place := range x.spread(n) {
				o := x.retried(place, t, 1, 300*time.Millisecond)
				at = max(at, o.at)
				if !o.ok {
					failed++
				}
			}
			switch {
			case failed < m:
				since = -1
				x.set(false, at)
			case since < 0:
				since = t
			case t-since >= during:
				x.set(true, at)
			}
		}
	}
}

func inARow(interval time.Duration, least int) func(*watch) {
	return func(x *watch) {
		failed := 0
		for t := x.offset(interval); t < x.w.Length; t += interval {
			o := x.probe(x.check, t, 0)
			if o.ok {
				failed = 0
				x.set(false, o.at)
				continue
			}
			if failed++; failed >= least {
				x.set(true, o.at)
			}
		}
	}
}

// halfOfRegions keeps the last answer of each place.
func halfOfRegions(interval time.Duration, n int) func(*watch) {
	return func(x *watch) {
		places := x.spread(n)
		failing := make([]bool, n)
		for i, t := 0, x.offset(interval); t < x.w.Length; i, t = i+1, t+interval/time.Duration(n) {
			o := x.probe(places[i%n], t, 0)
			failing[i%n] = !o.ok
			x.set(2*count(failing) >= n, o.at)
		}
	}
}

// eighteen counts healthy checkers, each of which has its own memory.
func eighteen(interval time.Duration, n, least int) func(*watch) {
	return func(x *watch) {
		row, healthy := make([]int, n), make([]bool, n)
		for i := range healthy {
			healthy[i] = true
		}
		for i, t := 0, x.offset(interval); t < x.w.Length; i, t = i+1, t+interval/time.Duration(n) {
			c := i % n
			o := x.probe(c+x.check, t, 0)
			// A checker changes its mind after as many answers of the other kind.
			if o.ok == healthy[c] {
				row[c] = 0
			} else if row[c]++; row[c] >= least {
				healthy[c], row[c] = o.ok, 0
			}
			x.set(float64(count(healthy)) <= 0.18*float64(n), o.at)
		}
	}
}

func count(marks []bool) int {
	n := 0
	for _, m := range marks {
		if m {
			n++
		}
	}
	return n
}

func ours(name string, interval time.Duration, probers, quorum int) *Rule {
	return &Rule{
		Name: name, Note: fmt.Sprintf("domains with confirmation: %d probers in as many datacenters, each every %s, quorum %d", probers, interval, quorum), Ours: true,
		Play: func(w *Truth) ([]Alert, int) { return newMind(w, interval, probers, quorum).play() },
	}
}
