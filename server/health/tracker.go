package health

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// pauseLimit is the time between two looks from which on nothing can be said about the time between them: the process was paused, or its machine slept.
const pauseLimit = 10 * time.Second

// Tracker remembers conditions from look to look: since when each holds, that it has held for long enough to be shown, and that it has been gone for long enough
// not to be. The zero value is ready. One goroutine uses it.
type Tracker struct {
	held map[key]*held
	last time.Time
	// enrolled are the probers that there are, and the datacenters that have one, by resource name; nil when that is not known.
	enrolled map[string]bool
}

// Enrolled tells which probers there are, before [Tracker.Track]: what is gone and was about probers that have been deleted since, or about
// datacenters whose probers all have been, is not shown for a moment longer.
func (t *Tracker) Enrolled(probers []*meshv1.Prober) {
	t.enrolled = make(map[string]bool, len(probers))
	for _, p := range probers {
		t.enrolled[p.GetName()], t.enrolled["datacenters/"+p.GetDatacenter()] = true, true
	}
}

// deleted tells whether a condition was about probers or their datacenters alone, and that none of them is there any more.
func (t *Tracker) deleted(c *meshv1.Condition) bool {
	subjects := c.GetSubjects()
	return t.enrolled != nil && len(subjects) > 0 && int(c.GetSubjectCount()) == len(subjects) &&
		!slices.ContainsFunc(subjects, func(n string) bool {
			known := strings.HasPrefix(n, "probers/") || strings.HasPrefix(n, "datacenters/")
			return !known || t.enrolled[n]
		})
}

// key tells conditions apart: one code may be there twice, once as the consequence of another and once for itself.
type key struct{ code, cause meshv1.Condition_Code }

type held struct {
	c     *meshv1.Condition
	since time.Time
	shown bool
	gone  time.Time // since when it is gone, zero while it holds
}

// Track takes what [Evaluate] found at now and gives what is to be shown: roots worst first, each followed by what follows from it. What follows from a condition
// that is not shown yet waits with it. A cause is given the severity of the worst of its consequences.
func (t *Tracker) Track(now time.Time, found []*meshv1.Condition) []*meshv1.Condition {
	if t.held == nil {
		t.held = map[key]*held{}
	}
	paused := !t.last.IsZero() && now.Sub(t.last) > pauseLimit
	t.last = now
	t.take(now, found, paused)
	t.forget(now)
	return t.shown()
}

// take updates what is held by what was found.
func (t *Tracker) take(now time.Time, found []*meshv1.Condition, paused bool) {
	here := map[key]bool{}
	for _, c := range found {
		k := t.keyOf(c, found)
		here[k] = true
		h := t.held[k]
		if h == nil {
			h = t.inherit(k, found)
			t.held[k] = h
		}
		if h.since.IsZero() || (paused && !h.shown) {
			h.since = now
		}
		h.c, h.gone = proto.CloneOf(c), time.Time{}
		h.c.CausedBy = k.cause
	}
	for k, h := range t.held {
		if !here[k] && h.gone.IsZero() {
			h.gone = now
		}
	}
	for k, h := range t.held {
		r, _ := ruleOf(k.code)
		if here[k] && !h.shown && now.Sub(h.since) >= r.after {
			h.shown = true
		}
	}
}

// keyOf is the key of a condition. One that stood below a cause stays there while the cause is still shown and not found any more: what it did takes a moment longer to
// pass than itself. Where the cause is still found, it is found not to be the cause.
func (t *Tracker) keyOf(c *meshv1.Condition, found []*meshv1.Condition) key {
	k := key{c.GetCode(), c.GetCausedBy()}
	if k.cause != 0 {
		return k
	}
	for other, h := range t.held {
		if other.code == k.code && other.cause != 0 && h.shown && t.visible(other.cause) && !holds(found, other.cause) {
			return other
		}
	}
	return k
}

// holds tells whether a code was found.
func holds(found []*meshv1.Condition, code meshv1.Condition_Code) bool {
	return slices.ContainsFunc(found, func(c *meshv1.Condition) bool { return c.GetCode() == code })
}

