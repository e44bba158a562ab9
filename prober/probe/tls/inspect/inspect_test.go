package inspect

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// judge compiles options and judges a handshake.
func judge(t *testing.T, o *meshv1.TlsConfig, s *tls.ConnectionState) string {
	t.Helper()
	p, err := Compile(o, nil, "a.example")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(s, now()); err != nil {
		return err.Error()
	}
	return ""
}

func want(t *testing.T, got, part string) {
	t.Helper()
	if (got == "") != (part == "") || !strings.Contains(got, part) {
		t.Errorf("got %q, want %q", got, part)
	}
}

func TestDaysLeftAreJudgedOfEveryCertificateSentAndOfTheChain(t *testing.T) {
	root := authority(t)
	short := issue(t, root, newKey(t), "intermediate", func(c *x509.Certificate) { c.IsCA, c.NotAfter = true, now().AddDate(0, 0, 7) })
	leaf := issue(t, short, newKey(t), "a.example", nil)
	s := state(false, leaf, short)
	s.VerifiedChains = [][]*x509.Certificate{{leaf.Certificate, short.Certificate, root.Certificate}}
	want(t, judge(t, &meshv1.TlsConfig{MinDaysLeft: 7}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{MinDaysLeft: 8}, s), "the certificate of CN=intermediate expires on 2026-06-08 12:00:00, in 7 days, and tls.min_days_left is 8")
	want(t, judge(t, &meshv1.TlsConfig{MinChainDaysLeft: 7}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{MinChainDaysLeft: 8}, s), "the verified chain expires on")
	// Another path, without the one that expires: the chain is as good as its best path, what is sent is not.
	s.VerifiedChains = append(s.VerifiedChains, []*x509.Certificate{leaf.Certificate, root.Certificate})
	want(t, judge(t, &meshv1.TlsConfig{MinChainDaysLeft: 30}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{MinDaysLeft: 30}, s), "CN=intermediate")
	want(t, Degraded(&meshv1.TlsConfig{DegradedDaysLeft: 7}, s, now()), "")
	want(t, Degraded(&meshv1.TlsConfig{DegradedDaysLeft: 8}, s, now()), "degraded_days_left is 8")
	p, _ := Compile(&meshv1.TlsConfig{MinDaysLeft: 2, DegradedDaysLeft: 5}, nil, "")
	if until := p.Until(s, now()); !until.Equal(now().AddDate(0, 0, 2)) {
		t.Errorf("holds until %s", until)
	}
	r := Response(s, now())
	if r.DaysLeft != 7 || r.ChainDaysLeft != 30 || !slices.Equal(r.CertificatesDaysLeft, []int64{30, 7}) || r.KeyType != "ECDSA" || r.KeyBits != 256 || r.SignatureAlgorithm != "ECDSA-SHA256" ||
		r.SelfSigned || r.Group != "X25519MLKEM768" || r.Serial != "56" {
		t.Errorf("got %v", r)
	}
	if r := Result(s); len(r.CertificateExpiries) != 2 || !r.EarliestExpiry.AsTime().Equal(now().AddDate(0, 0, 7)) || !r.ChainExpiry.AsTime().Equal(now().AddDate(0, 0, 30)) {
		t.Errorf("got %v", r)
	}
	if c := Certificate(short.Certificate, now()); c.DaysLeft != 7 || c.Key != "ECDSA 256" || c.SignatureAlgorithm != "ECDSA-SHA256" {
		t.Errorf("got %v", c)
	}
}

