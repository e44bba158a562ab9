package scheduler

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/grouping"
)

// values are what the check has on the side of the targets: its host, what that is an alias of, the addresses that its probers met there, their networks, its labels, and with issuers those of its
// certificates.
func (c *check) values(issuers bool) []grouping.Value {
	var list []grouping.Value
	add := func(d, v string) {
		if x := (grouping.Value{Dimension: d, Value: v}); v != "" && !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	add("host", c.hostname)
	for _, a := range c.addresses() {
		add("address", a.String())
		add("network", networkOf(a).String())
	}
	for _, n := range c.byAgreement(c.canonicalNames()) {
		add(grouping.CNAME, n)
	}
	if issuers {
		for _, n := range c.issuers() {
			add(grouping.Issuer, n)
		}
	}
	for k, v := range c.spec.GetLabels() {
		add("label."+k, v)
	}
	return list
}

// maxAddresses bounds the addresses that are kept in mind of one check: one that has more is spread over so many that none of them explains anything.
const maxAddresses = 8

// addresses are those that the newest results tell of. A loopback address is nothing that two checks share: what listens there are different programs.
func (c *check) addresses() []netip.Addr {
	var list []netip.Addr
	add := func(text string) {
		a, err := netip.ParseAddr(text)
		if p, perr := netip.ParseAddrPort(text); perr == nil {
			a, err = p.Addr(), nil
		}
		if a = a.Unmap().WithZone(""); err == nil && !a.IsLoopback() && len(list) < maxAddresses && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	for i := range c.seats {
		r := c.seats[i].result
		if r == nil {
			continue
		}
		if r.GetRemoteAddress() != "" {
			add(r.GetRemoteAddress())
		}
		for _, a := range r.GetEvidence().GetResolvedAddresses() {
			add(a)
		}
	}
	return list
}

// networkOf is the network in which addresses are commonly given out together: /24, or /48 for IPv6.
func networkOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, _ := a.Prefix(bits)
	return p
}

// has tells whether the check has the value; an issuer, whether it fails of it besides.
func (c *check) has(v grouping.Value) bool {
	if label, ok := strings.CutPrefix(v.Dimension, "label."); ok {
		have, is := c.spec.GetLabels()[label]
		return is && have == v.Value
	}
	switch v.Dimension {
	case grouping.CNAME:
		return slices.Contains(c.canonicalNames(), v.Value)
	case grouping.Issuer:
		return c.failsByTLS() && slices.Contains(c.issuers(), v.Value)
	case "host":
		return c.hostname == v.Value
	case "address":
		return slices.ContainsFunc(c.addresses(), func(a netip.Addr) bool { return a.String() == v.Value })
	case "network":
		return slices.ContainsFunc(c.addresses(), func(a netip.Addr) bool { return networkOf(a).String() == v.Value })
	}
	return false
}

// maxKept bounds what is kept in mind of each kind, and what a check is taken to have of it: geographic DNS may give every prober another chain of names.
const maxKept = 8

// kept is what the results of a check told before they failed. A failure tells less than an answer does: a prober that was started anew during an outage does not know any more what the host was an alias of, and
// a handshake that was cut off shows no certificate. The addresses are not kept: those of a name that does not resolve any more explain nothing.
type kept struct {
	names, issuers []string
}

// learn keeps what a failure would make forgotten, and forgets it when all answer again.
func (c *check) learn(before, r *meshv1.Result) {
	if r.GetOutcome() == meshv1.Result_OK {
		if c.kept != nil && c.tally.FailVotes == 0 {
			c.kept = nil
		}
		return
	}
	names, issuers := before.GetCanonicalNames(), issuersIn(before)
	if len(r.GetCanonicalNames()) > 0 {
		names = nil // it is told anew
	}
	if len(issuersIn(r)) > 0 {
		issuers = nil
	}
	if len(names)+len(issuers) == 0 {
		return
	}
	if c.kept == nil {
		c.kept = &kept{}
	}
	c.kept.names, c.kept.issuers = union(c.kept.names, names), union(c.kept.issuers, issuers)
}

// union adds to a list what it lacks, up to maxKept.
func union(list, more []string) []string {
	for _, x := range more {
		if len(list) < maxKept && !slices.Contains(list, x) {
			list = append(list, x)
		}
	}
	return list
}

// canonicalNames are what the host is an alias of, as the newest results tell it and those before the failure did.
func (c *check) canonicalNames() []string {
	var list []string
	for i := range c.seats {
		list = union(list, c.seats[i].result.GetCanonicalNames())
	}
	if c.kept != nil {
		list = union(list, c.kept.names)
	}
	return list
}

// byAgreement puts those names first that most of its probers see, and of these the canonical one.
func (c *check) byAgreement(names []string) []string {
	if len(names) < 2 {
		return names
	}
	slices.Reverse(names)
	seen := func(n string) (count int) {
		for i := range c.seats {
			if slices.Contains(c.seats[i].result.GetCanonicalNames(), n) {
				count++
			}
		}
		return count
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(seen(b), seen(a)) })
	return names
}

