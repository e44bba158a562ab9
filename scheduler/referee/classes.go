package referee

import (
	"math"
	"math/rand/v2"
	"time"
)

// Class is a kind of fault.
type Class struct {
	// Name is what tables call it.
	Name string
	// Note says what it is.
	Note string
	// Outage: the target fails from everywhere, for long enough that people must hear of it.
	Outage bool
	// PerDay is how many of them there are a day: for a fault of the target, of each check; else in the whole world of Places.
	PerDay float64
	// Sides: Target says that it is the target's fault.
	Target bool
	// make fills in one fault of the class.
	make func(rng *rand.Rand, w *Truth, f *Fault)
}

// Classes are the faults of the world.
func Classes() []*Class {
	return []*Class{
		{Name: "outage", Note: "the target refuses or swallows everything, half an hour in the median, one in a month", Outage: true, Target: true, PerDay: 0.033, make: outage},
		{Name: "regional", Note: "the target fails from one or two datacenters, for twenty minutes in the median", Target: true, PerDay: 0.1, make: regional},
		{Name: "blip", Note: "the target fails for 3 to 15 s", Target: true, PerDay: 1, make: blip},
		{Name: "slow", Note: "a third of the answers of the target take longer than the timeout, for ten minutes in the median", Target: true, PerDay: 0.05, make: slow},
		{Name: "lost probes", Note: "nothing fails, but each probe by itself once in five thousand times", PerDay: 1, make: quiet},
		{Name: "prober", Note: "5 to 100 % of the probes of one prober fail, for half an hour in the median", PerDay: 0.4, make: proberFault},
		{Name: "datacenter", Note: "all probes of a datacenter fail, for a quarter of an hour in the median", PerDay: 0.1, make: datacenterFault},
		{Name: "provider", Note: "a provider of three datacenters loses 15 % of its packets, for a quarter of an hour", PerDay: 0.05, make: providerFault},
		{Name: "region", Note: "half of the probes from three or four datacenters of a region are lost on their common way, for ten minutes in the median", PerDay: 0.02, make: regionFault},
		{Name: "resolver", Note: "a resolver that a third of the probers ask fails 30 % of the time, for ten minutes in the median", PerDay: 0.03, make: resolverFault},
		{Name: "build", Note: "a new build on a fifth of the probers fails every third check, for an hour and a half", PerDay: 0.01, make: buildFault},
	}
}

// around is a duration from a log-normal distribution with the median.
func around(rng *rand.Rand, median, most time.Duration) time.Duration {
	return min(most, time.Duration(float64(median)*math.Exp(0.8*rng.NormFloat64())))
}

// at sets when the fault is.
func (f *Fault) at(start, length time.Duration) { f.Start, f.End = start, start+length }

func outage(rng *rand.Rand, w *Truth, f *Fault) {
	f.Target, f.Share, f.Takes = rng.IntN(w.Checks), 1, 50*time.Millisecond
	if rng.IntN(3) == 0 {
		f.Takes = Timeout
	}
	f.at(f.Start, max(5*time.Minute, around(rng, 30*time.Minute, 40*time.Minute)))
}

func regional(rng *rand.Rand, w *Truth, f *Fault) {
	f.Target, f.Share, f.Takes = rng.IntN(w.Checks), 1, Timeout
	f.Hits = map[string]bool{}
	for range 1 + rng.IntN(2) {
		dc := w.Places[rng.IntN(len(w.Places))].Datacenter
		for _, p := range w.Places {
			if p.Datacenter == dc {
				f.Hits[p.Name] = true
			}
		}
	}
	f.at(f.Start, around(rng, 20*time.Minute, 40*time.Minute))
}

func blip(rng *rand.Rand, w *Truth, f *Fault) {
	f.Target, f.Share, f.Takes = rng.IntN(w.Checks), 1, 50*time.Millisecond
	f.at(f.Start, 3*time.Second+time.Duration(rng.Int64N(int64(12*time.Second))))
}

func slow(rng *rand.Rand, w *Truth, f *Fault) {
	f.Target, f.Share, f.Takes = rng.IntN(w.Checks), 1.0/3, Timeout
	f.at(f.Start, around(rng, 10*time.Minute, 40*time.Minute))
}

func quiet(*rand.Rand, *Truth, *Fault) {}

func (f *Fault) hit(w *Truth, share float64, takes time.Duration, hits func(*Place) bool) {
	f.Target, f.Share, f.Takes, f.Hits = -1, share, takes, map[string]bool{}
	for i := range w.Places {
		if hits(&w.Places[i]) {
			f.Hits[w.Places[i].Name] = true
		}
	}
}

func proberFault(rng *rand.Rand, w *Truth, f *Fault) {
	one := w.Places[rng.IntN(len(w.Places))].Name
	share := math.Min(1, math.Exp(-3*rng.Float64())*1.2)
	f.hit(w, share, pick(rng, 20*time.Millisecond, Timeout), func(p *Place) bool { return p.Name == one })
	f.at(f.Start, around(rng, 30*time.Minute, 40*time.Minute))
}

func datacenterFault(rng *rand.Rand, w *Truth, f *Fault) {
	one := w.Places[rng.IntN(len(w.Places))].Datacenter
	f.hit(w, 1, pick(rng, 20*time.Millisecond, Timeout), func(p *Place) bool { return p.Datacenter == one })
	f.at(f.Start, around(rng, 15*time.Minute, 40*time.Minute))
}

func providerFault(rng *rand.Rand, w *Truth, f *Fault) {
	one := w.Places[rng.IntN(len(w.Places))].Provider
	f.hit(w, 0.15, Timeout, func(p *Place) bool { return p.Provider == one })
	f.at(f.Start, 15*time.Minute)
}

func regionFault(rng *rand.Rand, w *Truth, f *Fault) {
	one := w.Places[rng.IntN(len(w.Places))].Region
	f.hit(w, 0.5, Timeout, func(p *Place) bool { return p.Region == one })
	f.at(f.Start, around(rng, 10*time.Minute, 40*time.Minute))
}

func resolverFault(rng *rand.Rand, w *Truth, f *Fault) {
	one := w.Places[rng.IntN(len(w.Places))].Resolver
	f.hit(w, 0.3, 5*time.Second, func(p *Place) bool { return p.Resolver == one })
	f.at(f.Start, around(rng, 10*time.Minute, 40*time.Minute))
}

func buildFault(_ *rand.Rand, w *Truth, f *Fault) {
	f.hit(w, 1, 20*time.Millisecond, func(p *Place) bool { return p.Build == "2" })
	f.Checks = func(check int) bool { return check%3 == 0 }
	f.at(f.Start, 40*time.Minute)
}

func pick(rng *rand.Rand, a, b time.Duration) time.Duration {
	if rng.IntN(2) == 0 {
		return a
	}
	return b
}
