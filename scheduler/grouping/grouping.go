package grouping

import (
	"cmp"
	"slices"
	"strings"
)

const (
	// Min is how many checks must have turned for their failures to have a common cause. Five that fail within two seconds by chance are rare; four happen in a big mesh.
	Min = 5
	// Share is the least share of what was seen that must speak for a cause.
	Share = 0.8
	// Near is the share of the most checks from which on a narrower value is preferred.
	Near = 0.95
)

// Side is where a cause is.
type Side uint8

// The sides.
const (
	Targets Side = iota + 1
	Probers
)

// String is the side as people read it.
func (s Side) String() string { return [...]string{"", "targets", "probers"}[s] }

// Value is a dimension and a value of it, for example host=db1.example.com.
type Value struct{ Dimension, Value string }

// String is the value as people write it.
func (v Value) String() string { return v.Dimension + "=" + v.Value }

// Check is a check that turned.
type Check struct {
	// Name identifies it.
	Name string
	// Subject is what it has in common with related ones: the target's host.
	Subject string
	// Has are what it has on the side of the targets, without repetition. Of several names or issuers ([CNAME], [Issuer]) that explain the same, the one is named that comes first in the first of the checks; else the order does
	// not matter.
	Has []Value
	// Failed are the probers that see it fail, Answered those that see it answer, since the burst began.
	Failed, Answered []string
}

// Prober is what a prober has seen since the burst began.
type Prober struct {
	// Domains are its failure domains. Further values of one dimension are not possible.
	Domains []Value
	// Failed and Answered count the checks that it saw fail, and answer.
	Failed, Answered int
}

// Extent is how many checks have a value, of all that there are.
type Extent struct {
	// All have it; Answering of them were seen to answer since the burst began, and not to fail.
	All, Answering int
}

// Burst is what is to be explained.
type Burst struct {
	// Checks are those that turned.
	Checks []Check
	// Extents are of the values that the checks have. A value that is not there is taken to have no check but these.
	Extents map[Value]Extent
	// Cleared are values on the side of the targets that do not explain, whatever the extents say: checks that have them were asked, and most answer. May be nil.
	Cleared map[Value]bool
	// Probers are all those whose votes count, by name, whether or not they have seen anything since the burst began.
	Probers map[string]Prober
	// Crowd is how many checks must have a value on the side of the targets in all, turned or not, for it to be a cause: fewer are told of one by one.
	Crowd int
}

// Cause is what explains some of the checks.
type Cause struct {
	// Side is where it is.
	Side Side
	// Value is what they share; Also are other values that explain exactly the same, sorted.
	Value Value
	Also  []Value
	// Checks are those that it explains, sorted.
	Checks []string
	// Extent is how many have it in all; for a domain of probers, All is how many probers there are in it.
	Extent Extent
}

// Dimensions of targets that need care.
const (
	// CNAME is a name that the target's host is an alias of.
	CNAME = "cname"
	// Issuer is who issued a certificate of the target. One that turned has it only if that may be why it fails.
	Issuer = "issuer"
)

// IssuerShare is the Share for an issuer. Most checks of a mesh may share one, and so have it in common whatever makes them fail.
const IssuerShare = 0.95

// dimensions are those of targets, in which the one before explains more than the one after where the very same checks have them; all others, such as labels, come after them, by name.
var dimensions = [...]string{"host", CNAME, "address", "network", Issuer}

func rank(d string) int {
	if i := slices.Index(dimensions[:], d); i >= 0 {
		return i
	}
	return len(dimensions)
}

// Candidates are the values that at least Min of the checks have: those of which Explain needs the extents.
func Candidates(checks []Check) map[Value]bool {
	counts := map[Value]int{}
	for i := range checks {
		for _, v := range checks[i].Has {
			counts[v]++
		}
	}
	found := map[Value]bool{}
	for v, n := range counts {
		if n >= Min {
			found[v] = true
		}
	}
	return found
}

// Explain gives the causes, the one that explains most first, and the names of the checks that none explains, sorted. A check is explained once.
func Explain(b Burst) (causes []Cause, alone []string) {
	left := slices.SortedFunc(slices.Values(b.Checks), func(x, y Check) int { return strings.Compare(x.Name, y.Name) })
	if c, ok := byProbers(b, left); ok {
		causes = append(causes, c)
		left = without(left, c.Checks)
	}
	for len(left) >= Min {
		c, ok := byTargets(b, left)
		if !ok {
			break
		}
		causes = append(causes, c)
		left = without(left, c.Checks)
	}
	for _, c := range left {
		alone = append(alone, c.Name)
	}
	return causes, alone
}

func without(checks []Check, names []string) []Check {
	return slices.DeleteFunc(slices.Clone(checks), func(c Check) bool {
		_, found := slices.BinarySearch(names, c.Name)
		return found
	})
}

