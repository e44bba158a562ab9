package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/grouping"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

const (
	// soundEvery is how often a host, a label, a canonical name or an issuer is sounded at most.
	soundEvery = 10 * time.Second
	// soundFor is how long an opening waits at most for what others of other hosts say: a sound one answers as fast as a confirmation does, and a slow one must not make another's
	// outage late.
	soundFor = time.Second
	// soundLabels is how many labels of one check are sounded: those with the fewest checks, which say most.
	soundLabels = 3
	// soundNames and soundIssuers are how many of the names that its host is an alias of, and of the issuers of its certificates, are sounded, likewise.
	soundNames, soundIssuers = 2, 1
	// soundLooks bounds how many are looked at for some that can be asked: every check of a mesh may share a label, and all budgets be empty.
	soundLooks = 256
	// soundKept bounds what is remembered of soundings; past it those that say nothing any more are dropped.
	soundKept = 10_000
)

// sounding is a question to some of the checks that share something.
type sounding struct {
	at    time.Time
	until time.Time // no opening waits longer for it
	asked []*check
}

// ring are the checks with one host, label, canonical name or issuer. Taking one out costs the same however many there are: every check of a mesh may have the label env=prod.
type ring struct {
	list []*check
	at   map[*check]int // where each stands; nil while they are few, as most hosts have one
}

// ringFew is how many are looked through sooner than they are looked up.
const ringFew = 16

func (r *ring) add(c *check) {
	if r.list = append(r.list, c); len(r.list) > ringFew && r.at == nil {
		r.at = make(map[*check]int, len(r.list))
		for i, o := range r.list {
			r.at[o] = i
		}
	}
	if r.at != nil {
		r.at[c] = len(r.list) - 1
	}
}

func (r *ring) remove(c *check) {
	i, last := 0, len(r.list)-1
	if r.at == nil {
		i = slices.Index(r.list, c)
	} else {
		i = r.at[c]
		r.at[r.list[last]] = i
		delete(r.at, c)
	}
	r.list[i] = r.list[last]
	r.list[last] = nil
	r.list = r.list[:last]
}

// rings are the checks by what they share.
type rings map[grouping.Value]*ring

func (m rings) put(v grouping.Value, c *check) {
	r := m[v]
	if r == nil {
		r = &ring{}
		m[v] = r
	}
	r.add(c)
}

func (m rings) drop(v grouping.Value, c *check) {
	r := m[v]
	r.remove(c)
	if len(r.list) == 0 {
		delete(m, v)
	}
}

func hostValue(host string) grouping.Value { return grouping.Value{Dimension: "host", Value: host} }

func labelValue(k, v string) grouping.Value { return grouping.Value{Dimension: "label." + k, Value: v} }

// setLabels notes which labels a check has.
func (m *mass) setLabels(c *check, labels map[string]string) {
	if maps.Equal(c.labels, labels) {
		return
	}
	for k, v := range c.labels {
		m.byShare.drop(labelValue(k, v), c)
	}
	c.labels = labels
	for k, v := range labels {
		m.byShare.put(labelValue(k, v), c)
	}
}

// setProviders notes what a check's host is an alias of, and who issued its certificates.
func (m *mass) setProviders(c *check, list []grouping.Value) {
	if slices.Equal(c.providers, list) {
		return
	}
	for _, v := range c.providers {
		m.byShare.drop(v, c)
	}
	c.providers = list
	for _, v := range list {
		m.byShare.put(v, c)
	}
}

// sameProviders tells whether two results tell of the same.
func sameProviders(a, b *meshv1.Result) bool {
	return slices.Equal(a.GetCanonicalNames(), b.GetCanonicalNames()) && slices.Equal(issuersIn(a), issuersIn(b))
}

// sawTLS tells whether somebody's newest result is a failure of the handshake or the certificates.
func (c *check) sawTLS() bool {
	return slices.ContainsFunc(c.seats, func(x seat) bool {
		return x.result.GetOutcome() == meshv1.Result_FAIL && x.result.GetErrorClass() == meshv1.Result_TLS
	})
}

// shared is something that a check has in common with a crowd.
type shared struct {
	value grouping.Value
	all   []*check
}

