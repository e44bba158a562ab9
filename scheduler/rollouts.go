package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/rollout"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

const (
	// maxBuilds is how many builds are kept; above it those that nobody runs are dropped, the oldest first.
	maxBuilds = 64
	// settledAway is how long the probers of settled builds may be offline before nobody is said to run one. An outage of half a mesh is not an upgrade.
	settledAway = 10 * time.Minute
	// steadyStreak is how many probes in a row the probers of settled builds must have seen the same before a build is held against it: what fails now and then, fails
	// for one of them and not for another.
	steadyStreak = 3
)

// watchBuilds decides how far builds are trusted. Every server does; the leader acts.
func (s *State) watchBuilds(now time.Time) {
	alone := s.aloneFor(now)
	next := s.nextAlone()
	for _, value := range s.buildValues() {
		x := s.builds.byName[value]
		stage, halt := s.stageOf(value), ""
		if (stage == rollout.Shadow || stage == rollout.Canary) && x.trial.Dissents > 0 {
			halt = x.trial.Halt(now, s.hostsOf(x))
		}
		d := rollout.Decide(now, s.cfg.Rollout, s.builds.policy, rollout.Facts{
			Stage: stage, Since: x.record.GetStageTime().AsTime(), Probers: len(x.probers), Comparisons: x.trial.Comparisons, Halt: halt,
			Doubt: x.trial.Doubt(now), Alone: alone, Next: value == next,
		})
		x.waits = d.Waits
		if !s.mayAct(x.effectUntil, now) || s.store.unsettled || s.storeLost() {
			continue
		}
		switch {
		case x.record == nil && len(x.probers) > 0:
			s.meetBuild(now, x)
		case x.record != nil && d.Stage != stageIn(x.record.GetStage()):
			s.moveBuild(now, x, d)
		}
		s.watchHalted(now, x)
	}
	if s.lead.Leading && len(s.builds.byName) > maxBuilds {
		s.dropBuilds(now)
	}
}

