package health

import (
	"time"

	"github.com/probemesh/probemesh/server/peer"
)

// roll remembers of the servers what one look cannot tell. The loop of the monitor alone uses it.
type roll struct {
	// known are the servers that have been there, as they were last.
	known map[string]member
	// revisions and taken say since when a server's copy of the state, or of this server's journal, has stood still.
	revisions, taken map[string]still
}

// member is a server that has been there.
type member struct {
	Server
	// lost is since when it has no record; zero while it has one.
	lost time.Time
	// quiet is since when it is missed; zero while it is heard.
	quiet time.Time
	// goodbye tells that it was stopping when it was last heard.
	goodbye bool
}

// still is a number and since when it has not changed.
type still struct {
	number int64
	since  time.Time
}

func newRoll() roll {
	return roll{known: map[string]member{}, revisions: map[string]still{}, taken: map[string]still{}}
}

// since tells since when a number has not changed.
func sinceWhen(of map[string]still, now time.Time, name string, number int64) time.Time {
	s, ok := of[name]
	if !ok || s.number != number {
		s = still{number, now}
		of[name] = s
	}
	return s.since
}

// revision tells since when a server is at a revision.
func (r *roll) revision(now time.Time, name string, revision int64) time.Time {
	return sinceWhen(r.revisions, now, name, revision)
}

// fill fills in what a server's beats say of it.
func (r *roll) fill(now time.Time, s Server, v peer.View) Server {
	known := r.known[s.Name]
	if v.Missed(now) {
		// A stream that is tried anew begins to count anew, silence does not.
		known.quiet = earliest(known.quiet, now.Add(-v.Silence(now)))
		s.Silence, s.Refused = now.Sub(known.quiet), v.Refused
	} else {
		known.quiet = time.Time{}
	}
	if v.Position > v.Acknowledged {
		s.HistoryLag = int64(v.Position - v.Acknowledged)
		s.HistoryStuck = now.Sub(sinceWhen(r.taken, now, s.Name, int64(v.Acknowledged)))
	} else {
		delete(r.taken, s.Name)
	}
	b := v.Beat
	known.goodbye = b.GetStopTime() != nil
	r.known[s.Name] = known
	if b == nil {
		return s
	}
	s.Beat, s.Leader, s.Term = true, b.GetLeader(), b.GetTerm()
	s.Hears, s.Sessions, s.Revision = int(b.GetHears()), int(b.GetSessions()), b.GetRevision()
	s.RevisionSince = r.revision(now, s.Name, s.Revision)
	if b.GetEtcdLostTime() != nil {
		s.EtcdLostSince = b.GetEtcdLostTime().AsTime()
	}
	s.DiskStall, s.Uncommitted = b.GetDiskStall().AsDuration(), b.GetUncommitted().AsDuration()
	if t := b.GetTime(); t != nil && !v.Heard.IsZero() {
		s.ClockOffset = t.AsTime().Sub(v.Heard.Round(0))
	}
	for _, x := range b.GetMissed() {
		s.Misses = append(s.Misses, x.GetServer())
	}
	return s
}

// missing gives the servers that ought to be there and are not among all: the servers of etcd's members, and, where the members are not servers, those that went
// without a goodbye within a day. all are those that are there; they are remembered.
func (r *roll) missing(now time.Time, all map[string]Server, members []string, embedded bool) map[string]Server {
	for name, s := range all {
		known := r.known[name]
		known.Server, known.lost = s, time.Time{}
		r.known[name] = known
	}
	expected := map[string]bool{}
	for _, name := range members {
		expected[name] = true
	}
	for name, k := range r.known {
		_, there := all[name]
		switch {
		case there:
		case embedded && len(members) > 0 && !expected[name], !embedded && k.goodbye, !k.lost.IsZero() && now.Sub(k.lost) > forgetAfter:
			delete(r.known, name)
			delete(r.revisions, name)
			delete(r.taken, name)
		case !embedded:
			expected[name] = true
		}
	}
	gone := map[string]Server{}
	for name := range expected {
		if _, there := all[name]; there {
			continue
		}
		k := r.known[name]
		if k.lost.IsZero() {
			k.lost = now
			if k.Silence > 0 {
				k.lost = now.Add(-k.Silence)
			}
		}
		k.Name, k.Silence, k.Beat = name, max(now.Sub(k.lost), time.Millisecond), false
		r.known[name] = k
		gone[name] = Server{Name: name, Datacenter: k.Datacenter, Version: k.Version, GRPC: k.GRPC, HTTP: k.HTTP, Silence: k.Silence, Refused: k.Refused}
	}
	return gone
}
