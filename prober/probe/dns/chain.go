package dns

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/miekg/dns"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxRSABytes is the largest RSA modulus with which a signature is verified: 4096 bits, the most that RFC 3110 and Debian's signers make. The time that a verification takes grows with the
// square of it.
const maxRSABytes = 512

// zone gives a zone whose keys are proven from a trust anchor down. The error is a doubt: INSECURE when the chain provably ends above.
func (v *validator) zone(ctx context.Context, name string) (*zone, error) {
	z, err := v.walk(ctx, name)
	if err != nil {
		return nil, err
	}
	if z.name != name {
		return nil, bogus("%s signs, but is no zone: %s has no delegation to it", name, z.name)
	}
	return z, nil
}

// walk goes from the nearest trust anchor down to a name and gives the deepest zone on the way. The error is a doubt.
func (v *validator) walk(ctx context.Context, name string) (*zone, error) {
	top := v.anchorAbove(name)
	if top == "" {
		return nil, indeterminate("there is no trust anchor for %s", name)
	}
	z, err := v.anchored(ctx, top)
	if err != nil {
		return nil, err
	}
	for _, child := range below(top, name) {
		next, err := v.cut(ctx, z, child)
		if err != nil {
			return nil, err
		}
		if next != nil {
			z = next
		}
	}
	return z, nil
}

// anchorAbove is the deepest zone with a trust anchor at a name or above it; empty when there is none.
func (v *validator) anchorAbove(name string) string {
	best := ""
	for _, a := range v.anchors {
		owner := dns.CanonicalName(a.Header().Name)
		if dns.IsSubDomain(owner, name) && len(owner) > len(best) {
			best = owner
		}
	}
	return best
}

// below are the names between a zone and a name, the nearest to the zone first, the name last.
func below(top, name string) []string {
	starts := dns.Split(name)
	var out []string
	for i := len(starts) - 1 - dns.CountLabel(top); i >= 0; i-- {
		out = append(out, name[starts[i]:])
	}
	return out
}

// anchored proves the keys of a zone by its trust anchors.
func (v *validator) anchored(ctx context.Context, name string) (*zone, error) {
	if z := v.zones[name]; z != nil {
		return z, nil
	}
	var ds []*dns.DS
	var keys []*dns.DNSKEY
	for _, a := range v.anchors {
		if dns.CanonicalName(a.Header().Name) != name {
			continue
		}
		switch x := a.(type) {
		case *dns.DS:
			ds = append(ds, x)
		case *dns.DNSKEY:
			keys = append(keys, x)
		}
	}
	return v.keys(ctx, name, ds, keys, "the trust anchor")
}

// cut proves what there is at a name below a zone: another zone, whose keys are then proven, or no zone of its own (nil). The error is a doubt, such as a delegation without keys.
func (v *validator) cut(ctx context.Context, z *zone, child string) (*zone, error) {
	if known := v.zones[child]; known != nil {
		return known, nil
	}
	if err, known := v.cuts[child]; known {
		return nil, err
	}
	next, err := v.delegation(ctx, z, child)
	if next == nil {
		v.cuts[child] = err
	}
	return next, err
}

func (v *validator) delegation(ctx context.Context, z *zone, child string) (*zone, error) {
	m, err := v.asker.ask(ctx, child, dns.TypeDS)
	if err != nil {
		return nil, indeterminate("%s", err)
	}
	sets := group(m.Answer)
	if s := find(sets, child, dns.TypeDS); s != nil {
		if err := v.by(z, s); err != nil {
			return nil, err
		}
		var ds []*dns.DS
		for _, rr := range s.rrs {
			if d, ok := rr.(*dns.DS); ok {
				ds = append(ds, d)
			}
		}
		return v.keys(ctx, child, ds, nil, "the delegation by "+z.name)
	}
	if s := find(sets, child, dns.TypeCNAME); s != nil {
		return nil, v.by(z, s) // an alias is no zone
	}
	return nil, v.noDS(z, child, m)
}

// by verifies a set that the zone itself must have signed.
func (v *validator) by(z *zone, s *set) error {
	failed := bogus("%s is not signed by %s", s, z.name)
	for _, sig := range s.sigs[:min(len(s.sigs), maxPerSet)] {
		if dns.CanonicalName(sig.SignerName) != z.name {
			continue
		}
		if failed = v.check(z, s, sig); failed == nil {
			return nil
		}
	}
	return failed
}

