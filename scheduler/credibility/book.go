package credibility

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Book keeps what was observed of every prober. It is not safe for concurrent use.
type Book struct {
	cfg     Config
	probers map[string]*record
	domains map[Domain]*sum
	aside   map[Domain]*aside
	returns map[Domain]returned
	folded  time.Time
	// suspects are what the last judgement would have set aside.
	suspects []Finding
}

// record is one prober.
type record struct {
	name       string
	datacenter string
	domains    []Domain
	sum        sum
	// agreed and dissented count the observations since the last judgement.
	agreed, dissented float64
	// last is when it dissented last, whether that counted or not.
	last time.Time
	// repeated counts the dissents since then that were left out because there had been enough on their subject.
	repeated float64
	// agreements and dissents are recent counts, which decay.
	agreements, dissents float64
	memory               []Dissent
	times                []time.Time // of memory, oldest first
}

// sum is a cumulative sum.
type sum struct{ value float64 }

func (s *sum) add(x float64) { s.value = max(0, s.value+x) }

// aside is what is set aside.
type aside struct {
	since  time.Time
	until  time.Time
	belief sum
}

type returned struct {
	at   time.Time
	away time.Duration
}

// New is an empty book.
func New(cfg Config) *Book {
	return &Book{cfg: cfg.withDefaults(), probers: map[string]*record{}, domains: map[Domain]*sum{}, aside: map[Domain]*aside{}, returns: map[Domain]returned{}}
}

// Put makes a prober known, or changes its domains. What was observed of it stays, unless it runs in another datacenter now.
func (b *Book) Put(name, datacenter string, domains map[string]string) {
	r := b.probers[name]
	if r == nil || r.datacenter != datacenter {
		r = &record{name: name, datacenter: datacenter}
		b.probers[name] = r
	}
	r.domains = r.domains[:0]
	for k, v := range domains {
		if v != "" {
			r.domains = append(r.domains, Domain{k, v})
		}
	}
	if _, ok := domains["datacenter"]; !ok {
		r.domains = append(r.domains, Domain{"datacenter", datacenter})
	}
	slices.SortFunc(r.domains, compare)
}

// Forget drops a prober.
func (b *Book) Forget(name string) { delete(b.probers, name) }

// Agree notes that a prober's vote on a check of a kind was that of the others. It is the hot path: a lookup and an addition.
func (b *Book) Agree(name string) {
	if r := b.probers[name]; r != nil {
		r.agreed++
	}
}

// Dissent notes a vote against the consensus of the others. It tells whether it counts: not when the prober is not known, or has dissented on the subject often
// enough already.
func (b *Book) Dissent(now time.Time, d Dissent) bool {
	r := b.probers[d.Prober]
	if r == nil {
		return false
	}
	r.forget(now, b.cfg.Memory)
	r.last = now
	n := 0
	for _, old := range r.memory {
		if old.Subject == d.Subject {
			n++
		}
	}
	if n >= b.cfg.PerSubject {
		r.repeated++
		return false
	}
	r.memory, r.times = append(r.memory, d), append(r.times, now)
	if len(r.memory) > maxMemory {
		r.memory, r.times = r.memory[1:], r.times[1:]
	}
	r.dissented++
	return true
}

// maxMemory bounds the dissents that are remembered of one prober.
const maxMemory = 256

func (r *record) forget(now time.Time, memory time.Duration) {
	n := 0
	for n < len(r.times) && now.Sub(r.times[n]) > memory {
		n++
	}
	r.memory, r.times = r.memory[n:], r.times[n:]
}

// subjects counts the subjects on which a dissent is remembered.
func (r *record) subjects() int {
	seen := map[string]bool{}
	for _, m := range r.memory {
		seen[m.Subject] = true
	}
	return len(seen)
}

// Aside gives the domain for which a prober is set aside; false when it counts.
func (b *Book) Aside(name string) (Domain, bool) {
	r := b.probers[name]
	if r == nil || len(b.aside) == 0 {
		return Domain{}, false
	}
	if d := (Domain{ProberDimension, name}); b.aside[d] != nil {
		return d, true
	}
	for _, d := range r.domains {
		if b.aside[d] != nil {
			return d, true
		}
	}
	return Domain{}, false
}

