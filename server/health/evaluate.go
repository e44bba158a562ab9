package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxSubjects bounds the subjects that a condition names; all are counted.
const maxSubjects = 20

// Evaluate gives every condition that holds at now, each with the condition that it follows from, in the order of the table. It is pure: the same facts give the
// same conditions. What holds for a moment only is in it; a [Tracker] takes that out.
func Evaluate(now time.Time, f Facts) []*meshv1.Condition {
	e := &evaluation{now: now, f: f}
	e.aboutServers()
	e.aboutEtcd()
	e.aboutLeader()
	if f.SeesProbers {
		e.aboutProbers()
		e.aboutTimes()
		e.aboutChecks()
	}
	e.aboutTurnedAway()
	e.aboutAlerts()
	e.aboutDisks()
	return e.explained()
}

// evaluation is one run of Evaluate.
type evaluation struct {
	now   time.Time
	f     Facts
	found []*meshv1.Condition
}

// add notes a condition. because is what it follows from when that is known here; else the table's causes are looked at.
func (e *evaluation) add(code, because meshv1.Condition_Code, subjects []string, format string, args ...any) *meshv1.Condition {
	subjects = slices.Compact(slices.Sorted(slices.Values(subjects)))
	c := &meshv1.Condition{Code: code, CausedBy: because, Summary: fmt.Sprintf(format, args...),
		Subjects: subjects[:min(len(subjects), maxSubjects)], SubjectCount: int32(len(subjects))}
	e.found = append(e.found, c)
	return c
}

// has tells whether a condition was found.
func (e *evaluation) has(code meshv1.Condition_Code) bool {
	return slices.ContainsFunc(e.found, func(c *meshv1.Condition) bool { return c.GetCode() == code })
}

// explained fills in what the table says: severity, remedy, and the cause of each condition that has one among the others.
func (e *evaluation) explained() []*meshv1.Condition {
	var out []*meshv1.Condition
	for _, r := range rules() {
		for _, c := range e.found {
			if c.GetCode() != r.code {
				continue
			}
			if c.Severity == 0 {
				c.Severity = r.severity
			}
			c.Remedy = r.remedy
			if !e.has(c.GetCausedBy()) {
				c.CausedBy = 0
			}
			for _, cause := range r.causes {
				if c.GetCausedBy() == 0 && e.has(cause) {
					c.CausedBy = cause
				}
			}
			out = append(out, c)
		}
	}
	return out
}

// since says since when a condition holds, where the facts have it.
func since(c *meshv1.Condition, t time.Time) {
	if !t.IsZero() {
		c.Since = timestamppb.New(t)
	}
}

// names lists at most three of many, without their collection, for a sentence: "a, b and c", "a, b and 5 more".
func names(all []string) string {
	all = slices.Compact(slices.Sorted(slices.Values(all)))
	short := make([]string, len(all))
	for i, n := range all {
		short[i] = spec.ID(n)
	}
	switch n := len(short); {
	case n == 0:
		return "nobody"
	case n == 1:
		return short[0]
	case n <= 3:
		return strings.Join(short[:n-1], ", ") + " and " + short[n-1]
	}
	return fmt.Sprintf("%s, %s and %d more", short[0], short[1], len(short)-2)
}

// count is a number with its noun: "1 prober", "2 probers".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// are is the verb that goes with a number.
func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// have is the verb that goes with a number.
func have(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// span rounds a duration for people.
func span(d time.Duration) time.Duration {
	switch {
	case d < 0:
		return -span(-d)
	case d >= time.Second:
		return d.Round(time.Second)
	}
	return d.Round(time.Millisecond)
}