// issuers are those of its certificates, likewise; none when the check does not verify them: nobody's fault makes it fail then.
func (c *check) issuers() []string {
	if spec.TLSOf(c.eff).GetInsecureSkipVerify() {
		return nil
	}
	var list []string
	for i := range c.seats {
		list = union(list, issuersIn(c.seats[i].result))
	}
	if c.kept != nil {
		list = union(list, c.kept.issuers)
	}
	return list
}

// issuersIn are the issuers that a result tells: by the handshake, or by the evidence of one that failed.
func issuersIn(r *meshv1.Result) []string {
	if list := r.GetTls().GetIssuers(); len(list) > 0 {
		return list
	}
	var list []string
	for _, c := range r.GetEvidence().GetCertificates() {
		if c.GetIssuer() != "" {
			list = union(list, []string{c.GetIssuer()})
		}
	}
	return list
}

// failsByTLS tells whether it is the handshake or the certificates that the check fails of, as most of those say who see it fail.
func (c *check) failsByTLS() bool {
	n := 0
	for m := c.tally.FailVotes; m != 0; m &= m - 1 {
		if c.seats[bits.TrailingZeros64(m)].result.GetErrorClass() == meshv1.Result_TLS {
			n++
		}
	}
	return n > 0 && 2*n >= bits.OnesCount64(c.tally.FailVotes)
}

// sharedSounding are the checks that have a value and had not turned, of which a run was asked for then. For a value with fewer of them than grouping.Min, all.
type sharedSounding struct {
	at       time.Time
	siblings map[grouping.Value][]*check
}

// soundShared asks a few of the checks that share a CNAME or an issuer with many that turned, and that nobody sees fail: before it is decided what explains those, it is known whether the others answer. What
// shares an issuer may be probed so seldom that none was seen since. The budgets hold.
func (s *State) soundShared(now time.Time) {
	if now.Sub(s.mass.soundedShared.at) < soundEvery {
		return
	}
	s.mass.soundedShared = sharedSounding{at: now}
	var turned []grouping.Check
	for c, at := range s.mass.recent {
		if now.Sub(at) <= burstFor && c.tally.FailVotes != 0 {
			turned = append(turned, grouping.Check{Has: c.provided(c.failsByTLS())})
		}
	}
	candidates := grouping.Candidates(turned)
	if len(candidates) == 0 {
		return
	}
	siblings := map[grouping.Value][]*check{}
	for _, c := range s.checks {
		if c.gone || c.spec.GetPaused() || c.tally.FailVotes != 0 {
			continue
		}
		for _, v := range c.provided(true) {
			if candidates[v] {
				siblings[v] = first(siblings[v], c)
			}
		}
	}
	s.mass.soundedShared.siblings = siblings
	chosen := map[*check]bool{}
	for _, list := range siblings {
		for _, c := range list {
			chosen[c] = true
		}
	}
	for _, c := range byName(chosen) {
		for i := range c.seats {
			if s.ask(now, c, i) {
				s.schedule(c, c.seats[i].until)
				break
			}
		}
	}
}

// cleared are the values of which most of the checks that were asked because of them answer: those did not turn, so they are a better sample of the rest than what happened to be probed since.
func (s *State) cleared(now time.Time) map[grouping.Value]bool {
	x := s.mass.soundedShared
	if now.Sub(x.at) > soundEvery {
		return nil
	}
	found := map[grouping.Value]bool{}
	for v, list := range x.siblings {
		answer := 0
		for _, c := range list {
			if c.tally.FailVotes == 0 && s.sawSince(c, x.at, map[string]grouping.Prober{}) {
				answer++
			}
		}
		if len(list) == grouping.Min && 2*answer > len(list) {
			found[v] = true
		}
	}
	return found
}

// provided is what is known of who carries the check's host, and who vouches for it.
func (c *check) provided(issuers bool) (list []grouping.Value) {
	for _, n := range c.canonicalNames() {
		list = append(list, grouping.Value{Dimension: grouping.CNAME, Value: n})
	}
	if issuers {
		for _, n := range c.issuers() {
			list = append(list, grouping.Value{Dimension: grouping.Issuer, Value: n})
		}
	}
	return list
}

// first adds a check to a list of the first by name, of which as many are kept as are asked.
func first(list []*check, c *check) []*check {
	at, _ := slices.BinarySearchFunc(list, c, func(a, b *check) int { return strings.Compare(a.name, b.name) })
	if at == grouping.Min {
		return list
	}
	list = slices.Insert(list, at, c)
	return list[:min(len(list), grouping.Min)]
}
