package sim

import (
	"math"
	"slices"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// slack is what the bounds allow beside probing: some lost messages and answers, each repeated within five seconds, and the warm-up of a new leader.
const slack = 25 * time.Second

// truth is what the audit keeps of a check, beside the minds.
type truth struct {
	able      map[string]bool // probers that see it truly and are heard
	ableSince time.Time       // since when none of them was lost, and they are a quorum
	honest    time.Time       // since when fewer datacenters than the quorum have a prober at fault
	clean     time.Time       // since when none has
	edited    time.Time
	openedAt  []time.Time
	detected  []time.Duration // from the beginning of an outage to its incident
}

func (w *World) truthOf(check string) *truth {
	t := w.truth[check]
	if t == nil {
		t = &truth{able: map[string]bool{}, ableSince: w.now, honest: w.now, clean: w.now, edited: w.now}
		w.truth[check] = t
	}
	return t
}

// checkEvidence counts, apart from the mind, what the server was told: an incident must rest on fresh failures seen from as many datacenters as the quorum.
func (w *World) checkEvidence(s *server, a scheduler.Open) {
	i := a.Incident.GetIncident()
	if i.GetKind() != meshv1.Incident_CHECK || i.GetVerdict() != meshv1.CheckStatus_DOWN {
		return
	}
	if w.store.checks[a.Key].rev != a.CheckRevision {
		return // the store will refuse it
	}
	c := spec.Effective(w.store.checks[a.Key].value, w.datacenters())
	fresh := c.GetInterval().AsDuration() + c.GetTimeout().AsDuration() + 2*time.Second
	failing := map[string]bool{}
	for name, r := range s.heard[a.Key] {
		p := w.probers[name]
		if p == nil || w.now.Sub(r.GetStartTime().AsTime()) >= fresh {
			continue
		}
		if r.GetOutcome() == meshv1.Result_FAIL {
			failing[p.datacenter] = true
		}
	}
	if len(failing) < int(c.GetQuorum()) {
		w.violate("the incident of %s rests on fresh failures from %d datacenters %v, the quorum is %d", a.Key, len(failing), sorted(failing), c.GetQuorum())
	}
}

func (w *World) datacenters() int {
	seen := map[string]bool{}
	for _, e := range w.store.enrolments {
		seen[e.value.GetDatacenter()] = true
	}
	return len(seen)
}

// opened notes that an incident was opened.
func (w *World) opened(key string, i *meshv1.Incident) {
	w.log("incident opened: %s", i.GetSummary())
	if !isCheck(key) {
		return
	}
	t := w.truthOf(key)
	t.openedAt = append(t.openedAt, w.now)
	if g := w.targetOf(i.GetUri()); g.mode == modeDown || g.mode == modeBlackhole {
		t.detected = append(t.detected, w.now.Sub(g.since))
	}
}

// audit checks, every second, the bounds that the package doc states.
func (w *World) audit() {
	for _, key := range sorted(w.store.open) {
		if !isCheck(key) {
			continue
		}
		if c, ok := w.store.checks[key]; !ok || c.value.GetPaused() {
			if since := w.latest(w.truthOf(key).edited, w.leaderSince); w.calmLeader() && w.now.Sub(since) > slack {
				w.violate("the incident of %s is still open, which was deleted or paused %s ago", key, w.now.Sub(since))
			}
		}
	}
	for _, name := range sorted(w.store.checks) {
		w.auditCheck(name)
	}
	w.auditGroups()
	w.auditOutbox()
	if w.now.Sub(w.rosterAt) >= time.Minute && w.calmLeader() && w.now.Unix()%20 == 0 {
		w.auditAssignments()
	}
}

func (w *World) calmLeader() bool { return !w.leaderSince.IsZero() && w.leader.ready }

func (w *World) latest(times ...time.Time) time.Time {
	var l time.Time
	for _, t := range times {
		if t.After(l) {
			l = t
		}
	}
	return l
}

// setAside are the probers whose votes do not count because they disagreed with all others.
func (w *World) setAside() map[string]bool {
	names := map[string]bool{}
	for _, i := range w.store.open {
		a := i.value.GetIncident().GetSetAside()
		if a == nil {
			continue
		}
		for n, p := range w.probers {
			if a.GetDimension() == "prober" && a.GetValue() == n || a.GetDimension() == "datacenter" && a.GetValue() == p.datacenter || slices.Contains(a.GetProbers(), "probers/"+n) {
				names[n] = true
			}
		}
	}
	return names
}

func (w *World) auditCheck(name string) {
	t := w.truthOf(name)
	c := spec.Effective(w.store.checks[name].value, w.datacenters())
	if c.GetPaused() {
		t.ableSince, t.honest, t.clean = w.now, w.now, w.now
		return
	}
	able, places, faulty := map[string]bool{}, map[string]bool{}, map[string]bool{}
	aside := w.setAside()
	for n, p := range w.probers {
		if p.held[name] == nil || aside[n] {
			continue // the vote of one that is set aside does not count, for better or worse
		}
		if p.correct() {
			able[n], places[p.datacenter] = true, true
		} else {
			faulty[p.datacenter] = true
		}
	}
	for d := range faulty {
		delete(places, d) // one that disagrees with itself says nothing
	}
	lost := false
	for n := range t.able {
		lost = lost || !able[n]
	}
	t.able = able
	if lost || len(places) < int(c.GetQuorum()) {
		t.ableSince = w.now
	}
	if len(faulty) >= int(c.GetQuorum()) {
		t.honest = w.now
	}
	if len(faulty) > 0 {
		t.clean = w.now
	}
	if !w.calmLeader() {
		return
	}
	g := w.targetOf(c.GetUri())
	if !g.everywhere() {
		return
	}
	since := w.latest(g.since, t.ableSince, t.edited, w.leaderSince)
	interval, timeout := c.GetInterval().AsDuration(), c.GetTimeout().AsDuration()
	open, isOpen := w.store.open[name]
	switch g.mode {
	case modeDown, modeBlackhole:
		if bound := interval + timeout + slack; !isOpen && w.now.Sub(since) > bound {
			w.violate("%s is down and seen to be so since %s, and no incident was opened within %s", name, since.Sub(epoch), bound)
		}
	case modeUp:
		since = w.latest(since, t.honest)
		if c.GetAlertOnDegraded() {
			since = w.latest(since, t.clean) // one place that sees it fail keeps it DEGRADED
		}
		bound := 3*interval + 2*timeout + 10*time.Second + w.hold(t, interval) + slack
		if run := verdict.SteadyRun*interval + verdict.SteadyFor; g.rough(run) >= verdict.UnsteadyFrom {
			bound += run
		}
		if isOpen && w.now.Sub(since) > bound {
			w.violate("%s is up and seen to be so since %s, and %s was not closed within %s", name, since.Sub(epoch), open.value.GetIncident().GetName(), bound)
		}
	}
}

// hold is at most how long the mind may ask a check that flaps to answer without a break: what its incidents weigh when the last was opened.
func (w *World) hold(t *truth, interval time.Duration) time.Duration {
	if len(t.openedAt) == 0 {
		return 0
	}
	last, penalty := t.openedAt[len(t.openedAt)-1], 0.0
	for _, at := range t.openedAt {
		penalty += math.Exp2(-last.Sub(at).Minutes() / 15)
	}
	return time.Duration(max(0, min(penalty, 20)-2) * float64(interval))
}

// auditOutbox: what is owed is delivered within half a minute of a leader's work, unless the receiver is broken.
func (w *World) auditOutbox() {
	if w.hook.broken {
		w.hook.brokeAt = w.now
	}
	if !w.calmLeader() {
		return
	}
	for _, id := range sorted(w.hook.owed) {
		if since := w.latest(w.hook.owed[id], w.leaderSince, w.hook.brokeAt); w.now.Sub(since) > 30*time.Second {
			w.violate("%s is owed since %s and was not delivered", id, since.Sub(epoch))
		}
	}
	if n := len(w.store.outbox); n > 1000 {
		w.violate("the outbox has %d entries", n)
	}
}

// auditAssignments: every prober that is heard runs what a mind computes that has only ever seen the store.
func (w *World) auditAssignments() {
	fresh := scheduler.New(w.opt.Mind)
	fresh.Apply(w.now, w.told(w.store.snapshot())...)
	for _, n := range sorted(w.probers) {
		p := w.probers[n]
		if p.session == nil {
			continue
		}
		want := fresh.Assignments(n)
		if len(want) != len(p.held) {
			w.violate("%s runs %d checks a minute after the last change, and should run %d", n, len(p.held), len(want))
			return
		}
		for c, a := range want {
			if p.held[c].GetFingerprint() != a.GetFingerprint() {
				w.violate("%s runs %s otherwise than it should", n, c)
				return
			}
		}
	}
}