func TestKeysAndSignaturesMustBeStrongEnough(t *testing.T) {
	root := authority(t)
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	withRSA := state(true, issue(t, root, small, "a.example", nil))
	want(t, judge(t, &meshv1.TlsConfig{MinRsaBits: 2048, MinEcBits: 521}, withRSA), "")
	want(t, judge(t, &meshv1.TlsConfig{MinRsaBits: 3072}, withRSA), "the RSA key in the certificate of CN=a.example has 2048 bits, and the check demands 3072")
	want(t, judge(t, &meshv1.TlsConfig{MinEcBits: 256}, state(true, issue(t, root, p224, "a.example", nil))), "ECDSA key in the certificate of CN=a.example has 224 bits")
	want(t, judge(t, &meshv1.TlsConfig{MinEcBits: 256}, state(true, issue(t, root, edwards, "a.example", nil))), "")
	want(t, judge(t, &meshv1.TlsConfig{MinEcBits: 384}, state(true, issue(t, root, edwards, "a.example", nil))), "Ed25519 key")
	want(t, judge(t, &meshv1.TlsConfig{SignatureAlgorithms: []string{"ECDSA-SHA256"}}, withRSA), "")
	want(t, judge(t, &meshv1.TlsConfig{SignatureAlgorithms: []string{"SHA256-RSA", "Ed25519"}}, withRSA), "is signed by ECDSA-SHA256, which is not among tls.signature_algorithms")
	want(t, judge(t, &meshv1.TlsConfig{SignatureAlgorithms: []string{"Ed25519"}}, state(true, root)), "")
	want(t, judge(t, &meshv1.TlsConfig{CipherSuites: []string{"TLS_AES_256_GCM_SHA384"}}, withRSA), "chose the cipher suite TLS_AES_128_GCM_SHA256, which is not among")
	want(t, judge(t, &meshv1.TlsConfig{CipherSuites: []string{"TLS_AES_128_GCM_SHA256"}}, withRSA), "")
}

func TestOnlyWhatIsProvenMatchesAPin(t *testing.T) {
	root, other := authority(t), authority(t)
	leaf := issue(t, root, newKey(t), "a.example", nil)
	pinOf := func(e *entity) *meshv1.TlsConfig {
		sum := sha256.Sum256(e.Raw)
		return &meshv1.TlsConfig{CertificatePins: []string{strings.ToUpper(hex.EncodeToString(sum[:]))}}
	}
	keyOf := func(e *entity) *meshv1.TlsConfig {
		sum := sha256.Sum256(e.RawSubjectPublicKeyInfo)
		return &meshv1.TlsConfig{PublicKeyPins: []string{"sha256//" + base64.StdEncoding.EncodeToString(sum[:])}}
	}
	verified, unverified := state(true, leaf, root), state(false, leaf, root, other)
	for name, c := range map[string]struct {
		o    *meshv1.TlsConfig
		s    *tls.ConnectionState
		want string
	}{
		"leaf":                        {pinOf(leaf), verified, ""},
		"root":                        {pinOf(root), verified, ""},
		"key of the root":             {keyOf(root), verified, ""},
		"other":                       {pinOf(other), verified, "no certificate of the chain is among tls.certificate_pins"},
		"other key":                   {keyOf(other), verified, "no key of the chain is among tls.public_key_pins"},
		"leaf, unverified":            {pinOf(leaf), unverified, ""},
		"key of the leaf, unverified": {keyOf(leaf), unverified, ""},
		"sent along, unverified":      {pinOf(other), unverified, "no certificate"},
		"key of what is sent along, not verified": {keyOf(root), unverified, "no key"},
	} {
		t.Run(name, func(t *testing.T) { want(t, judge(t, c.o, c.s), c.want) })
	}
}

