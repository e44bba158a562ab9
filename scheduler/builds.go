package scheduler

import (
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/credibility"
	"github.com/probemesh/probemesh/scheduler/rollout"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// builds is what the mind knows of the builds of probers. How far each is trusted is stored, so that every server and the next leader know it; what has been seen of one
// in its present stage is each server's own.
type builds struct {
	byName map[string]*build // by the build as probers state it
	policy rollout.Policy
	// dirty: who runs what, or how far it is trusted, has changed.
	dirty bool
	// alone is since when nobody has run a settled build.
	alone time.Time
}

// build is one of them.
type build struct {
	value  string
	record *meshv1.Build // nil before it is stored
	rev    int64
	trial  *rollout.Trial
	waits  string
	// probers run it, canaries take part; sorted bare names.
	probers, canaries []string
	effectUntil       time.Time
	// incident is the one open about it.
	incident      *statev1.StoredIncident
	incidentRev   int64
	incidentUntil time.Time
}

func newBuilds() builds { return builds{byName: map[string]*build{}} }

// BuildName is the resource name of a build.
func BuildName(value string) string { return spec.Name(spec.Builds, url.PathEscape(value)) }

// buildKey is what effects on a build are known by.
func buildKey(name string) string { return "build/" + spec.ID(name) }

// BuildKey is the key by which EffectFailed knows a PutBuild or DropBuild of a build's resource name.
func BuildKey(name string) string { return buildKey(name) }

// haltedPrefix begins the keys of incidents about halted builds.
const haltedPrefix = "_mesh-build_halted-"

func haltedKey(value string) string {
	return haltedPrefix + url.PathEscape(credibility.Domain{Dimension: "build", Value: value}.String())
}

func (b *builds) get(s *State, value string) *build {
	x := b.byName[value]
	if x == nil {
		x = &build{value: value, trial: rollout.NewTrial(s.cfg.Rollout)}
		b.byName[value] = x
	}
	return x
}

func (b *builds) byIncident(key string) *build {
	for _, x := range b.byName {
		if haltedKey(x.value) == key {
			return x
		}
	}
	return nil
}

// begin lets a new leader wish for what is due at once.
func (b *builds) begin() {
	for _, x := range b.byName {
		x.effectUntil, x.incidentUntil = time.Time{}, time.Time{}
	}
	b.alone = time.Time{}
}

// reset forgets what came from the store.
func (b *builds) reset() {
	for _, x := range b.byName {
		x.record, x.rev, x.incident, x.incidentRev = nil, 0, nil, 0
	}
	b.policy, b.dirty = rollout.Policy{}, true
}

func policyOf(p *meshv1.BuildPolicy) rollout.Policy {
	least := func(d *durationpb.Duration) time.Duration {
		if d != nil && d.AsDuration() <= 0 {
			return -1
		}
		return d.AsDuration()
	}
	return rollout.Policy{
		ShadowTime: least(p.GetShadowTime()), CanaryTime: least(p.GetCanaryTime()), ShadowComparisons: int64(p.GetShadowComparisons()),
		CanaryComparisons: int64(p.GetCanaryComparisons()), CanaryPercent: int(p.GetCanaryPercent()), Manual: p.GetManual(),
	}
}

func (s *State) putBuild(e BuildPut) {
	x := s.builds.get(s, e.Build.GetBuild())
	if x.record.GetStage() != e.Build.GetStage() {
		// What was seen in another stage does not count in this one. A server that has begun anew sees the rest of it.
		if x.record != nil {
			x.trial = rollout.NewTrial(s.cfg.Rollout)
		}
		s.builds.dirty = true
	}
	x.record, x.rev, x.effectUntil = e.Build, e.ModRevision, time.Time{}
}

func (s *State) goneBuild(name string) {
	for value, x := range s.builds.byName {
		if BuildName(value) == name {
			x.record, x.rev, x.effectUntil, s.builds.dirty = nil, 0, time.Time{}, true
		}
	}
}

func (s *State) putHalted(e IncidentPut) {
	x := s.builds.get(s, e.Incident.GetIncident().GetSetAside().GetValue())
	x.incident, x.incidentRev, x.incidentUntil = e.Incident, e.ModRevision, time.Time{}
}

// buildFailed notes that an effect on a build, or on the incident about it, could not be carried out. It reports whether the key is one of those.
func (s *State) buildFailed(key string, until time.Time) bool {
	for _, x := range s.builds.byName {
		switch key {
		case buildKey(BuildName(x.value)):
			x.effectUntil = until
			return true
		case haltedKey(x.value):
			x.incidentUntil = until
			return true
		}
	}
	return false
}

// stageOf is how far a build is trusted: not at all yet, if others are and it is new. A mesh that has not written down any trusts all.
func (s *State) stageOf(value string) rollout.Stage {
	x := s.builds.byName[value]
	switch {
	case value == "":
		return rollout.Settled
	case x != nil && x.record != nil:
		return stageIn(x.record.GetStage())
	}
	for _, o := range s.builds.byName {
		if o.record != nil {
			return rollout.Shadow
		}
	}
	return rollout.Settled
}

func stageIn(g meshv1.Build_Stage) rollout.Stage {
	switch g {
	case meshv1.Build_SHADOW:
		return rollout.Shadow
	case meshv1.Build_CANARY:
		return rollout.Canary
	case meshv1.Build_HALTED:
		return rollout.Halted
	}
	return rollout.Settled
}

func shownStage(g rollout.Stage) meshv1.Build_Stage {
	switch g {
	case rollout.Shadow:
		return meshv1.Build_SHADOW
	case rollout.Canary:
		return meshv1.Build_CANARY
	case rollout.Settled:
		return meshv1.Build_SETTLED
	case rollout.Halted:
		return meshv1.Build_HALTED
	}
	return meshv1.Build_STAGE_UNSPECIFIED
}

// enrolBuild has what a prober says from now on count as its build is trusted, at once; the rest follows when all is known.
func (s *State) enrolBuild(name string) {
	s.builds.dirty = true
	p := s.roster.get(name)
	if p.build == p.enrolled.GetBuild() {
		return // in the middle of a snapshot not every build may be known again
	}
	p.build = p.enrolled.GetBuild()
	// A canary that is not chosen yet is in the shadow.
	switch s.stageOf(p.enrolled.GetBuild()) {
	case rollout.Settled:
		p.trial, p.halted = verdict.Trusted, false
	case rollout.Halted:
		p.trial, p.halted = verdict.Trusted, true
	case rollout.Canary:
		if p.trial != verdict.Canary {
			p.trial, p.halted = verdict.Shadow, false
		}
	default:
		p.trial, p.halted = verdict.Shadow, false
	}
}

func (p *prober) buildDomain() string {
	return credibility.Domain{Dimension: "build", Value: p.enrolled.GetBuild()}.String()
}

// markBuilds computes who runs what, who takes part as a canary, and has the votes of all probers count accordingly.
func (s *State) markBuilds(now time.Time) {
	s.builds.dirty = false
	for _, x := range s.builds.byName {
		x.probers, x.canaries = nil, nil
	}
	all := 0
	for name, p := range s.roster.probers {
		if p.enrolled == nil || p.enrolled.GetDrained() {
			continue
		}
		all++
		if b := p.enrolled.GetBuild(); b != "" {
			x := s.builds.get(s, b)
			x.probers = append(x.probers, name)
		}
	}
	chosen := map[string]bool{}
	for value, x := range s.builds.byName {
		slices.Sort(x.probers)
		if s.stageOf(value) == rollout.Canary {
			x.canaries = canaries(x.probers, s.builds.policy.Canaries(all))
			for _, n := range x.canaries {
				chosen[n] = true
			}
		}
		if x.record == nil && x.incident == nil && len(x.probers) == 0 {
			delete(s.builds.byName, value)
		}
	}
	moved := map[string]bool{} // by prober: whether its votes are void
	for name, p := range s.roster.probers {
		if p.enrolled == nil {
			continue
		}
		trial, halted := verdict.Trusted, false
		switch s.stageOf(p.enrolled.GetBuild()) {
		case rollout.Shadow:
			trial = verdict.Shadow
		case rollout.Canary:
			if trial = verdict.Shadow; chosen[name] {
				trial = verdict.Canary
			}
		case rollout.Halted:
			halted = true
		}
		m := mark{trial, halted, p.enrolled.GetBuild()}
		if p.marked.build == "" {
			p.marked.build = m.build
		}
		if p.marked != m || p.trial != trial || p.halted != halted {
			// What a build said that is not believed must not count as the word of another one, or of itself once it is.
			old := p.marked
			moved[name] = old.halted || old.trial != verdict.Trusted && old.build != m.build
			p.trial, p.halted, p.marked = trial, halted, m
		}
	}
	if len(moved) > 0 {
		s.moveMarked(now, moved)
	}
}

// mark is as what a prober's votes were counted last.
type mark struct {
	trial  verdict.Trial
	halted bool
	build  string
}

// moveMarked has the votes of probers count as what they are now, or not any more, and their checks placed anew.
func (s *State) moveMarked(now time.Time, moved map[string]bool) {
	s.roster.changed()
	for name := range moved {
		s.putInBook(now, name)
	}
	for _, c := range s.checks {
		hit := false
		for i := range c.votes {
			v, x := &c.votes[i], &c.seats[i]
			void, is := moved[v.Prober]
			if !is {
				continue
			}
			hit, v.Trial = true, s.roster.probers[v.Prober].trial
			x.odds, x.doubt = 0, doubt{}
			if void {
				*v, *x = blank(*v), seat{rank: x.rank, beside: x.beside, aside: x.aside}
				c.tally = verdict.Tally{}
			}
		}
		if hit {
			s.schedule(c, now)
		}
	}
}

// canaries are so many of the probers, the same ones on every server, and not all of one datacenter because they are named alike.
func canaries(probers []string, n int) []string {
	score := func(name string) uint64 {
		h := fnv.New64a()
		fmt.Fprint(h, "canary", name)
		return h.Sum64()
	}
	list := slices.Clone(probers)
	slices.SortFunc(list, func(a, b string) int {
		if x, y := score(a), score(b); x != y {
			return map[bool]int{true: -1, false: 1}[x < y]
		}
		return 0
	})
	list = list[:min(n, len(list))]
	slices.Sort(list)
	return list
}