// inherit makes the memory of a condition that is new under its key: a condition of the same code that is not found under its old key any more has moved.
func (t *Tracker) inherit(k key, found []*meshv1.Condition) *held {
	for other, h := range t.held {
		still := slices.ContainsFunc(found, func(c *meshv1.Condition) bool { return c.GetCode() == other.code && c.GetCausedBy() == other.cause })
		if other.code == k.code && other != k && !still {
			delete(t.held, other)
			return h
		}
	}
	return &held{}
}

// visible tells whether a code is shown, as a cause of others.
func (t *Tracker) visible(code meshv1.Condition_Code) bool {
	for k, h := range t.held {
		if k.code == code && h.shown {
			return true
		}
	}
	return false
}

// pending tells whether a code holds but has not held for long enough.
func (t *Tracker) pending(code meshv1.Condition_Code) bool {
	for k, h := range t.held {
		if k.code == code && !h.shown && h.gone.IsZero() {
			return true
		}
	}
	return false
}

// forget drops what has been gone for long enough, and at once what is gone and has lost its cause: again for as long as something was dropped, since a chain of
// consequences goes with its first.
func (t *Tracker) forget(now time.Time) {
	for dropped := true; dropped; {
		dropped = false
		for k, h := range t.held {
			r, _ := ruleOf(k.code)
			if !h.gone.IsZero() && (!h.shown || t.deleted(h.c) || now.Sub(h.gone) >= r.until || k.cause != 0 && !t.visible(k.cause)) {
				delete(t.held, k)
				dropped = true
			}
		}
	}
}

// shown is the list for people.
func (t *Tracker) shown() []*meshv1.Condition {
	var list []*meshv1.Condition
	for _, r := range rules() {
		for k, h := range t.held {
			if k.code != r.code || !h.shown || t.waits(k) {
				continue
			}
			c := proto.CloneOf(h.c)
			if s := c.GetSince(); s == nil || h.since.Before(s.AsTime()) {
				c.Since = timestamppb.New(h.since)
			}
			if c.GetCausedBy() != 0 && !t.visible(c.GetCausedBy()) {
				c.CausedBy = 0
			}
			list = append(list, c)
		}
	}
	slices.SortStableFunc(list, func(a, b *meshv1.Condition) int { return rank(a) - rank(b) })
	raise(list)
	return arrange(list)
}

// waits tells whether a condition waits for its cause to be shown.
func (t *Tracker) waits(k key) bool {
	return k.cause != 0 && !t.visible(k.cause) && t.pending(k.cause)
}

// rank is a condition's place in the table, those with a cause after those without.
func rank(c *meshv1.Condition) int {
	_, n := ruleOf(c.GetCode())
	n *= 2
	if c.GetCausedBy() != 0 {
		n++
	}
	return n
}

// raise makes every cause as bad as the worst of what follows from it.
func raise(list []*meshv1.Condition) {
	for range list { // a chain is not longer than the list
		for _, c := range list {
			for _, cause := range list {
				if c.GetCausedBy() == cause.GetCode() && cause != c {
					cause.Severity = max(cause.Severity, c.Severity)
				}
			}
		}
	}
}

// arrange puts roots first, worst first, each followed by its consequences.
func arrange(list []*meshv1.Condition) []*meshv1.Condition {
	out := make([]*meshv1.Condition, 0, len(list))
	placed := map[*meshv1.Condition]bool{}
	var place func(c *meshv1.Condition)
	place = func(c *meshv1.Condition) {
		if placed[c] {
			return
		}
		placed[c] = true
		out = append(out, c)
		for _, other := range list {
			if other.GetCausedBy() == c.GetCode() {
				place(other)
			}
		}
	}
	for _, severity := range []meshv1.Condition_Severity{critical, warning, info} {
		for _, c := range list {
			if c.GetCausedBy() == 0 && c.GetSeverity() == severity {
				place(c)
			}
		}
	}
	for _, c := range list {
		place(c) // two that explain each other, which the table does not have
	}
	return out
}
