package meshtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// lookEvery is how often the invariants are looked at.
const lookEvery = 500 * time.Millisecond

// Bounds. Those after a fault count from its beginning for faults that the mesh must bear while they last, and from its end for all.
const (
	// decides is from the moment at which a quorum has seen an outage to its incident, when nothing is wrong.
	decides = 3 * time.Second
	// afterKill is from the death of a process, whose address refuses connections, until the mesh decides again.
	afterKill = 3 * time.Second
	// afterSilence is the same when nobody was told: a lease, and an election; sessions notice it after 3 s, and may have to look for another server.
	afterSilence = leaseTTL + 5*time.Second
	// afterTrouble is from the end of a fault while which nothing is promised.
	afterTrouble = 25 * time.Second
	// returns is from the end of what kept a prober from the servers to its session, when a round of its attempts has just failed: the longest pause, and a new round.
	returns = 11 * time.Second
	// outboxMost, spoolMost bound what may wait.
	outboxMost = 200
)

// borne are the faults while which the mesh goes on, and after which beginning it is given how long.
var borne = map[string]time.Duration{
	"kill": afterKill, "quit": afterKill, "lose the disk of": afterKill, "host dies": afterSilence, "pause": afterSilence, "cut off datacenter": afterSilence,
	"prober restarts": afterKill, "prober is cut off": afterKill, "one way from prober": afterKill, "one way to prober": afterKill, "prober loses its disk": afterKill,
	"history stalls at": 0, "receiver fails": 0, "receiver loses answers": 0, "receiver is slow": 0,
	"target is down": 0, "target is down from": 0, "all targets are down": 0, "edit": 0, "pause check": 0, "delete and make again": 0, "new check": 0,
	"leader's lease is revoked": afterKill, "watches break, compacted": afterKill, "etcd resets connections": afterSilence,
	"clock jumps at": afterSilence, "etcd loses answers": afterSilence, "etcd loses requests": afterSilence,
}

// watch holds the mesh to its invariants while faults go on. What it knows of the truth it takes from the targets, the faults and etcd, not from the minds.
type watch struct {
	w *world

	calm     time.Time // when the mesh may be expected to decide again
	troubles int       // faults under way that nothing is promised for
	said     map[string]bool
	worst    time.Duration   // the longest that a quorum's seeing lasted without an incident, while the mesh could decide
	held     int             // outages that a quorum saw, and whose incident was open, while the mesh was held to the bound
	decided  map[string]bool // checks whose outage counts in held

	mu     sync.Mutex
	edited map[string]time.Time // when a check was changed last
	wiped  map[string]time.Time // when a prober or server lost its disk
	freed  map[string]time.Time // when a prober could reach the servers again
	paused map[string]bool
}

func newWatch(w *world) *watch {
	return &watch{w: w, said: map[string]bool{}, decided: map[string]bool{}, edited: map[string]time.Time{}, wiped: map[string]time.Time{}, freed: map[string]time.Time{}, paused: map[string]bool{}, calm: time.Now()}
}

func (k *watch) begins(f *fault) {
	if d, ok := borne[f.kind]; ok {
		if stops[f.kind] && 2*(k.living()-1) <= len(k.w.servers) {
			d = max(d, afterSilence) // those that are left are too few to take its lead away, which ends with its lease
		}
		k.calmAfter(d)
		return
	}
	if f.lasts > 0 {
		k.troubles++
	}
	k.calmAfter(afterTrouble)
}

// living counts the servers that are not stopped.
func (k *watch) living() int {
	n := 0
	for _, s := range k.w.servers {
		if !s.dead {
			n++
		}
	}
	return n
}

func (k *watch) ended(f *fault) {
	d, ok := borne[f.kind]
	if !ok {
		k.troubles--
		d = afterTrouble
	}
	if f.kind == "pause" || f.kind == "cut off datacenter" || stops[f.kind] {
		d = afterSilence // it comes back: sessions go home, and an old leader may have to learn that it is one no more
	}
	switch f.kind {
	case "prober is cut off", "one way from prober", "one way to prober":
		k.mu.Lock()
		k.freed[f.node] = time.Now()
		k.mu.Unlock()
	}
	k.calmAfter(d)
}

func (k *watch) calmAfter(d time.Duration) {
	if at := time.Now().Add(d); at.After(k.calm) {
		k.calm = at
	}
}

// lost notes that a disk is gone, and with it what nobody else had.
func (k *watch) lost(node string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wiped[node] = time.Now()
}

func (k *watch) changed(check string, b becomes) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.edited[check] = time.Now()
	if b == paused || b == running {
		k.paused[check] = b == paused
	}
}

// violate notes a violation, each once.
func (k *watch) violate(what, format string, args ...any) {
	if k.said[what] {
		return
	}
	k.said[what] = true
	k.w.audit.violate(format, args...)
}

