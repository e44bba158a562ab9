package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/probemesh/probemesh/internal/domain"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// independence says what the probers of a check have in common: the datacenter first, then what the check asks for, then what else all of them share.
func (s *State) independence(c *check) (list []*meshv1.Independence) {
	var serving []map[string]string
	for i := range c.votes {
		if c.seats[i].rank >= 0 {
			serving = append(serving, c.votes[i].Domains)
		}
	}
	if len(serving) == 0 {
		return nil
	}
	distinct, spread := c.policy.Distinct, c.eff.GetSpread()
	for _, d := range dimensionsOf(serving, distinct, spread) {
		values := map[string]int{}
		known := 0
		for _, domains := range serving {
			if v, ok := domains[d]; ok {
				values[v]++
				known++
			}
		}
		x := &meshv1.Independence{Dimension: d, Values: int32(len(values)), Known: int32(known), Probers: int32(len(serving)),
			Asked: d == domain.Datacenter || slices.Contains(distinct, d) || slices.Contains(spread, d)}
		said := slices.Contains(c.spec.GetDistinct(), d) || slices.Contains(c.spec.GetSpread(), d)
		switch {
		case d == domain.Datacenter && len(values) < int(c.policy.Quorum):
			x.Warning = fmt.Sprintf("its probers are in %d %s, and the quorum is %d: it can never be DOWN", len(values), plural(len(values), "datacenter", "datacenters"), c.policy.Quorum)
		case known == 0 && said:
			x.Warning = fmt.Sprintf("no prober of it has a %s, so nothing is kept apart; label the probers", d)
		case known == 0:
			continue // by default, where nobody has labelled anything
		case len(serving) > 1 && len(values) == 1 && known == len(serving):
			x.Warning = fmt.Sprintf("all %d probers share %s=%s: if that fails, all of them are wrong together", len(serving), d, theOnly(values))
		case slices.Contains(c.spec.GetSpread(), d) && len(values) < known:
			x.Warning = fmt.Sprintf("%d probers share %d %s: there are no others to take", known, len(values), plural(len(values), "value", "values"))
		case !x.Asked:
			continue // it differs, and nobody asked
		}
		x.Weak = x.Warning != ""
		list = append(list, x)
	}
	return list
}

// dimensionsOf are the dimensions to speak of, in order. What is single by its nature is left out.
func dimensionsOf(serving []map[string]string, distinct, spread []string) []string {
	list := []string{domain.Datacenter}
	add := func(d string) {
		if !slices.Contains(list, d) {
			list = append(list, d)
		}
	}
	for _, d := range slices.Concat(spread, distinct) {
		add(d)
	}
	var rest []string
	for _, domains := range serving {
		for d := range domains {
			// The families are what probers are meant to have in common, and what is claimed only is not known.
			if d != domain.Families && d != domain.Address && !strings.HasPrefix(d, "claimed.") {
				rest = append(rest, d)
			}
		}
	}
	slices.Sort(rest)
	for _, d := range rest {
		add(d)
	}
	return list
}

func theOnly(values map[string]int) string {
	for v := range values {
		return v
	}
	return ""
}

// independenceLines are for people.
func independenceLines(list []*meshv1.Independence) (lines []string) {
	for _, x := range list {
		line := fmt.Sprintf("%s: %d %s among %d %s", x.GetDimension(), x.GetValues(), plural(int(x.GetValues()), "value", "values"), x.GetProbers(), plural(int(x.GetProbers()), "prober", "probers"))
		if n := x.GetProbers() - x.GetKnown(); n > 0 {
			line += fmt.Sprintf(", %d without one", n)
		}
		if x.GetWarning() != "" {
			line += "; " + x.GetWarning()
		}
		lines = append(lines, line)
	}
	return lines
}
