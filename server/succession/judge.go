package succession

import (
	"slices"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/server/peer"
)

// Limits of time. Each is long against what it waits for when all is well: beats come every 200 ms.
const (
	// GoneAfter is the silence after which a leader whose address refuses connections is gone: more than one beat, so that one that was heard just now is not.
	GoneAfter = 250 * time.Millisecond
	// LonelyAfter is the silence after which a server evicts the only other one of its mesh.
	LonelyAfter = time.Second
	// StrangerAfter is the silence after which a leader that this process has never heard counts as silent: connections may be being made.
	StrangerAfter = 3 * time.Second
	// StallAfter is how long a write may hang before a leader cannot lead: an ordinary slow fsync takes a tenth of it.
	StallAfter = 1500 * time.Millisecond
	// stallMost is the longest that a leader lets a write wait for etcd, stallsCount how long its resignations for that count: each doubles what it bears. Writes that
	// are slow under every leader are slow because of etcd, and a leader that goes on gets them done. The controller gives a write up after 4 s.
	stallMost, stallsCount = 3500 * time.Millisecond, 10 * time.Minute
	// DisownAfter is how long a leader that has ended its reign may take to delete its key: it lets deliveries under way be recorded first.
	DisownAfter = 400 * time.Millisecond
	// turn is how much later each further server evicts.
	turn = 200 * time.Millisecond
	// restAfter and restMost limit evictions for silence.
	restAfter, restMost = 10 * time.Second, 5 * time.Minute
	// remember is how long a wrong eviction counts.
	remember = 30 * time.Minute
	// deafAfter is how long a leader must hear too few probers, settled the age of its reign before which it does not matter.
	deafAfter, settled = 3 * time.Second, 5 * time.Second
	// deafLeast is how many probers a peer must hear for a comparison to mean anything.
	deafLeast = 3
)

// Facts are what one server knows at one moment.
type Facts struct {
	// Self is this server, "servers/a".
	Self string
	// Assisted is whether leaders may be evicted; what a leader does of itself does not depend on it.
	Assisted bool
	// Leader, Boot and Term are of the leader's key as this server has seen it last; Leader is empty when there is none.
	Leader, Boot string
	Term         int64
	// Since is when this server first saw that reign.
	Since time.Time
	// Leading is the term in which this server leads by its own clock; 0 when it does not.
	Leading int64
	// Peers are the other servers.
	Peers []peer.View
	// Hears is how many probers this server hears, at itself or through others.
	Hears int
	// Uncommitted is how long its oldest write as the leader has been waiting for etcd, DiskStall its oldest write to its disk; 0 for none.
	Uncommitted, DiskStall time.Duration
	// Stopping is whether this server stops.
	Stopping bool
	// Read is when the newest linearizable read of etcd that succeeded was begun.
	Read time.Time
	// Memory is that of the decision before.
	Memory Memory
}

// Memory is what a decision leaves for the next.
type Memory struct {
	// Term is the reign that Cause and the times are about.
	Term int64
	// Cause is why its leader ought to be evicted, Due since when.
	Cause Cause
	Due   time.Time
	// Disowned is since when the leader has been saying that it does not lead.
	Disowned time.Time
	// Deaf is since when this server, leading, has been hearing too few probers.
	Deaf time.Time
	// Evictions are this server's own for silence in the last half hour, oldest first.
	Evictions []Eviction
	// Stalls are when this server resigned because its writes waited for etcd, in the last ten minutes, oldest first.
	Stalls []time.Time
}

// Eviction is one that this server carried out.
type Eviction struct {
	// Leader, Boot and Term say whom it was.
	Leader, Boot string
	Term         int64
	// At is when.
	At time.Time
	// Alive is set once that process has been heard again.
	Alive bool
}

// Cause is why leadership should move. Its text is a label of metrics and a part of logs.
type Cause string

// Causes. The first six are of evictions, the last three of resignations.
const (
	Gone      Cause = "process_gone"
	Replaced  Cause = "process_replaced"
	Silent    Cause = "silent"
	Stalled   Cause = "stalled"
	Disowned  Cause = "disowned"
	Withdrawn Cause = "stopping"

	DiskHangs   Cause = "disk_hangs"
	Uncommitted Cause = "uncommitted"
	Deaf        Cause = "deaf"
)

// Act is what is to be done.
type Act int

// Acts.
const (
	// Nothing is to be done now.
	Nothing Act = iota
	// Evict the leader of Decision.Term.
	Evict
	// Resign from Decision.Term.
	Resign
	// Read etcd linearizably: the decision waits for it.
	Read
	// Rest: an eviction is due, but there was one too recently.
	Rest
)

