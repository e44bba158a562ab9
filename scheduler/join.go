package scheduler

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/incident"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// URLDigest identifies a receiver by where it sends, without telling it: SHA-256 of the URL, lower-case hex.
func URLDigest(r *meshv1.Receiver) string {
	h := sha256.Sum256([]byte(r.GetWebhook().GetUrl()))
	return hex.EncodeToString(h[:])
}

func idOf(i *meshv1.Incident) string { return spec.ID(i.GetName()) }

// seeOutage takes over what a server tells of an outage, this one's own former life included: what it delivered, and an outage that is not known here.
func (s *State) seeOutage(now time.Time, e OutageSeen) {
	c := s.checks[e.Outage.Check]
	known := !s.storeLost() && !s.store.unsettled                                                 // what is not here now is nowhere
	if c == nil || c.gone || !e.Outage.Created.IsZero() && e.Outage.Created.Before(c.created()) { // it is deleted, perhaps to be made anew
		if known {
			s.do(OutageJoined{Key: e.Outage.Key, Check: e.Outage.Check})
		}
		return
	}
	for _, o := range c.outages {
		if o.Key == e.Outage.Key {
			if o.learn(e.Outage) {
				s.schedule(c, now)
			}
			return
		}
	}
	over := e.Outage.Incident != "" && c.incident.GetIncident().GetName() != e.Outage.Incident
	switch {
	case c.wasJoined(e.Outage.Key), over && known, known && len(e.Outage.Told) == 0:
		// Without a message there is nothing to join: that server was away from etcd by itself, and here the votes have been counted all the time.
		s.do(OutageJoined{Key: e.Outage.Key, Check: c.name})
		return
	case len(c.outages) >= maxOutages:
		return
	}
	o := &outage{Outage: e.Outage, reason: meshv1.CheckStatus_QUORUM_DOWN, heardAt: now}
	if o.Verdict == meshv1.CheckStatus_DEGRADED {
		o.reason = meshv1.CheckStatus_MINORITY_DOWN
	}
	o.Told = append([]Told(nil), e.Outage.Told...)
	c.outages = append(c.outages, o)
	sort.SliceStable(c.outages, func(i, j int) bool { return c.outages[i].Due.Before(c.outages[j].Due) })
	s.incidentOfOutage(c)
	s.schedule(c, now)
}

// learn adds what is new, and reports whether anything was.
func (o *outage) learn(e Outage) bool {
	news := false
	for _, t := range e.Told {
		if !o.told(t.Receiver, t.URLDigest, t.Transition) {
			o.Told, news = append(o.Told, t), true
		}
		if t.Transition == meshv1.Notification_RESOLVED && o.End.IsZero() && o.joined == nil {
			// Somebody has been told that it is over: then it is, and what follows is another outage.
			o.End, news = e.End, true
		}
	}
	return news
}

// told tells whether a receiver, by its name or by where it sends, was told of a transition.
func (o *outage) told(receiver, digest string, t meshv1.Notification_Transition) bool {
	for _, x := range o.Told {
		if x.Transition == t && (x.Receiver == receiver || x.URLDigest == digest) {
			return true
		}
	}
	return false
}

// joinedIn tells whether the incident says that the outage is part of it.
func joinedIn(st *statev1.StoredIncident, key string) bool {
	return slices.Contains(OutagesOf(st.GetIncident()), key)
}

// maxJoined bounds the keys a check remembers of outages that were joined, the newest of them, so that a server which was away does not bring them up again, and none
// is used again: under one term there are hardly more than may wait at once.
const maxJoined = maxOutages

func (c *check) wasJoined(key string) bool {
	for _, k := range c.joinedKeys {
		if k == key {
			return true
		}
	}
	return false
}

// forgetOutage says that an outage needs nothing more, whatever is heard of it.
func (s *State) forgetOutage(c *check, key string) {
	c.noteJoined(key)
	s.dropOutage(c, key)
}

func (c *check) noteJoined(key string) {
	c.unjoin(key) // it is the newest now
	c.joinedKeys = append(c.joinedKeys, key)
	if len(c.joinedKeys) > maxJoined {
		c.joinedKeys = c.joinedKeys[1:]
	}
}

func (c *check) unjoin(key string) {
	c.joinedKeys = slices.DeleteFunc(c.joinedKeys, func(k string) bool { return k == key })
}

// dropOutage says that an outage needs nothing more, unless a server is heard that has told somebody of it.
func (s *State) dropOutage(c *check, key string) {
	for i, o := range c.outages {
		if o.Key == key {
			c.outages = append(c.outages[:i:i], c.outages[i+1:]...)
			break
		}
	}
	s.do(OutageJoined{Key: key, Check: c.name})
}

