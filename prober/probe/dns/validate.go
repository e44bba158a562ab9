package dns

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of a validation. A zone can be made so that its validation takes hours (many keys of one tag, many signatures: CVE-2023-50387); these bound it to some ten milliseconds.
const (
	maxVerifications = 128
	maxPerSet        = 8 // signatures of one set of records that are verified
	maxKeysOfTag     = 4 // keys that are tried for one signature
	maxKeys          = 32
	maxDS            = 8
	maxChain         = 16 // CNAMEs followed
	maxProofs        = 8  // sets of NSEC or NSEC3 records
	maxChainLines    = 32
)

// doubt is why an answer is not SECURE.
type doubt struct {
	status meshv1.DnssecResult_Status
	why    string
}

func (d *doubt) Error() string { return d.why }

func bogus(format string, args ...any) error {
	return &doubt{meshv1.DnssecResult_BOGUS, fmt.Sprintf(format, args...)}
}

func insecure(format string, args ...any) error {
	return &doubt{meshv1.DnssecResult_INSECURE, fmt.Sprintf(format, args...)}
}

func indeterminate(format string, args ...any) error {
	return &doubt{meshv1.DnssecResult_INDETERMINATE, fmt.Sprintf(format, args...)}
}

// statusOf is what an error means; no error is SECURE, and one that is no doubt is a chain that could not be fetched.
func statusOf(err error) meshv1.DnssecResult_Status {
	var d *doubt
	switch {
	case err == nil:
		return meshv1.DnssecResult_SECURE
	case errors.As(err, &d):
		return d.status
	}
	return meshv1.DnssecResult_INDETERMINATE
}

// validator follows the chain of trust for one answer. It is for one goroutine.
type validator struct {
	asker    *asker
	now      time.Time
	anchors  []dns.RR
	zones    map[string]*zone
	cuts     map[string]error // what is known of delegations that are not secure
	verified int
	expiry   time.Time // of signatures of the zones that answer
	whole    time.Time // of all signatures
	chain    []string
	answered map[string]bool // the zones that answer
}

// zone is a zone whose keys are known to be genuine.
type zone struct {
	name   string
	keys   []*dns.DNSKEY
	expiry time.Time
}

// set is the records of one name and type, and their signatures.
type set struct {
	name string
	kind uint16
	rrs  []dns.RR
	sigs []*dns.RRSIG
}

// validate says how far the answer can be trusted. trouble is why that is not known, if it is the prober's own.
func (r *runner) validate(ctx context.Context, server *peer, m *dns.Msg) (found *meshv1.DnssecResult, trouble string) {
	asker := newAsker(r, server)
	defer asker.close()
	v := newValidator(asker, r.anchors, time.Now())
	if m.Rcode == dns.RcodeServerFailure && !r.options.GetCheckingDisabled() {
		// a resolver that validates hides what it found wrong; it shows it when told not to check
		if shown, err := asker.ask(ctx, r.target.Name, r.target.Type); err == nil {
			m = shown
		}
	}
	found = v.result(v.answer(ctx, m, r.target.Name, r.target.Type))
	if found.Status == meshv1.DnssecResult_INDETERMINATE {
		trouble = asker.broken
	}
	return found, trouble
}

func newValidator(asker *asker, anchors []dns.RR, now time.Time) *validator {
	return &validator{asker: asker, now: now, anchors: anchors, zones: make(map[string]*zone), cuts: make(map[string]error), answered: make(map[string]bool)}
}

// result is what was found.
func (v *validator) result(err error) *meshv1.DnssecResult {
	out := &meshv1.DnssecResult{Status: statusOf(err), Chain: v.chain, Verifications: int32(v.verified)}
	if v.asker != nil {
		out.Queries = int32(v.asker.questions)
	}
	if err != nil {
		out.Reason = clip(err.Error(), 512)
	}
	for name := range v.answered {
		if z := v.zones[name]; z != nil {
			v.expiry = earlier(v.expiry, z.expiry)
		}
	}
	if !v.expiry.IsZero() {
		out.Expiry = timestamppb.New(v.expiry)
		out.DaysLeft = int32(math.Floor(v.expiry.Sub(v.now).Hours() / 24))
	}
	if !v.whole.IsZero() {
		out.ChainExpiry = timestamppb.New(v.whole)
	}
	return out
}

