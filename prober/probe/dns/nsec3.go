package dns

import (
	"strings"

	"github.com/miekg/dns"
)

// Limits of NSEC3, whose proofs cost a hash for each label of a name, times the iterations that the zone asks for (CVE-2023-50868).
const (
	// maxIterations is how many iterations are made; RFC 9276 tells zones to ask for none, and lets validators take more for INSECURE.
	maxIterations = 100
	// maxHashes is how many names are hashed for one answer.
	maxHashes = 128
	// optOutFlag is the bit that leaves delegations without keys out of the proofs.
	optOutFlag = 1
)

// add3 takes a verified NSEC3 record.
func (p *proofs) add3(n *dns.NSEC3, owner string) {
	switch {
	case n.Hash != dns.SHA1 || parent(owner) != p.zone.name:
		return
	case n.Iterations > maxIterations:
		p.costly = true
		return
	case len(p.nsec3) > 0 && (p.nsec3[0].Iterations != n.Iterations || !strings.EqualFold(p.nsec3[0].Salt, n.Salt)):
		return
	}
	p.nsec3 = append(p.nsec3, n)
}

// hash is the hash of a name by the parameters of the records; empty when too many were made.
func (p *proofs) hash(name string) string {
	name = dns.CanonicalName(name)
	if h, known := p.hashes[name]; known {
		return h
	}
	if p.hashes == nil {
		p.hashes = make(map[string]string)
	}
	if len(p.hashes) >= maxHashes {
		return ""
	}
	first := p.nsec3[0]
	h := dns.HashName(name, first.Hash, first.Iterations, first.Salt)
	p.hashes[name] = h
	return h
}

// ownerHash is the hash that an NSEC3 record stands at.
func ownerHash(n *dns.NSEC3) string {
	label, _, _ := strings.Cut(n.Hdr.Name, ".")
	return strings.ToUpper(label)
}

// matching3 is the NSEC3 record of a name that exists; nil without.
func (p *proofs) matching3(name string) *dns.NSEC3 {
	if len(p.nsec3) == 0 || !dns.IsSubDomain(p.zone.name, name) {
		return nil
	}
	h := p.hash(name)
	for _, n := range p.nsec3 {
		if h != "" && ownerHash(n) == h {
			return n
		}
	}
	return nil
}

// covering3 is the NSEC3 record that proves that a name does not exist; nil without.
func (p *proofs) covering3(name string) *dns.NSEC3 {
	if len(p.nsec3) == 0 || !dns.IsSubDomain(p.zone.name, name) {
		return nil
	}
	h := p.hash(name)
	if h == "" {
		return nil
	}
	for _, n := range p.nsec3 {
		owner, next := ownerHash(n), strings.ToUpper(n.NextDomain)
		switch {
		case owner < next && owner < h && h < next,
			owner > next && (h > owner || h < next),
			owner == next && h != owner:
			return n
		}
	}
	return nil
}

// encloser3 is the closest ancestor of a name that exists and whose child on the way to the name is proven not to (RFC 5155, section 8.3).
func (p *proofs) encloser3(name string) (encloser string, covered bool) {
	if len(p.nsec3) == 0 {
		return name, false
	}
	child := name
	for child != p.zone.name && dns.IsSubDomain(p.zone.name, child) {
		above := parent(child)
		if n := p.matching3(above); n != nil {
			if below := has(n, dns.TypeDNAME) || has(n, dns.TypeNS) && !has(n, dns.TypeSOA); below {
				return above, false // a delegation says nothing of what lies below it
			}
			return above, p.covering3(child) != nil
		}
		child = above
	}
	return name, false
}

func has(n *dns.NSEC3, kind uint16) bool {
	for _, t := range n.TypeBitMap {
		if t == kind {
			return true
		}
	}
	return false
}

// optOut tells whether a name may be, or be below, a delegation without keys that the proofs leave out.
func (p *proofs) optOut(name string) bool {
	encloser, covered := p.encloser3(name)
	if !covered {
		return false
	}
	starts := dns.Split(name)
	next := name[starts[len(starts)-1-dns.CountLabel(encloser)]:]
	n := p.covering3(next)
	return n != nil && n.Flags&optOutFlag != 0
}
