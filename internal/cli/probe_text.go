package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// barCells is the width of the time line of a probe.
const barCells = 32

// printResult shows one probe for people: what was probed, its phases on a time line, what was measured, the expectations, and the verdict.
func (a *app) printResult(check *meshv1.Check, r *meshv1.Result) {
	heading := check.GetUri()
	if r.GetRemoteAddress() != "" {
		heading += a.out.paint(dim, "  "+clean(r.GetRemoteAddress()))
	}
	a.print(heading)
	for _, line := range timeLine(r.GetTimings(), r.GetDuration().AsDuration()) {
		a.print("  " + line)
	}
	for _, line := range measured(r, time.Now()) {
		a.print("  " + clean(line))
	}
	for _, line := range a.expectations(check, r) {
		a.print("  " + line)
	}
	for _, line := range a.parts(r) {
		a.print("  " + line)
	}
	o := outcomeCell(r.GetOutcome())
	verdict := a.out.paint(o.colour, o.text) + "  answered as expected in " + brief(r.GetDuration())
	if r.GetDegraded() != "" {
		verdict = a.out.paint(yellow, "DEGRADED") + "  answered as expected in " + brief(r.GetDuration()) + ", but " + clean(r.GetDegraded())
	}
	if r.GetOutcome() != meshv1.Result_OK {
		verdict = a.out.paint(o.colour, o.text) + "  " + r.GetErrorClass().String()
		if r.GetFailedPhase() != 0 {
			verdict += " during " + strings.ToLower(r.GetFailedPhase().String())
		}
		verdict += " after " + brief(r.GetDuration()) + ": " + clean(r.GetError())
	}
	a.print(verdict)
}

// parts lists what each address of several, and each step of several, said: a line each.
func (a *app) parts(r *meshv1.Result) []string {
	var out []string
	add := func(o meshv1.Result_Outcome, name string, took *durationpb.Duration, problem string) {
		c := outcomeCell(o)
		line := a.out.paint(c.colour, fmt.Sprintf("%-5s", c.text)) + fmt.Sprintf("  %-24s %8s", clean(name), brief(took))
		if problem != "" {
			line += "  " + clean(problem)
		}
		out = append(out, line)
	}
	for _, x := range r.GetAddresses() {
		add(x.GetOutcome(), x.GetRemoteAddress(), x.GetDuration(), x.GetError())
	}
	for _, x := range r.GetSteps() {
		add(x.GetOutcome(), "step "+x.GetName(), x.GetDuration(), x.GetError())
	}
	return out
}

// timeLine draws the phases one after the other, to scale.
func timeLine(t *meshv1.Timings, total time.Duration) []string {
	var out []string
	var passed time.Duration
	total = max(total, time.Nanosecond)
	for _, p := range phaseList(t) {
		from := min(int(passed*barCells/total), barCells-1)
		passed += p.took
		to := min(max(int(passed*barCells/total), from+1), barCells)
		bar := strings.Repeat(" ", from) + strings.Repeat("━", to-from)
		out = append(out, fmt.Sprintf("%-10s  %8s  %s", p.name, briefly(p.took), bar))
	}
	return out
}

// measured lists what the kind measured, and TLS.
func measured(r *meshv1.Result, now time.Time) []string {
	var out []string
	if len(r.GetCanonicalNames()) > 0 {
		out = append(out, "an alias of "+strings.Join(r.GetCanonicalNames(), ", "))
	}
	if h := r.GetHttp(); h != nil {
		line := fmt.Sprintf("HTTP/%s %d, %s of body", h.GetVersion(), h.GetStatus(), count(int(h.GetBodyBytes()), "byte"))
		if h.GetContentEncoding() != "" {
			line += fmt.Sprintf(" (%s, %s on the wire)", clean(h.GetContentEncoding()), count(int(h.GetEncodedBytes()), "byte"))
		}
		if h.GetRedirects() > 0 {
			line += ", after " + count(int(h.GetRedirects()), "redirect")
		}
		out = append(out, line)
		if h.GetTokenDuration() != nil {
			out = append(out, "OAuth 2.0 token fetched in "+brief(h.GetTokenDuration()))
		}
	}
	out = append(out, measuredDNS(r.GetDns(), r.GetEvidence().GetRecords())...)
	if i := r.GetIcmp(); i != nil {
		line := fmt.Sprintf("%d of %d replies", i.GetReceived(), i.GetSent())
		if i.GetReceived() > 0 {
			line += fmt.Sprintf(", round trip %s to %s, %s in the mean", brief(i.GetRttMin()), brief(i.GetRttMax()), brief(i.GetRttAvg()))
		}
		if i.GetJitter() != nil {
			line += ", jitter " + brief(i.GetJitter())
		}
		for _, odd := range []struct {
			n    int32
			what string
		}{{i.GetDuplicates(), "duplicates"}, {i.GetLate(), "late"}, {i.GetCorrupted(), "corrupted"}, {i.GetErrors(), "sent back by " + i.GetErrorFrom()}} {
			if odd.n > 0 {
				line += fmt.Sprintf("; %d %s", odd.n, odd.what)
			}
		}
		out = append(out, line)
	}
	if g := r.GetGrpc(); g != nil {
		line := strings.TrimSpace("gRPC " + g.GetStatus() + " " + g.GetServing())
		if g.GetServing() == "" && g.GetMessageBytes() > 0 {
			line += ", " + count(int(g.GetMessageBytes()), "byte") + " of message"
		}
		out = append(out, line)
	}
	out = append(out, exchanged(r)...)
	if t := r.GetTls(); t != nil {
		line := "TLS " + t.GetVersion() + " " + t.GetCipher()
		if t.GetGroup() != "" {
			line += " " + t.GetGroup()
		}
		if t.GetAlpn() != "" {
			line += ", ALPN " + clean(t.GetAlpn())
		}
		if t.GetResumed() {
			line += ", session resumed"
		}
		if t.GetEarliestExpiry() != nil {
			expiry := t.GetEarliestExpiry().AsTime()
			if left := expiry.Sub(now); left > 0 {
				line += fmt.Sprintf(", certificates valid for %s more", span(left))
			} else {
				line += fmt.Sprintf(", a certificate expired %s ago", span(-left))
			}
		}
		out = append(out, line)
		if len(t.GetIssuers()) > 0 {
			out = append(out, "certificates issued by "+strings.Join(t.GetIssuers(), "; "))
		}
	}
	return out
}

// expectations lists them: those before the one that failed hold, those after it were not reached.
func (a *app) expectations(check *meshv1.Check, r *meshv1.Result) []string {
	if r.GetOutcome() != meshv1.Result_OK && !slices.Contains(expected(check), r.GetFailedExpectation()) {
		return nil // it did not get that far, or it is a step that expected something else
	}
	var out []string
	failed := false
	for _, e := range expected(check) {
		switch {
		case failed:
			out = append(out, a.out.paint(dim, "? "+clean(e)))
		case e == r.GetFailedExpectation():
			failed = true
			out = append(out, a.out.paint(red, "✗ ")+clean(e))
		default:
			out = append(out, a.out.paint(green, "✓ ")+clean(e))
		}
	}
	return out
}

// expected are the expectations of a check, whatever its kind.
func expected(c *meshv1.Check) []string {
	for _, block := range []interface{ GetExpect() []string }{c.GetHttp(), c.GetTcp(), c.GetTls(), c.GetDns(), c.GetIcmp(), c.GetGrpc(), c.GetUdp(), c.GetWebsocket()} {
		if e := block.GetExpect(); len(e) > 0 {
			return e
		}
	}
	return nil
}