// look holds the mesh to what must be at any time.
func (k *watch) look() {
	k.queues()
	able := k.able()
	if len(able) == 0 {
		k.calmAfter(afterTrouble)
	}
	if k.troubles > 0 || time.Now().Before(k.calm) {
		return
	}
	k.led()
	k.outages(able)
}

// able are the servers that can do their work: they live, and no trouble is on their ways to etcd, nor to other servers that live.
func (k *watch) able() []string {
	var list []string
	for name, s := range k.w.servers {
		if !s.dead && k.w.net.open(name, "etcd") && !k.w.net.stalled(name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// queues: what waits is bounded.
func (k *watch) queues() {
	a := k.w.audit
	a.mu.Lock()
	owed := len(a.owed)
	a.mu.Unlock()
	if owed > outboxMost {
		k.violate("outbox", "the outbox owes %d notifications", owed)
	}
	for name, p := range k.w.probers {
		if st := p.p.Status(); st.Dropped > 0 {
			k.violate("spool of "+name, "%s has dropped %d results", name, st.Dropped)
		}
	}
}

// led: somebody leads.
func (k *watch) led() {
	value := k.w.etcd.Has(store.LeaderKey)
	if !value {
		k.violate("leader", "nobody leads, although nothing but what the mesh must bear has happened since %s", k.w.since(k.calm))
	}
}

// outages: what a quorum has seen to be down is told, within the bound.
func (k *watch) outages(able []string) {
	open := k.w.audit.openChecks(k.w.etcd)
	for i := range k.w.plan.checks {
		check := fmt.Sprint("checks/c", i)
		k.mu.Lock()
		edited, rests := k.edited[check], k.paused[check]
		k.mu.Unlock()
		if rests || time.Since(edited) < 40*time.Second {
			continue
		}
		since, ok := k.quorumSince(check)
		switch {
		case !ok:
			delete(k.decided, check)
			continue
		case open[check]:
			if !k.decided[check] {
				k.decided[check] = true
				k.held++
			}
			continue
		}
		if k.calm.After(since) {
			since = k.calm
		}
		if took := time.Since(since); took > decides {
			k.violate("outage of "+check, "%s is down, a quorum has seen it since %s, the mesh could decide since %s, and no incident is open", check,
				k.w.since(since), k.w.since(k.calm))
		} else {
			k.worst = max(k.worst, took)
		}
	}
}

// quorumSince is when the second datacenter saw a check fail, of those whose probers live, are heard, and have seen nothing else since.
func (k *watch) quorumSince(check string) (time.Time, bool) {
	first := map[string]time.Time{}
	for prober, s := range k.w.target.views(check) {
		a := k.w.probers[prober]
		if a == nil || a.cancel == nil || s.ok || k.w.net.stalled(prober) || time.Since(s.last) > 36*time.Second {
			continue
		}
		seen := s.first
		k.mu.Lock()
		if heard := k.freed[prober].Add(returns); heard.After(seen) {
			seen = heard
		}
		k.mu.Unlock()
		if at, ok := first[s.datacenter]; !ok || seen.Before(at) {
			first[s.datacenter] = seen
		}
	}
	times := slices.SortedFunc(maps.Values(first), time.Time.Compare)
	// A datacenter of which some probers see it answer counts for nothing.
	if len(times) < 2 || k.w.target.contradicted(check) {
		return time.Time{}, false
	}
	return times[1], true
}

func (w *world) since(t time.Time) string { return fmt.Sprintf("%.1fs", t.Sub(w.begun).Seconds()) }

// settle holds the mesh to what is true some time after the last fault.
func (w *world) settle() {
	w.await("somebody leads, every prober is there and runs what it should", time.Minute, w.settled)
	w.await("every check is UP and no incident is open", 6*time.Minute, func() bool {
		open, _, err := w.admin.ListOpenIncidents(w.t.Context())
		return err == nil && len(open) == 0 && w.allUp()
	})
	w.await("nothing is owed", 3*time.Minute, func() bool {
		owed, _, err := w.admin.ListOutbox(w.t.Context())
		return err == nil && len(owed) == 0
	})
	same := 10 * time.Second
	if w.plan.has("etcd is lost", "etcd is slow", "etcd answers late", "etcd loses requests", "one way to etcd from", "slow to etcd from", "one way from etcd to", "one way from", "one way to",
		"one way from datacenter", "cut off datacenter", "slow", "delete and make again", "watches are silent", "clock jumps at") {
		same = 45 * time.Second // a server that hears votes before it knows their checks does not count them: the next round of probes, at most an interval later, does
	}
	if w.plan.has("prober restarts", "prober loses its disk") && w.plan.has("one way between servers", "pause", "kill", "host dies", "lose the disk of", "quit") {
		// A prober that says goodbye has its checks taken by others, and its last votes count until those have probed. A server that was away then is not told of them:
		// what is told anew is what a prober runs now.
		same = 45 * time.Second
	}
	if w.plan.has("watch events are lost", "reads are stale") {
		same = verifyEvery + 45*time.Second // what a watch has not told is found by the next comparison
	}
	w.await("every server says the same", same, w.alike)
	w.await("every probe is in every history", 5*time.Minute, func() bool { return w.gaps() == 0 })
	w.told()
}

// gaps counts the probes that the history of some server lacks, but for what was lost with a disk.
func (w *world) gaps() int {
	w.w.mu.Lock()
	var wiped time.Time // what was made before, by whomever, may have been on that disk alone
	for _, at := range w.w.wiped {
		if at.After(wiped) {
			wiped = at
		}
	}
	w.w.mu.Unlock()
	n := 0
	w.target.mu.Lock()
	defer w.target.mu.Unlock()
	for key, at := range w.target.probed {
		if time.Since(at) < 10*time.Second || at.Before(wiped.Add(10*time.Second)) {
			continue
		}
		for _, s := range w.servers {
			s.archive.mu.Lock()
			if !s.archive.have[key] {
				n++
				w.lacked = fmt.Sprintf("%s of %s, in the history of %s", key, w.since(at), s.name)
			}
			s.archive.mu.Unlock()
		}
	}
	return n
}

// told holds what the receiver was told against what happened: each incident was told, and its end, once; in between nothing else; and nothing came of what did not
// happen.
func (w *world) told() {
	closed, _, err := w.admin.ListClosedIncidents(w.t.Context(), "", 0)
	if err != nil {
		w.audit.violate("closed incidents cannot be read: %v", err)
		return
	}
	// Incidents are delivered side by side, and a receiver that failed hears of several at once: their order is that of the decisions.
	all := w.box.all()
	slices.SortStableFunc(all, func(a, b delivery) int { return a.decided().Compare(b.decided()) })
	for _, v := range closed {
		i := v.Value.GetIncident()
		for _, t := range []meshv1.Notification_Transition{meshv1.Notification_OPENED, meshv1.Notification_RESOLVED} {
			if !slices.ContainsFunc(all, func(d delivery) bool { return d.n.GetTransition() == t && about(d.n, i) }) {
				w.audit.violate("nobody was told %s of %s (%s)", t, i.GetName(), i.GetCheck())
			}
		}
	}
	open := map[string]delivery{} // by check
	for _, d := range all {
		check := d.n.GetCheck()
		before, isOpen := open[check]
		switch d.n.GetTransition() {
		case meshv1.Notification_OPENED:
			if check == "" {
				continue // of the mesh itself there may be several kinds at once
			}
			if isOpen && !w.excused(before, d) {
				w.audit.violate("%s was told to be open twice: by %s at %s and by %s at %s", check, before.key, w.since(before.at), d.key, w.since(d.at))
			}
			open[check] = d
			if !w.target.wasDown(check, d.decided()) {
				w.audit.violate("false alert: %s was told to be open at %s by %s, and was not down: %s", check, w.since(d.at), d.key, d.n.GetSummary())
			}
		case meshv1.Notification_RESOLVED:
			if !isOpen && check != "" && !w.excused(before, d) && !(w.split(d.decided().Add(-time.Minute), d.decided()) && w.broken(check)) {
				w.audit.violate("%s was told to be over at %s by %s, and was not open", check, w.since(d.at), d.key)
			}
			delete(open, check)
		}
	}
}

// about tells whether a notification is about an incident: by its name, or as the message that was sent while nobody could write the incident down, under a key that the
// incident has or tells of.
func about(n *meshv1.Notification, i *meshv1.Incident) bool {
	if n.GetIncident() == i.GetName() && n.GetIncident() != "" {
		return true
	}
	key := n.GetBreakGlassKey()
	return n.GetBreakGlass() && n.GetCheck() == i.GetCheck() && (key == i.GetBreakGlassKey() || slices.ContainsFunc(i.GetTimeline(), func(e *meshv1.TimelineEntry) bool {
		return e.GetEvent() == meshv1.TimelineEntry_BREAK_GLASS && strings.Contains(e.GetText(), key)
	}))
}

// excused: servers that do not hear each other while etcd is lost may tell the same outage under two keys, as package breakglass says.
func (w *world) excused(a, b delivery) bool {
	return (a.n.GetBreakGlass() || b.n.GetBreakGlass()) && w.split(a.decided(), b.decided())
}

// broken tells whether the glass was broken for a check.
func (w *world) broken(check string) bool {
	return slices.ContainsFunc(w.box.all(), func(d delivery) bool { return d.n.GetBreakGlass() && d.n.GetCheck() == check })
}

// split tells whether servers were kept from each other, or lost what they knew, at some time between the two, or shortly before.
func (w *world) split(from, to time.Time) bool {
	return slices.ContainsFunc(w.apart, func(x span) bool { return !x.from.After(to) && x.to.After(from.Add(-time.Minute)) })
}