// buildValues are the builds that are known, sorted.
func (s *State) buildValues() []string {
	list := make([]string, 0, len(s.builds.byName))
	for v := range s.builds.byName {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}

// hostsOf counts the subjects that the probers of a build watch, as far as it matters.
func (s *State) hostsOf(x *build) int {
	const enough = 10
	seen := map[string]bool{}
	for _, n := range x.probers {
		for name := range s.Assignments(n) {
			if c := s.checks[name]; c != nil {
				seen[s.subject(c)] = true
			}
			if len(seen) == enough {
				return enough
			}
		}
	}
	return len(seen)
}

// aloneFor is for how long nobody has run a settled build while somebody runs another one; negative when that is not so.
func (s *State) aloneFor(now time.Time) time.Duration {
	trial := false
	for value, x := range s.builds.byName {
		switch s.stageOf(value) {
		case rollout.Settled:
			for _, n := range x.probers {
				if p := s.roster.probers[n]; p.online || now.Sub(p.since) < settledAway {
					s.builds.alone = time.Time{}
					return -1
				}
			}
		case rollout.Shadow, rollout.Canary:
			trial = trial || len(x.probers) > 0
		}
	}
	if !trial {
		s.builds.alone = time.Time{}
		return -1
	}
	if s.builds.alone.IsZero() {
		s.builds.alone = now
	}
	return now.Sub(s.builds.alone)
}

// nextAlone is the build on trial that most probers run.
func (s *State) nextAlone() string {
	best, most := "", 0
	for _, value := range s.buildValues() {
		if g := s.stageOf(value); (g == rollout.Shadow || g == rollout.Canary) && len(s.builds.byName[value].probers) > most {
			best, most = value, len(s.builds.byName[value].probers)
		}
	}
	return best
}

// meetBuild writes down a build that is new: in the shadow, or settled at once where there is none to compare it with.
func (s *State) meetBuild(now time.Time, x *build) {
	r := &meshv1.Build{
		Name: BuildName(x.value), Build: x.value, CreateTime: timestamppb.New(now), StageTime: timestamppb.New(now), Stage: meshv1.Build_SHADOW,
		Reason: "the mesh has not seen it before",
	}
	if s.stageOf(x.value) == rollout.Settled {
		r.Stage, r.Reason = meshv1.Build_SETTLED, "it was there when the mesh began to try builds, so there was nothing to compare it with"
	}
	x.effectUntil = now.Add(effectTimeout)
	s.do(PutBuild{Build: r})
}

func (s *State) moveBuild(now time.Time, x *build, d rollout.Decision) {
	r := proto.CloneOf(x.record)
	r.Stage, r.StageTime, r.Reason, r.By = shownStage(d.Stage), timestamppb.New(now), d.Reason, ""
	r.Comparisons, r.Dissents, r.DissentsByKind = x.seen()
	x.effectUntil = now.Add(effectTimeout)
	s.do(PutBuild{Build: r, ModRevision: x.rev})
}

// seen is what the trial has seen, as the API shows it.
func (x *build) seen() (comparisons, dissents int64, kinds []*meshv1.BuildDissents) {
	for _, k := range x.trial.Kinds() {
		m := &meshv1.BuildDissents{Kind: k.Kind, Count: k.Count, Failed: k.Failed}
		for _, e := range k.Examples {
			m.Examples = append(m.Examples, &meshv1.BuildDissent{
				Check: e.Check, Prober: spec.Name(spec.Probers, e.Prober), Failed: e.Failed, Error: e.Error, Time: timestamppb.New(e.Time),
			})
		}
		kinds = append(kinds, m)
	}
	return x.trial.Comparisons, x.trial.Dissents, kinds
}

// dropBuilds forgets builds that nobody runs, the oldest first, while there are too many. A settled one is kept as long as there are others to drop.
func (s *State) dropBuilds(now time.Time) {
	var idle []*build
	for _, v := range s.buildValues() {
		if x := s.builds.byName[v]; x.record != nil && x.incident == nil && len(x.probers) == 0 && s.mayAct(x.effectUntil, now) {
			idle = append(idle, x)
		}
	}
	slices.SortStableFunc(idle, func(a, b *build) int {
		return cmp.Compare(a.record.GetStageTime().AsTime().UnixNano(), b.record.GetStageTime().AsTime().UnixNano())
	})
	for _, x := range idle[:min(len(idle), len(s.builds.byName)-maxBuilds)] {
		x.effectUntil = now.Add(effectTimeout)
		s.do(DropBuild{Name: x.record.GetName(), ModRevision: x.rev})
	}
}

// watchHalted has one incident of the mesh open for as long as probers run a build that halted by itself. Who halted one by hand knows of it.
func (s *State) watchHalted(now time.Time, x *build) {
	if !s.mayAct(x.incidentUntil, now) || !s.warm {
		return
	}
	wanted := x.record.GetStage() == meshv1.Build_HALTED && x.record.GetBy() == "" && len(x.probers) > 0
	switch {
	case wanted && x.incident == nil:
		s.openHalted(now, x)
	case !wanted && x.incident != nil:
		s.resolveHalted(now, x)
	}
}

func (s *State) openHalted(now time.Time, x *build) {
	r, key := x.record, haltedKey(x.value)
	a := &meshv1.SetAside{Dimension: "build", Value: x.value, Since: r.GetStageTime(), Dissents: int32(r.GetDissents()), Agreements: int32(r.GetComparisons() - r.GetDissents())}
	var failed int64
	for _, k := range r.GetDissentsByKind() {
		a.Kinds = append(a.Kinds, k.GetKind())
		failed += k.GetFailed()
		for _, e := range k.GetExamples() {
			if a.Since.AsTime().After(e.GetTime().AsTime()) {
				a.Since = e.GetTime()
			}
			if !slices.Contains(a.Checks, e.GetCheck()) && len(a.Checks) < 10 {
				a.Checks = append(a.Checks, e.GetCheck())
			}
		}
	}
	slices.Sort(a.Checks)
	slices.Sort(a.Kinds)
	if r.GetDissents() > 0 {
		a.FailedShare = float64(failed) / float64(r.GetDissents())
	}
	for _, n := range x.probers {
		a.Probers = append(a.Probers, spec.Name(spec.Probers, n))
	}
	i := &meshv1.Incident{
		Name: spec.Name(spec.Incidents, incidentID(key, now, s.lead.Term)), Kind: meshv1.Incident_MESH, State: meshv1.Incident_OPEN, Verdict: meshv1.CheckStatus_UNKNOWN,
		Reason: meshv1.CheckStatus_BUILD_HALTED, StartTime: a.Since, OpenTime: timestamppb.New(now), Term: int32(s.lead.Term), Receivers: s.meshReceivers(),
		SetAside: a, AffectedChecks: a.Checks, AffectedCount: int32(len(a.Checks)),
		Summary: fmt.Sprintf("Build %s is halted: %s. Its %d %s (%s) do not count until they run a settled build again, or somebody approves it.",
			x.value, r.GetReason(), len(x.probers), plural(len(x.probers), "prober's votes", "probers' votes"), someOf(x.probers)),
	}
	st := &statev1.StoredIncident{Incident: i}
	note(i, now, meshv1.TimelineEntry_OPENED, i.Summary)
	x.incidentUntil = now.Add(effectTimeout)
	s.do(Open{Key: key, Incident: st, Outbox: s.owe(st, nil, meshv1.Notification_OPENED, now)})
}

// someOf names the first few.
func someOf(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

func (s *State) resolveHalted(now time.Time, x *build) {
	st := proto.CloneOf(x.incident)
	i := st.GetIncident()
	i.State, i.EndTime, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.New(now), timestamppb.New(now)
	i.Summary = fmt.Sprintf("No prober runs the halted build %s any more, after %s.", x.value, alert.Span(now.Sub(i.GetStartTime().AsTime())))
	if len(x.probers) > 0 {
		i.Summary = fmt.Sprintf("Build %s is %s: %s.", x.value, strings.ToLower(x.record.GetStage().String()), x.record.GetReason())
	}
	note(i, now, meshv1.TimelineEntry_RESOLVED, i.Summary)
	x.incidentUntil = now.Add(effectTimeout)
	out := s.owe(st, nil, meshv1.Notification_RESOLVED, now)
	for _, o := range out {
		o.Notification.EndTime, o.Notification.Verdict = i.EndTime, meshv1.CheckStatus_UP
	}
	s.do(Resolve{Key: haltedKey(x.value), Incident: st, Outbox: out, ModRevision: x.incidentRev})
}

// buildAgrees notes an answer of a build on trial in a check that everybody sees answer.
func (s *State) buildAgrees(c *check, i int) {
	c.seats[i].odds = 0
	if x := s.builds.byName[c.votes[i].Domains["build"]]; x != nil {
		x.trial.Agree()
	}
}

// compareBuild holds the vote that waits in seat j, of a build on trial, against what probers of settled builds have seen since: that of its own datacenter, which has the
// same way to the target, and those of the others. It agrees when its own neighbour, or without one most of the others, say the same. It disagrees when nobody does. It
// reports whether the vote need not wait any more.
func (s *State) compareBuild(now time.Time, c *check, j int) bool {
	d := &c.seats[j].doubt
	fail, ok := c.othersSince(j, d.at)
	nearFail, nearOK := c.neighboursSince(j, d.at)
	with, against, nearWith, nearAgainst := ok, fail, nearOK, nearFail
	if d.failed {
		with, against, nearWith, nearAgainst = fail, ok, nearFail, nearOK
	}
	switch {
	case nearWith > nearAgainst, nearWith+nearAgainst == 0 && with > 0 && with >= 2*against:
		s.buildAgrees(c, j)
	case nearWith > 0 || with > 0:
		// They are not of one mind either.
		if nearWith+nearAgainst == 0 && 2*with > against && 2*against > with {
			return false
		}
	case nearAgainst == 0 && against == 0:
		return false
	case !c.steadySince(j, d):
		// What they see is new, or comes and goes.
	default:
		s.buildDissents(now, c, j)
	}
	*d = doubt{}
	return true
}

func (s *State) buildDissents(now time.Time, c *check, j int) {
	v, x := &c.votes[j], &c.seats[j]
	b := s.builds.byName[v.Domains["build"]]
	if b == nil {
		return
	}
	x.odds++
	kind, _ := spec.KindOf(c.eff.GetUri())
	e := rollout.Dissent{Prober: v.Prober, Check: c.name, Subject: s.subject(c), Kind: string(kind), Failed: x.doubt.failed, Time: x.doubt.at, InARow: x.odds}
	if e.Failed {
		e.Error = x.result.GetError()
	}
	if b.trial.Dissent(now, e) {
		s.Counters.BuildDissents++
	}
}

// neighboursSince counts the probers of seat j's own datacenter, of settled builds, that have seen the check fail, and answer, in probes that began at the time or later.
func (c *check) neighboursSince(j int, at time.Time) (fail, ok int) {
	for k := range c.votes {
		v := &c.votes[k]
		if v.Datacenter != c.votes[j].Datacenter || v.Aside || v.Drained || v.Trial != verdict.Trusted || v.Start.Before(at) {
			continue
		}
		switch v.Outcome {
		case verdict.Fail:
			fail++
		case verdict.OK:
			ok++
		}
	}
	return fail, ok
}

// steadySince tells whether all who stand against a vote have seen the same for some probes.
func (c *check) steadySince(j int, d *doubt) bool {
	against := verdict.Fail
	if d.failed {
		against = verdict.OK
	}
	for k := range c.votes {
		if v := &c.votes[k]; k != j && v.Outcome == against && v.Trial == verdict.Trusted && !v.Aside && !v.Drained && !v.Start.Before(d.at) && v.Streak < steadyStreak {
			return false
		}
	}
	return true
}

// trialSentence says what the vote of a build on trial is worth.
func (c *check) trialSentence(i int) string {
	v := &c.votes[i]
	what := "compared, does not count"
	switch {
	case c.tally.FreshVotes&(1<<i) != 0:
		what = "counts with all others of that build as one"
	case v.Trial == verdict.Canary:
		what = "a canary, alone in what it sees, or its datacenter is heard already: does not count"
	}
	return fmt.Sprintf("build %s is on trial: %s", v.Domains["build"], what)
}

// Build is what the mind knows of a build, by its resource name. The second result is false when it knows of none of that name.
func (s *State) Build(name string) (*meshv1.Build, bool) {
	for value, x := range s.builds.byName {
		if BuildName(value) == name {
			return s.shownBuild(x), true
		}
	}
	return nil, false
}

// Builds are the resource names of all builds that are known, sorted.
func (s *State) Builds() []string {
	list := s.buildValues()
	for i, v := range list {
		list[i] = BuildName(v)
	}
	slices.Sort(list)
	return list
}

func (s *State) shownBuild(x *build) *meshv1.Build {
	m := &meshv1.Build{Name: BuildName(x.value), Build: x.value}
	if x.record != nil {
		m = proto.CloneOf(x.record)
	}
	m.Stage = shownStage(s.stageOf(x.value))
	if m.Stage == meshv1.Build_SHADOW || m.Stage == meshv1.Build_CANARY {
		m.Comparisons, m.Dissents, m.DissentsByKind = x.seen()
		m.WaitsFor = x.waits
	}
	for _, n := range x.probers {
		m.Probers = append(m.Probers, spec.Name(spec.Probers, n))
	}
	for _, n := range x.canaries {
		m.Canaries = append(m.Canaries, spec.Name(spec.Probers, n))
	}
	m.Incident = x.incident.GetIncident().GetName()
	return m
}
