package scheduler

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/probemesh/probemesh/scheduler/grouping"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

const (
	// soundEvery is how often a host or a label is sounded at most.
	soundEvery = 10 * time.Second
	// soundFor is how long an opening waits at most for what others with the same label say: a sound one answers as fast as a confirmation does, and a slow one must not make another's
	// outage late.
	soundFor = time.Second
	// soundLabels is how many labels of one check are sounded: those with the fewest checks, which say most.
	soundLabels = 3
)

// sounding is a question to some of the checks that share something.
type sounding struct {
	at    time.Time
	until time.Time // no opening waits longer for it
	asked []*check
}

// ring are the checks with one label. Taking one out costs the same however many there are: every check of a mesh may have the label env=prod.
type ring struct {
	list []*check
	at   map[*check]int
}

func (r *ring) add(c *check) {
	r.at[c] = len(r.list)
	r.list = append(r.list, c)
}

func (r *ring) remove(c *check) {
	i, last := r.at[c], len(r.list)-1
	r.list[i] = r.list[last]
	r.at[r.list[i]] = i
	r.list[last] = nil
	r.list = r.list[:last]
	delete(r.at, c)
}

// labelKey is a label as the index has it; a host has no "=".
func labelKey(k, v string) string { return "label." + k + "=" + v }

// setLabels notes which labels a check has.
func (m *mass) setLabels(c *check, labels map[string]string) {
	if maps.Equal(c.labels, labels) {
		return
	}
	for k, v := range c.labels {
		key := labelKey(k, v)
		r := m.byLabel[key]
		r.remove(c)
		if len(r.list) == 0 {
			delete(m.byLabel, key)
		}
	}
	c.labels = labels
	for k, v := range labels {
		key := labelKey(k, v)
		r := m.byLabel[key]
		if r == nil {
			r = &ring{at: map[*check]int{}}
			m.byLabel[key] = r
		}
		r.add(c)
	}
}

// shared is something that a check has in common with a crowd.
type shared struct {
	key   string
	all   []*check
	label bool
}

// sharesOf are the check's host, if a crowd has it, and the labels that a crowd has, those with the fewest first.
func (s *State) sharesOf(c *check) []shared {
	var list []shared
	for k, v := range c.labels {
		key := labelKey(k, v)
		if r := s.mass.byLabel[key]; len(r.list) >= s.cfg.Crowd {
			list = append(list, shared{key, r.list, true})
		}
	}
	slices.SortFunc(list, func(a, b shared) int { return cmp.Or(cmp.Compare(len(a.all), len(b.all)), cmp.Compare(a.key, b.key)) })
	list = list[:min(len(list), soundLabels)]
	if siblings := s.mass.byHost[c.hostname]; len(siblings) >= s.cfg.Crowd {
		list = append(list, shared{c.hostname, siblings, false})
	}
	return list
}

// turned notes that a check has begun to fail, and sounds what it shares with others: a few of the other checks of the same host, and of other hosts with the same label, are asked at once, so
// that by the time this one is confirmed it is known whether it is alone. Each is sounded once in a while only, and the budgets hold.
func (s *State) turned(now time.Time, c *check) {
	s.mass.recent[c] = now
	if s.groupOf(c, now) != nil {
		return
	}
	for _, x := range s.sharesOf(c) {
		if now.Sub(s.mass.sounded[x.key].at) >= soundEvery {
			s.mass.sounded[x.key] = s.sound(now, c, x)
		}
	}
}

// sound asks some of the others that share something. Those of a label are on hosts of their own: what one host does says nothing of the label.
func (s *State) sound(now time.Time, c *check, x shared) sounding {
	q := sounding{at: now, until: now.Add(burstFor)}
	if x.label {
		q.until = now.Add(soundFor)
	}
	hosts := map[string]bool{c.hostname: true}
	for n := 0; n < len(x.all) && len(q.asked) < grouping.Min; n++ {
		o := x.all[n]
		if o == c || o.gone || o.spec.GetPaused() || o.tally.FailVotes != 0 || x.label && hosts[o.hostname] {
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
		if q, ok := s.mass.sounded[x.key]; ok && now.Sub(q.at) <= burstFor {
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
