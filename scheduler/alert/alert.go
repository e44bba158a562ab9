// Package alert decides who is told what: which notifications a transition of an incident owes, under which idempotency keys, and in which words.
// Everything here is a pure function of its arguments.
package alert

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Key is the idempotency key of a notification: equal for every attempt to deliver the same transition of the same incident to the same receiver. All three are
// bare ids.
func Key(incident, transition, receiver string) string {
	return incident + "." + transition + "." + receiver
}

// Recipients are the receivers that are owed a notification, without repetition, sorted.
func Recipients(lists ...[]string) []string {
	seen := map[string]bool{}
	var all []string
	for _, l := range lists {
		for _, r := range l {
			if !seen[r] {
				seen[r] = true
				all = append(all, r)
			}
		}
	}
	sort.Strings(all)
	return all
}

// Facts are what a sentence is made of.
type Facts struct {
	// Check is the bare id or the display name.
	Check string
	// URI is what is watched.
	URI string
	// Verdict is what is held true, in capitals.
	Verdict string
	// Failing are the datacenters that see it fail.
	Failing []string
	// Limping are the datacenters that see it answer, but degraded.
	Limping []string
	// Unsteady are the datacenters that see it fail again and again, when that is what it is about: Failed of their newest Probes failed.
	Unsteady       []string
	Failed, Probes int
	// Until is what ends the incident of a check that flaps, as a clause: "it has answered for 2m0s without a break"; empty for one that does not.
	Until string
	// Heard is how many datacenters have a fresh vote; Quorum how many must agree.
	Heard, Quorum int
	// Error is what the first failing probe said, or the first degraded one when none fails; empty if none did.
	Error string
	// Lasted is how long the incident lasted; 0 while it goes on.
	Lasted time.Duration
	// Note is said instead of the reason, when not empty: "the check was deleted".
	Note string
}

// Opened is the sentence that announces an incident:
//
//	shop is DOWN: 3 of 3 datacenters see it fail (fra, iad, nrt), 2 are enough. connect to 192.0.2.7:443: connection refused (https://shop.example.com/health)
func Opened(f Facts) string {
	var b strings.Builder
	who, how := f.Failing, "fail"
	if len(who) == 0 && len(f.Limping) > 0 {
		who, how = f.Limping, "degraded"
	}
	if f.Verdict == "DEGRADED" && len(f.Unsteady) > 0 {
		who, how = f.Unsteady, "fail intermittently"
	}
	fmt.Fprintf(&b, "%s is %s: %s it %s (%s), %s.", f.Check, f.Verdict, See(len(who), f.Heard), how, Places(who), enough(f.Quorum))
	if f.Probes > 0 {
		fmt.Fprintf(&b, " %s.", Share(f.Failed, f.Probes))
	}
	if f.Error != "" {
		b.WriteString(" " + strings.TrimSuffix(f.Error, ".") + ".")
	}
	if f.Until != "" {
		b.WriteString(" It flaps: this lasts until " + f.Until + ".")
	}
	if f.URI != "" {
		b.WriteString(" (" + f.URI + ")")
	}
	return b.String()
}

// Resolved is the sentence that announces the end of an incident.
func Resolved(f Facts) string {
	if f.Note != "" {
		return fmt.Sprintf("%s: incident closed after %s because %s. (%s)", f.Check, Span(f.Lasted), f.Note, f.URI)
	}
	what := "is " + f.Verdict + " again"
	if f.Verdict != "UP" {
		what = "is not DOWN any more, but " + f.Verdict + ","
	}
	s := fmt.Sprintf("%s %s after %s: %s it answer.", f.Check, what, Span(f.Lasted), See(f.Heard-len(f.Failing), f.Heard))
	if len(f.Failing) > 0 {
		s += " It still fails from " + Places(f.Failing) + "."
	} else if f.Verdict == "DEGRADED" && len(f.Limping) > 0 {
		s += " It is still degraded from " + Places(f.Limping) + "."
	}
	if f.URI != "" {
		s += " (" + f.URI + ")"
	}
	return s
}

// Share says how many of the newest probes failed: "5 of the last 10 probes failed".
func Share(failed, probes int) string {
	return fmt.Sprintf("%d of the last %d probes failed", failed, probes)
}

// See begins a sentence about n of so many datacenters: "1 of 1 datacenter sees", "1 of 3 datacenters sees", "2 of 3 datacenters see".
func See(n, of int) string {
	noun, verb := "datacenters", "see"
	if of == 1 {
		noun = "datacenter"
	}
	if n == 1 {
		verb = "sees"
	}
	return fmt.Sprintf("%d of %d %s %s", n, of, noun, verb)
}

func enough(quorum int) string {
	if quorum == 1 {
		return "1 is enough"
	}
	return fmt.Sprintf("%d are enough", quorum)
}

// Places lists datacenters for a sentence, at most eight of them by name.
func Places(datacenters []string) string {
	if len(datacenters) > 8 {
		return strings.Join(datacenters[:8], ", ") + fmt.Sprintf(" and %d more", len(datacenters)-8)
	}
	return strings.Join(datacenters, ", ")
}

// Span is a duration for people: "850ms", "12s", "3m5s", "2h10m", "3d4h".
func Span(d time.Duration) string {
	// Each step rounds first, so that nothing is ever sixty seconds or twenty-four hours long.
	if ms := d.Round(time.Millisecond); ms < time.Second {
		return ms.String()
	}
	if d = d.Round(time.Second); d < time.Minute {
		return fmt.Sprintf("%ds", int(d.Seconds()))
	}
	if d < time.Hour {
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	if d = d.Round(time.Minute); d < 24*time.Hour {
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	d = d.Round(time.Hour)
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
