package scheduler

import (
	"fmt"
	"math/bits"
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxBecause is how many bytes of a failure a summary repeats; the whole of it is in the votes.
const maxBecause = 200

// failure is the result that speaks for the fresh failing votes: the first with a sentence of the kind of failure that most of them have, and of kinds with as many
// the one met first. Nil when none fails.
func (c *check) failure() *meshv1.Result {
	var counts [16]int // by class; there are fewer
	var first [16]*meshv1.Result
	var best *meshv1.Result
	most := 0
	for m := c.tally.FailVotes; m != 0; m &= m - 1 {
		r := c.seats[bits.TrailingZeros64(m)].result
		if r == nil {
			continue
		}
		k := int(r.GetErrorClass()) & 15
		if counts[k]++; first[k].GetError() == "" {
			first[k] = r
		}
	}
	for m := c.tally.FailVotes; m != 0; m &= m - 1 {
		k := int(c.seats[bits.TrailingZeros64(m)].result.GetErrorClass()) & 15
		if counts[k] > most {
			most, best = counts[k], first[k]
		}
	}
	return best
}

// because is the end of a sentence that says what most of the failing votes saw: ": connect to 192.0.2.7:443: connection refused".
func (c *check) because() string {
	said := strings.TrimSuffix(c.failure().GetError(), ".")
	if said == "" {
		return ""
	}
	if len(said) > maxBecause {
		said = strings.ToValidUTF8(said[:maxBecause], "") + "…"
	}
	return ": " + said
}

// detail is what a probe of several steps or addresses did, a line for each step up to the one that failed and for each address that fails; what went well is one line.
func detail(r *meshv1.Result) []string {
	var lines []string
	failed := false
	for _, s := range r.GetSteps() {
		failed = failed || s.GetOutcome() != meshv1.Result_OK
	}
	var well []string
	for i, s := range r.GetSteps() {
		took := s.GetDuration().AsDuration().Round(10 * time.Microsecond)
		switch {
		case !failed:
			well = append(well, fmt.Sprintf("%s %s", s.GetName(), took))
		case strings.HasSuffix(r.GetError(), s.GetError()): // also when it has none
			lines = append(lines, fmt.Sprintf("step %d %-12s %-4s took %s", i+1, s.GetName(), s.GetOutcome(), took))
		default:
			lines = append(lines, fmt.Sprintf("step %d %-12s %-4s took %s: %s", i+1, s.GetName(), s.GetOutcome(), took, s.GetError()))
		}
	}
	if len(well) > 0 {
		lines = append(lines, "steps: "+strings.Join(well, ", "))
	}
	good := 0
	for _, a := range r.GetAddresses() {
		if a.GetOutcome() == meshv1.Result_OK {
			good++
			continue
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("address %s %s after %s: %s", a.GetRemoteAddress(), a.GetOutcome(), a.GetDuration().AsDuration().Round(10*time.Microsecond), a.GetError()), ": "))
	}
	if n := len(r.GetAddresses()); n > 0 {
		lines = append(lines, fmt.Sprintf("%d of %d %s", good, n, plural(n, "address answers", "addresses answer")))
	}
	return lines
}
