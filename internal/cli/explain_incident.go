package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// explainIncident shows an incident for people: what happened, what the failing probes saw, and who was told.
func (a *app) explainIncident(ctx context.Context, name, output string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	i, err := answer(ctx, a, c.incidents.GetIncident, &meshv1.GetIncidentRequest{Name: name})
	if err != nil {
		return err
	}
	if output != "text" {
		return a.printMessage(i, output)
	}
	a.print(cleanText(incidentText(i)))
	return nil
}

// incidentText is an incident as text for a terminal.
func incidentText(i *meshv1.Incident) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s is %s.", i.GetName(), i.GetState())
	line("  %s", i.GetSummary())
	line("  failed %s, decided %s later", i.GetStartTime().AsTime().UTC().Format(time.RFC3339), i.GetOpenTime().AsTime().Sub(i.GetStartTime().AsTime()).Round(time.Millisecond))
	if i.GetEndTime() != nil {
		line("  over   %s", i.GetEndTime().AsTime().UTC().Format(time.RFC3339))
	}
	if i.GetAcknowledgedBy() != "" {
		line("  %s takes care of it", i.GetAcknowledgedBy())
	}
	if i.GetGroup() != "" {
		line("  part of %s, which its receivers were told of", i.GetGroup())
	}
	if i.GetKind() == meshv1.Incident_GROUP {
		line("  at most %d together so far; each has an incident of its own: probemesh get incidents --filter 'group = \"%s\"'", i.GetShared().GetMembers(), i.GetName())
	}
	for _, k := range slices.Sorted(maps.Keys(i.GetAnnotations())) {
		line("  %s: %s", k, i.GetAnnotations()[k])
	}
	if n := i.GetAffectedCount(); n > 0 {
		what := "checks that could not be judged"
		if i.GetShared() != nil {
			what = "checks that fail together"
		}
		line("  %s: %s", what, affected(i.GetAffectedChecks(), int(n)))
	}
	if a := i.GetSetAside(); a != nil {
		b.WriteString(asideText(a))
	}
	if a := i.GetSetAside(); a == nil || len(i.GetEvidence()) > 0 {
		line("\nEvidence, as the probes saw it when it was decided")
		for _, v := range i.GetEvidence() {
			b.WriteString(voteText(v))
		}
		if len(i.GetEvidence()) == 0 {
			line("  none")
		}
	}
	line("\nTimeline")
	for n, e := range i.GetTimeline() {
		if dropped := i.GetTimelineDropped(); dropped > 0 && n == len(i.GetTimeline())/2 {
			line("  ... %d entries were dropped here", dropped)
		}
		line("  %s  %-20s %s", e.GetTime().AsTime().UTC().Format(time.TimeOnly), e.GetEvent(), e.GetText())
	}
	return strings.TrimRight(b.String(), "\n")
}

// asideText is what a failure domain of probers was set aside for: how often it was alone, and what it and the others said of some checks.
func asideText(a *meshv1.SetAside) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("  set aside: %s", shortNames(a.GetProbers()))
	line("  alone in %s, in agreement in %d, lately; first at %s", count(int(a.GetDissents()), "comparison"), a.GetAgreements(), a.GetSince().AsTime().UTC().Format(time.RFC3339))
	line("\nWhat was held against each other when it was decided")
	for _, c := range a.GetComparisons() {
		line("  %s  %s", spec.ID(c.GetCheck()), c.GetUri())
		for _, v := range c.GetInside() {
			line("    it      %s", saidText(v))
		}
		for _, v := range c.GetOutside() {
			line("    others  %s", saidText(v))
		}
	}
	if len(a.GetComparisons()) == 0 {
		line("  nothing was kept; it disagreed on %s", shortNames(a.GetChecks()))
	}
	return b.String()
}

// saidText is one vote in a line.
func saidText(v *meshv1.Vote) string {
	text := fmt.Sprintf("%-16s %-10s %-5s %s", spec.ID(v.GetProber()), v.GetDatacenter(), v.GetOutcome(), v.GetStartTime().AsTime().UTC().Format(time.TimeOnly))
	if v.GetError() != "" {
		text += "  " + v.GetError()
	}
	return text
}

// shortNames are resource names without their collection.
func shortNames(names []string) string { return affected(names, len(names)) }

func affected(checks []string, n int) string {
	var ids []string
	for _, c := range checks[:min(len(checks), 20)] {
		ids = append(ids, spec.ID(c))
	}
	text := strings.Join(ids, ", ")
	if n > len(ids) {
		text += fmt.Sprintf(" and %d more", n-len(ids))
	}
	return text
}

// bodyLines bounds how much of a body is shown; `-o json` has all that was kept.
const bodyLines = 12

// voteText is one vote with what its probe saw.
func voteText(v *meshv1.Vote) string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %-16s %-10s %-5s %s, took %s\n", spec.ID(v.GetProber()), v.GetDatacenter(), v.GetOutcome(),
		v.GetStartTime().AsTime().UTC().Format(time.TimeOnly), v.GetDuration().AsDuration().Round(10*time.Microsecond))
	line := func(format string, args ...any) { fmt.Fprintf(&b, "    "+format+"\n", args...) }
	if v.GetError() != "" {
		line("%s", v.GetError())
	}
	if v.GetDegraded() != "" {
		line("degraded: %s", v.GetDegraded())
	}
	e := v.GetEvidence()
	if len(e.GetResolvedAddresses()) > 0 {
		line("resolved to %s", strings.Join(e.GetResolvedAddresses(), ", "))
	}
	for _, r := range e.GetRedirects() {
		line("redirected to %s", r)
	}
	if e.GetStatusLine() != "" {
		line("%s", e.GetStatusLine())
	}
	for _, h := range e.GetHeaders() {
		line("%s: %s", h.GetName(), h.GetValue())
	}
	for _, c := range e.GetCertificates() {
		text := fmt.Sprintf("certificate of %s, issued by %s, valid until %s", c.GetSubject(), c.GetIssuer(), c.GetNotAfter().AsTime().UTC().Format(time.DateOnly))
		if c.GetKey() != "" {
			text += fmt.Sprintf(" (%s when probed), %s signed by %s", count(int(c.GetDaysLeft()), "day"), c.GetKey(), c.GetSignatureAlgorithm())
		}
		line("%s", text)
	}
	for _, r := range e.GetRecords() {
		line("%s", r)
	}
	for _, l := range bodyText(e) {
		line("| %s", l)
	}
	return b.String()
}

// bodyText is the start of a body in lines; bytes that are no text are only counted.
func bodyText(e *meshv1.Evidence) []string {
	body := e.GetBody()
	if len(body) == 0 {
		return nil
	}
	// A body that was cut may end in the middle of a character.
	for n := 0; n < utf8.UTFMax && e.GetBodyTruncated() && !utf8.Valid(body); n++ {
		body = body[:len(body)-1]
	}
	if !utf8.Valid(body) {
		return []string{fmt.Sprintf("(%d bytes that are no text; -o json has them)", len(e.GetBody()))}
	}
	lines := strings.Split(strings.TrimRight(string(body), "\n"), "\n")
	if len(lines) > bodyLines {
		lines = append(lines[:bodyLines], fmt.Sprintf("(%d more lines)", len(lines)-bodyLines))
	}
	if e.GetBodyTruncated() {
		lines = append(lines, "(the body went on)")
	}
	return lines
}