// byTargets is the best cause on the side of the targets.
func byTargets(b Burst, left []Check) (Cause, bool) {
	having := map[Value][]string{}
	for i := range left {
		for _, v := range left[i].Has {
			having[v] = append(having[v], left[i].Name)
		}
	}
	var found []Cause
	most := 0
	for v, names := range having {
		e := b.Extents[v]
		e.All = max(e.All, len(names))
		if len(names) < Min || e.All < b.Crowd || b.Cleared[v] || cleared(v, len(names), e.Answering) {
			continue
		}
		found = append(found, Cause{Side: Targets, Value: v, Checks: names, Extent: e})
		most = max(most, len(names))
	}
	if len(found) == 0 {
		return Cause{}, false
	}
	found = slices.DeleteFunc(found, func(c Cause) bool { return float64(len(c.Checks)) < Near*float64(most) })
	best := slices.MinFunc(found, func(x, y Cause) int {
		return cmp.Or(cmp.Compare(x.Extent.All, y.Extent.All), cmp.Compare(rank(x.Value.Dimension), rank(y.Value.Dimension)), cmp.Compare(x.Value.Dimension, y.Value.Dimension),
			cmp.Compare(place(left, x.Value), place(left, y.Value)), compare(x.Value, y.Value))
	})
	for _, c := range found {
		if c.Value != best.Value && c.Extent == best.Extent && slices.Equal(c.Checks, best.Checks) {
			best.Also = append(best.Also, c.Value)
		}
	}
	slices.SortFunc(best.Also, compare)
	return best, true
}

// place is where a name or an issuer comes in the first of the checks that has it.
func place(checks []Check, v Value) int {
	if v.Dimension != CNAME && v.Dimension != Issuer {
		return 0
	}
	for i := range checks {
		if at := slices.Index(checks[i].Has, v); at >= 0 {
			return at
		}
	}
	return 0
}

// cleared tells whether a value does not explain why checks turned, because too many that have it answer.
func cleared(v Value, turned, answering int) bool {
	if v.Dimension == Issuer {
		return answering >= Min || float64(turned) < IssuerShare*float64(turned+answering)
	}
	return float64(turned) < Share*float64(turned+answering)
}

func compare(x, y Value) int {
	return cmp.Or(cmp.Compare(x.Dimension, y.Dimension), cmp.Compare(x.Value, y.Value))
}

// domain is what was seen of a failure domain of probers.
type domain struct {
	probers          []string
	failed, answered int
	checks           []string
	subjects         map[string]bool
	outside          int // of the checks: seen to answer from outside
}

// byProbers is the domain of probers that explains the burst.
func byProbers(b Burst, left []Check) (Cause, bool) {
	if len(left) < Min {
		return Cause{}, false
	}
	domains := map[Value]*domain{}
	of := map[string][]Value{}
	for name, p := range b.Probers {
		for _, v := range p.Domains {
			d := domains[v]
			if d == nil {
				d = &domain{subjects: map[string]bool{}}
				domains[v] = d
			}
			d.probers, d.failed, d.answered = append(d.probers, name), d.failed+p.Failed, d.answered+p.Answered
			of[name] = append(of[name], v)
		}
	}
	for i := range left {
		left[i].tally(domains, of)
	}
	var found []Cause
	for v, d := range domains {
		n := len(d.checks)
		if n < Min || float64(n) < Share*float64(len(left)) || len(d.subjects) < Min || d.outside < Min ||
			float64(d.failed) < Share*float64(d.failed+d.answered) {
			continue
		}
		found = append(found, Cause{Side: Probers, Value: v, Checks: d.checks, Extent: Extent{All: len(d.probers), Answering: d.outside}})
	}
	if len(found) == 0 {
		return Cause{}, false
	}
	best := slices.MinFunc(found, func(x, y Cause) int {
		return cmp.Or(-cmp.Compare(len(x.Checks), len(y.Checks)), cmp.Compare(x.Extent.All, y.Extent.All), compare(x.Value, y.Value))
	})
	for _, c := range found {
		if c.Value != best.Value && same(domains[c.Value].probers, domains[best.Value].probers) {
			best.Also = append(best.Also, c.Value)
		}
	}
	slices.SortFunc(best.Also, compare)
	return best, true
}

// same tells whether two lists without repetition have the same names.
func same(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// tally counts the check for each domain that all the probers have that see it fail.
func (c *Check) tally(domains map[Value]*domain, of map[string][]Value) {
	if len(c.Failed) == 0 {
		return
	}
	for _, v := range of[c.Failed[0]] {
		inside := func(p string) bool { return slices.Contains(of[p], v) }
		if slices.ContainsFunc(c.Failed, func(p string) bool { return !inside(p) }) {
			continue
		}
		d := domains[v]
		d.checks = append(d.checks, c.Name)
		d.subjects[c.Subject] = true
		if slices.ContainsFunc(c.Answered, func(p string) bool { return !inside(p) }) {
			d.outside++
		}
	}
}
