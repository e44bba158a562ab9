package rollout

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Config are the constants of the test. The zero value means the defaults.
type Config struct {
	// Sound and Sick are shares of disagreement, 0 to 1. Defaults 0.005 and 0.05: a sound build disagrees when a target fails in between two probes; one that is wrong about
	// a twentieth of the checks is of no use.
	Sound, Sick float64
	// Threshold is the natural logarithm of the least mean number of comparisons between false alarms. Default 11: five disagreements in a row.
	Threshold float64
	// Subjects is on how many hosts there must be disagreement, PerSubject how many of one host count within Memory, InARow how many in succession make a check on which
	// the build is always wrong. Default 3 each. Firm is on how many hosts there must be such a check. Default 2.
	Subjects, PerSubject, InARow, Firm int
	// Memory is how long a disagreement on a host is remembered. Default 10 min.
	Memory time.Duration
	// Alone is how long nobody must have run a settled build before a build on trial is settled for want of a comparison. Default 1 min: an upgrade of everything at once
	// takes some seconds, and a rolling restart does not leave nobody.
	Alone time.Duration
}

func (c Config) withDefaults() Config {
	share := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	whole := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	share(&c.Sound, 0.005)
	share(&c.Sick, 0.05)
	share(&c.Threshold, 11)
	whole(&c.Subjects, 3)
	whole(&c.PerSubject, 3)
	whole(&c.InARow, 3)
	whole(&c.Firm, 2)
	if c.Memory == 0 {
		c.Memory = 10 * time.Minute
	}
	if c.Alone == 0 {
		c.Alone = time.Minute
	}
	return c
}

// Dissent is one vote of the build against the settled ones.
type Dissent struct {
	// Prober is who cast it, by its bare name; Check is the check, Subject what the target's host is an alias of, its address, or the host, Kind the kind of check.
	Prober, Check, Subject, Kind string
	// Failed: it saw a failure where the settled builds saw an answer. Error is that failure in a sentence.
	Failed bool
	Error  string
	// Time is when its probe began.
	Time time.Time
	// InARow counts the prober's disagreements on the check in succession, with this one.
	InARow int
}

// Kind is what was seen in checks of one kind.
type Kind struct {
	// Kind is the kind of check.
	Kind string
	// Count is how many disagreements there were, Failed in how many of them the build saw a failure.
	Count, Failed int64
	// Examples are the first few, of different checks.
	Examples []Dissent
}

// maxExamples bounds the examples of one kind, maxSubjects the hosts that are remembered.
const (
	maxExamples = 5
	maxSubjects = 1024
)

// Trial is what has been seen of one build in its present stage. It is not safe for concurrent use.
type Trial struct {
	cfg Config
	// Comparisons is how many votes were compared, Dissents how many of them disagreed and count.
	Comparisons, Dissents int64
	sum                   float64
	kinds                 map[string]*Kind
	subjects              map[string][]time.Time
	firm                  map[string]time.Time // hosts on which it is wrong each time
	probers               map[string]int64
}

// NewTrial is a trial of which nothing has been seen.
func NewTrial(cfg Config) *Trial {
	return &Trial{cfg: cfg.withDefaults(), kinds: map[string]*Kind{}, subjects: map[string][]time.Time{}, firm: map[string]time.Time{}, probers: map[string]int64{}}
}

// Agree notes that a vote was what the settled builds say. It is on the hot path.
func (t *Trial) Agree() {
	t.Comparisons++
	if t.sum > 0 {
		t.sum = max(0, t.sum-math.Log((1-t.cfg.Sound)/(1-t.cfg.Sick)))
	}
}

// Dissent notes one that was not. It tells whether it counts: not when there has been enough on its host.
func (t *Trial) Dissent(now time.Time, d Dissent) bool {
	t.Comparisons++
	if d.InARow >= t.cfg.InARow {
		t.firm[d.Subject] = now
	}
	t.forget(now)
	if len(t.subjects[d.Subject]) >= t.cfg.PerSubject || len(t.subjects) >= maxSubjects {
		return false
	}
	t.subjects[d.Subject] = append(t.subjects[d.Subject], now)
	t.Dissents++
	t.probers[d.Prober]++
	t.sum += math.Log(t.cfg.Sick / t.cfg.Sound)
	k := t.kinds[d.Kind]
	if k == nil {
		k = &Kind{Kind: d.Kind}
		t.kinds[d.Kind] = k
	}
	k.Count++
	if d.Failed {
		k.Failed++
	}
	if len(k.Examples) < maxExamples && !slices.ContainsFunc(k.Examples, func(e Dissent) bool { return e.Check == d.Check }) {
		k.Examples = append(k.Examples, d)
	}
	return true
}

func (t *Trial) forget(now time.Time) {
	for host, times := range t.subjects {
		n := 0
		for n < len(times) && now.Sub(times[n]) > t.cfg.Memory {
			n++
		}
		if t.subjects[host] = times[n:]; n == len(times) {
			delete(t.subjects, host)
		}
	}
	for host, at := range t.firm {
		if now.Sub(at) > t.cfg.Memory {
			delete(t.firm, host)
		}
	}
}

// Halt says why the build is to be halted; empty when it is not. hosts is how many its probers watch; more than Config.Subjects need not be counted.
func (t *Trial) Halt(now time.Time, hosts int) string {
	if t.Dissents == 0 {
		return ""
	}
	t.forget(now)
	need := max(1, min(t.cfg.Subjects, hosts))
	switch {
	case len(t.firm) >= min(t.cfg.Firm, need):
		return t.sentence(fmt.Sprintf("each time on %s", count(len(t.firm), "host")))
	case t.sum >= t.cfg.Threshold && len(t.subjects) >= need:
		return t.sentence("on " + count(len(t.subjects), "host"))
	}
	return ""
}

// Doubt says on what host it is always wrong, when that is too little to halt it and too much to trust it; empty when there is none.
func (t *Trial) Doubt(now time.Time) string {
	t.forget(now)
	for host := range t.firm {
		if len(t.firm) == 1 {
			return "each time it disagrees on " + host
		}
	}
	return ""
}

// sentence says how it disagrees.
func (t *Trial) sentence(where string) string {
	kinds := t.Kinds()
	failed, names := int64(0), ""
	for i, k := range kinds {
		failed += k.Failed
		if i > 0 {
			names += ", "
		}
		names += fmt.Sprintf("%s %d", k.Kind, k.Count)
	}
	what := "it saw failures where settled builds saw answers"
	switch failed {
	case 0:
		what = "it saw answers where settled builds saw failures"
	case t.Dissents:
	default:
		what += ", and the other way round"
	}
	return fmt.Sprintf("%s %s, in %d of %d comparisons (%s) by %s; for example %s", what, where, t.Dissents, t.Comparisons, names, count(len(t.probers), "prober"), kinds[0].Examples[0].Check)
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Kinds are the disagreements by kind of check, the most frequent first.
func (t *Trial) Kinds() []Kind {
	list := make([]Kind, 0, len(t.kinds))
	for _, k := range t.kinds {
		list = append(list, *k)
	}
	slices.SortFunc(list, func(a, b Kind) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind)) })
	return list
}