// Decision is what Judge makes of the facts.
type Decision struct {
	Act   Act
	Term  int64
	Cause Cause
	// Next is when time alone may lead to another decision; zero when only new facts can.
	Next time.Time
	// Memory goes into the next facts.
	Memory Memory
}

// Judge decides. It changes nothing of the facts, and equal facts at an equal time give an equal decision.
func Judge(now time.Time, f Facts) Decision {
	d := Decision{Term: f.Term, Memory: f.Memory}
	if d.Memory.Term != f.Term {
		d.Memory = Memory{Term: f.Term}
	}
	d.Memory.Evictions, d.Memory.Stalls = review(now, f), recent(now, f.Memory.Stalls)
	switch {
	case f.Leading != 0:
		return judgeSelf(now, f, d)
	case f.Leader == "" || f.Leader == f.Self || f.Stopping || !f.Assisted:
		d.Memory.Cause, d.Memory.Due = "", time.Time{}
		return d
	}
	return judgeLeader(now, f, d)
}

// judgeSelf is the judgement of a leader on itself.
func judgeSelf(now time.Time, f Facts, d Decision) Decision {
	d.Term = f.Leading
	switch {
	case f.DiskStall >= StallAfter:
		d.Act, d.Cause = Resign, DiskHangs
		return d
	case f.Uncommitted >= min(StallAfter<<min(len(d.Memory.Stalls), 10), stallMost):
		d.Act, d.Cause = Resign, Uncommitted
		d.Memory.Stalls = append(d.Memory.Stalls, now)
		return d
	}
	if most := mostHeard(now, f); most < deafLeast || 2*f.Hears >= most {
		d.Memory.Deaf = time.Time{}
		return d
	}
	if d.Memory.Deaf.IsZero() {
		d.Memory.Deaf = now
	}
	due := later(d.Memory.Deaf.Add(deafAfter), f.Since.Add(settled))
	if now.Before(due) {
		d.Next = due
		return d
	}
	d.Act, d.Cause = Resign, Deaf
	return d
}

// judgeLeader is the judgement of a follower on the leader.
func judgeLeader(now time.Time, f Facts, d Decision) Decision {
	i := slices.IndexFunc(f.Peers, func(v peer.View) bool { return v.Server == f.Leader })
	if i < 0 {
		return d // its record is gone or has not come yet: the lease decides
	}
	leader := f.Peers[i]
	d.Memory.Disowned = disownedSince(now, f, leader)
	c := causeOf(now, f, leader, d.Memory)
	if c.cause == "" {
		d.Memory.Cause, d.Memory.Due = "", time.Time{}
		d.Next = c.next
		return d
	}
	if d.Memory.Cause == "" {
		d.Memory.Due = now
	}
	d.Memory.Cause, d.Cause = c.cause, c.cause
	if c.read {
		d.Act, d.Next = Read, now.Add(turn)
		return d
	}
	if due := d.Memory.Due.Add(time.Duration(rank(now, f, c.seconded)) * turn); now.Before(due) {
		d.Next = due
		return d
	}
	if rested := rested(d.Memory.Evictions); c.cause == Silent && now.Before(rested) {
		d.Act, d.Next = Rest, rested
		return d
	}
	d.Act, d.Next = Evict, now.Add(turn)
	return d
}

// ground is the reason for an eviction, or when there may be one.
type ground struct {
	cause Cause
	// seconded: those that say the same may evict too, else everybody may.
	seconded bool
	// read: etcd must be read first.
	read bool
	next time.Time
}

// causeOf is why the leader ought to be evicted.
func causeOf(now time.Time, f Facts, leader peer.View, m Memory) ground {
	heard := heard(now, leader)
	sameBoot := leader.BootID == f.Boot
	switch b := leader.Beat; {
	case heard && !sameBoot && leader.BootID != "":
		return ground{cause: Replaced}
	case heard && sameBoot && (b.GetDiskStall().AsDuration() >= StallAfter || b.GetUncommitted().AsDuration() >= stalled(b)):
		return ground{cause: Stalled}
	case heard && !m.Disowned.IsZero() && now.Sub(m.Disowned) >= DisownAfter:
		if b.GetStopTime() != nil {
			return ground{cause: Withdrawn}
		}
		return ground{cause: Disowned}
	}
	limit, cause := silenceLimit(f, leader)
	silence := leader.Silence(now)
	if silence < limit {
		next := now.Add(limit - silence)
		if !m.Disowned.IsZero() {
			next = earlier(next, m.Disowned.Add(DisownAfter))
		}
		return ground{next: next}
	}
	if len(f.Peers) == 1 {
		// Nobody can second it: etcd must be there on this side at least, and must have been asked after the silence began to mean something.
		return ground{cause: cause, read: f.Read.Before(now.Add(limit - silence))}
	}
	if slices.ContainsFunc(f.Peers, func(v peer.View) bool { return seconds(now, v, f) }) {
		return ground{cause: cause, seconded: true}
	}
	return ground{next: now.Add(turn)}
}

