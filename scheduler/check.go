package scheduler

import (
	"hash/fnv"
	"maps"
	"net"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/grouping"
	"github.com/probemesh/probemesh/scheduler/incident"
	"github.com/probemesh/probemesh/scheduler/placement"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// check is what the mind knows of one check. votes and seats have the same length and order: the probers that run it, by rank, then those it is
// moving away from while their votes are fresh.
type check struct {
	name      string
	spec      *meshv1.Check
	revision  int64 // etcd revision of the check
	eff       *meshv1.Check
	plain     bool          // its placement depends on nothing but the datacenters it is in, and their weights
	effFor    int           // number of datacenters that eff was resolved for
	work      *meshv1.Check // what probers get of it
	workHash  int64
	policy    verdict.Policy
	interval  time.Duration
	timeout   time.Duration
	host      string
	hostname  string            // of host, without port; set by mass.setHost
	labels    map[string]string // as mass has them; set by mass.setLabels
	providers []grouping.Value  // canonical names and issuers, as mass has them; set by mass.setProviders
	needs     []string
	gone      bool
	told      bool // that it is gone

	votes []verdict.Vote
	seats []seat

	tally       verdict.Tally
	shown       verdict.Verdict
	reason      meshv1.CheckStatus_Reason
	since       time.Time
	turns       int // how often it has turned to something else than unknown
	updated     time.Time
	incident    *statev1.StoredIncident
	incidentRev int64
	hearsay     bool          // another server has told of the incident, not etcd
	heardAt     time.Time     // when the incident became known here
	closed      IncidentEnded // the incident that ended last
	damping     incident.Damping
	damped      string    // the incident that the damping counted last
	effectUntil time.Time // an effect is under way until then
	tokens      bucket    // runs asked for
	lates       bucket    // those of them because a probe was late
	repeated    bool      // runs were asked for again: what is known is shown, it has been held back long enough
	quorumAt    time.Time // since when a quorum fails, in one probe each, without an incident
	doubtful    bool      // a vote waits to be held against the others
	roundAt     time.Time // when the second round of a recovery is asked for
	outages     []*outage // what happened without a store and is not joined yet, oldest first, and what is joined and goes on
	joinedKeys  []string  // of outages that were
	ordinal     int       // of the newest outage without a store under ordinalTerm
	ordinalTerm int64
	undecided   time.Time // since when nobody can write down what the votes call for
	index       int       // in the heap, -1 when not
	kept        *kept     // what results told before they failed; nil while they tell it
}

// seat is a prober's place in a check, beside its vote.
type seat struct {
	// rank is its place among those that run the check; -1 for one the check moves away from.
	rank int
	// result is the newest result, nil before the first.
	result *meshv1.Result
	// failed is the newest result that failed, while the vote is not steady; else nil.
	failed *meshv1.Result
	// aside is the domain for which the prober is set aside, when it is.
	aside string
	// beside: its prober runs the check beside another of its datacenter, at the same moments.
	beside bool
	// odds counts the comparisons in succession in which its prober's build disagreed with settled ones.
	odds int
	// doubt is the vote that waits to be held against those of the others.
	doubt doubt
	// runID, asked and until are of a run asked for that has not been answered.
	runID string
	asked time.Time
	until time.Time
	// first: it was asked because there was no vote, so whatever vote comes is the answer.
	first bool
}

func (x *seat) pending(now time.Time) bool { return x.runID != "" && now.Before(x.until) }

func (c *check) confirming(now time.Time) bool {
	for i := range c.seats {
		if c.seats[i].pending(now) {
			return true
		}
	}
	return false
}

func (s *State) putCheck(now time.Time, e CheckPut) {
	name := e.Check.GetName()
	c := s.checks[name]
	if c == nil {
		c = &check{name: name, index: -1, reason: meshv1.CheckStatus_NO_VOTES, since: now, updated: now}
		s.checks[name] = c
	}
	if c.shown == verdict.Unknown {
		s.unknown[name] = c
	}
	c.gone, c.told = false, false
	same := c.eff != nil && c.revision == e.ModRevision
	c.spec, c.revision = e.Check, e.ModRevision
	s.mass.setLabels(c, e.Check.GetLabels())
	if !same {
		s.resolve(c)
	}
	// In the middle of a snapshot the roster may be half of what it will be: placing now would throw votes away.
	if s.roster.dirty {
		c.plain = false
	} else {
		s.placeOne(c, s.roster.worldMap(), now)
		if !same && s.mayAsk() {
			s.askFirst(now, c)
		}
	}
	s.schedule(c, now)
}

// resolve computes what follows from the check's fields and the number of datacenters. Votes for something else than what is probed now are dropped.
func (s *State) resolve(c *check) {
	c.effFor = s.roster.datacenters()
	c.eff = spec.Effective(c.spec, c.effFor)
	c.interval, c.timeout = c.eff.GetInterval().AsDuration(), c.eff.GetTimeout().AsDuration()
	distinct := c.eff.GetDistinct()
	if len(distinct) == 0 {
		distinct = spec.DefaultDistinct()
	}
	c.policy = verdict.Policy{Quorum: int(c.eff.GetQuorum()), Fresh: c.interval + c.timeout + s.cfg.FreshSlack, Distinct: distinct}
	c.host, c.needs = hostOf(c.eff.GetUri()), needs(c.eff)
	s.mass.setHost(c, hostnameOf(c.host))
	work := spec.ForAssignment(c.eff)
	// What does not change a probe must not make its votes void.
	work.Probers, work.Quorum, work.Revision, work.Datacenters, work.Distinct, work.Spread, work.AlertOnDegraded, work.Paused = 0, 0, 0, nil, nil, nil, false, false
	if h := contentHash(work); h != c.workHash {
		for i := range c.votes {
			c.votes[i] = blank(c.votes[i])
			c.seats[i] = seat{rank: c.seats[i].rank}
		}
		c.work, c.workHash, c.kept = work, h, nil
		c.work.Revision = h
	}
}

func blank(v verdict.Vote) verdict.Vote {
	return verdict.Vote{Prober: v.Prober, Datacenter: v.Datacenter, Domains: v.Domains, Drained: v.Drained, Aside: v.Aside, Trial: v.Trial}
}

// contentHash identifies what is probed. It is positive, so that it reads well where a revision is shown.
func contentHash(c *meshv1.Check) int64 {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		panic("scheduler: a stored check cannot be encoded: " + err.Error())
	}
	h := fnv.New64a()
	h.Write(b)
	return int64(h.Sum64() >> 1)
}

func hostOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return uri
	}
	if u.Scheme == "dns" && u.Host == "" {
		return u.Path
	}
	return u.Host
}

// hostnameOf is a host without its port and brackets.
func hostnameOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}

func (s *State) goneCheck(now time.Time, name string) {
	if c := s.checks[name]; c != nil {
		c.gone = true
		s.schedule(c, now)
	}
}

// retire removes what a deleted check had. Its entry stays as long as an incident of it is open.
func (s *State) retire(c *check) {
	for i := range c.seats {
		s.unassign(c.votes[i].Prober, c.name)
	}
	c.votes, c.seats, c.tally, c.roundAt = nil, nil, verdict.Tally{}, time.Time{}
	delete(s.unknown, c.name)
	s.mass.dropCheck(c)
	if !c.told {
		c.told = true
		s.do(StatusChanged{Check: c.name, Gone: true, Before: shownVerdict(c.shown), After: shownVerdict(c.shown)})
	}
	if c.incident == nil {
		s.unschedule(c)
		delete(s.checks, c.name)
	}
}

// place computes the placement of every check anew that the changes of the roster may concern.
func (s *State) place(now time.Time) {
	s.roster.dirty, s.placed = false, now
	world := s.roster.worldMap()
	for _, c := range s.checks {
		if c.gone {
			continue
		}
		if c.effFor != s.roster.datacenters() {
			s.resolve(c)
			s.schedule(c, now)
		} else if c.plain && !s.roster.concerns(c) {
			continue
		}
		if s.placeOne(c, world, now) {
			s.schedule(c, now)
		}
	}
	s.roster.touched, s.roster.all = map[string]bool{}, false
	for name, p := range s.roster.probers {
		if p.enrolled == nil && !p.online && len(p.assignments) == 0 {
			delete(s.roster.probers, name)
			delete(s.budget.probers, name)
			s.book.Forget(name)
		}
	}
}

// placeOne computes which probers run the check. It reports whether anything about its votes has changed, so that it must be looked at.
func (s *State) placeOne(c *check, world *placement.Map, now time.Time) bool {
	var names []string
	var ranks []int // of those that run it beside others, from here on
	counted := 0
	if !c.spec.GetPaused() {
		want := placement.Check{
			Name: c.name, Probers: min(int(c.eff.GetProbers()), verdict.MaxVotes), Datacenters: c.eff.GetDatacenters(), Needs: c.needs,
			Spread: c.eff.GetSpread(),
		}
		names, c.plain = world.PlacePlain(want)
		counted = len(names)
		var besides []string
		besides, ranks = world.Besides(want, names)
		names = append(names, besides[:min(len(besides), verdict.MaxVotes-counted)]...)
	}
	rankOf := func(k int) int {
		if k < counted {
			return k
		}
		return ranks[k-counted]
	}
	if s.sits(c, names, counted, rankOf) {
		return false
	}
	votes, seats := make([]verdict.Vote, 0, len(names)), make([]seat, 0, len(names))
	for k, name := range names {
		rank := rankOf(k)
		v, x := c.take(name)
		p := s.roster.get(name)
		if v.Datacenter != "" && v.Datacenter != p.enrolled.GetDatacenter() {
			v, x = verdict.Vote{}, seat{} // it has moved house: what it saw, it saw from elsewhere
		}
		v.Prober, v.Datacenter, v.Domains, v.Drained = name, p.enrolled.GetDatacenter(), p.domains, p.enrolled.GetDrained()
		v.Aside, x.aside, v.Trial = p.aside != "", p.aside, p.trial
		x.rank, x.beside = rank, k >= counted
		votes, seats = append(votes, v), append(seats, x)
		s.assign(name, c, rank)
	}
	for i, v := range c.votes {
		if v.Prober == "" {
			continue // taken
		}
		s.unassign(v.Prober, c.name)
		p := s.roster.probers[v.Prober]
		if p == nil || p.enrolled == nil || p.enrolled.GetDrained() || !c.policy.IsFresh(&v, now) || len(votes) == verdict.MaxVotes || c.spec.GetPaused() {
			continue
		}
		x := c.seats[i]
		x.rank = -1
		if x.beside {
			continue // nobody counted on it
		}
		votes, seats = append(votes, v), append(seats, x)
	}
	// The tally's marks are indexes into the votes of before; the caller has the check looked at anew.
	c.votes, c.seats, c.tally = votes, seats, verdict.Tally{}
	s.early.placed(c.name)
	return true
}