// sharesOf are the check's host, what that is an alias of, the labels, and, when it fails by its certificates, their issuers: those that a crowd has, and of many the ones that the
// fewest have.
func (s *State) sharesOf(c *check) []shared {
	var labels, names, issuers []shared
	for k, v := range c.labels {
		labels = s.mass.crowd(labels, labelValue(k, v), s.cfg.Crowd)
	}
	for _, v := range c.providers {
		if v.Dimension == grouping.CNAME {
			names = s.mass.crowd(names, v, s.cfg.Crowd)
		} else if c.sawTLS() {
			issuers = s.mass.crowd(issuers, v, s.cfg.Crowd)
		}
	}
	list := slices.Concat(fewest(labels, soundLabels), fewest(names, soundNames), fewest(issuers, soundIssuers))
	return s.mass.crowd(list, hostValue(c.hostname), s.cfg.Crowd)
}

// crowd adds those that have a value, if they are a crowd.
func (m *mass) crowd(list []shared, v grouping.Value, least int) []shared {
	if r := m.byShare[v]; r != nil && len(r.list) >= least {
		list = append(list, shared{v, r.list})
	}
	return list
}

func fewest(list []shared, most int) []shared {
	slices.SortFunc(list, func(a, b shared) int {
		return cmp.Or(cmp.Compare(len(a.all), len(b.all)), cmp.Compare(a.value.Value, b.value.Value), cmp.Compare(a.value.Dimension, b.value.Dimension))
	})
	return list[:min(len(list), most)]
}

// turned notes that a check has begun to fail, and sounds what it shares with others: a few of the other checks of the same host, and of other hosts with the same label, canonical name or
// issuer, are asked at once, so that by the time this one is confirmed it is known whether it is alone. Each is sounded once in a while only, and the budgets hold.
func (s *State) turned(now time.Time, c *check) {
	s.mass.recent[c] = now
	if s.groupOf(c, now) != nil {
		return
	}
	if len(s.mass.sounded) > soundKept {
		maps.DeleteFunc(s.mass.sounded, func(_ grouping.Value, q sounding) bool { return now.Sub(q.at) >= soundEvery })
	}
	for _, x := range s.sharesOf(c) {
		if now.Sub(s.mass.sounded[x.value].at) >= soundEvery {
			s.mass.sounded[x.value] = s.sound(now, c, x)
		}
	}
}

// sound asks some of the others that share something. Those that share no host are on hosts of their own: what one host does says nothing of a label.
func (s *State) sound(now time.Time, c *check, x shared) sounding {
	q := sounding{at: now, until: now.Add(burstFor)}
	far := x.value.Dimension != "host"
	if far {
		q.until = now.Add(soundFor)
	}
	hosts := map[string]bool{c.hostname: true}
	for n := 0; n < min(len(x.all), soundLooks) && len(q.asked) < grouping.Min; n++ {
		o := x.all[n]
		if o == c || o.gone || o.spec.GetPaused() || o.tally.FailVotes != 0 || far && hosts[o.hostname] {
			continue
		}
		for i := range o.seats {
			if s.ask(now, o, i) {
				s.schedule(o, o.seats[i].until)
				q.asked = append(q.asked, o)
				hosts[o.hostname] = true
				break
			}
		}
	}
	return q
}

// lately gives the soundings of what the check shares that may still say something.
func (s *State) lately(c *check, now time.Time) []sounding {
	var list []sounding
	for _, x := range s.sharesOf(c) {
		if q, ok := s.mass.sounded[x.value]; ok && now.Sub(q.at) <= burstFor {
			list = append(list, q)
		}
	}
	return list
}

// sounding tells whether it is still open what others say with which the check shares something.
func (s *State) sounding(c *check, now time.Time) bool {
	return slices.ContainsFunc(s.lately(c, now), func(q sounding) bool { return q.open(now) })
}

// open tells whether no other has answered yet, and some still may.
func (q *sounding) open(now time.Time) bool {
	open := false
	if now.After(q.until) {
		return false
	}
	for _, o := range q.asked {
		for i := range o.seats {
			switch v := &o.votes[i]; {
			case v.Outcome == verdict.OK && !v.Aside && !v.Start.Before(q.at):
				return false // it is not what they share
			case o.seats[i].pending(now):
				open = true
			}
		}
	}
	return open
}

// soundedDown tells whether all others that were asked for something that the check shares fail too: it is not alone, and the rest of them will follow.
func (s *State) soundedDown(c *check, now time.Time) bool {
	return slices.ContainsFunc(s.lately(c, now), func(q sounding) bool {
		return len(q.asked) >= grouping.Min-1 && !slices.ContainsFunc(q.asked, func(o *check) bool { return o.tally.FailVotes == 0 })
	})
}
