package referee

import "time"

// Alert is a period for which a rule calls a target down.
type Alert struct {
	Check      int
	Start, End time.Duration
}

// Rule is a way to call targets down.
type Rule struct {
	// Name is what tables and plots call it, Note its parameters.
	Name, Note string
	// Ours marks the rule of this product.
	Ours bool
	// Play watches every check of a round and gives the alerts and how many probes it sent.
	Play func(w *Truth) (alerts []Alert, probes int)
}

// watch is one check under one rule.
type watch struct {
	w      *Truth
	check  int
	probes int
	open   time.Duration // since when it is down; -1 while it is up
	alerts []Alert
}

// outcome is what a probe said, and when.
type outcome struct {
	ok bool
	at time.Duration
}

func (x *watch) probe(place int, at time.Duration, repeat int) outcome {
	x.probes++
	a := x.w.Answer(&x.w.Places[place%len(x.w.Places)], x.check, at, repeat)
	return outcome{ok: a.OK, at: at + a.Takes}
}

// retried is a probe that is repeated at once when it fails, so many times; pause is in between.
func (x *watch) retried(place int, at time.Duration, retries int, pause time.Duration) outcome {
	o := x.probe(place, at, 0)
	for i := range retries {
		if o.ok {
			break
		}
		o = x.probe(place, o.at+pause, i+1)
	}
	return o
}

// set says what the rule holds true from a moment on.
func (x *watch) set(down bool, at time.Duration) {
	switch {
	case down && x.open < 0:
		x.open = at
	case !down && x.open >= 0:
		x.alerts = append(x.alerts, Alert{x.check, x.open, at})
		x.open = -1
	}
}

// each plays a rule that watches one check at a time.
func each(f func(x *watch)) func(*Truth) ([]Alert, int) {
	return func(w *Truth) (alerts []Alert, probes int) {
		for c := range w.Checks {
			x := &watch{w: w, check: c, open: -1}
			f(x)
			x.set(false, w.Length)
			alerts, probes = append(alerts, x.alerts...), probes+x.probes
		}
		return alerts, probes
	}
}

// offset is where in the interval a check's first probe is: anywhere, and the same for every rule.
func (x *watch) offset(interval time.Duration) time.Duration {
	return time.Duration(hashOf("phase") * uint64(x.check*2654435761+1) % uint64(interval))
}

// spread are n places in different datacenters, another set for each check.
func (x *watch) spread(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = (2*((x.check*3+i*3)%10) + (x.check+i)%2) % len(x.w.Places)
	}
	return list
}