// join has the leader write down what happened while nobody could: the oldest outage first, one effect at a time. It reports whether the check's own wishes must wait.
func (s *State) join(c *check, now time.Time, d incident.Decision) bool {
	if o := c.newest(); o != nil && d.Wish == incident.Resolve && o.End.IsZero() && s.mayJoin(c, now) {
		// Over before it was joined: the votes say so, and nobody was told yet. Only when it is about to be written down: votes of before the outage, which a server
		// that has just come back holds for a moment, would end it for good.
		o.End = c.recoveryStart(now)
	}
	s.endStale(c, now)
	s.incidentOfOutage(c)
	s.leaveToLeader(c, now)
	for {
		o := c.oldest()
		if o == nil {
			return false
		}
		st := c.incident
		switch {
		case o.Incident != "" && st.GetIncident().GetName() != o.Incident:
			s.forgetOutage(c, o.Key) // its end was written after all
			continue
		case st == nil:
			s.wishJoined(c, now, o)
		case o.Incident != "" || joinedIn(st, o.Key):
			s.wishEnd(c, now, o)
		default:
			s.wishAdopt(c, now, o)
		}
		s.scheduleEffect(c, now)
		return true
	}
}

// oldest is the outage that is to be joined next; nil when there is none.
func (c *check) oldest() *outage {
	for _, o := range c.outages {
		if o.joined == nil {
			return o
		}
	}
	return nil
}

// dropOutages forgets what happened to a check that is deleted or paused: nobody waits for it any more. An outage that went on when the check was paused is told of
// as over where it was told of.
func (s *State) dropOutages(c *check, now time.Time) {
	for len(c.outages) > 0 {
		o := c.outages[0]
		if o.End.IsZero() && len(o.Told) > 0 {
			s.tellEnd(c, now, o)
		}
		s.forgetOutage(c, o.Key)
	}
	c.undecided = time.Time{}
}

// mayJoin tells whether an effect for an outage is this server's to wish for now.
func (s *State) mayJoin(c *check, now time.Time) bool {
	return s.mayAct(c.effectUntil, now) && !s.store.unsettled
}

// wishJoined opens the incident that an outage would have been from its beginning, also when it is over already: every receiver is told once that it began and once
// that it is over, by a break-glass message or by the leader.
func (s *State) wishJoined(c *check, now time.Time, o *outage) {
	if !s.mayJoin(c, now) {
		return
	}
	evidence := o.evidence
	if evidence == nil {
		evidence = c.voteList(now, true)
	}
	i := &meshv1.Incident{
		Name: spec.Name(spec.Incidents, incidentID(c.name, now, s.lead.Term)), Kind: meshv1.Incident_CHECK, Check: c.name, Uri: c.spec.GetUri(),
		State: meshv1.Incident_OPEN, Verdict: o.Verdict, Reason: o.reason, StartTime: timestamppb.New(o.Start), OpenTime: timestamppb.New(now),
		Evidence: evidence, Term: int32(s.lead.Term), Labels: c.spec.GetLabels(), Receivers: alert.Recipients(c.spec.GetReceivers()),
		Annotations: c.spec.GetAnnotations(), TraceId: o.traceID, BreakGlassKey: o.Key, Summary: o.summary,
	}
	switch {
	case i.Summary != "":
	case o.End.IsZero() && c.tally.Verdict == verdict.Down:
		i.Summary = alert.Opened(c.facts(o.Verdict.String()))
	default: // what the votes say now is not what made it due
		i.Summary = fmt.Sprintf("%s was %s from %s on, as another server saw while etcd had no quorum. (%s)", c.title(), o.Verdict, clockTime(o.Start), c.spec.GetUri())
	}
	noteOutage(i, now, o)
	note(i, now, meshv1.TimelineEntry_OPENED, i.Summary)
	st := &statev1.StoredIncident{Incident: i}
	out := s.spare(st, o, now, s.owe(st, c.spec, meshv1.Notification_OPENED, now))
	c.effectUntil = now.Add(effectTimeout)
	s.do(Open{Key: c.name, Incident: st, Outbox: out, CheckRevision: c.revision})
}

// wishEnd closes the incident of an outage that was over before a leader could write anything.
func (s *State) wishEnd(c *check, now time.Time, o *outage) {
	if !s.mayJoin(c, now) {
		return
	}
	st := proto.CloneOf(c.incident)
	i := st.GetIncident()
	i.State, i.EndTime, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.New(o.End), timestamppb.New(now)
	i.Summary = fmt.Sprintf("%s was %s for %s, from %s to %s, while etcd had no quorum. It is over. (%s)", c.title(), o.Verdict, alert.Span(o.End.Sub(i.GetStartTime().AsTime())),
		clockTime(i.GetStartTime().AsTime()), clockTime(o.End), i.GetUri())
	if o.Incident != "" {
		noteOutage(i, now, o)
	}
	note(i, now, meshv1.TimelineEntry_RESOLVED, i.Summary)
	out := s.spare(st, o, now, s.owe(st, c.spec, meshv1.Notification_RESOLVED, now))
	for _, x := range out {
		x.Notification.Verdict, x.Notification.Reason = shownVerdict(c.shown), c.reason
		x.Notification.EndTime = i.EndTime
	}
	c.effectUntil = now.Add(effectTimeout)
	s.do(Resolve{Key: c.name, Incident: st, Outbox: out, ModRevision: c.incidentRev})
}

