package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Tally is what users would have noticed. Each case is a sentence.
type Tally struct {
	// Due is how many outages had to be announced.
	Due int
	// Lost are outages that had to be announced and were not.
	Lost []string
	// Doubled are outages that were announced by more than one key.
	Doubled []string
	// False are alerts without an outage.
	False []string
	// Late are alerts that came after their outage's bound.
	Late []string
	// ResolvedMissing are incidents whose outage is over and of whose end nobody was told; ResolvedDoubled those of which it was told by more than one key;
	// ResolvedEarly those whose end was decided while the target was still down.
	ResolvedMissing, ResolvedDoubled, ResolvedEarly []string
	// Misdated are alerts that say that the target has been down since long before it was.
	Misdated []string
	// Malformed are requests that are not as documented.
	Malformed []string
	// Repeats are requests that came again with a key that had been there, which a receiver that knows such keys drops.
	Repeats []string
	// ToAlert is the time from each outage to its alert, ToResolved from its end to the resolved note, in the order in which they came.
	ToAlert, ToResolved []time.Duration
}

// slack is how far the start of an incident, which is that of its first failing probe, may lie outside of its outage: a probe that was under way when the target
// broke, and the clocks of probers.
const slack = 1500 * time.Millisecond

// story is one outage and what was announced of it.
type story struct {
	Outage
	opened []Delivery
}

// Judge holds the receiver's record against the truth. Both may be in any order. What is not over at the end need not have been resolved.
func Judge(truth []Outage, record []Delivery) Tally {
	var t Tally
	stories := map[string][]*story{}
	truth = slices.SortedFunc(slices.Values(truth), func(a, b Outage) int { return a.Down.Compare(b.Down) })
	var inOrder []*story
	for _, o := range truth {
		s := &story{Outage: o}
		stories[o.Check] = append(stories[o.Check], s)
		inOrder = append(inOrder, s)
	}
	resolved := map[string][]Delivery{} // by incident
	owner := map[string]*story{}        // by incident
	for _, d := range t.distinct(record) {
		check := strings.TrimPrefix(d.Note.GetCheck(), "checks/")
		switch d.Note.GetTransition() {
		case meshv1.Notification_RESOLVED:
			resolved[d.Note.GetIncident()] = append(resolved[d.Note.GetIncident()], d)
		case meshv1.Notification_OPENED:
			s := covering(stories[check], d)
			if s == nil {
				t.False = append(t.False, fmt.Sprintf("%s was announced at %s as down since %s, and was not: %s", check, clock(d.At), clock(d.Note.GetStartTime().AsTime()), d.Note.GetSummary()))
				continue
			}
			s.opened = append(s.opened, d)
			owner[d.Note.GetIncident()] = s
		default:
			t.False = append(t.False, fmt.Sprintf("%s: a note %s that nothing calls for, at %s", check, d.Note.GetTransition(), clock(d.At)))
		}
	}
	for _, s := range inOrder {
		t.alerts(s)
	}
	for _, s := range inOrder {
		t.ends(s, resolved)
	}
	for incident, list := range resolved {
		if owner[incident] == nil {
			t.False = append(t.False, fmt.Sprintf("%s was announced as resolved at %s without having been announced as opened (%s)", list[0].Note.GetCheck(), clock(list[0].At), incident))
		}
	}
	slices.Sort(t.False)
	return t
}

// distinct leaves out what came again with a key that had been there, and counts it; so with what is not as documented.
func (t *Tally) distinct(record []Delivery) []Delivery {
	var out []Delivery
	seen := map[string]Delivery{}
	for _, d := range slices.SortedStableFunc(slices.Values(record), func(a, b Delivery) int { return a.At.Compare(b.At) }) {
		if d.Fault != "" {
			t.Malformed = append(t.Malformed, fmt.Sprintf("at %s: %s", clock(d.At), d.Fault))
			continue
		}
		if first, again := seen[d.Key]; again {
			t.Repeats = append(t.Repeats, fmt.Sprintf("%s %s came again %s after the first time", d.Note.GetCheck(), d.Note.GetTransition(), d.At.Sub(first.At).Round(time.Millisecond)))
			continue
		}
		seen[d.Key] = d
		out = append(out, d)
	}
	return out
}

// covering is the latest outage of those, in order, that an alert can be of: it had begun when the alert was decided, and its first failing probe began before it
// was over.
func covering(list []*story, d Delivery) *story {
	start, decided := d.Note.GetStartTime().AsTime(), d.Note.GetDecideTime().AsTime()
	for _, s := range slices.Backward(list) {
		if s.Bound >= 0 && !decided.Before(s.Down) && (s.Up.IsZero() || start.Before(s.Up.Add(slack))) {
			return s
		}
	}
	return nil
}

func (t *Tally) alerts(s *story) {
	what := fmt.Sprintf("%s (%s from %s)", s.Check, s.Fault, clock(s.Down))
	if s.Bound > 0 {
		t.Due++
	}
	if len(s.opened) == 0 {
		if s.Bound > 0 {
			t.Lost = append(t.Lost, what+" was never announced")
		}
		return
	}
	first := s.opened[0]
	took := first.At.Sub(s.Down)
	if s.Bound > 0 {
		t.ToAlert = append(t.ToAlert, took)
		if took > s.Bound {
			t.Late = append(t.Late, fmt.Sprintf("%s was announced after %s, later than %s", what, took.Round(time.Millisecond), s.Bound.Round(time.Millisecond)))
		}
	}
	if since := first.Note.GetStartTime().AsTime(); since.Before(s.Down.Add(-slack)) {
		t.Misdated = append(t.Misdated, fmt.Sprintf("%s was announced as down since %s (%s)", what, clock(since), first.Note.GetIncident()))
	}
	if n := len(s.opened); n > 1 {
		t.Doubled = append(t.Doubled, fmt.Sprintf("%s was announced %d times, as %s", what, n, strings.Join(incidents(s.opened), ", ")))
	}
}

func (t *Tally) ends(s *story, resolved map[string][]Delivery) {
	for _, incident := range slices.Compact(slices.Sorted(slices.Values(incidents(s.opened)))) {
		list := resolved[incident]
		what := fmt.Sprintf("%s of %s (%s from %s to %s)", incident, s.Check, s.Fault, clock(s.Down), clock(s.Up))
		switch {
		case len(list) == 0 && !s.Up.IsZero():
			t.ResolvedMissing = append(t.ResolvedMissing, what+" was never announced as resolved")
		case len(list) > 1:
			t.ResolvedDoubled = append(t.ResolvedDoubled, fmt.Sprintf("%s was announced as resolved %d times", what, len(list)))
		}
		if len(list) == 0 {
			continue
		}
		if s.Fault == Unreachable && s.Bound == Optional {
			continue // it may have been reachable for some of the time
		}
		if decided := list[0].Note.GetDecideTime().AsTime(); s.Up.IsZero() || decided.Before(s.Up) {
			t.ResolvedEarly = append(t.ResolvedEarly, fmt.Sprintf("%s was resolved at %s: %s", what, clock(decided), list[0].Note.GetSummary()))
		} else {
			t.ToResolved = append(t.ToResolved, list[0].At.Sub(s.Up))
		}
	}
}

func incidents(list []Delivery) []string {
	var out []string
	for _, d := range list {
		out = append(out, d.Note.GetIncident())
	}
	return out
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "now"
	}
	return t.Local().Format("15:04:05.000")
}