// sits tells whether exactly these probers run the check already, as what they are now; those from counted on run it beside others.
func (s *State) sits(c *check, names []string, counted int, rankOf func(int) int) bool {
	if len(c.votes) != len(names) {
		return false
	}
	for k, name := range names {
		v, p, rank := &c.votes[k], s.roster.probers[name], rankOf(k)
		if v.Prober != name || c.seats[k].rank != rank || c.seats[k].beside != (k >= counted) || v.Datacenter != p.enrolled.GetDatacenter() ||
			v.Drained != p.enrolled.GetDrained() || v.Aside != (p.aside != "") || v.Trial != p.trial || !maps.Equal(v.Domains, p.domains) {
			return false
		}
		a := p.assignments[c.name]
		if a == nil || a.Rank != int32(rank) || a.Check.Revision != c.workHash || a.Phase.AsDuration() != c.phase(rank) {
			return false
		}
	}
	return true
}

func (c *check) phase(rank int) time.Duration {
	return assignment.Phase(c.name, rank, max(int(c.eff.GetProbers()), rank+1), c.interval)
}

// take removes the prober's vote and seat from the check and gives them; both are empty when it had none.
func (c *check) take(name string) (verdict.Vote, seat) {
	for i := range c.votes {
		if c.votes[i].Prober == name {
			v, x := c.votes[i], c.seats[i]
			c.votes[i].Prober = ""
			return v, x
		}
	}
	return verdict.Vote{}, seat{}
}

// needs are the capabilities that a prober must have for the check: its kind, the address family if it asks for one, and its options that not every build knows.
func needs(c *meshv1.Check) []string {
	kind, err := spec.KindOf(c.GetUri())
	if err != nil {
		return []string{"unknown"}
	}
	list := []string{string(kind)}
	var family meshv1.IpFamily_Preference
	switch kind {
	case spec.HTTP:
		family = c.GetHttp().GetIpFamily()
	case spec.TCP:
		family = c.GetTcp().GetIpFamily()
	case spec.TLS:
		family = c.GetTls().GetIpFamily()
	case spec.DNS:
		family = c.GetDns().GetIpFamily()
	case spec.ICMP:
		family = c.GetIcmp().GetIpFamily()
	case spec.GRPC:
		family = c.GetGrpc().GetIpFamily()
	case spec.UDP:
		family = c.GetUdp().GetIpFamily()
	case spec.WEBSOCKET:
		family = c.GetWebsocket().GetIpFamily()
	}
	switch family {
	case meshv1.IpFamily_IPV4:
		list = append(list, "ipv4")
	case meshv1.IpFamily_IPV6:
		list = append(list, "ipv6")
	}
	return append(list, spec.OptionNeeds(c)...)
}

func (s *State) assign(name string, c *check, rank int) {
	p := s.roster.get(name)
	phase := c.phase(rank)
	if a := p.assignments[c.name]; a != nil && a.Rank == int32(rank) && a.Phase.AsDuration() == phase && a.Check.Revision == c.workHash {
		return
	}
	a := &meshv1.Assignment{Check: c.work, Phase: durationpb.New(phase), Rank: int32(rank)}
	a.Fingerprint = assignment.Fingerprint(a)
	p.assignments[c.name] = a
	s.assigned[name] = true
}

func (s *State) unassign(name, check string) {
	if p := s.roster.probers[name]; p != nil && p.assignments[check] != nil {
		delete(p.assignments, check)
		s.assigned[name] = true
	}
}

// Newest is the newest result of each check that a prober, by its bare name, should run and has voted on, in no order. The results must not be changed.
func (s *State) Newest(prober string) []*meshv1.Result {
	p := s.roster.probers[prober]
	if p == nil {
		return nil
	}
	list := make([]*meshv1.Result, 0, len(p.assignments))
	for name := range p.assignments {
		c := s.checks[name]
		if c == nil {
			continue
		}
		if i := c.seatOf(prober); i >= 0 && c.seats[i].result != nil {
			list = append(list, c.seats[i].result)
		}
	}
	return list
}

// Assignments is what a prober, by its bare name, should run, by check. The map and its values must not be changed, and are only valid until the next Apply.
func (s *State) Assignments(prober string) map[string]*meshv1.Assignment {
	if p := s.roster.probers[prober]; p != nil {
		return p.assignments
	}
	return nil
}
