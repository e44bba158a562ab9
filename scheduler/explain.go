package scheduler

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/scheduler/verdict"
)

// Explain says how the verdict of a check comes about: where it runs and why there, what was voted, the arithmetic, and what would change it. more are warnings that the caller knows
// and the mind does not, a sentence each.
func (s *State) Explain(name string, now time.Time, more ...string) (*meshv1.ExplainCheckResponse, bool) {
	status, ok := s.Status(name, now, true)
	if !ok {
		return nil, false
	}
	status.Warnings = append(status.Warnings, more...)
	c := s.checks[name]
	e := &meshv1.ExplainCheckResponse{
		Status: status, Probers: c.eff.GetProbers(), Quorum: c.eff.GetQuorum(), Interval: durationpb.New(c.interval), Timeout: durationpb.New(c.timeout),
		Placement: s.explainPlacement(c), Arithmetic: s.explainArithmetic(c, now),
	}
	e.Independence = s.independence(c)
	e.Text = c.explainText(e, &s.roster, now)
	return e, true
}

func (s *State) explainPlacement(c *check) []string {
	want := int(c.eff.GetProbers())
	lines := []string{fmt.Sprintf("wants %s; probers are enrolled in %d %s", wanted(want), s.roster.datacenters(), plural(s.roster.datacenters(), "datacenter", "datacenters"))}
	if c.spec.GetProbers() == 0 {
		lines[0] += " (probers is not set: 3, or as many as there are datacenters)"
	}
	if d := c.eff.GetDatacenters(); len(d) > 0 {
		lines = append(lines, "only in "+strings.Join(d, ", "))
	}
	for i := range c.votes {
		if x := &c.seats[i]; x.beside {
			lines = append(lines, fmt.Sprintf("beside rank %d: %s in %s, at the same moments", x.rank, c.votes[i].Prober, c.votes[i].Datacenter))
		} else if x.rank >= 0 {
			lines = append(lines, fmt.Sprintf("rank %d: %s in %s, starts %s into each %s", x.rank, c.votes[i].Prober, c.votes[i].Datacenter,
				s.phaseOf(c, i).Round(time.Millisecond), c.interval))
		} else {
			lines = append(lines, fmt.Sprintf("%s in %s no longer runs it; its vote counts until it is stale", c.votes[i].Prober, c.votes[i].Datacenter))
		}
	}
	if n := c.serving(); n < want && !c.spec.GetPaused() {
		lines = append(lines, fmt.Sprintf("%d of %d %s %s empty: no other prober that is in service there can run kind %s%s", want-n, want, plural(want, "place", "places"),
			plural(want-n, "is", "are"), c.needs[0], besides(c.needs[1:])))
		lines = append(lines, s.incapable(c)...)
	}
	return lines
}

// besides are the capabilities that a check needs besides its kind.
func besides(needs []string) string {
	if len(needs) == 0 {
		return ""
	}
	return " with " + strings.Join(needs, ", ")
}

func (s *State) phaseOf(c *check, i int) time.Duration {
	if a := s.Assignments(c.votes[i].Prober)[c.name]; a != nil {
		return a.GetPhase().AsDuration()
	}
	return 0
}