// stalled is how long a leader's writes may wait before others evict it. While it says that it leads, it has reason to bear more than at first, but not more than the most.
func stalled(b *peerv1.Beat) time.Duration {
	if b.GetLeading() {
		return stallMost
	}
	return StallAfter
}

// silenceLimit is how long a leader may be silent, and what it means if it was for longer.
func silenceLimit(f Facts, leader peer.View) (time.Duration, Cause) {
	known := leader.BootID == f.Boot && leader.Beat != nil
	switch {
	case leader.Refused:
		return GoneAfter, Gone
	case !known:
		return StrangerAfter, Silent
	case len(f.Peers) == 1:
		return LonelyAfter, Silent
	}
	return peer.MissedAfter, Silent
}

// seconds tells whether a server that is heard says that it does not hear the leader either.
func seconds(now time.Time, v peer.View, f Facts) bool {
	if v.Server == f.Leader || !heard(now, v) {
		return false
	}
	for _, m := range v.Beat.GetMissed() {
		if m.GetServer() == f.Leader && (m.GetBootId() == f.Boot || m.GetRefused()) {
			return true
		}
	}
	return false
}

// rank is how many servers go first: those by a lower name that are heard, can write, and have reason to evict as this one has.
func rank(now time.Time, f Facts, seconded bool) int {
	n := 0
	for _, v := range f.Peers {
		if v.Server >= f.Self || v.Server == f.Leader || !heard(now, v) || (seconded && !seconds(now, v, f)) {
			continue
		}
		if b := v.Beat; b.GetStopTime() == nil && b.GetEtcdLostTime() == nil && b.GetDiskStall().AsDuration() < StallAfter {
			n++
		}
	}
	return n
}

// disownedSince is since when the leader has been saying, about its own present term, that it does not lead, or that it stops. A beat may be a moment older than
// the key, or be sent while the key is being deleted: so it matters for how long.
func disownedSince(now time.Time, f Facts, leader peer.View) time.Time {
	b := leader.Beat
	says := heard(now, leader) && leader.BootID == f.Boot && !b.GetLeading() && (b.GetStopTime() != nil || b.GetTerm() == f.Term && b.GetLeader() == f.Leader)
	switch {
	case !says:
		return time.Time{}
	case f.Memory.Term == f.Term && !f.Memory.Disowned.IsZero():
		return f.Memory.Disowned
	}
	return now
}

// review marks the evictions whose leaders were alive, and forgets old ones.
func review(now time.Time, f Facts) []Eviction {
	var list []Eviction
	for _, e := range f.Memory.Evictions {
		if now.Sub(e.At) > remember {
			continue
		}
		for _, v := range f.Peers {
			e.Alive = e.Alive || v.Server == e.Leader && v.BootID == e.Boot && v.Heard.After(e.At)
		}
		e.Alive = e.Alive || f.Leader == e.Leader && f.Boot == e.Boot && f.Term > e.Term
		list = append(list, e)
	}
	return list
}

// recent are those of the times that still count.
func recent(now time.Time, stalls []time.Time) []time.Time {
	var list []time.Time
	for _, at := range stalls {
		if now.Sub(at) < stallsCount {
			list = append(list, at)
		}
	}
	return list
}

// rested is when the next eviction for silence may be.
func rested(list []Eviction) time.Time {
	if len(list) == 0 {
		return time.Time{}
	}
	wait := restAfter
	for _, e := range list {
		if e.Alive {
			wait = min(2*wait, restMost)
		}
	}
	return list[len(list)-1].At.Add(wait)
}

// mostHeard is how many probers that peer hears which hears most.
func mostHeard(now time.Time, f Facts) int {
	most := 0
	for _, v := range f.Peers {
		if heard(now, v) && v.Beat.GetStopTime() == nil {
			most = max(most, int(v.Beat.GetHears()))
		}
	}
	return most
}

// heard tells whether a server was heard just now.
func heard(now time.Time, v peer.View) bool { return v.Beat != nil && !v.Missed(now) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