// wishAdopt writes an outage into an incident that is open already: one that a leader opened as etcd was lost, or that another part of a divided mesh told of. What is still
// owed of its beginning to those whom a break-glass message has told is taken out of the outbox with that; until it is, nothing of it is sent (Joining).
func (s *State) wishAdopt(c *check, now time.Time, o *outage) {
	if !s.mayJoin(c, now) {
		return
	}
	st := proto.CloneOf(c.incident)
	i := st.GetIncident()
	if i.BreakGlassKey == "" {
		i.BreakGlassKey = o.Key
	}
	noteOutage(i, now, o)
	var paid []string
	for _, r := range i.GetReceivers() {
		if o.told(r, URLDigest(s.receivers[r]), meshv1.Notification_OPENED) {
			paid = append(paid, alert.Key(idOf(i), meshv1.Notification_OPENED.String(), spec.ID(r)))
		}
	}
	c.effectUntil = now.Add(effectTimeout)
	s.do(Escalate{Key: c.name, Incident: st, Paid: paid, ModRevision: c.incidentRev})
}

// joinsWithin is how long after etcd is back, and everything settled, the leader may take to write down what people were told of.
const joinsWithin = 30 * time.Second

// Joining tells whether people may have been told without etcd of an incident of a check that is not written down yet, so that nobody is to be told of an incident of it
// now. When it is not so any more, revision is that of the open incident that has taken such an outage in, 0 for none: whoever tells must know the outbox as of then.
func (s *State) Joining(name string, now time.Time) (joining bool, revision int64) {
	c := s.checks[name]
	if c == nil || c.gone {
		return false, 0
	}
	if s.storeLost() || s.store.unsettled {
		return true, 0
	}
	for _, o := range c.outages {
		if o.joined == nil && o.Incident == "" && len(o.Told) > 0 && now.Sub(s.store.settled) < joinsWithin {
			return true, 0
		}
	}
	if c.incident.GetIncident().GetBreakGlassKey() != "" {
		revision = c.incidentRev
	}
	return false, revision
}

// OutageKey is the key of the outage without etcd that the open incident of a check has taken in first; empty when it has none, or another incident is open.
func (s *State) OutageKey(check, incident string) string {
	if c := s.checks[check]; c != nil && c.incident.GetIncident().GetName() == incident {
		return c.incident.GetIncident().GetBreakGlassKey()
	}
	return ""
}

// noteOutage tells in the timeline what was done without the store.
func noteOutage(i *meshv1.Incident, now time.Time, o *outage) {
	if len(o.Told) == 0 {
		note(i, now, meshv1.TimelineEntry_BREAK_GLASS, fmt.Sprintf("It was due at %s, while etcd had no quorum, under the key %s; no break-glass receiver was told.", clockTime(o.Due), o.Key))
	}
	for _, t := range o.Told {
		note(i, t.Time, meshv1.TimelineEntry_BREAK_GLASS, fmt.Sprintf("%s was told of %s by %s without etcd, under the key %s (of outage %s).",
			t.Receiver, t.Transition, t.Server, t.IdempotencyKey, o.Key))
		i.Timeline[len(i.Timeline)-1].Receiver = t.Receiver
	}
}

// OutagesOf are the keys of the outages without etcd that an incident has taken in: its own first, then others that its timeline tells of (noteOutage).
func OutagesOf(i *meshv1.Incident) []string {
	if i.GetBreakGlassKey() == "" {
		return nil
	}
	keys := []string{i.GetBreakGlassKey()}
	for _, e := range i.GetTimeline() {
		if e.GetEvent() != meshv1.TimelineEntry_BREAK_GLASS {
			continue
		}
		for _, word := range strings.FieldsFunc(e.GetText(), func(r rune) bool { return strings.ContainsRune(" ();", r) }) {
			// With a full stop in it, it is the key of a message.
			if strings.HasPrefix(word, "outage-") && !strings.Contains(word, ".") && !slices.Contains(keys, word) {
				keys = append(keys, word)
			}
		}
	}
	return keys
}

