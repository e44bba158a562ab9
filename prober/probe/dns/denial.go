package dns

import (
	"bytes"
	"context"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// proofs are the NSEC or NSEC3 records of an answer, verified, all of one zone.
type proofs struct {
	zone   *zone
	nsec   []*dns.NSEC
	nsec3  []*dns.NSEC3
	hashes map[string]string // of names, by the parameters that all NSEC3 records share
	costly bool              // the NSEC3 records ask for more iterations than are made
}

// negative validates the proof that a name does not exist, or has no record of a type.
func (v *validator) negative(ctx context.Context, m *dns.Msg, name string, kind uint16) error {
	p, err := v.proofs(ctx, m, name, kind)
	if err != nil {
		return err
	}
	if m.Rcode == dns.RcodeNameError {
		return p.noName(name)
	}
	return p.noType(name, kind)
}

// expanded validates that a name whose records came from a wildcard of so many labels does not exist itself.
func (v *validator) expanded(ctx context.Context, m *dns.Msg, name string, labels int, z *zone) error {
	p, err := v.proofs(ctx, m, name, dns.TypeNone)
	if err != nil {
		return err
	}
	if p.zone.name != z.name {
		return bogus("the proof for the wildcard at %s is of another zone, %s", name, p.zone.name)
	}
	starts := dns.Split(name)
	next := name[starts[len(starts)-1-labels]:] // one label more than the wildcard's parent has
	if len(p.nsec) > 0 && p.covering(name) != nil {
		// Where a deeper name exists than the wildcard's parent, the wildcard does not stand for what is below it (RFC 4592, section 3.3.1).
		if encloser, _ := p.encloser(name); dns.CountLabel(encloser) == labels {
			return nil
		}
	}
	if len(p.nsec3) > 0 && p.covering3(next) != nil {
		return nil
	}
	if p.costly {
		return insecure("zone %s asks for more than %d iterations of NSEC3", z.name, maxIterations)
	}
	return bogus("%s comes from a wildcard, and nothing proves that the name itself does not exist", name)
}

// proofs verifies the NSEC and NSEC3 records in the authority section. Without any, the answer is INSECURE or BOGUS.
func (v *validator) proofs(ctx context.Context, m *dns.Msg, name string, kind uint16) (*proofs, error) {
	p := &proofs{}
	verified := 0
	for _, s := range group(m.Ns) {
		if s.kind != dns.TypeNSEC && s.kind != dns.TypeNSEC3 || len(s.rrs) == 0 {
			continue
		}
		if verified++; verified > maxProofs {
			break
		}
		sig, z, err := v.verify(ctx, s)
		if err != nil {
			return nil, err
		}
		if int(sig.Labels) != dns.CountLabel(s.name) && !strings.HasPrefix(s.name, "*.") {
			return nil, bogus("%s comes from a wildcard, which no proof can", s)
		}
		v.note(sig, z)
		if p.zone != nil && p.zone.name != z.name {
			continue
		}
		p.zone = z
		p.add(s)
	}
	if p.zone == nil {
		if _, err := v.walk(ctx, above(name, kind)); err != nil {
			return nil, err
		}
		return nil, bogus("nothing proves that there is no %s %s: the answer has no NSEC and no NSEC3 record", name, dns.Type(kind))
	}
	return p, nil
}

// noDS validates that there is no DS at a name below a zone. nil means that the name is no zone of its own; INSECURE, that it is one without keys.
func (v *validator) noDS(z *zone, child string, m *dns.Msg) error {
	p := &proofs{zone: z}
	verified := 0
	failed := bogus("nothing proves that %s has no DS", child)
	for _, s := range group(m.Ns) {
		if s.kind != dns.TypeNSEC && s.kind != dns.TypeNSEC3 || len(s.rrs) == 0 {
			continue
		}
		if verified++; verified > maxProofs {
			break
		}
		if err := v.by(z, s); err != nil {
			failed = err
			continue
		}
		p.add(s)
	}
	if len(p.nsec)+len(p.nsec3) == 0 {
		return failed
	}
	if types, exists := p.typesAt(child); exists {
		switch {
		case slices.Contains(types, dns.TypeDS):
			return bogus("the proof that %s has no DS says that it has one", child)
		case slices.Contains(types, dns.TypeNS) && !slices.Contains(types, dns.TypeSOA):
			return insecure("%s delegates %s without keys", z.name, child)
		}
		return nil
	}
	switch {
	case p.optOut(child):
		return insecure("%s does not prove which of its delegations have keys (opt-out), %s among them", z.name, child)
	case p.empty(child), p.noName(child) == nil:
		return nil
	case p.costly:
		return insecure("zone %s asks for more than %d iterations of NSEC3", z.name, maxIterations)
	}
	return bogus("nothing proves that %s has no DS", child)
}

// add takes the records of a verified set. NSEC3 records must agree in their parameters with the first (RFC 5155, section 8.2) and not ask for too much.
func (p *proofs) add(s *set) {
	for _, rr := range s.rrs[:1] {
		switch x := rr.(type) {
		case *dns.NSEC:
			if dns.IsSubDomain(p.zone.name, s.name) {
				p.nsec = append(p.nsec, x)
			}
		case *dns.NSEC3:
			p.add3(x, s.name)
		}
	}
}

// typesAt are the types that exist at a name; exists is false when no record is about the name itself.
func (p *proofs) typesAt(name string) (types []uint16, exists bool) {
	for _, n := range p.nsec {
		if strings.EqualFold(n.Hdr.Name, name) {
			return n.TypeBitMap, true
		}
	}
	if n := p.matching3(name); n != nil {
		return n.TypeBitMap, true
	}
	return nil, false
}

// noType validates that a name has no record of a type.
func (p *proofs) noType(name string, kind uint16) error {
	if types, exists := p.typesAt(name); exists {
		return p.lacks(types, name, kind)
	}
	switch {
	case p.empty(name):
		return nil
	case p.optOut(name) && kind == dns.TypeDS:
		return insecure("%s does not prove which of its delegations have keys (opt-out), %s among them", p.zone.name, name)
	}
	encloser, covered := p.encloser(name)
	if types, exists := p.typesAt(wildcard(encloser)); covered && exists {
		return p.lacks(types, wildcard(encloser), kind)
	}
	if p.optOut(name) {
		return insecure("%s may be below a delegation without keys (opt-out)", name)
	}
	return p.unproven("nothing proves that %s has no record of type %s", name, dns.Type(kind).String())
}

// lacks holds a proof to what it is for: neither the type nor an alias may exist, and the proof must be of the zone that would have the type.
func (p *proofs) lacks(types []uint16, name string, kind uint16) error {
	switch {
	case slices.Contains(types, kind):
		return bogus("the answer has no %s, and its proof says that %s has one", dns.Type(kind), name)
	case slices.Contains(types, dns.TypeCNAME):
		return bogus("the answer is empty, and its proof says that %s is an alias", name)
	case kind != dns.TypeDS && slices.Contains(types, dns.TypeNS) && !slices.Contains(types, dns.TypeSOA):
		return bogus("the proof about %s is of the zone above it", name)
	}
	return nil
}

// noName validates that a name does not exist, nor a wildcard that would stand for it.
func (p *proofs) noName(name string) error {
	if _, exists := p.typesAt(name); exists {
		return bogus("the answer is NXDOMAIN, and its proof says that %s exists", name)
	}
	encloser, covered := p.encloser(name)
	if !covered {
		return p.unproven("nothing proves that %s does not exist", name)
	}
	star := wildcard(encloser)
	if len(p.nsec) > 0 && p.covering(star) != nil {
		return nil
	}
	if p.covering3(star) != nil {
		if p.optOut(name) {
			return insecure("%s may be a delegation without keys (opt-out)", name)
		}
		return nil
	}
	return p.unproven("nothing proves that there is no wildcard %s", star)
}

// unproven is BOGUS, or INSECURE where the records of the zone ask for more work than is done (RFC 9276, section 3.2).
func (p *proofs) unproven(format string, args ...any) error {
	if p.costly {
		return insecure("zone %s asks for more than %d iterations of NSEC3", p.zone.name, maxIterations)
	}
	return bogus(format, args...)
}

// encloser is the closest ancestor of a name that exists; covered tells whether it is proven that the name does not, nor what lies between the two.
func (p *proofs) encloser(name string) (encloser string, covered bool) {
	if n := p.covering(name); n != nil {
		a, b := common(name, n.Hdr.Name), common(name, n.NextDomain)
		if dns.CountLabel(b) > dns.CountLabel(a) {
			a = b
		}
		return a, true
	}
	return p.encloser3(name)
}

// covering is the NSEC record that proves that a name does not exist; nil without one.
func (p *proofs) covering(name string) *dns.NSEC {
	for _, n := range p.nsec {
		owner, next := n.Hdr.Name, n.NextDomain
		if !dns.IsSubDomain(p.zone.name, name) || order(owner, name) >= 0 {
			continue
		}
		if order(name, next) < 0 || strings.EqualFold(next, p.zone.name) { // the last one goes back to the zone
			if below := slices.Contains(n.TypeBitMap, dns.TypeNS) && !slices.Contains(n.TypeBitMap, dns.TypeSOA) || slices.Contains(n.TypeBitMap, dns.TypeDNAME); below && dns.IsSubDomain(owner, name) {
				continue // a delegation says nothing of what lies below it
			}
			return n
		}
	}
	return nil
}

// empty tells whether an NSEC record proves that a name exists only because others do below it.
func (p *proofs) empty(name string) bool {
	n := p.covering(name)
	return n != nil && dns.IsSubDomain(name, n.NextDomain)
}

// wildcard is the wildcard below a name.
func wildcard(name string) string {
	if name == "." {
		return "*."
	}
	return "*." + name
}

// common is the deepest name that is above both, or one of them.
func common(a, b string) string {
	shared := dns.CompareDomainName(a, b)
	starts := dns.Split(a)
	if shared == 0 {
		return "."
	}
	return strings.ToLower(a[starts[len(starts)-shared]:])
}

// order compares two names in the canonical order (RFC 4034, section 6.1): by their labels, the last first.
func order(a, b string) int {
	x, y := labels(a), labels(b)
	for i := range min(len(x), len(y)) {
		if c := bytes.Compare(x[i], y[i]); c != 0 {
			return c
		}
	}
	return len(x) - len(y)
}

// labels are those of a name as they are on the wire, in lower case, the last first.
func labels(name string) [][]byte {
	var wire [256]byte
	n, err := dns.PackDomainName(dns.CanonicalName(name), wire[:], 0, nil, false)
	if err != nil {
		return nil
	}
	var out [][]byte
	for i := 0; i < n && wire[i] != 0; i += int(wire[i]) + 1 {
		out = append(out, bytes.ToLower(wire[i+1:i+1+int(wire[i])]))
	}
	slices.Reverse(out)
	return out
}
