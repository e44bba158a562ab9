package scheduler

import (
	"slices"
	"strings"

	"github.com/probemesh/probemesh/internal/spec"
)

// warnings say what is wrong with a check although it is valid: as far as the mind knows, that it asks for datacenters in which nobody is enrolled.
func (s *State) warnings(c *check) (list []string) {
	if len(c.spec.GetDatacenters()) == 0 {
		return nil
	}
	for _, v := range spec.EmptyDatacenters(c.spec, "", s.roster.inhabited()) {
		list = append(list, v.Field+" "+v.Problem)
	}
	return list
}

// Runners are the bare names of the probers that run a check, by rank.
func (s *State) Runners(check string) []string {
	c := s.checks[check]
	if c == nil || c.gone {
		return nil
	}
	var names []string
	for i := range c.votes {
		if c.seats[i].rank >= 0 {
			names = append(names, c.votes[i].Prober)
		}
	}
	return names
}

// incapable says of the probers where the check may run why they cannot: what they lack, a line for each set of what is missing.
func (s *State) incapable(c *check) []string {
	lacking, only := map[string][]string{}, c.eff.GetDatacenters()
	for _, p := range s.roster.probers {
		if p.enrolled == nil || p.enrolled.GetDrained() || !p.online || len(only) > 0 && !slices.Contains(only, p.enrolled.GetDatacenter()) {
			continue
		}
		var lacks []string
		for _, need := range c.needs {
			if !p.can[need] {
				lacks = append(lacks, need)
			}
		}
		if lacks != nil {
			key := strings.Join(lacks, ", ")
			lacking[key] = append(lacking[key], p.name)
		}
	}
	var lines []string
	for _, key := range sortedKeys(lacking) {
		slices.Sort(lacking[key])
		lines = append(lines, nameSome(lacking[key])+" cannot run it for want of "+key+remedy(key))
	}
	return lines
}

// remedy says how a prober comes by what it lacks, where that is no matter of course; it begins with a semicolon, or is empty.
func remedy(lacks string) string {
	switch {
	case strings.Contains(lacks, string(spec.ICMP)):
		return "; allow the prober's group in net.ipv4.ping_group_range, or give it CAP_NET_RAW, and start it again"
	case strings.Contains(lacks, "ipv6"):
		return "; give its machine an IPv6 address and a route, and start it again"
	case strings.Contains(lacks, "."), strings.Contains(lacks, string(spec.UDP)), strings.Contains(lacks, string(spec.WEBSOCKET)):
		return "; its build is older than that, upgrade it"
	}
	return ""
}