func TestAStapleMustBeTheIssuersAndGoodAndFresh(t *testing.T) {
	root, other := authority(t), authority(t)
	leaf, sibling := issue(t, root, newKey(t), "a.example", nil), issue(t, root, newKey(t), "sibling.example", nil)
	appointed := issue(t, root, newKey(t), "responder", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })
	retired := issue(t, root, newKey(t), "responder", func(c *x509.Certificate) {
		c.ExtKeyUsage, c.NotAfter = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, now().AddDate(0, 0, -1)
	})
	at := func(this, next time.Duration) func(*ocsp.Response) {
		return func(r *ocsp.Response) { r.ThisUpdate, r.NextUpdate = now().Add(this), now().Add(next) }
	}
	revoked := func(r *ocsp.Response) {
		r.Status, r.RevokedAt, r.RevocationReason = ocsp.Revoked, now().AddDate(0, 0, -3), ocsp.KeyCompromise
	}
	for name, c := range map[string]struct {
		raw           []byte
		must, without string // what must_staple says, and what is said without it
		status        string
	}{
		"none":                     {nil, "staples no OCSP response", "", ""},
		"good":                     {respond(t, leaf, root, root, nil), "", "", Good},
		"good by an appointed one": {respond(t, leaf, root, appointed, nil), "", "", Good},
		"by a sibling":             {respond(t, leaf, root, sibling, nil), "signed by CN=sibling.example, which the issuer did not appoint", "", Invalid},
		"revoked by a sibling":     {respond(t, leaf, root, sibling, revoked), "did not appoint", "", Invalid},
		"by a retired one":         {respond(t, leaf, root, retired, nil), "not valid today", "", Invalid},
		"by another authority":     {respond(t, leaf, other, other, nil), "does not verify", "", Invalid},
		"of a sibling":             {respond(t, sibling, root, root, nil), "does not verify", "", Invalid},
		"stale":                    {respond(t, leaf, root, root, at(-48*time.Hour, -time.Minute)), "held until 2026-06-01 11:59:00", "", Invalid},
		"of tomorrow":              {respond(t, leaf, root, root, at(24*time.Hour, 48*time.Hour)), "in the future", "", Invalid},
		"a minute ahead":           {respond(t, leaf, root, root, at(time.Minute, 48*time.Hour)), "", "", Good},
		"without an end":           {respond(t, leaf, root, root, func(r *ocsp.Response) { r.NextUpdate = time.Time{} }), "until when it holds", "", Invalid},
		"revoked":                  {respond(t, leaf, root, root, revoked), "is revoked since 2026-05-29", "is revoked since 2026-05-29", Revoked},
		"unknown":                  {respond(t, leaf, root, root, func(r *ocsp.Response) { r.Status = ocsp.Unknown }), "it says that the certificate is unknown", "", Unknown},
		"an error":                 {ocsp.TryLaterErrorResponse, "answered with an error: try later", "", Invalid},
		"garbled":                  {[]byte("not DER"), "does not verify", "", Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			for _, verified := range []bool{true, false} {
				s := state(verified, leaf, root)
				s.OCSPResponse = c.raw
				want(t, judge(t, &meshv1.TlsConfig{MustStaple: true}, s), c.must)
				want(t, judge(t, &meshv1.TlsConfig{}, s), c.without)
				if got := Response(s, now()).Ocsp; got != c.status {
					t.Errorf("status %q, want %q", got, c.status)
				}
			}
		})
	}
	s := state(false, leaf, root)
	s.OCSPResponse = respond(t, leaf, root, root, revoked)
	want(t, judge(t, &meshv1.TlsConfig{InsecureSkipVerify: true}, s), "")
	s = state(false, leaf)
	s.OCSPResponse = respond(t, leaf, root, root, nil)
	want(t, judge(t, &meshv1.TlsConfig{MustStaple: true}, s), "the certificate of the issuer, which must have signed it, is not known")
	s = state(true, leaf, root)
	s.OCSPResponse = respond(t, leaf, root, root, nil)
	p, _ := Compile(&meshv1.TlsConfig{MustStaple: true}, nil, "")
	if until := p.Until(s, now()); !until.Equal(now().Add(24 * time.Hour)) {
		t.Errorf("holds until %s, not until the end of the staple", until)
	}
}

