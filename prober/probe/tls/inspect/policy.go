package inspect

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Policy is what a check demands of a handshake besides what crypto/tls verifies. It does not change; several goroutines may use it.
type Policy struct {
	options      *meshv1.TlsConfig
	suites       []uint16
	signatures   []x509.SignatureAlgorithm
	certificates [][sha256.Size]byte
	keys         [][sha256.Size]byte
	logs         map[[sha256.Size]byte]crypto.PublicKey
	roots        *x509.CertPool
	host         string
}

// Compile makes a policy of options, which may be nil. roots are those to verify by, nil for the system's, and host is the name to verify, empty for the one that is sent; both matter with
// allow_self_signed only. The error says which option is not valid.
func Compile(t *meshv1.TlsConfig, roots *x509.CertPool, host string) (*Policy, error) {
	p := &Policy{options: t, roots: roots, host: host}
	for _, name := range t.GetCipherSuites() {
		suite, _, ok := spec.CipherSuite(name)
		if !ok {
			return nil, fmt.Errorf("cipher_suites: %q is not known", name)
		}
		p.suites = append(p.suites, suite.ID)
	}
	for _, name := range t.GetSignatureAlgorithms() {
		a, ok := spec.SignatureAlgorithm(name)
		if !ok {
			return nil, fmt.Errorf("signature_algorithms: %q is not known", name)
		}
		p.signatures = append(p.signatures, a)
	}
	for _, text := range t.GetCertificatePins() {
		sum, err := spec.CertificatePin(text)
		if err != nil {
			return nil, fmt.Errorf("certificate_pins: %w", err)
		}
		p.certificates = append(p.certificates, sum)
	}
	for _, text := range t.GetPublicKeyPins() {
		sum, err := spec.PublicKeyPin(text)
		if err != nil {
			return nil, fmt.Errorf("public_key_pins: %w", err)
		}
		p.keys = append(p.keys, sum)
	}
	if len(t.GetSctLogKeys()) > 0 {
		p.logs = make(map[[sha256.Size]byte]crypto.PublicKey)
	}
	for _, text := range t.GetSctLogKeys() {
		key, id, err := spec.SCTLogKey(text)
		if err != nil {
			return nil, fmt.Errorf("sct_log_keys: %w", err)
		}
		p.logs[id] = key
	}
	return p, nil
}

// SelfSigned tells whether the policy trusts certificates that are signed by themselves, and so verifies chains itself: crypto/tls must be told not to.
func (p *Policy) SelfSigned() bool { return p.options.GetAllowSelfSigned() }

// Check judges a handshake, which may be a resumed one. The error is a sentence about the peer, or what x509 says of its chain.
func (p *Policy) Check(s *tls.ConnectionState, now time.Time) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the peer sent no certificate")
	}
	if p.SelfSigned() {
		chains, err := p.verify(s, now)
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
		}
		verified := *s
		verified.VerifiedChains = chains
		s = &verified
	}
	for _, check := range []func(*tls.ConnectionState, time.Time) error{p.suite, p.days, p.strength, p.pins, p.transparency} {
		if err := check(s, now); err != nil {
			return err
		}
	}
	return nil
}

// verify verifies a chain as crypto/tls does, and trusts a certificate that is signed by itself.
func (p *Policy) verify(s *tls.ConnectionState, now time.Time) ([][]*x509.Certificate, error) {
	leaf := s.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: p.roots, CurrentTime: now, DNSName: cmp.Or(p.host, s.ServerName), Intermediates: x509.NewCertPool()}
	if opts.DNSName == "" {
		return nil, errors.New("there is no name to verify the certificate by; give server_name")
	}
	if SelfSigned(leaf) {
		opts.Roots = x509.NewCertPool()
		opts.Roots.AddCert(leaf)
		return leaf.Verify(opts)
	}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	return leaf.Verify(opts)
}

func (p *Policy) suite(s *tls.ConnectionState, _ time.Time) error {
	if len(p.suites) > 0 && !slices.Contains(p.suites, s.CipherSuite) {
		return fmt.Errorf("the peer chose the cipher suite %s, which is not among tls.cipher_suites", tls.CipherSuiteName(s.CipherSuite))
	}
	return nil
}

// days judges how long certificates are still valid.
func (p *Policy) days(s *tls.ConnectionState, now time.Time) error {
	if least := p.options.GetMinDaysLeft(); least > 0 {
		for _, c := range s.PeerCertificates {
			if short(c.NotAfter, now, least) {
				return fmt.Errorf("the certificate of %s expires on %s, in %d days, and tls.min_days_left is %d", subject(c), date(c.NotAfter), Days(c.NotAfter, now), least)
			}
		}
	}
	least := p.options.GetMinChainDaysLeft()
	if expiry, ok := ChainExpiry(s); least > 0 && ok && short(expiry, now, least) {
		return fmt.Errorf("the verified chain expires on %s, in %d days, and tls.min_chain_days_left is %d", date(expiry), Days(expiry, now), least)
	}
	return nil
}

// Degraded says why a handshake that meets every demand of the options is degraded nonetheless; empty when it is not.
func Degraded(t *meshv1.TlsConfig, s *tls.ConnectionState, now time.Time) string {
	wanted := t.GetDegradedDaysLeft()
	if wanted == 0 {
		return ""
	}
	for _, c := range s.PeerCertificates {
		if short(c.NotAfter, now, wanted) {
			return fmt.Sprintf("the certificate of %s expires on %s, in %d days, and tls.degraded_days_left is %d", subject(c), date(c.NotAfter), Days(c.NotAfter, now), wanted)
		}
	}
	return ""
}

