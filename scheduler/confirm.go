package scheduler

import (
	"fmt"
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
// one timeout.
func (s *State) slow(now time.Time, c *check, witness int, r *meshv1.Result) {
	if c.votes[witness].Outcome == verdict.Fail || r.GetStartTime().AsTime().Before(now.Add(-c.timeout-freshSlack)) {
		return
	}
	s.confirm(now, c, witness)
}

// confirm asks the other probers of a check to probe at once, those of other datacenters first, and the witness to repeat once on a new connection. At most
// as many as twice the quorum, beside the witness.
func (s *State) confirm(now time.Time, c *check, witness int) {
	if c.tally.Verdict == verdict.Down || c.spec.GetPaused() || !c.mayAsk(now) {
		return
	}
	asked := 0
	for _, elsewhere := range []bool{true, false} {
		for i := range c.seats {
			if i == witness || asked >= 2*c.policy.Quorum || (c.votes[i].Datacenter != c.votes[witness].Datacenter) != elsewhere {
				continue
			}
			if c.votes[i].Outcome == verdict.Fail && c.policy.IsFresh(&c.votes[i], now) {
				continue
			}
			if s.ask(now, c, i) {
				asked++
			}
		}
	}
	s.ask(now, c, witness)
	s.schedule(c, c.nextLook(now))
}

// mayAsk takes from the check's own budget: four rounds at once, two an interval.
func (c *check) mayAsk(now time.Time) bool {
	return c.tokens.take(now, 2/c.interval.Seconds(), 4)
}

// confirmRecovery asks the others when the first answer comes back while an incident is open, and plans the second round.
func (s *State) confirmRecovery(now time.Time, c *check) {
	if c.roundAt.IsZero() {
		c.roundAt = now.Add(c.gap() + 10*time.Millisecond)
	}
	if c.mayAsk(now) {
		for i := range c.seats {
			if c.votes[i].Outcome != verdict.OK {
				s.ask(now, c, i)
			}
		}
	}
	s.schedule(c, c.nextLook(now))
}

// askRound is the second round of a recovery: whoever answers again is asked once more.
func (s *State) askRound(now time.Time, c *check) {
	if !c.mayAsk(now) {
		return
	}
	for i := range c.seats {
		if c.votes[i].Outcome == verdict.OK && c.votes[i].Start.Sub(c.votes[i].Since) < c.gap() {
			s.ask(now, c, i)
		}
	}
}

// ask asks the prober of seat i for a run, unless one is under way, it is offline, or a budget is empty.
func (s *State) ask(now time.Time, c *check, i int) bool {
	v, x := &c.votes[i], &c.seats[i]
	p := s.roster.probers[v.Prober]
	if x.rank < 0 || x.pending(now) || p == nil || !p.online {
		return false
	}
	if !s.budget.take(now, v.Prober, c.host) {
		s.Counters.ConfirmationsRefused++
		return false
	}
	s.Counters.Confirmations++
	// The id is the same in every server that thinks of the same run at the same moment; probers drop the repetition.
	x.runID = fmt.Sprintf("%s@%s.%d", c.name, v.Prober, now.UnixMilli())
	x.asked, x.until = now, now.Add(c.timeout+freshSlack)
	if s.lead.Leading {
		s.do(Confirm{Prober: v.Prober, Run: &meshv1.RunNow{RunId: x.runID, Check: c.name, Fresh: true, Deadline: timestamppb.New(x.until)}})
	}
	return true
}

func (s *State) runRefused(now time.Time, e RunRefused) {
	name, _, _ := strings.Cut(e.RunID, "@")
	c := s.checks[name]
	if c == nil {
		return
	}
	if i := c.seatOf(e.Prober); i >= 0 && c.seats[i].runID == e.RunID {
		c.seats[i].runID = ""
		s.evaluate(c, now)
	}
}