// SetAside says that a domain is set aside since then: what was decided, here or by whoever decides. It may be repeated.
func (b *Book) SetAside(d Domain, since time.Time) {
	if b.aside[d] != nil {
		return
	}
	away := b.cfg.Away
	if r, ok := b.returns[d]; ok && since.Sub(r.at) < 24*time.Hour {
		away = min(2*r.away, maxAway)
	}
	b.aside[d] = &aside{since: since, until: since.Add(away)}
	b.returns[d] = returned{at: since, away: away}
	// What its probers did is explained now, and must not speak against other domains that some of them are in.
	for _, r := range b.members(d) {
		r.sum = sum{}
		for _, own := range r.domains {
			delete(b.domains, own)
		}
	}
}

// maxAway bounds how long something that was set aside again and again stays away at least.
const maxAway = 4 * time.Hour

// Restore says that a domain counts again. What was observed of its members before does not speak against them any more.
func (b *Book) Restore(now time.Time, d Domain) {
	a := b.aside[d]
	if a == nil {
		return
	}
	delete(b.aside, d)
	b.returns[d] = returned{at: now, away: a.until.Sub(a.since)}
	for _, r := range b.members(d) {
		r.sum, r.agreements, r.dissents, r.memory, r.times = sum{}, 0, 0, nil, nil
		for _, own := range r.domains {
			delete(b.domains, own)
		}
	}
}

// members are the probers of a domain, sorted by name.
func (b *Book) members(d Domain) []*record {
	if d.Dimension == ProberDimension {
		if r := b.probers[d.Value]; r != nil {
			return []*record{r}
		}
		return nil
	}
	var all []*record
	for _, r := range b.probers {
		if slices.Contains(r.domains, d) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(x, y *record) int { return cmp.Compare(x.name, y.name) })
	return all
}

func compare(a, b Domain) int {
	return cmp.Or(cmp.Compare(a.Dimension, b.Dimension), cmp.Compare(a.Value, b.Value))
}

// Suspects are what the last judgement found sick and did not set aside because of a limit, worst first.
func (b *Book) Suspects() []Finding { return b.suspects }

// Judge takes in what was observed since the call before and says what is to be done: at most one domain is to be set aside at a time. It changes nothing about what is
// set aside: [Book.SetAside] and [Book.Restore] do. Call it about once a second.
func (b *Book) Judge(now time.Time) []Change {
	b.fold(now)
	changes := b.recovered(now)
	b.suspects = nil
	for _, f := range b.findings(now) {
		if f.Limited = b.Limit(f); f.Limited != "" {
			b.suspects = append(b.suspects, f)
			continue
		}
		return append(changes, Change{Finding: f})
	}
	return changes
}

// fold takes the observations into the sums.
func (b *Book) fold(now time.Time) {
	plus, minus := b.cfg.weights()
	decay := 1.0
	if !b.folded.IsZero() && now.After(b.folded) {
		decay = halve(now.Sub(b.folded), b.cfg.Memory)
	}
	b.folded = now
	batch := map[Domain]float64{}
	for _, r := range b.probers {
		x := r.dissented*plus - r.agreed*minus
		belief := x
		r.agreements, r.dissents = r.agreements*decay+r.agreed, r.dissents*decay+r.dissented
		if subjects := r.subjects(); subjects >= b.cfg.Subjects {
			belief = x + r.repeated*plus
		}
		r.agreed, r.dissented, r.repeated = 0, 0, 0
		r.forget(now, b.cfg.Memory)
		r.sum.add(x)
		if d, away := b.Aside(r.name); away {
			// It speaks for or against that alone. What is away has to convince: there, each dissent counts.
			batch[d] += belief
			continue
		}
		for _, d := range r.domains {
			batch[d] += x
		}
	}
	for d, a := range b.aside {
		a.belief.add(-batch[d])
	}
	maps.DeleteFunc(b.domains, func(d Domain, _ *sum) bool { _, here := batch[d]; return !here || b.aside[d] != nil })
	for d, x := range batch {
		if b.aside[d] != nil {
			continue
		}
		s := b.domains[d]
		if s == nil {
			s = &sum{}
			b.domains[d] = s
		}
		s.add(x)
	}
}