// spare takes out of what is owed what a receiver has been told by a break-glass message, and says so in the incident.
func (s *State) spare(st *statev1.StoredIncident, o *outage, now time.Time, out []*statev1.OutboxEntry) []*statev1.OutboxEntry {
	var owed []*statev1.OutboxEntry
	for _, x := range out {
		n := x.GetNotification()
		if r := s.receivers[n.GetReceiver()]; !o.told(n.GetReceiver(), URLDigest(r), n.GetTransition()) {
			owed = append(owed, x)
			continue
		}
		note(st.Incident, now, meshv1.TimelineEntry_BREAK_GLASS, fmt.Sprintf("%s is not told of %s again: a break-glass message has told it.", n.GetReceiver(), n.GetTransition()))
		st.Incident.Timeline[len(st.Incident.Timeline)-1].Receiver = n.GetReceiver()
	}
	return owed
}

// incidentOfOutage notes that the store has an incident in which an outage is joined and goes on.
func (s *State) incidentOfOutage(c *check) {
	for o := c.oldest(); o != nil && o.Incident == "" && o.End.IsZero() && joinedIn(c.incident, o.Key); o = c.oldest() {
		o.joined = c.incident.GetIncident()
		s.do(OutageJoined{Key: o.Key, Check: c.name, Incident: o.joined.GetName()})
	}
}

// endOfOutage ends outages with the incident that they are part of. Receivers whom nobody but a break-glass message reaches are told the end by one too.
func (s *State) endOfOutage(c *check, gone *statev1.StoredIncident, now time.Time) {
	s.dropCovered(c, gone)
	for n := 0; n < len(c.outages); {
		o := c.outages[n]
		if !partOf(o, gone) {
			n++
			continue
		}
		if o.joined != nil {
			s.tellEnd(c, now, o)
		}
		s.forgetOutage(c, o.Key)
	}
}

// partOf tells whether an outage is, or is the end of, an incident.
func partOf(o *outage, st *statev1.StoredIncident) bool {
	name := st.GetIncident().GetName()
	return o.Incident == name || o.joined.GetName() == name || joinedIn(st, o.Key)
}

// dropCovered drops outages that nobody was told of and that an incident covers which has taken none in: a leader that did not know them has decided the same by its
// own votes, and told it. Without this, the next leader would write them down as a second incident.
func (s *State) dropCovered(c *check, st *statev1.StoredIncident) {
	for _, o := range c.outages {
		if partOf(o, st) {
			return // it has taken one in: what else there is came after that
		}
	}
	for _, o := range append([]*outage(nil), c.outages...) {
		if o.untold() && (o.End.IsZero() || !o.End.Before(st.GetIncident().GetStartTime().AsTime())) {
			s.dropOutage(c, o.Key)
		}
	}
}

// leaderHas is how long after etcd is back, and everything settled, outages that nobody was told of are kept by servers that do not lead: a leader has known them, and
// written them down, or has refused them because its votes say otherwise, or another has taken its place.
const leaderHas = time.Minute

// leaveToLeader drops what this server would write down if it led, when somebody else has led for long enough to have done it.
func (s *State) leaveToLeader(c *check, now time.Time) {
	if s.lead.Leading || s.store.settled.IsZero() || now.Sub(s.store.settled) < leaderHas {
		return
	}
	for _, o := range append([]*outage(nil), c.outages...) {
		if o.untold() {
			s.dropOutage(c, o.Key)
		}
	}
}

// untold tells whether an outage waits to be written down, and no receiver is known to have been told of it.
func (o *outage) untold() bool { return o.joined == nil && len(o.Told) == 0 }

// endStale ends outages whose incident ended unseen: a snapshot of the store does not have it any more.
func (s *State) endStale(c *check, now time.Time) {
	for n := 0; n < len(c.outages); {
		o := c.outages[n]
		if o.joined == nil || c.incident.GetIncident().GetName() == o.joined.GetName() {
			n++
			continue
		}
		s.tellEnd(c, now, o)
		s.forgetOutage(c, o.Key)
	}
}

// tellEnd has those told that an outage is over who were told that it began and hear of its end in no other way.
func (s *State) tellEnd(c *check, now time.Time, o *outage) {
	if o.End = now; c.tally.Verdict == verdict.Up {
		o.End = c.recoveryStart(now)
	}
	if o.End.Before(o.Start) {
		o.End = o.Start
	}
	facts := c.facts(shownVerdict(c.tally.Verdict).String())
	facts.Lasted = o.End.Sub(o.Start)
	switch {
	case c.gone:
		facts.Note = "the check was deleted"
	case c.spec.GetPaused():
		facts.Note = "the check was paused"
	}
	var covered []string
	for _, r := range o.joined.GetReceivers() {
		covered = append(covered, r)
		if x := s.receivers[r]; x != nil {
			covered = append(covered, URLDigest(x))
		}
	}
	o.Incident = o.joined.GetName()
	n := s.outageMessage(c, now, o, meshv1.Notification_RESOLVED, alert.Resolved(facts))
	s.do(BreakGlass{Outage: o.copy(), Notification: n, Again: true, Covered: covered})
}