// keys proves the keys of a zone by DS records or keys that are trusted.
func (v *validator) keys(ctx context.Context, name string, ds []*dns.DS, trusted []*dns.DNSKEY, source string) (*zone, error) {
	ds = usable(ds)
	if len(ds) == 0 && len(trusted) == 0 {
		return nil, insecure("%s knows %s only by algorithms that are not known here", source, name)
	}
	m, err := v.asker.ask(ctx, name, dns.TypeDNSKEY)
	if err != nil {
		return nil, indeterminate("%s", err)
	}
	s := find(group(m.Answer), name, dns.TypeDNSKEY)
	if s == nil {
		return nil, bogus("%s says that %s is signed, and it has no DNSKEY, or the servers that were asked withhold it", source, name)
	}
	all := zoneKeys(s)
	failed := bogus("no key of %s is the one that %s names", name, source)
	for _, key := range all {
		if !trustedBy(key, ds, trusted) {
			continue
		}
		for _, sig := range s.sigs[:min(len(s.sigs), maxPerSet)] {
			if sig.KeyTag != key.KeyTag() || dns.CanonicalName(sig.SignerName) != name {
				failed = bogus("the keys of %s are not signed by key %d, which %s names", name, key.KeyTag(), source)
				continue
			}
			if failed = v.check(&zone{name: name, keys: []*dns.DNSKEY{key}}, s, sig); failed == nil {
				z := &zone{name: name, keys: all, expiry: v.expires(sig)}
				v.zones[name] = z
				v.tell(z, key)
				return z, nil
			}
			if statusOf(failed) == meshv1.DnssecResult_BOGUS && v.verified > maxVerifications {
				return nil, failed
			}
		}
	}
	return nil, failed
}

// tell adds a zone to the chain of the result.
func (v *validator) tell(z *zone, key *dns.DNSKEY) {
	if len(v.chain) < maxChainLines {
		v.chain = append(v.chain, fmt.Sprintf("%s %d %s", z.name, key.KeyTag(), algorithm(key.Algorithm)))
	}
}

// usable are the DS records of known algorithms and digests. SHA-1 does not count beside a better digest (RFC 4509, section 3).
func usable(ds []*dns.DS) []*dns.DS {
	var strong, weak []*dns.DS
	for _, d := range ds {
		switch {
		case !supported(d.Algorithm) || len(strong)+len(weak) >= maxDS:
		case d.DigestType == dns.SHA256 || d.DigestType == dns.SHA384:
			strong = append(strong, d)
		case d.DigestType == dns.SHA1:
			weak = append(weak, d)
		}
	}
	if len(strong) > 0 {
		return strong
	}
	return weak
}

// zoneKeys are the keys of a set that may sign: those of the zone, not revoked (RFC 5011), of a size that can be afforded.
func zoneKeys(s *set) []*dns.DNSKEY {
	var out []*dns.DNSKEY
	for _, rr := range s.rrs {
		k, ok := rr.(*dns.DNSKEY)
		if ok && len(out) < maxKeys && k.Flags&dns.ZONE != 0 && k.Flags&dns.REVOKE == 0 && k.Protocol == 3 && supported(k.Algorithm) && affordable(k) {
			out = append(out, k)
		}
	}
	return out
}

// affordable tells whether a verification with the key takes a bounded time.
func affordable(k *dns.DNSKEY) bool {
	switch k.Algorithm {
	case dns.RSASHA1, dns.RSASHA1NSEC3SHA1, dns.RSASHA256, dns.RSASHA512:
		return base64.StdEncoding.DecodedLen(len(k.PublicKey)) <= maxRSABytes+8 // and the exponent
	}
	return true
}

// trustedBy tells whether a key is one that is trusted.
func trustedBy(key *dns.DNSKEY, ds []*dns.DS, trusted []*dns.DNSKEY) bool {
	for _, t := range trusted {
		if t.Algorithm == key.Algorithm && t.PublicKey == key.PublicKey {
			return true
		}
	}
	for _, d := range ds {
		if d.KeyTag != key.KeyTag() || d.Algorithm != key.Algorithm {
			continue
		}
		if made := key.ToDS(d.DigestType); made != nil && strings.EqualFold(made.Digest, d.Digest) {
			return true
		}
	}
	return false
}

// unsigned is the doubt about a set without signatures: INSECURE when its zone provably has no keys.
func (v *validator) unsigned(ctx context.Context, s *set) error {
	z, err := v.walk(ctx, above(s.name, s.kind))
	if err != nil {
		return err
	}
	return bogus("%s is not signed, though its zone %s is", s, z.name)
}

// above is the deepest name that may be the zone of records of a type at a name: that of a DS is above its name.
func above(name string, kind uint16) string {
	if kind == dns.TypeDS {
		return parent(name)
	}
	return name
}

// parent is the name without its first label.
func parent(name string) string {
	if next, end := dns.NextLabel(name, 0); !end {
		return name[next:]
	}
	return "."
}
