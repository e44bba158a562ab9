package referee

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Place is a prober, with the domains it can fail with.
type Place struct {
	Name, Datacenter, Region, Provider, Resolver, Build string
}

// Places are the probers of the world that rules choose from: ten datacenters in three regions with two probers each, four providers, three resolvers, one build, and
// a second build on every fifth prober.
func Places() []Place {
	var all []Place
	for d := range 10 {
		for p := range 2 {
			i := 2*d + p
			build := "1"
			if i%5 == 4 {
				build = "2"
			}
			all = append(all, Place{
				Name: fmt.Sprintf("dc%d-%d", d, p+1), Datacenter: fmt.Sprintf("dc%d", d), Region: fmt.Sprintf("region%d", d%3),
				Provider: fmt.Sprintf("provider%d", d%4), Resolver: fmt.Sprintf("resolver%d", i%3), Build: build,
			})
		}
	}
	return all
}

// Answer is what a probe would meet.
type Answer struct {
	// OK: it is answered in time.
	OK bool
	// Takes is how long that, or the failure, takes.
	Takes time.Duration
}

// Timeout is every probe's.
const Timeout = 10 * time.Second

// Fault is one thing that fails, from Start to End.
type Fault struct {
	Class      *Class
	Start, End time.Duration
	// Target is the check that fails; -1 for a fault on the side of the probers.
	Target int
	// Hits are the places that the fault concerns; nil: all.
	Hits map[string]bool
	// Share is how many of the probes fail, 0 to 1.
	Share float64
	// Takes is how long a failing probe takes.
	Takes time.Duration
	// Checks are the checks that a fault of the probers concerns; nil: all.
	Checks func(check int) bool
}

func (f *Fault) concerns(p *Place, check int, at time.Duration) bool {
	return at >= f.Start && at < f.End && (f.Target < 0 || f.Target == check) && (f.Hits == nil || f.Hits[p.Name]) && (f.Checks == nil || f.Checks(check))
}

// Truth says what every probe would meet. Its methods may be called concurrently.
type Truth struct {
	seed   uint64
	Places []Place
	Faults []Fault
	// Lost is how many probes fail by themselves, 0 to 1.
	Lost float64
	// Length is how long the round lasts, Checks how many checks there are.
	Length time.Duration
	Checks int
}

// Answer is what a probe of a check that begins at a place at a time meets. repeat tells apart probes of one place that begin at the same moment.
func (t *Truth) Answer(p *Place, check int, at time.Duration, repeat int) Answer {
	r := draw{t.seed ^ hashOf(p.Name), uint64(check)<<32 ^ uint64(at)*0x9E3779B97F4A7C15 ^ uint64(repeat)<<56}
	rng := rand.New(rand.NewPCG(r.a, r.b))
	for i := range t.Faults {
		f := &t.Faults[i]
		if f.concerns(p, check, at) && (f.Share >= 1 || rng.Float64() < f.Share) {
			return Answer{Takes: f.Takes}
		}
	}
	if rng.Float64() < t.Lost {
		return Answer{Takes: Timeout}
	}
	// A round trip of 20 to 300 ms, with a tail.
	return Answer{OK: true, Takes: time.Duration(min(float64(3*time.Second), 60e6*math.Exp(0.6*rng.NormFloat64())))}
}

type draw struct{ a, b uint64 }

// Down tells whether the check fails from everywhere at the time.
func (t *Truth) down(check int, at time.Duration) bool {
	for i := range t.Faults {
		if f := &t.Faults[i]; f.Target == check && f.Class.Outage && at >= f.Start && at < f.End {
			return true
		}
	}
	return false
}

// troubled tells whether the target itself fails in any way at the time, or did less than Grace before.
func (t *Truth) troubled(check int, at time.Duration) bool {
	for i := range t.Faults {
		if f := &t.Faults[i]; f.Target == check && at >= f.Start && at < f.End+Grace {
			return true
		}
	}
	return false
}

// Grace is how long after a fault of the target an alert is still not false: the decision takes some time, and so do the last failing probes.
const Grace = 30 * time.Second

func hashOf(s string) uint64 {
	// FNV-1a: the same in every process, unlike maphash.
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