// recovered are the domains that may come back, sorted.
func (b *Book) recovered(now time.Time) []Change {
	var changes []Change
	for _, d := range slices.SortedFunc(maps.Keys(b.aside), compare) {
		a := b.aside[d]
		members := b.members(d)
		// Nobody is left of a domain whose probers were deleted, or run something else now.
		if len(members) > 0 && (now.Before(a.until) || a.belief.value < b.cfg.Return) {
			continue
		}
		changes = append(changes, Change{Return: true, Finding: Finding{Domain: d, Probers: names(members), Since: a.since}})
	}
	return changes
}

// Members are the probers of a domain, sorted by name.
func (b *Book) Members(d Domain) []string { return names(b.members(d)) }

// Shared gives the domains that some probers have in common and nobody else does who saw something: of each that saw has been asked. The first of them is the one to name, the others have just the same
// members; a single prober is named itself. There must be two members of a domain at least, and two probers outside it. None that is away, or is not known, has anything in common with others.
func (b *Book) Shared(probers []string, saw func(name string) bool) []Domain {
	var found []Domain
	if len(probers) == 0 || slices.ContainsFunc(probers, func(name string) bool { _, away := b.Aside(name); return away || b.probers[name] == nil }) {
		return nil
	}
	if len(probers) == 1 {
		found = append(found, Domain{ProberDimension, probers[0]})
	}
	for _, d := range b.probers[probers[0]].domains {
		members := names(b.members(d))
		outside := func(name string) bool { return !slices.Contains(members, name) }
		silent := func(name string) bool { return !slices.Contains(probers, name) && saw(name) }
		if len(members) < 2 || len(b.probers)-len(members) < 2 || slices.ContainsFunc(probers, outside) || slices.ContainsFunc(members, silent) {
			continue
		}
		found = append(found, d)
	}
	slices.SortFunc(found, func(x, y Domain) int { return cmp.Or(cmp.Compare(rank(x), rank(y)), compare(x, y)) })
	if len(found) == 0 {
		return nil
	}
	first := b.Members(found[0])
	return slices.DeleteFunc(found, func(d Domain) bool { return !slices.Equal(b.Members(d), first) })
}

func names(members []*record) []string {
	list := make([]string, len(members))
	for i, r := range members {
		list[i] = r.name
	}
	return list
}

// Limit says why a domain may not be set aside; empty when it may. Of the finding, its Domain and Probers are looked at.
func (b *Book) Limit(f Finding) string {
	single, several := 0, ""
	places, left, touched, more := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for d := range b.aside {
		if d.Dimension == ProberDimension {
			single++
		} else {
			several = max(several, d.String())
		}
	}
	for _, r := range b.probers {
		places[r.datacenter] = true
		switch _, away := b.Aside(r.name); {
		case away:
			touched[r.datacenter] = true
		case slices.Contains(f.Probers, r.name):
			more[r.datacenter] = true
		default:
			left[r.datacenter] = true
		}
	}
	for d := range touched {
		more[d] = true
	}
	switch most := max(1, int(b.cfg.MostProbers*float64(len(b.probers)))); {
	case 2*len(left) < len(places):
		return fmt.Sprintf("without it fewer than half of the %d datacenters would be left", len(places))
	case len(touched) > 0 && len(more) > len(touched) && 2*len(more) >= len(places):
		return fmt.Sprintf("of the %d datacenters %d would lack probers that count, and a check with one prober in each could not be judged", len(places), len(more))
	case f.Domain.Dimension != ProberDimension && several != "":
		return fmt.Sprintf("%s is set aside already, and only one domain may be at a time", several)
	case f.Domain.Dimension == ProberDimension && single >= most:
		return fmt.Sprintf("%d of %d probers are set aside already, which is the most", single, len(b.probers))
	}
	return ""
}
