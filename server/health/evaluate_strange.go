package health

import (
	"fmt"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// aboutTurnedAway finds processes that say they are probers, are refused, and go on asking.
func (e *evaluation) aboutTurnedAway() {
	var twins, strangers []TurnedAway
	for _, x := range e.f.TurnedAway {
		switch {
		case x.Last.Sub(x.First) < TurnedAwayLimit || e.attached(x):
		case x.Twin:
			twins = append(twins, x)
		default:
			strangers = append(strangers, x)
		}
	}
	if twins != nil {
		since(e.add(turnedAway, 0, claimed(twins), "A second process says that it is %s and is turned away%s: it has boot %s, datacenter %s and build %s%s, and the session is that of boot %s%s.",
			spec.ID(twins[0].Prober), more(twins), twins[0].BootID, orUnknown(twins[0].Datacenter), orUnknown(twins[0].Build), from(twins[0]), e.bootOf(twins[0].Prober), e.serverOf(twins[0].Prober)),
			twins[0].First)
		return // one condition of a code: the others are told of when the twins are gone
	}
	if strangers != nil {
		since(e.add(turnedAway, 0, claimed(strangers), "The prober %s is turned away%s%s: %s.", spec.ID(strangers[0].Prober), more(strangers), from(strangers[0]), strangers[0].Why), strangers[0].First)
	}
}

// attached tells whether the process has a session by now, at whichever server.
func (e *evaluation) attached(x TurnedAway) bool { return e.bootOf(x.Prober) == x.BootID }

func (e *evaluation) prober(name string) *meshv1.Prober {
	for _, p := range e.f.Probers {
		if p.GetName() == name {
			return p
		}
	}
	return nil
}

func (e *evaluation) bootOf(prober string) string { return orUnknown(e.prober(prober).GetBootId()) }

func (e *evaluation) serverOf(prober string) string {
	if s := e.prober(prober).GetServer(); s != "" {
		return ", at server " + spec.ID(s)
	}
	return ""
}

func claimed(list []TurnedAway) (names []string) {
	for _, x := range list {
		names = append(names, x.Prober)
	}
	return names
}

func more(list []TurnedAway) string {
	if len(list) < 2 {
		return ""
	}
	return fmt.Sprintf(", one of %d such processes", len(list))
}

func from(x TurnedAway) string {
	if x.Address == "" {
		return ""
	}
	return ", calls from " + x.Address
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// aboutTimes finds probers whose results have times that cannot be.
func (e *evaluation) aboutTimes() {
	var wrong []string
	worst, of := time.Duration(0), ""
	for _, p := range e.f.Probers {
		off := p.GetMistimed().AsDuration()
		if !online(p) || off == 0 {
			continue
		}
		wrong = append(wrong, p.GetName())
		if off.Abs() > worst.Abs() {
			worst, of = off, spec.ID(p.GetName())
		}
	}
	if wrong != nil {
		e.add(mistimed, 0, wrong, "%s times on its results that cannot be: those of %s are off by %s. They do not count as votes.", stamps(len(wrong)), of, span(worst))
	}
}

func stamps(n int) string {
	if n == 1 {
		return "A prober has"
	}
	return count(n, "prober") + " have"
}
