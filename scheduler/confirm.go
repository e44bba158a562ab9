package scheduler

import (
	"fmt"
	"math/bits"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// bucket is a token bucket. The zero value is full at its first use.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token if there is one. rate is tokens a second.
func (b *bucket) take(now time.Time, rate, burst float64) bool {
	if b.at.IsZero() {
		b.tokens = burst
	} else if now.After(b.at) {
		b.tokens = min(burst, b.tokens+now.Sub(b.at).Seconds()*rate)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *bucket) giveBack() { b.tokens++ }

// budgets keep confirmations of a mass outage from becoming a flood: each prober and each target host has a bucket.
type budgets struct {
	cfg     Config
	probers map[string]*bucket
	targets map[string]*bucket
}

func newBudgets(cfg Config) budgets {
	return budgets{cfg: cfg, probers: map[string]*bucket{}, targets: map[string]*bucket{}}
}

// maxBuckets bounds the targets remembered; past it all are forgotten, which only refills them.
const maxBuckets = 100_000

func (b *budgets) take(now time.Time, prober, host string) bool {
	if len(b.targets) > maxBuckets {
		b.targets = map[string]*bucket{}
	}
	p, t := bucketIn(b.probers, prober), bucketIn(b.targets, host)
	if !p.take(now, b.cfg.ConfirmRate, b.cfg.ConfirmBurst) {
		return false
	}
	if !t.take(now, b.cfg.TargetRate, b.cfg.TargetBurst) {
		p.giveBack()
		return false
	}
	return true
}

func bucketIn(m map[string]*bucket, key string) *bucket {
	b := m[key]
	if b == nil {
		b = &bucket{}
		m[key] = b
	}
	return b
}

// slow is a probe that is abnormally late: the others are asked before it has timed out, so that a target that swallows packets is confirmed within little more than
// one timeout. A target that is late again and again without failing is asked about so once an interval (twice at once: one that stumbles may be about to fall), so that
// it is not burdened further; when it fails, that asks by itself.
func (s *State) slow(now time.Time, c *check, witness int, r *meshv1.Result) {
	if (c.votes[witness].Outcome == verdict.Fail && c.policy.IsFresh(&c.votes[witness], now)) || r.GetStartTime().AsTime().Before(now.Add(-c.timeout-s.cfg.FreshSlack)) {
		return
	}
	if !c.lates.take(now, 1/c.interval.Seconds(), 2) {
		s.Counters.ConfirmationsRefused++
		return
	}
	s.confirm(now, c, witness)
	s.evaluate(c, now)
}

// confirm asks the other probers of a check to probe at once, those of other datacenters first, and the witness to repeat once on a new connection. At most
// as many as twice the quorum, beside the witness.
func (s *State) confirm(now time.Time, c *check, witness int) {
	if c.spec.GetPaused() || verdict.Fold(c.policy, c.votes, now).Verdict == verdict.Down {
		return
	}
	var others []int
	for _, elsewhere := range []bool{true, false} {
		for i := range c.seats {
			if i == witness || (c.votes[i].Datacenter != c.votes[witness].Datacenter) != elsewhere || !s.askable(now, c, i) {
				continue
			}
			if c.votes[i].Outcome == verdict.Fail && c.policy.IsFresh(&c.votes[i], now) {
				continue
			}
			others = append(others, i)
		}
	}
	// One that has been asked already is no witness who must repeat, unless nobody else can say anything.
	if len(others) == 0 && c.policy.Quorum > 1 {
		return
	}
	if !c.mayAsk(now) {
		return
	}
	asked := 0
	for _, i := range others {
		if asked < 2*c.policy.Quorum && s.ask(now, c, i) {
			asked++
		}
	}
	s.ask(now, c, witness)
}

// repeatLost asks again when a run that was asked for was never answered and the matter is not settled. The budgets bound how often.
func (s *State) repeatLost(now time.Time, c *check) {
	lost := false
	for i := range c.seats {
		if x := &c.seats[i]; x.runID != "" && !x.pending(now) {
			x.runID, lost = "", true
		}
	}
	if lost && c.tally.Verdict == verdict.Degraded && c.tally.FailVotes != 0 && c.incident == nil {
		c.repeated = true
		s.confirm(now, c, bits.TrailingZeros64(c.tally.FailVotes))
	}
	if c.tally.Verdict != verdict.Degraded {
		c.repeated = false
	}
}

// mayAsk takes from the check's own budget: six rounds at once (an outage and its recovery take four), two an interval.
func (c *check) mayAsk(now time.Time) bool {
	return c.tokens.take(now, 2/c.interval.Seconds(), 6)
}

// confirmRecovery asks the others when an answer comes back while an incident is open.
func (s *State) confirmRecovery(now time.Time, c *check) {
	s.askAll(now, c, func(v *verdict.Vote) bool { return v.Outcome != verdict.OK || !c.policy.IsFresh(v, now) })
}

// planRound sees to the second round of a recovery, for as long as somebody's answers do not span the gap between two rounds.
func (s *State) planRound(now time.Time, c *check) {
	if !c.roundAt.IsZero() && now.Before(c.roundAt) {
		return
	}
	opened := c.knownOpen()
	early := func(v *verdict.Vote) bool {
		return v.Outcome == verdict.OK && c.policy.IsFresh(v, now) && (v.Start.Sub(v.Since) < c.gap() || !v.Start.After(opened))
	}
	if !c.roundAt.IsZero() {
		s.askAll(now, c, func(v *verdict.Vote) bool { return early(v) && now.Sub(v.Since) > c.gap() })
	}
	// The round is when the first of them may be asked again, or a little later, for those who answered a little later.
	c.roundAt = time.Time{}
	for _, latest := range []time.Duration{0, c.gap() / 4} {
		first := c.roundAt
		for i := range c.votes {
			at := c.votes[i].Since.Add(c.gap() + roundSlack)
			if !early(&c.votes[i]) {
				continue
			}
			if latest == 0 && (c.roundAt.IsZero() || at.Before(c.roundAt)) || latest > 0 && at.After(c.roundAt) && !at.After(first.Add(latest)) {
				c.roundAt = at
			}
		}
	}
	if least := now.Add(c.gap() / 4); !c.roundAt.IsZero() && c.roundAt.Before(least) {
		c.roundAt = least
	}
}

// roundSlack lets a second round begin so late that the prober's clock may differ a little.
const roundSlack = 10 * time.Millisecond

// askAll is a round of questions to the seats whose vote is chosen. It costs the check's budget only when there is somebody to ask.
func (s *State) askAll(now time.Time, c *check, chosen func(*verdict.Vote) bool) {
	paid := false
	for i := range c.seats {
		if !chosen(&c.votes[i]) || !s.askable(now, c, i) {
			continue
		}
		if !paid && !c.mayAsk(now) {
			return
		}
		paid = true
		s.ask(now, c, i)
	}
}

// askable tells whether the prober of seat i could be asked: it runs the check, its vote counts, it has a session, and no run is under way. One that runs the check beside
// another is not asked: nobody should wait for it.
func (s *State) askable(now time.Time, c *check, i int) bool {
	p := s.roster.probers[c.votes[i].Prober]
	return c.seats[i].rank >= 0 && !c.seats[i].beside && !c.votes[i].Aside && !c.seats[i].pending(now) && p != nil && p.online
}

// ask asks the prober of seat i for a run, if it is askable and no budget is empty.
func (s *State) ask(now time.Time, c *check, i int) bool {
	v, x := &c.votes[i], &c.seats[i]
	if !s.askable(now, c, i) {
		return false
	}
	if !s.budget.take(now, v.Prober, c.host) {
		s.Counters.ConfirmationsRefused++
		return false
	}
	s.Counters.Confirmations++
	// The id is the same in every server that thinks of the same run at the same moment; probers drop the repetition.
	x.runID = fmt.Sprintf("%s@%s.%d", c.name, v.Prober, now.UnixMilli())
	x.asked, x.until, x.first = now, now.Add(c.timeout+s.cfg.FreshSlack), false
	s.sendRun(c, i)
	return true
}

// askAgain repeats what was asked and not answered, because this server leads now and the one that led may have died before it sent it. When all that was asked is
// overdue, others are asked anew.
func (s *State) askAgain(now time.Time, c *check) {
	if !c.confirming(now) {
		s.confirm(now, c, bits.TrailingZeros64(c.tally.FailVotes))
		return
	}
	for i := range c.seats {
		if c.seats[i].pending(now) {
			s.sendRun(c, i)
		}
	}
}

// askMoved asks a prober that has another session what it may not have been asked at its last one, whose server may have died: what is waited for, under the same id, so that
// it does nothing twice, and what was refused in the moment in between, where others see a check fail and nothing was heard of this prober since.
func (s *State) askMoved(now time.Time, p *prober) {
	var names []string
	for name := range p.assignments {
		if c := s.checks[name]; c != nil && !c.gone && (c.confirming(now) || c.disagreed()) {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	for _, name := range names {
		c := s.checks[name]
		i := c.seatOf(p.name)
		switch {
		case i < 0:
		case c.seats[i].pending(now):
			s.sendRun(c, i)
		case c.disagreed() && c.votes[i].Start.Before(c.votes[bits.TrailingZeros64(c.tally.FailVotes)].Since) && c.mayAsk(now) && s.ask(now, c, i):
			s.evaluate(c, now)
		}
	}
}

// disagreed tells whether some see it fail, fewer than the quorum, and no incident is open.
func (c *check) disagreed() bool {
	return c.tally.Verdict == verdict.Degraded && c.tally.FailVotes != 0 && c.incident == nil
}

// unconfirmed tells whether some see it fail, fewer than the quorum, after runs were asked for that nobody answered.
func (c *check) unconfirmed() bool {
	return c.repeated && c.disagreed()
}

func (s *State) sendRun(c *check, i int) {
	local := !s.lead.Leading
	if local && !s.storeLost() {
		return
	}
	v, x := &c.votes[i], &c.seats[i]
	run := &meshv1.RunNow{RunId: x.runID, Check: c.name, Fresh: true, Deadline: timestamppb.New(x.until)}
	if v.Outcome == verdict.None {
		// The prober may not have been told of its assignment yet.
		run.Assignment = s.Assignments(v.Prober)[c.name]
	}
	s.do(Confirm{Prober: v.Prober, Run: run, Local: local})
}

// mayAsk tells whether first votes may be asked for: not before a new leader has heard what there is. A server that stands by notes what the leader asks.
func (s *State) mayAsk() bool { return s.warm || !s.lead.Leading }

// askFirst asks for a first vote from everybody who is to run a check and has not voted: one that is new, that probes something else now, or that is UNKNOWN
// because its placement has changed. Its owner waits, and the timetable may take a whole interval. Budgets hold: of a thousand checks most wait for their turn.
func (s *State) askFirst(now time.Time, c *check) {
	s.askAll(now, c, func(v *verdict.Vote) bool { return v.Outcome == verdict.None })
	for i := range c.seats {
		if x := &c.seats[i]; c.votes[i].Outcome == verdict.None && x.runID != "" && x.asked.Equal(now) {
			x.first = true
		}
	}
}

func (s *State) runRefused(now time.Time, e RunRefused) {
	name, _, _ := strings.Cut(e.RunID, "@")
	c := s.checks[name]
	if c == nil || c.gone {
		return
	}
	if i := c.seatOf(e.Prober); i >= 0 && c.seats[i].runID != "" && c.confirms(e.Prober, e.RunID) {
		c.seats[i].runID = ""
		s.evaluate(c, now)
	}
}
