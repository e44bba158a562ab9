package scheduler

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/incident"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// storeState is what the mind knows of etcd. The zero value is an etcd that works.
type storeState struct {
	// lost is since when no server that is heard can read etcd; zero while one can.
	lost time.Time
	// term is the newest term that was known when it was lost: part of the keys of outages.
	term int64
	// unsettled: what other servers know of outages has not been heard yet.
	unsettled bool
	// alone: since it was lost there was a time in which no other server was heard, though there are others.
	alone bool
	// settled is since when it works and all that was done without it is known here; zero while that is not so, and when it was never otherwise.
	settled time.Time
}

// outage is an incident that was due, or was over, while etcd had no quorum. It lives until it is joined: written into the store by a leader.
type outage struct {
	Outage
	// evidence are the votes that made it due, reason why; empty when only another server saw it.
	evidence []*meshv1.Vote
	reason   meshv1.CheckStatus_Reason
	summary  string
	traceID  string
	// heardAt is when it became known here.
	heardAt time.Time
	// joined is the incident that it became; until that has ended, it is remembered for those whom only break-glass messages reach.
	joined *meshv1.Incident
}

// maxOutages bounds the outages of one check that wait to be joined. Damping makes a check that flaps need hours for as many.
const maxOutages = 32

func (s *State) storeLost() bool { return !s.store.lost.IsZero() }

// takeStore takes over how etcd is. When it is lost, and when it is back, every check is looked at: what is due then is undecided, or decided.
func (s *State) takeStore(now time.Time, e Store) {
	before := s.store
	s.store = storeState{lost: e.Since, term: max(e.Term, before.term), unsettled: e.Unsettled}
	s.store.alone = e.Lost && (e.Alone || before.alone)
	if !e.Lost && !e.Unsettled {
		if s.store.settled = before.settled; before.settled.IsZero() {
			s.store.settled = now
		}
	}
	if !e.Lost {
		s.store.lost = time.Time{}
		if before.alone {
			s.forgetUntold()
		}
	} else if e.Since.IsZero() || e.Since.After(now) {
		s.store.lost = now
	}
	if before.lost.IsZero() == s.store.lost.IsZero() && before.unsettled == s.store.unsettled {
		return
	}
	for _, c := range s.checks {
		s.schedule(c, now)
	}
}

// forgetUntold drops what this server made of its votes while it heard no other: they may have decided meanwhile, with all votes.
func (s *State) forgetUntold() {
	for _, name := range s.Names() {
		c := s.checks[name]
		for _, o := range append([]*outage(nil), c.outages...) {
			if o.joined == nil && len(o.Told) == 0 {
				s.forgetOutage(c, o.Key)
			}
		}
	}
}

// outageKey identifies an outage on every server that saw the same: by the check, when that was created, the newest term that etcd told of, and how many outages of the
// check there were under that term without a store. No clock has part in it.
func outageKey(c *check, term int64, ordinal int) string {
	created := c.spec.GetCreateTime().AsTime().UnixNano()
	h := sha256.Sum256(fmt.Appendf(nil, "%s|%d|%d|%d", c.name, created, term, ordinal))
	return "outage-" + hex.EncodeToString(h[:10])
}

// created is when the check was made; zero when nobody says.
func (c *check) created() time.Time {
	if t := c.spec.GetCreateTime(); t != nil {
		return t.AsTime()
	}
	return time.Time{}
}

// newest is the outage that goes on or ended last, of those that are not joined; nil when there is none.
func (c *check) newest() *outage {
	if n := len(c.outages); n > 0 && c.outages[n-1].joined == nil {
		return c.outages[n-1]
	}
	return nil
}

// openNow is the severity of what is open: an outage that waits to be joined is open, or is over, whatever the store says.
func (c *check) openNow() verdict.Verdict {
	if o := c.newest(); o != nil {
		if !o.End.IsZero() {
			return verdict.Unknown
		}
		return severityOf(o.Verdict)
	}
	return openSeverity(c.incident.GetIncident())
}

// began is when what is open began, for the end of it to be later.
func (c *check) began() time.Time {
	if o := c.newest(); o != nil {
		return o.Start
	}
	return c.incident.GetIncident().GetStartTime().AsTime()
}

func severityOf(v meshv1.CheckStatus_Verdict) verdict.Verdict {
	return openSeverity(&meshv1.Incident{Verdict: v})
}

// withoutStore does for a check what can be done while nobody can write: it says what is undecided, and breaks the glass for what has been so for long enough.
func (s *State) withoutStore(c *check, now time.Time, d incident.Decision) {
	// Of a member of a group nobody was told; the end of the group waits for etcd.
	member := d.Wish == incident.Resolve && c.newest() == nil && c.incident.GetIncident().GetGroup() != ""
	if (d.Wish == incident.Open || d.Wish == incident.Resolve) && !member {
		if at := s.store.lost.Add(s.cfg.BreakGlassAfter); now.Before(at) {
			s.schedule(c, at)
		} else {
			s.breakGlass(c, now, d)
		}
	}
	open, stored := c.openNow(), openSeverity(c.incident.GetIncident())
	s.undecide(c, now, d.Wish != incident.Nothing || open != stored)
}

// undecide notes since when the votes call for something that nobody can write down.
func (s *State) undecide(c *check, now time.Time, undecided bool) {
	if undecided == !c.undecided.IsZero() {
		return
	}
	c.undecided = time.Time{}
	if undecided {
		c.undecided = now
	}
	c.updated = now
	s.do(StatusChanged{Check: c.name, Before: shownVerdict(c.shown), After: shownVerdict(c.shown), Reason: c.reason})
}

