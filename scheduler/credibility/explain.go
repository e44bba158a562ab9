package credibility

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

func halve(d, half time.Duration) float64 { return math.Exp2(-d.Seconds() / half.Seconds()) }

// candidate is a domain that may explain the dissent.
type candidate struct {
	Finding
	score float64 // how much likelier what was observed is if it is sick, as a logarithm
}

// findings are the domains over the threshold, best explanation first. A prober that a better explanation covers is not named again.
func (b *Book) findings(now time.Time) []Finding {
	var all []candidate
	for _, r := range b.probers {
		if _, away := b.Aside(r.name); !away && r.sum.value >= b.cfg.Threshold {
			all = b.propose(all, Domain{ProberDimension, r.name}, []*record{r}, r.sum.value)
		}
	}
	shared := map[Domain][]*record{}
	for _, r := range b.probers {
		if _, away := b.Aside(r.name); away {
			continue
		}
		for _, d := range r.domains {
			shared[d] = append(shared[d], r)
		}
	}
	for d, members := range shared {
		if b.aside[d] == nil && b.domains[d].value >= b.cfg.Threshold && len(members) >= 2 && len(b.probers)-len(members) >= 2 && b.together(members) {
			all = b.propose(all, d, members, b.domains[d].value)
		}
	}
	slices.SortFunc(all, func(x, y candidate) int {
		return cmp.Or(cmp.Compare(y.score, x.score), cmp.Compare(rank(x.Domain), rank(y.Domain)), compare(x.Domain, y.Domain))
	})
	return distinct(all)
}

// together tells whether most of a domain's probers dissent, and more than one: one that does so alone is named itself.
func (b *Book) together(members []*record) bool {
	n, judged := 0, 0
	for _, r := range members {
		if r.agreements+r.dissents >= 1 {
			judged++
		}
		// Half way between a sound and a sick one.
		if total := r.agreements + r.dissents; r.dissents >= 1 && r.dissents/total > math.Sqrt(b.cfg.Sound*b.cfg.Sick) || b.doubted(r) {
			n++
		}
	}
	return n >= 2 && 2*n > judged
}

// doubted tells whether a prober is sick by its own sum.
func (b *Book) doubted(r *record) bool { return r.sum.value >= b.cfg.Threshold }

// weigh is what a member adds to an explanation: what was observed of it lately; or, if it is doubted, its sum, when that is more. The sum begins where the dissent does, and in a big
// mesh what was agreed on before would outweigh every dissent, of which only a few count on each subject.
func (b *Book) weigh(r *record) float64 {
	plus, minus := b.cfg.weights()
	lately := r.dissents*plus - r.agreements*minus
	if b.doubted(r) {
		return max(lately, r.sum.value)
	}
	return lately
}

// propose adds a candidate if dissent was seen on enough subjects.
func (b *Book) propose(all []candidate, d Domain, members []*record, value float64) []candidate {
	c := candidate{Finding: Finding{Domain: d, Sum: value}}
	subjects, checks, kinds := map[string]bool{}, map[string]bool{}, map[string]bool{}
	failed, total, last := 0, 0, time.Time{}
	for _, r := range members {
		c.Probers = append(c.Probers, r.name)
		c.Dissents += r.dissents
		c.Agreements += r.agreements
		c.score += b.weigh(r)
		if r.last.After(last) {
			last = r.last
		}
		for i, m := range r.memory {
			subjects[m.Subject], checks[m.Check], kinds[m.Kind] = true, true, true
			total++
			if m.Failed {
				failed++
			}
			if c.Since.IsZero() || r.times[i].Before(c.Since) {
				c.Since = r.times[i]
			}
		}
	}
	if len(subjects) < b.cfg.Subjects || last.Sub(c.Since) < b.cfg.Lasting {
		return all
	}
	slices.Sort(c.Probers)
	c.Checks, c.Kinds, c.Failed = slices.Sorted(maps.Keys(checks)), slices.Sorted(maps.Keys(kinds)), float64(failed)/float64(total)
	c.Checks = c.Checks[:min(len(c.Checks), 10)]
	return append(all, c)
}

// rank orders dimensions that explain equally well: what changes oftenest first.
func rank(d Domain) int {
	order := []string{ProberDimension, "build", "datacenter"}
	if i := slices.Index(order, d.Dimension); i >= 0 {
		return i
	}
	return len(order)
}

// distinct drops domains that have the same probers as a better one, naming them there, and those whose probers a better one covers in part.
func distinct(all []candidate) []Finding {
	var kept []Finding
next:
	for _, c := range all {
		for i := range kept {
			switch {
			case slices.Equal(kept[i].Probers, c.Probers):
				kept[i].Also = append(kept[i].Also, c.Domain)
				slices.SortFunc(kept[i].Also, compare)
				continue next
			case slices.ContainsFunc(c.Probers, func(p string) bool { return slices.Contains(kept[i].Probers, p) }):
				continue next
			}
		}
		kept = append(kept, c.Finding)
	}
	return kept
}
