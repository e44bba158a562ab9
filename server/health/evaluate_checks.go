package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// aside finds the probers that go on probing and whose votes do not count, and says for what.
func (e *evaluation) aside() {
	var who, domains []string
	var from time.Time
	for _, p := range e.f.Probers {
		if p.GetState() != meshv1.Prober_QUARANTINED {
			continue
		}
		who = append(who, p.GetName())
		if d := p.GetSetAside(); d != "" && !slices.Contains(domains, d) {
			domains = append(domains, d)
		}
		if t := p.GetStateTime(); t != nil {
			from = earliest(from, t.AsTime())
		}
	}
	if who == nil {
		return
	}
	reason := ""
	if len(domains) > 0 {
		slices.Sort(domains)
		reason = " for " + strings.Join(domains[:min(len(domains), 3)], ", ")
		if n := len(domains) - 3; n > 0 {
			reason += fmt.Sprintf(" and %d more", n)
		}
	}
	c := e.add(setAside, 0, who, "%s %s set aside%s: %s. Their votes do not count.", count(len(who), "prober"), are(len(who)), reason, names(who))
	if len(who) == 1 {
		c.Summary = strings.Replace(c.Summary, "Their votes do", "Its votes do", 1)
	}
	since(c, from)
}

// aboutChecks finds those that cannot be judged, for the mesh's sake or for their own.
func (e *evaluation) aboutChecks() {
	if blind := e.f.Checks.Blind; len(blind) > 0 {
		e.add(checksBlind, e.blindCause(), blind, "%s of %d cannot be judged for want of votes, such as %s%s.", count(len(blind), "check"), e.f.Checks.Total, spec.ID(blind[0]), e.lacking())
	}
	if list := e.f.Checks.Forbidden; len(list) > 0 {
		e.add(checksForbidden, 0, list, "%s cannot be judged, because the settings of the probers forbid it: %s (%s).", count(len(list), "check"), names(list), e.f.Checks.ForbiddenBy)
	}
	if u := e.f.Checks.Unsatisfiable; len(u) > 0 {
		e.add(checksUnsatisfiable, 0, u, "%s %s for votes from more datacenters than have a prober for it: %s.", count(len(u), "check"), asks(len(u)), names(u))
	}
}

// blindCause is what the checks lack votes for, when it is probers that run them; 0 when the table is to be asked. A silent prober that runs none of them is no cause.
func (e *evaluation) blindCause() meshv1.Condition_Code {
	silent, aside := e.f.Checks.Silent, e.f.Checks.Aside
	switch {
	case e.has(isolated), e.has(noProber), e.has(noDatacenterQuorum):
		return 0
	case len(aside) > len(silent):
		return setAside
	}
	for _, p := range places(e.f.Probers) {
		if p.online == 0 && slices.ContainsFunc(p.silent, func(n string) bool { return slices.Contains(silent, n) }) {
			return datacenterSilent
		}
	}
	if slices.ContainsFunc(silent, e.enrolled) {
		return proberSilent
	}
	return 0
}

// enrolled tells whether there still is such a prober; what is known of the checks is some seconds old.
func (e *evaluation) enrolled(name string) bool { return e.prober(name) != nil }

// lacking names the probers whose votes the checks lack, as a clause; empty when nobody in particular is to be named.
func (e *evaluation) lacking() string {
	var clauses []string
	for _, x := range []struct {
		who []string
		how string
	}{{e.f.Checks.Silent, "silent"}, {e.f.Checks.Aside, "set aside"}} {
		if who := slices.DeleteFunc(slices.Clone(x.who), func(n string) bool { return !e.enrolled(n) }); len(who) > 0 {
			clauses = append(clauses, fmt.Sprintf("%s %s %s", names(who), are(len(who)), x.how))
		}
	}
	if clauses == nil {
		return ""
	}
	return "; of those that run them, " + strings.Join(clauses, ", and ")
}

func asks(n int) string {
	if n == 1 {
		return "asks"
	}
	return "ask"
}