// strength judges keys and signatures.
func (p *Policy) strength(s *tls.ConnectionState, _ time.Time) error {
	o := p.options
	if o.GetMinRsaBits() == 0 && o.GetMinEcBits() == 0 && len(p.signatures) == 0 {
		return nil
	}
	for _, c := range s.PeerCertificates {
		least := o.GetMinEcBits()
		switch c.PublicKey.(type) {
		case *rsa.PublicKey:
			least = o.GetMinRsaBits()
		case *ecdsa.PublicKey, ed25519.PublicKey:
		default:
			return fmt.Errorf("the certificate of %s has a key of a kind that is not known", subject(c))
		}
		if kind, bits := key(c); bits < int64(least) {
			return fmt.Errorf("the %s key in the certificate of %s has %d bits, and the check demands %d", kind, subject(c), bits, least)
		}
		if len(p.signatures) > 0 && !slices.Contains(p.signatures, c.SignatureAlgorithm) && !bytes.Equal(c.RawIssuer, c.RawSubject) {
			return fmt.Errorf("the certificate of %s is signed by %s, which is not among tls.signature_algorithms", subject(c), c.SignatureAlgorithm)
		}
	}
	return nil
}

// pins judges who the peer is.
func (p *Policy) pins(s *tls.ConnectionState, _ time.Time) error {
	if len(p.certificates) > 0 && !pinned(s, p.certificates, func(c *x509.Certificate) []byte { return c.Raw }) {
		sum := sha256.Sum256(s.PeerCertificates[0].Raw)
		return fmt.Errorf("no certificate of the chain is among tls.certificate_pins; the peer's own has the fingerprint %x", sum)
	}
	if len(p.keys) > 0 && !pinned(s, p.keys, func(c *x509.Certificate) []byte { return c.RawSubjectPublicKeyInfo }) {
		sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
		return fmt.Errorf("no key of the chain is among tls.public_key_pins; the peer's own is sha256//%s", base64Text(sum[:]))
	}
	return nil
}

// pinned tells whether a part of a certificate in a verified chain or, without any, of the peer's own certificate is among the sums. What the peer merely sends proves nothing.
func pinned(s *tls.ConnectionState, sums [][sha256.Size]byte, part func(*x509.Certificate) []byte) bool {
	chains := s.VerifiedChains
	if len(chains) == 0 {
		chains = [][]*x509.Certificate{s.PeerCertificates[:1]}
	}
	for _, chain := range chains {
		for _, c := range chain {
			if slices.Contains(sums, sha256.Sum256(part(c))) {
				return true
			}
		}
	}
	return false
}

// transparency judges the stapled OCSP response and the signed certificate timestamps.
func (p *Policy) transparency(s *tls.ConnectionState, now time.Time) error {
	if len(s.OCSPResponse) == 0 && !p.options.GetMustStaple() && p.options.GetMinScts() == 0 && len(p.logs) == 0 {
		return nil
	}
	staple := readStaple(s, now)
	switch {
	case staple.status == Revoked && !p.options.GetInsecureSkipVerify():
		return fmt.Errorf("the certificate of %s is revoked since %s, as the OCSP response says that the peer staples", subject(s.PeerCertificates[0]), date(staple.revokedAt))
	case p.options.GetMustStaple() && staple.status == "":
		return errors.New("the peer staples no OCSP response, and tls.must_staple is true")
	case p.options.GetMustStaple() && staple.status != Good:
		return fmt.Errorf("the stapled OCSP response is not good: %s", cmp.Or(staple.problem, "it says that the certificate is "+staple.status))
	}
	least := int(p.options.GetMinScts())
	if least == 0 && len(p.logs) == 0 {
		return nil
	}
	got := countTimestamps(s, staple, p.logs, now)
	switch {
	case got.forged != "":
		return errors.New(got.forged)
	case got.logs < least && len(got.problems) > 0:
		return fmt.Errorf("the certificate has signed timestamps of %d logs, and tls.min_scts is %d; %s", got.logs, least, strings.Join(got.problems, "; "))
	case got.logs < least:
		return fmt.Errorf("the certificate has signed timestamps of %d logs, and tls.min_scts is %d", got.logs, least)
	}
	return nil
}

// Until is when a kept handshake no longer meets the demands that it meets now, or becomes degraded: a session must not be resumed after that, since the peer may have a new certificate or
// a new OCSP response.
func (p *Policy) Until(s *tls.ConnectionState, now time.Time) time.Time {
	margin := int(max(p.options.GetMinDaysLeft(), p.options.GetDegradedDaysLeft()))
	until, _ := earliest(s.PeerCertificates)
	until = until.Add(-time.Duration(margin) * day)
	if expiry, ok := ChainExpiry(s); ok {
		until = sooner(until, expiry.Add(-time.Duration(p.options.GetMinChainDaysLeft())*day))
	}
	if p.options.GetMustStaple() {
		until = sooner(until, readStaple(s, now).nextUpdate)
	}
	return until
}

const day = 24 * time.Hour

// short tells whether less than so many days are left until t.
func short(t, now time.Time, days int32) bool { return t.Sub(now) < time.Duration(days)*day }

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// subject is the subject of a certificate for a sentence.
func subject(c *x509.Certificate) string {
	return cmp.Or(clip(c.Subject.String(), 120), "(no subject)")
}

func date(t time.Time) string { return t.UTC().Format(time.DateTime) }

func base64Text(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
