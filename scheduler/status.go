package scheduler

import (
	"fmt"
	"math/bits"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// Status is what is held true of a check at now. With votes it carries every vote and its evidence. The second result is false when there is no such check.
func (s *State) Status(name string, now time.Time, votes bool) (*meshv1.CheckStatus, bool) {
	c := s.checks[name]
	if c == nil || c.gone {
		return nil, false
	}
	st := &meshv1.CheckStatus{
		Check: c.name, Verdict: shownVerdict(c.shown), Reason: c.reason, Summary: c.sentence(), Since: timestamppb.New(c.since), FailingDatacenters: c.failing(),
		Incident: c.incident.GetIncident().GetName(), Probers: int32(c.serving()), Quorum: int32(c.policy.Quorum), UpdateTime: timestamppb.New(c.updated),
		Confirming: c.confirming(now), DegradedDatacenters: c.limping(), Group: c.incident.GetIncident().GetGroup(),
	}
	if !c.undecided.IsZero() {
		st.Undecided, st.UndecidedTime, st.UndecidedSummary = true, timestamppb.New(c.undecided), s.undecidedSentence(c)
	}
	st.Warnings = s.warnings(c)
	if f := c.failure(); f != nil {
		st.FailureClass, st.Failure = f.ErrorClass, f.Error
	}
	if votes {
		st.Votes = c.voteList(now, true)
		for i, v := range st.Votes {
			v.Steps, v.Addresses = c.seats[i].result.GetSteps(), c.seats[i].result.GetAddresses()
		}
	}
	return st, true
}

func (c *check) serving() int {
	n := 0
	for i := range c.seats {
		if c.seats[i].rank >= 0 && !c.seats[i].beside {
			n++
		}
	}
	return n
}

// sentence says the verdict with its arithmetic.
func (c *check) sentence() string {
	t := c.tally
	failing, places := alert.Places(c.failing()), plural(c.places(), "datacenter", "datacenters")
	switch c.reason {
	case meshv1.CheckStatus_QUORUM_UP:
		return fmt.Sprintf("%s it answer, quorum %d", alert.See(t.OK+t.Mixed, t.Fresh), c.policy.Quorum)
	case meshv1.CheckStatus_QUORUM_DOWN:
		return fmt.Sprintf("%s it fail (%s), quorum %d%s", alert.See(t.Failing, t.Fresh), failing, c.policy.Quorum, c.because())
	case meshv1.CheckStatus_MINORITY_DOWN:
		return fmt.Sprintf("%s it fail (%s), fewer than the quorum of %d%s", alert.See(t.Failing+t.Mixed, t.Fresh), failing, c.policy.Quorum, c.because())
	case meshv1.CheckStatus_INTERMITTENT:
		return c.intermittence()
	case meshv1.CheckStatus_QUORUM_DEGRADED:
		return fmt.Sprintf("%s it degraded (%s), quorum %d: %s", alert.See(t.Degraded, t.Fresh), alert.Places(c.limping()), c.policy.Quorum, c.why())
	case meshv1.CheckStatus_NOT_DISTINCT:
		return fmt.Sprintf("%s it fail (%s), but all of them share one %s, so that may be at fault%s", alert.See(t.Failing, t.Fresh), failing, t.Undistinct, c.because())
	case meshv1.CheckStatus_DISPUTED:
		return fmt.Sprintf("%s it fail (%s), but others see it answer; those that failed must fail again, quorum %d%s", alert.See(t.Failing, t.Fresh), failing, c.policy.Quorum, c.because())
	case meshv1.CheckStatus_CONFIRMING:
		return c.asking() + ", others are being asked" + c.because()
	case meshv1.CheckStatus_RECOVERING:
		if t.Reason == verdict.Intermittent {
			return c.intermittence()
		}
		return fmt.Sprintf("%s it answer again, not yet for two rounds, quorum %d", alert.See(t.OK+t.Mixed, t.Fresh), c.policy.Quorum)
	case meshv1.CheckStatus_NO_VOTES:
		return "no prober has voted yet"
	case meshv1.CheckStatus_STALE_VOTES:
		return fmt.Sprintf("only %d of %d %s a fresh vote, quorum %d", t.Fresh, c.places(), plural(t.Fresh, places+" has", places+" have"), c.policy.Quorum)
	case meshv1.CheckStatus_TOO_FEW_DOMAINS:
		return fmt.Sprintf("it asks for a quorum of %d %s, and %s a prober that can run it; add probers or lower the quorum", c.policy.Quorum, plural(c.policy.Quorum, "datacenter", "datacenters"), have(c.places()))
	case meshv1.CheckStatus_BUILD_ON_TRIAL:
		return fmt.Sprintf("a build on trial sees it fail and nobody else does, but only %s heard besides, quorum %d", are(t.Fresh), c.policy.Quorum)
	case meshv1.CheckStatus_PROBER_ERRORS:
		return "its probers cannot probe: " + c.fault()
	case meshv1.CheckStatus_CHECK_PAUSED:
		return "it is paused"
	}
	return ""
}

// intermittence is the sentence of a check that fails again and again.
func (c *check) intermittence() string {
	places, failed, probes, said := c.unsteady()
	s := fmt.Sprintf("%s it fail intermittently (%s), quorum %d: %s", alert.See(len(places), c.tally.Fresh), alert.Places(places), c.policy.Quorum, alert.Share(failed, probes))
	if c.tally.Failing+c.tally.Mixed == 0 {
		s += ", and the newest of each was answered"
	}
	if said != "" {
		s += ": " + said
	}
	return s
}

// asking begins the sentence of a check that is being confirmed with what made it so.
func (c *check) asking() string {
	switch failing, limping := c.failing(), c.limping(); {
	case len(failing) > 0:
		return "it failed from " + alert.Places(failing)
	case len(limping) > 0:
		return "it is degraded from " + alert.Places(limping)
	}
	return "a probe of it takes longer than usual"
}

// are begins a clause about datacenters.
func are(n int) string {
	if n == 1 {
		return "1 datacenter is"
	}
	return fmt.Sprintf("%d datacenters are", n)
}

// have begins a clause about the datacenters that have something.
func have(n int) string {
	switch n {
	case 0:
		return "none has"
	case 1:
		return "only 1 has"
	}
	return fmt.Sprintf("only %d have", n)
}

// why is what the first of the degraded votes says.
func (c *check) why() string {
	for m := c.tally.DegradedVotes; m != 0; m &= m - 1 {
		if d := c.seats[bits.TrailingZeros64(m)].result.GetDegraded(); d != "" {
			return d
		}
	}
	return "no reason given"
}

// fault is the first error of a prober's own.
func (c *check) fault() string {
	for i := range c.votes {
		if c.votes[i].Outcome == verdict.Fault {
			return c.votes[i].Prober + ": " + c.seats[i].result.GetError()
		}
	}
	return "no reason given"
}

func (c *check) voteList(now time.Time, evidence bool) []*meshv1.Vote {
	list := make([]*meshv1.Vote, 0, len(c.votes))
	for i := range c.votes {
		v, x := &c.votes[i], &c.seats[i]
		m := &meshv1.Vote{
			Prober: spec.Name(spec.Probers, v.Prober), Datacenter: v.Datacenter, Domains: v.Domains, Fresh: c.policy.IsFresh(v, now) && v.Outcome != verdict.Fault,
			Streak: int32(v.Streak), Pending: x.pending(now), Rank: int32(x.rank),
		}
		if v.Aside {
			m.SetAside = x.aside
		}
		if v.Trial != verdict.Trusted {
			m.OnTrial = c.trialSentence(i)
			m.Fresh = m.Fresh && c.tally.FreshVotes&(1<<i) != 0
		}
		if x.rank >= 0 {
			m.Phase = durationpb.New(assignment.Phase(c.name, x.rank, max(int(c.eff.GetProbers()), x.rank+1), c.interval))
		}
		if r := x.result; r != nil {
			m.Outcome, m.ErrorClass, m.Error, m.StartTime, m.Duration = r.Outcome, r.ErrorClass, r.Error, r.StartTime, r.Duration
			m.Timings, m.TraceId, m.Degraded = r.Timings, r.TraceId, r.Degraded
			if evidence {
				m.Evidence = r.Evidence
			}
		}
		list = append(list, m)
	}
	return list
}

func timestampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// Check is a check as stored. It must not be changed. The second result is false when there is none of that name.
func (s *State) Check(name string) (*meshv1.Check, bool) {
	c := s.checks[name]
	if c == nil || c.gone {
		return nil, false
	}
	return c.spec, true
}

// AssignmentFor is an assignment of the check for a prober that does not run it, for an ad-hoc run; nil when there is no such check.
func (s *State) AssignmentFor(name string) *meshv1.Assignment {
	c := s.checks[name]
	if c == nil || c.gone {
		return nil
	}
	a := &meshv1.Assignment{Check: c.work, Phase: durationpb.New(0)}
	a.Fingerprint = assignment.Fingerprint(a)
	return a
}

// CountVerdicts counts the checks by the verdict shown.
func (s *State) CountVerdicts() map[meshv1.CheckStatus_Verdict]int64 {
	n := map[meshv1.CheckStatus_Verdict]int64{meshv1.CheckStatus_UP: 0, meshv1.CheckStatus_DEGRADED: 0, meshv1.CheckStatus_DOWN: 0, meshv1.CheckStatus_UNKNOWN: 0, meshv1.CheckStatus_PAUSED: 0}
	for _, c := range s.checks {
		if !c.gone {
			n[shownVerdict(c.shown)]++
		}
	}
	return n
}