// answer validates an answer to the question for a name and a type: the aliases on the way, and the records or the proof that there are none. nil means SECURE.
func (v *validator) answer(ctx context.Context, m *dns.Msg, name string, kind uint16) error {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return indeterminate("the answer is %s, which nothing proves", rcode(m))
	}
	sets := group(m.Answer)
	name = dns.CanonicalName(name)
	var weakest error
	for hop := range maxChain {
		if s := find(sets, name, kind); s != nil {
			return weaker(weakest, v.positive(ctx, m, s))
		}
		next, s := alias(sets, name, kind)
		if s == nil {
			if hop > 0 && len(m.Ns) == 0 && !m.RecursionAvailable {
				return weakest // the rest is another server's
			}
			return weaker(weakest, v.negative(ctx, m, name, kind))
		}
		err := v.positive(ctx, m, s)
		if statusOf(err) != meshv1.DnssecResult_SECURE && statusOf(err) != meshv1.DnssecResult_INSECURE {
			return err
		}
		weakest, name = weaker(weakest, err), next
	}
	return bogus("the answer goes through more than %d aliases", maxChain)
}

// weaker is the one of two findings that says less good: BOGUS before INDETERMINATE before INSECURE before SECURE.
func weaker(a, b error) error {
	rank := func(err error) int {
		switch statusOf(err) {
		case meshv1.DnssecResult_SECURE:
			return 0
		case meshv1.DnssecResult_INSECURE:
			return 1
		case meshv1.DnssecResult_INDETERMINATE:
			return 2
		}
		return 3
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}

// alias is where a name goes on, by a CNAME of its own or a DNAME above it; nil when it does not.
func alias(sets []*set, name string, kind uint16) (string, *set) {
	for _, s := range sets {
		if s.kind != dns.TypeDNAME || s.name == name || !dns.IsSubDomain(s.name, name) {
			continue
		}
		if d, ok := s.rrs[0].(*dns.DNAME); ok {
			prefix := name[:len(name)-len(s.name)]
			if s.name == "." {
				prefix = name
			}
			if target := prefix + strings.TrimPrefix(dns.CanonicalName(d.Target), "."); len(target) < 1000 {
				return target, s
			}
		}
	}
	if kind == dns.TypeCNAME {
		return "", nil
	}
	if s := find(sets, name, dns.TypeCNAME); s != nil {
		if c, ok := s.rrs[0].(*dns.CNAME); ok {
			return dns.CanonicalName(c.Target), s
		}
	}
	return "", nil
}

// positive validates a set of records of the answer section.
func (v *validator) positive(ctx context.Context, m *dns.Msg, s *set) error {
	sig, z, err := v.verify(ctx, s)
	if err != nil {
		return err
	}
	v.note(sig, z)
	labels := dns.CountLabel(s.name)
	if strings.HasPrefix(s.name, "*.") {
		labels-- // asked for by its own name, a wildcard is not expanded
	}
	if int(sig.Labels) < labels {
		return v.expanded(ctx, m, s.name, int(sig.Labels), z)
	}
	return nil
}

// note remembers a signature of a zone that answers.
func (v *validator) note(sig *dns.RRSIG, z *zone) {
	v.answered[z.name] = true
	v.expiry = earlier(v.expiry, v.expires(sig))
}

// verify finds the keys of the zone that signed a set and verifies a signature by one of them: of those that are valid, the one that lasts longest.
func (v *validator) verify(ctx context.Context, s *set) (*dns.RRSIG, *zone, error) {
	if len(s.sigs) == 0 {
		return nil, nil, v.unsigned(ctx, s)
	}
	now := uint32(v.now.Unix())
	sort.SliceStable(s.sigs, func(i, j int) bool { return int32(s.sigs[i].Expiration-now) > int32(s.sigs[j].Expiration-now) })
	var failed error
	for _, sig := range s.sigs[:min(len(s.sigs), maxPerSet)] {
		signer := dns.CanonicalName(sig.SignerName)
		if !dns.IsSubDomain(signer, s.name) || s.kind == dns.TypeDS && signer == s.name {
			failed = bogus("%s is signed by %s, which is not its zone", s, signer)
			continue
		}
		z, err := v.zone(ctx, signer)
		if err != nil {
			return nil, nil, err
		}
		if err = v.check(z, s, sig); err == nil {
			return sig, z, nil
		}
		failed = err
	}
	return nil, nil, failed
}

// check verifies one signature of a set by the keys of its zone.
func (v *validator) check(z *zone, s *set, sig *dns.RRSIG) error {
	now := uint32(v.now.Unix())
	labels := dns.CountLabel(s.name)
	if strings.HasPrefix(s.name, "*.") {
		labels--
	}
	switch {
	case int32(sig.Expiration-now) < 0:
		v.noteEnd(sig, z)
		return bogus("the signature of %s by %s ended on %s", s, z.name, v.expires(sig).Format(time.DateTime))
	case int32(now-sig.Inception) < 0:
		return bogus("the signature of %s by %s is not valid before %s", s, z.name, v.when(sig.Inception).Format(time.DateTime))
	case int(sig.Labels) > labels:
		return bogus("the signature of %s is for a name with more labels", s)
	case !supported(sig.Algorithm):
		return bogus("%s is signed by algorithm %s alone, which is not known here", s, algorithm(sig.Algorithm))
	}
	tried := 0
	for _, key := range z.keys {
		if key.Algorithm != sig.Algorithm || key.KeyTag() != sig.KeyTag {
			continue
		}
		if tried++; tried > maxKeysOfTag {
			return bogus("zone %s has more than %d keys with tag %d", z.name, maxKeysOfTag, sig.KeyTag)
		}
		if v.verified++; v.verified > maxVerifications {
			return bogus("more than %d signatures would have to be verified", maxVerifications)
		}
		if sig.Verify(key, s.rrs) == nil {
			v.whole = earlier(v.whole, v.expires(sig))
			return nil
		}
	}
	if tried == 0 {
		return bogus("%s is signed by key %d (%s), which zone %s does not have", s, sig.KeyTag, algorithm(sig.Algorithm), z.name)
	}
	return bogus("the signature of %s by key %d of %s does not match", s, sig.KeyTag, z.name)
}

// noteEnd remembers a signature that has ended, so that the result says when.
func (v *validator) noteEnd(sig *dns.RRSIG, z *zone) {
	v.answered[z.name] = true
	v.expiry = earlier(v.expiry, v.expires(sig))
}

// expires is when a signature ends.
func (v *validator) expires(sig *dns.RRSIG) time.Time { return v.when(sig.Expiration) }

// when is a time of a signature, which counts seconds modulo 2^32 (RFC 4034, section 3.1.5).
func (v *validator) when(t uint32) time.Time {
	return v.now.Add(time.Duration(int32(t-uint32(v.now.Unix()))) * time.Second).Truncate(time.Second).UTC()
}

// earlier is the earlier of two times; a zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// String names the set.
func (s *set) String() string { return s.name + " " + dns.Type(s.kind).String() }

// group gathers records of class IN by name and type, and their signatures.
func group(section []dns.RR) []*set {
	type key struct {
		name string
		kind uint16
	}
	byKey := make(map[key]*set)
	var out []*set
	get := func(name string, kind uint16) *set {
		k := key{dns.CanonicalName(name), kind}
		if byKey[k] == nil {
			byKey[k] = &set{name: k.name, kind: kind}
			out = append(out, byKey[k])
		}
		return byKey[k]
	}
	for _, rr := range section {
		h := rr.Header()
		if h.Class != dns.ClassINET {
			continue
		}
		if sig, ok := rr.(*dns.RRSIG); ok {
			s := get(h.Name, sig.TypeCovered)
			s.sigs = append(s.sigs, sig)
			continue
		}
		s := get(h.Name, h.Rrtype)
		s.rrs = append(s.rrs, rr)
	}
	return out
}

// find is the set of a name and type that has records; nil without.
func find(sets []*set, name string, kind uint16) *set {
	for _, s := range sets {
		if s.name == name && s.kind == kind && len(s.rrs) > 0 {
			return s
		}
	}
	return nil
}

// supported tells whether signatures of an algorithm can be verified here.
func supported(algorithm uint8) bool {
	switch algorithm {
	case dns.RSASHA1, dns.RSASHA1NSEC3SHA1, dns.RSASHA256, dns.RSASHA512, dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519:
		return true
	}
	return false
}

func algorithm(a uint8) string {
	if s, ok := dns.AlgorithmToString[a]; ok {
		return s
	}
	return fmt.Sprintf("ALGORITHM%d", a)
}