func (s *State) explainArithmetic(c *check, now time.Time) []string {
	t := c.tally
	lines := []string{
		fmt.Sprintf("a vote is fresh for %s: interval %s + timeout %s + %s", c.policy.Fresh, c.interval, c.timeout, s.cfg.FreshSlack),
		fmt.Sprintf("fresh votes come from %d %s: %d answering, %d failing, %d of two minds", t.Fresh, plural(t.Fresh, "datacenter", "datacenters"), t.OK, t.Failing, t.Mixed),
		fmt.Sprintf("the quorum is %d", c.policy.Quorum),
	}
	if c.spec.GetQuorum() == 0 {
		lines[2] += fmt.Sprintf(" (not set: the majority of %d %s)", c.eff.GetProbers(), plural(int(c.eff.GetProbers()), "prober", "probers"))
	}
	switch {
	case t.Failing >= c.policy.Quorum:
		lines = append(lines, fmt.Sprintf("%d failing >= quorum %d", t.Failing, c.policy.Quorum))
	case t.Fresh < c.policy.Quorum:
		lines = append(lines, fmt.Sprintf("%d heard < quorum %d: nothing is known", t.Fresh, c.policy.Quorum))
	default:
		lines = append(lines, fmt.Sprintf("%d failing < quorum %d, %d heard >= quorum %d", t.Failing, c.policy.Quorum, t.Fresh, c.policy.Quorum))
	}
	if t.Degraded > 0 {
		lines = append(lines, fmt.Sprintf("%d of those answering %s it degraded (%s), which is no failure; a quorum of %d makes it DEGRADED", t.Degraded, plural(t.Degraded, "sees", "see"),
			alert.Places(c.limping()), c.policy.Quorum))
	}
	if t.Unsteady > 0 {
		lines = append(lines, fmt.Sprintf("%d %s it fail again and again (%s), until it answers %d times in a row, for %s at least; a quorum of %d makes it DEGRADED", t.Unsteady,
			plural(t.Unsteady, "datacenter sees", "datacenters see"), alert.Places(c.placesOf(t.UnsteadyVotes)), verdict.SteadyRun, alert.Span(verdict.SteadyFor), c.policy.Quorum))
	}
	if t.Filled > 0 {
		lines = append(lines, fmt.Sprintf("%d of them %s heard through a build on trial only: its answers count, its failures together as one", t.Filled, plural(t.Filled, "is", "are")))
	}
	if t.Undistinct != "" {
		lines = append(lines, fmt.Sprintf("all failing votes share one %s while others differ in it: not counted as independent", t.Undistinct))
	}
	if t.Reason == verdict.Disputed {
		lines = append(lines, fmt.Sprintf("others see it answer meanwhile: %d of the failing %s failed twice in a row, quorum %d", t.Firm, plural(t.Failing, "datacenter has", "datacenters have"), c.policy.Quorum))
	}
	if c.incident != nil {
		steady := max(c.gap(), c.damping.Hold(c.interval, now))
		lines = append(lines, fmt.Sprintf("%s is open; it closes when %d %s answered twice in a row, %s apart or more", c.incident.GetIncident().GetName(),
			c.policy.Quorum, plural(c.policy.Quorum, "datacenter has", "datacenters have"), alert.Span(steady)))
		if t.Reason == verdict.Intermittent {
			lines = append(lines, "it stays open as long as it fails intermittently")
		}
		if hold := c.damping.Hold(c.interval, now); hold > 0 {
			lines = append(lines, fmt.Sprintf("it flaps (%.1f recent incidents), so it must answer for %s first", c.damping.At(now), alert.Span(hold)))
		}
	}
	lines = append(lines, fmt.Sprintf("verdict %s because %s", shownVerdict(c.shown), c.reason))
	if more := c.policy.Quorum - t.Failing; t.Failing < c.policy.Quorum && t.Fresh >= c.policy.Quorum {
		lines = append(lines, fmt.Sprintf("it would be DOWN with %d more failing %s", more, plural(more, "datacenter", "datacenters")))
	}
	return lines
}

func (c *check) explainText(e *meshv1.ExplainCheckResponse, r *roster, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s: %s.\n", c.name, shownVerdict(c.shown), c.sentence())
	if u := e.GetStatus().GetUndecidedSummary(); u != "" {
		fmt.Fprintf(&b, "  %s\n", u)
	}
	fmt.Fprintf(&b, "  %s, since %s\n", c.spec.GetUri(), c.since.UTC().Format(time.RFC3339))
	if names := c.canonicalNames(); len(names) > 0 {
		fmt.Fprintf(&b, "  an alias of %s\n", strings.Join(names, ", "))
	}
	if issuers := c.issuers(); len(issuers) > 0 {
		fmt.Fprintf(&b, "  certificates issued by %s\n", strings.Join(issuers, "; "))
	}
	section := func(title string, lines []string) {
		fmt.Fprintf(&b, "\n%s\n", title)
		for _, l := range lines {
			fmt.Fprintf(&b, "  %s\n", l)
		}
	}
	if w := e.GetStatus().GetWarnings(); len(w) > 0 {
		section("Warnings", w)
	}
	section("Placement", e.GetPlacement())
	if lines := independenceLines(e.GetIndependence()); len(lines) > 0 {
		section("Independence", lines)
	}
	var votes []string
	for i := range c.votes {
		line, rest, more := strings.Cut(c.voteLine(i, now), "\n")
		line += r.silence(c.votes[i].Prober, now)
		if more {
			line += "\n" + rest
		}
		votes = append(votes, line)
	}
	if len(votes) == 0 {
		votes = []string{"none"}
	}
	section("Votes", votes)
	section("Arithmetic", e.GetArithmetic())
	return b.String()
}

