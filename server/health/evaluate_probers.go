package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// online tells whether a prober is heard; one that is set aside is.
func online(p *meshv1.Prober) bool {
	return p.GetState() == meshv1.Prober_ONLINE || p.GetState() == meshv1.Prober_QUARANTINED
}

func abs(n int64) int64 { return max(n, -n) }

func durationOf(n int64) time.Duration { return time.Duration(n) }

// place is what is heard of a datacenter's probers that are not drained.
type place struct {
	name             string
	online, enrolled int
	silent           []string
	since            time.Time
}

// places are the datacenters that have probers in service, by name.
func places(probers []*meshv1.Prober) []place {
	var all []place
	for _, p := range probers {
		if p.GetState() == meshv1.Prober_DRAINED {
			continue
		}
		i := slices.IndexFunc(all, func(x place) bool { return x.name == p.GetDatacenter() })
		if i < 0 {
			all, i = append(all, place{name: p.GetDatacenter()}), len(all)
		}
		all[i].enrolled++
		if online(p) {
			all[i].online++
			continue
		}
		all[i].silent = append(all[i].silent, p.GetName())
		if t := p.GetStateTime(); t != nil && t.AsTime().After(all[i].since) {
			all[i].since = t.AsTime()
		}
	}
	slices.SortFunc(all, func(a, b place) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return all
}

// aboutProbers finds who is silent, datacenter by datacenter, and who does not do what it should.
func (e *evaluation) aboutProbers() {
	all := places(e.f.Probers)
	heard := 0
	var dark, darkProbers, alone []string
	var since1 time.Time
	for _, p := range all {
		switch {
		case p.online > 0:
			heard++
			alone = append(alone, p.silent...)
		default:
			dark, darkProbers = append(dark, "datacenters/"+p.name), append(darkProbers, p.silent...)
			if p.since.After(since1) {
				since1 = p.since
			}
		}
	}
	if heard == 0 {
		e.noProber(len(all) > 0, darkProbers)
		return
	}
	if 2*heard <= len(all) && len(all) > 1 {
		since(e.add(noDatacenterQuorum, 0, dark, "%d of %d datacenters %s heard: fewer than most of them. What needs their votes is UNKNOWN.", heard, len(all), are(heard)), since1)
	}
	if dark != nil {
		c := e.add(datacenterSilent, 0, dark, "%s", e.darkSentence(dark, darkProbers))
		since(c, since1)
		e.add(proberSilent, datacenterSilent, darkProbers, "The %s of %s %s silent: %s.", nounOf(len(darkProbers)), names(dark), are(len(darkProbers)), names(darkProbers))
	}
	if alone != nil {
		e.add(proberSilent, 0, alone, "%s %s silent: %s.", count(len(alone), "prober"), are(len(alone)), names(alone))
	}
	e.aside()
	e.duties()
}

func nounOf(n int) string {
	if n == 1 {
		return "prober"
	}
	return fmt.Sprintf("%d probers", n)
}

// darkSentence says whether a datacenter's servers are silent too: then it is the whole datacenter that is gone.
func (e *evaluation) darkSentence(dark, probers []string) string {
	if len(dark) > 1 {
		return fmt.Sprintf("No prober of the datacenters %s is heard.", names(dark))
	}
	if name := spec.ID(dark[0]); !e.placeSilent(name) {
		for _, s := range e.f.Servers {
			if s.Datacenter == name && s.heard() {
				return fmt.Sprintf("No prober of datacenter %s is heard, although its server %s is.", name, spec.ID(s.Name))
			}
		}
		return fmt.Sprintf("No prober of datacenter %s is heard.", name)
	}
	return fmt.Sprintf("Nothing is heard of datacenter %s: neither its servers nor its %s.", spec.ID(dark[0]), nounOf(len(probers)))
}

func (e *evaluation) noProber(enrolled bool, silent []string) {
	text := "No prober is enrolled: nothing is being watched."
	if enrolled {
		text = fmt.Sprintf("No prober is heard, of %d that are enrolled: nothing can be judged.", len(silent))
	}
	drained := e.drained()
	if !enrolled && drained != nil {
		text = fmt.Sprintf("Every prober is drained: nothing is being watched. `probemesh undrain prober %s` puts it back into service.", spec.ID(drained[0]))
	}
	c := e.add(noProber, 0, append(silent, drained...), "%s", text)
	if e.f.Checks.Total == 0 {
		c.Severity = warning
	}
}

// drained are the probers that an operator has taken out of service, by name.
func (e *evaluation) drained() []string {
	var all []string
	for _, p := range e.f.Probers {
		if p.GetState() == meshv1.Prober_DRAINED {
			all = append(all, p.GetName())
		}
	}
	slices.Sort(all)
	return all
}

// duties finds probers that are heard and do not run what they should.
func (e *evaluation) duties() {
	var behind, refusing, dropping []string
	deaf := map[string][]string{}
	var refusal *meshv1.AssignmentRefusal
	refused, dropped := 0, int64(0)
	for _, p := range e.f.Probers {
		if !online(p) {
			continue
		}
		if !p.GetInSync() {
			behind = append(behind, p.GetName())
		}
		if r := p.GetRefusals(); len(r) > 0 {
			refusing, refused = append(refusing, p.GetName()), refused+len(r)
			if refusal == nil {
				refusal = r[0]
			}
		}
		for _, s := range p.GetCanaries() {
			if s.GetFailing() {
				deaf[familyName(s.GetFamily())] = append(deaf[familyName(s.GetFamily())], p.GetName())
			}
		}
		if p.GetDropped() > 0 {
			dropping, dropped = append(dropping, p.GetName()), dropped+p.GetDropped()
		}
	}
	if behind != nil {
		e.add(assignmentsBehind, 0, behind, "%s %s not run what %s should: %s.", count(len(behind), "prober"), doVerb(len(behind)), itVerb(len(behind)), names(behind))
	}
	if refusing != nil {
		e.add(assignmentsRefused, 0, refusing, "%s cannot run %s, such as %s: %s", names(refusing), count(refused, "assignment"), spec.ID(refusal.GetCheck()), refusal.GetReason())
	}
	for _, family := range slices.Sorted(maps.Keys(deaf)) {
		e.add(proberNetwork, 0, deaf[family], "No canary of %s answers over %s.", names(deaf[family]), family)
	}
	if dropping != nil {
		e.add(resultsDropped, 0, dropping, "%s had to drop %s since it started, the oldest ones.", names(dropping), count(int(dropped), "result"))
	}
}

// familyName is an address family as people write it.
func familyName(f string) string {
	if f == "ipv6" {
		return "IPv6"
	}
	return "IPv4"
}

func doVerb(n int) string {
	if n == 1 {
		return "does"
	}
	return "do"
}

func itVerb(n int) string {
	if n == 1 {
		return "it"
	}
	return "they"
}

// aboutAlerts finds what keeps people from being told.
func (e *evaluation) aboutAlerts() {
	var failing, late, lateFailing []string
	var first Owed
	var oldest, oldestFailing time.Time
	for _, o := range e.f.Owed {
		old := e.now.Sub(o.Oldest) >= OwedLimit
		switch {
		case o.Failed:
			failing = append(failing, o.Receiver)
			if first.Receiver == "" {
				first = o
			}
			if old {
				lateFailing, oldestFailing = append(lateFailing, o.Receiver), earliest(oldestFailing, o.Oldest)
			}
		case old:
			late, oldest = append(late, o.Receiver), earliest(oldest, o.Oldest)
		}
	}
	if failing != nil {
		what := "its last error is not known"
		if first.Error != "" {
			what = strings.TrimSuffix(first.Error, ".")
		}
		e.add(receiverFailing, 0, failing, "%s %s not take what %s sent: %s.", names(failing), doVerb(len(failing)), itVerb(len(failing))+" "+are(len(failing)), what)
	}
	say := func(list []string, oldest time.Time, because meshv1.Condition_Code) {
		if list == nil {
			return
		}
		since(e.add(outboxStuck, because, list, "A notification to %s has been owed for %s.", names(list), span(e.now.Sub(oldest))), oldest.Add(OwedLimit))
	}
	say(late, oldest, 0)
	say(lateFailing, oldestFailing, receiverFailing)
	if e.f.Checks.Total > 0 && !slices.ContainsFunc(e.f.Receivers, func(r Receiver) bool { return r.Mesh && !r.Paused }) {
		e.add(noMeshReceiver, 0, nil, "No receiver is told when the mesh itself is blind.")
	}
	if d := e.f.DeadMan; d.Configured && e.f.Leading && !d.FailingSince.IsZero() && e.now.Sub(d.FailingSince) >= d.Interval {
		since(e.add(deadManFailing, 0, []string{e.f.Server}, "The dead man's switch has not been told for %s that all is well: %s.", span(e.now.Sub(d.FailingSince)), d.Error), d.FailingSince)
	}
}

// earliest is the earlier of two times, of which the first may be zero.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