func TestTimestampsAreCountedByLogAndVerifiedByTheirKeys(t *testing.T) {
	root := authority(t)
	one, two, three := log{newKey(t)}, log{newKey(t)}, log{newKey(t)}
	leaf := logged(t, root, "a.example", one, two)
	s := state(true, leaf, root)
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 2}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 3}, s), "has signed timestamps of 2 logs, and tls.min_scts is 3")
	keys := []string{one.text(t), two.text(t), three.text(t)}
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 2, SctLogKeys: keys}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 2, SctLogKeys: keys[1:]}, s), "of 1 logs")

	// In the TLS extension, over the certificate itself; one of a log that has signed already counts once.
	day := now().AddDate(0, 0, -1)
	s.SignedCertificateTimestamps = [][]byte{three.stamp(t, 0, nil, leaf.Raw, day), one.stamp(t, 0, nil, leaf.Raw, day)}
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 3, SctLogKeys: keys}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 4}, s), "of 3 logs")
	if got := Response(s, now()).Scts; got != 3 {
		t.Errorf("%d timestamps", got)
	}

	// In the OCSP response.
	bare := issue(t, root, newKey(t), "a.example", nil)
	s = state(true, bare, root)
	s.OCSPResponse = respond(t, bare, root, root, func(r *ocsp.Response) {
		r.ExtraExtensions = []pkix.Extension{extension(t, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 5}, list(one.stamp(t, 0, nil, bare.Raw, day)))}
	})
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 1, SctLogKeys: keys}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 2}, s), "of 1 logs")

	// A forged one, one of tomorrow, one of a version to come, one that is cut.
	forged := one.stamp(t, 0, nil, root.Raw, day)
	s = state(true, bare, root)
	s.SignedCertificateTimestamps = [][]byte{forged}
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 1}, s), "")
	want(t, judge(t, &meshv1.TlsConfig{SctLogKeys: keys}, s), "a timestamp in the TLS extension claims to be of a log of tls.sct_log_keys and is not: its signature does not verify")
	s.SignedCertificateTimestamps = [][]byte{one.stamp(t, 0, nil, bare.Raw, now().AddDate(0, 0, 1)), {1, 2, 3}}
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 1}, s), "of 0 logs")
	s.SignedCertificateTimestamps = [][]byte{forged[:len(forged)-1]}
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 1}, s), "the list in the TLS extension is malformed: a timestamp is cut short")
	s.SignedCertificateTimestamps = [][]byte{append(slices.Clone(forged), 0)}
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 1}, s), "something stands behind a timestamp")
	garbled := issue(t, root, newKey(t), "a.example", func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{extension(t, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, []byte{0, 5, 1})}
	})
	want(t, judge(t, &meshv1.TlsConfig{MinScts: 1}, state(true, garbled, root)), "the list in the certificate is malformed")
}

func TestTimestampsWithoutEndAreNotAllLookedAt(t *testing.T) {
	root := authority(t)
	leaf := issue(t, root, newKey(t), "a.example", nil)
	s := state(true, leaf, root)
	one := log{newKey(t)}
	for range 100 {
		s.SignedCertificateTimestamps = append(s.SignedCertificateTimestamps, one.stamp(t, 0, nil, root.Raw, now()))
	}
	hundred := s.SignedCertificateTimestamps
	for range 100 {
		s.SignedCertificateTimestamps = append(s.SignedCertificateTimestamps, hundred...)
	}
	begin := time.Now()
	want(t, judge(t, &meshv1.TlsConfig{SctLogKeys: []string{one.text(t)}}, s), "does not verify")
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestWhatIsSelfSignedIsTrustedOnlyIfAskedForAndForItsNameAndTime(t *testing.T) {
	own := issue(t, nil, newKey(t), "a.example", nil)
	allowed := &meshv1.TlsConfig{AllowSelfSigned: true}
	want(t, judge(t, allowed, state(false, own)), "")
	if !Response(state(false, own), now()).SelfSigned {
		t.Error("it is not told to be self-signed")
	}
	want(t, judge(t, allowed, state(false, issue(t, nil, newKey(t), "b.example", nil))), "is valid for b.example, not a.example")
	expired := issue(t, nil, newKey(t), "a.example", func(c *x509.Certificate) { c.NotAfter = now().Add(-time.Hour) })
	want(t, judge(t, allowed, state(false, expired)), "expired")
	root := authority(t)
	want(t, judge(t, allowed, state(false, issue(t, root, newKey(t), "a.example", nil), root)), "unknown authority")
	pool := x509.NewCertPool()
	pool.AddCert(root.Certificate)
	p, err := Compile(allowed, pool, "a.example")
	if err != nil || !p.SelfSigned() {
		t.Fatal(err)
	}
	if err := p.Check(state(false, issue(t, root, newKey(t), "a.example", nil), root), now()); err != nil {
		t.Error(err)
	}
	// Without a name there is nothing to verify by.
	p, _ = Compile(allowed, nil, "")
	s := state(false, own)
	s.ServerName = ""
	if err := p.Check(s, now()); err == nil || !strings.Contains(err.Error(), "no name") {
		t.Error(err)
	}
}