// breakGlass makes the outage that an incident would be, or ends it.
func (s *State) breakGlass(c *check, now time.Time, d incident.Decision) {
	if d.Wish == incident.Resolve {
		s.endOutage(c, now)
		return
	}
	if len(c.outages) >= maxOutages {
		s.Counters.OutagesRefused++
		return
	}
	if c.ordinalTerm != s.store.term {
		c.ordinal, c.ordinalTerm = 0, s.store.term
	}
	start, key := c.failureStart(now), ""
	for key == "" || c.spent(key, start) {
		c.ordinal++
		key = outageKey(c, s.store.term, c.ordinal)
	}
	o := &outage{
		Outage:   Outage{Key: key, Check: c.name, Created: c.created(), Verdict: shownVerdict(d.Verdict), Start: start, Due: now},
		evidence: c.voteList(now, true), reason: c.reason, summary: alert.Opened(c.facts(shownVerdict(d.Verdict).String())), traceID: c.traceID(),
		heardAt: now,
	}
	c.damping = c.damping.Add(now)
	s.learnAgain(c, o)
	c.outages = append(c.outages, o)
	s.tellOutage(c, now, o, meshv1.Notification_OPENED, o.summary)
}

// spent tells whether a key is that of an outage which was over before one that began at start. A server that was started anew in the same term counts from the
// beginning again.
func (c *check) spent(key string, start time.Time) bool {
	for _, o := range c.outages {
		if o.Key == key && !o.End.IsZero() && o.End.Before(start) {
			return true
		}
	}
	return c.wasJoined(key)
}

// endOutage ends the outage that goes on, or makes one of the incident that was open when etcd was lost and is over now.
func (s *State) endOutage(c *check, now time.Time) {
	o := c.newest()
	if o == nil || !o.End.IsZero() {
		i := c.incident.GetIncident()
		o = &outage{Outage: Outage{Key: keyOfIncident(i), Check: c.name, Created: c.created(), Incident: i.GetName(), Verdict: i.GetVerdict(), Start: i.GetStartTime().AsTime(), Due: now}, reason: i.GetReason(), heardAt: now}
		s.learnAgain(c, o)
		c.outages = append(c.outages, o)
	}
	end := c.recoveryStart(now)
	if end.Before(o.Start) {
		end = o.Start
	}
	o.End = end
	facts := c.facts(shownVerdict(c.tally.Verdict).String())
	facts.Lasted = o.End.Sub(o.Start)
	s.tellOutage(c, now, o, meshv1.Notification_RESOLVED, alert.Resolved(facts))
}

// keyOfIncident is the key of the message about the end of an incident that was open before: that of its own break-glass messages, if it had some, else its id. With
// the latter, the message has the very Idempotency-Key that the leader would have used for a receiver of that name.
func keyOfIncident(i *meshv1.Incident) string {
	if k := i.GetBreakGlassKey(); k != "" {
		return k
	}
	return idOf(i)
}

// learnAgain takes over what others have told of an outage before it was seen here.
func (s *State) learnAgain(c *check, o *outage) {
	for i, known := range c.outages {
		if known.Key == o.Key {
			o.Told, c.outages = known.Told, append(c.outages[:i:i], c.outages[i+1:]...)
			return
		}
	}
}

// tellOutage wishes for the message about an outage.
func (s *State) tellOutage(c *check, now time.Time, o *outage, t meshv1.Notification_Transition, sentence string) {
	s.do(BreakGlass{Outage: o.copy(), Notification: s.outageMessage(c, now, o, t, sentence)})
}

func (s *State) outageMessage(c *check, now time.Time, o *outage, t meshv1.Notification_Transition, sentence string) *meshv1.Notification {
	n := &meshv1.Notification{
		Incident: o.Incident, Transition: t, Check: c.name, Uri: c.spec.GetUri(), Verdict: o.Verdict, Reason: o.reason, StartTime: timestampOf(o.Start),
		EndTime: timestampOf(o.End), Evidence: c.voteList(now, true), Summary: sentence, TraceId: o.traceID, DecideTime: timestampOf(now), Labels: c.spec.GetLabels(),
		Annotations: c.spec.GetAnnotations(), DisplayName: c.spec.GetDisplayName(), BreakGlass: true, BreakGlassKey: o.Key,
	}
	if t == meshv1.Notification_RESOLVED {
		n.Verdict, n.Reason = shownVerdict(c.tally.Verdict), c.reasonFor(incident.Decision{})
	}
	return n
}

func (o *outage) copy() Outage {
	x := o.Outage
	x.Told = append([]Told(nil), o.Told...)
	return x
}

// Outages are the outages that wait to be joined, in no order.
func (s *State) Outages() []Outage {
	var list []Outage
	for _, c := range s.checks {
		for _, o := range c.outages {
			if o.joined == nil {
				list = append(list, o.copy())
			}
		}
	}
	return list
}

// CountUndecided counts the checks whose verdict nobody can write down.
func (s *State) CountUndecided() int64 {
	n := int64(0)
	for _, c := range s.checks {
		if !c.gone && !c.undecided.IsZero() {
			n++
		}
	}
	return n
}

// undecidedSentence says what waits, since when and why.
func (s *State) undecidedSentence(c *check) string {
	what := "an incident is due and cannot be opened"
	if i := c.incident.GetIncident(); i != nil {
		what = idOf(i) + " is over, or has become worse, and cannot be changed"
	}
	return fmt.Sprintf("undecided since %s: %s, because etcd has had no quorum since %s", clockTime(c.undecided), what, clockTime(s.store.lost))
}

func clockTime(t time.Time) string { return t.UTC().Format("15:04:05 MST") }