// silence is the end of a line about a prober that says since when it has no session; empty while it has one.
func (r *roster) silence(name string, now time.Time) string {
	p := r.probers[name]
	if p == nil || p.online || p.since.IsZero() {
		return ""
	}
	return "; the prober has had no session for " + alert.Span(now.Sub(p.since))
}

func (c *check) voteLine(i int, now time.Time) string {
	v, x := &c.votes[i], &c.seats[i]
	where := fmt.Sprintf("%-16s %-10s", v.Prober, v.Datacenter)
	if v.Outcome == verdict.None {
		return where + " no vote yet"
	}
	line := fmt.Sprintf("%s %-5s %d in a row, %s ago, took %s", where, strings.ToUpper(v.Outcome.String()), v.Streak, alert.Span(now.Sub(v.Start)),
		x.result.GetDuration().AsDuration().Round(10*time.Microsecond))
	switch {
	case v.Drained:
		line += ", does not count: drained"
	case v.Aside:
		line += ", does not count: set aside for " + x.aside
	case !c.policy.IsFresh(v, now):
		line += ", does not count: stale"
	case v.Trial != verdict.Trusted:
		line += ", " + c.trialSentence(i)
	case v.Outcome == verdict.Fault:
		line += ", does not count: the prober's own error"
	}
	if v.Degraded {
		line += "\n    degraded: " + x.result.GetDegraded()
	}
	if x.result.GetError() != "" {
		line += "\n    " + x.result.GetError()
	}
	for _, l := range detail(x.result) {
		line += "\n    " + l
	}
	if x.pending(now) {
		line += "\n    asked to probe again " + alert.Span(now.Sub(x.asked)) + " ago"
	}
	return line
}

// wanted is how many probers a check wants, and how they are spread.
func wanted(n int) string {
	if n == 1 {
		return "1 prober"
	}
	return fmt.Sprintf("%d probers, in different datacenters as far as there are enough", n)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// Prober is what the mind knows of a prober, by its bare name; the caller adds what sessions know. The second result is false when it is not enrolled.
func (s *State) Prober(name string) (*meshv1.Prober, bool) {
	p := s.roster.probers[name]
	if p == nil || p.enrolled == nil {
		return nil, false
	}
	m := &meshv1.Prober{
		Name: spec.Name(spec.Probers, name), Datacenter: p.enrolled.GetDatacenter(), Domains: p.domains, Build: p.enrolled.GetBuild(),
		Capabilities: p.enrolled.GetCapabilities(), Server: p.server, StateTime: timestampOf(p.stateSince()), Assignments: int32(len(p.assignments)),
		CreateTime: p.enrolled.GetCreateTime(), Drained: p.enrolled.GetDrained(), State: meshv1.Prober_OFFLINE, SetAside: p.aside,
	}
	switch {
	case p.enrolled.GetDrained():
		m.State = meshv1.Prober_DRAINED
	case p.online && p.aside != "":
		m.State, m.StateTime = meshv1.Prober_QUARANTINED, timestampOf(s.asideSince(p))
	case p.online:
		m.State = meshv1.Prober_ONLINE
	}
	if p.enrolled.GetBuild() != "" && len(s.builds.byName) > 0 {
		m.BuildStage = shownStage(s.stageOf(p.enrolled.GetBuild()))
	}
	return m, true
}

// Probers are the bare names of all enrolled probers, sorted.
func (s *State) Probers() []string {
	names := map[string]bool{}
	for n, p := range s.roster.probers {
		if p.enrolled != nil {
			names[n] = true
		}
	}
	return sortedKeys(names)
}
