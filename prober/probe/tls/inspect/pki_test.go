package inspect

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/ocsp"
)

// now is when the tests are.
func now() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

// entity is a certificate with its key.
type entity struct {
	*x509.Certificate
	key crypto.Signer
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate, signed by its own key when by is nil.
func issue(t testing.TB, by *entity, key crypto.Signer, name string, change func(*x509.Certificate)) *entity {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(int64(len(name)) + 77), Subject: pkix.Name{CommonName: name}, NotBefore: now().AddDate(0, 0, -10), NotAfter: now().AddDate(0, 0, 30),
		DNSNames: []string{name}, BasicConstraintsValid: true}
	if change != nil {
		change(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.Certificate, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &entity{c, key}
}

func authority(t testing.TB) *entity {
	return issue(t, nil, newKey(t), "root", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage, c.DNSNames, c.NotAfter = true, x509.KeyUsageCertSign, nil, now().AddDate(5, 0, 0)
	})
}

// state is a handshake of TLS 1.3 with the certificates sent, the first verified through the others when verified is true.
func state(verified bool, sent ...*entity) *tls.ConnectionState {
	s := &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, ServerName: "a.example", CurveID: tls.X25519MLKEM768}
	for _, e := range sent {
		s.PeerCertificates = append(s.PeerCertificates, e.Certificate)
	}
	if verified {
		s.VerifiedChains = [][]*x509.Certificate{s.PeerCertificates}
	}
	return s
}

// respond makes an OCSP response about leaf, good and of today unless changed, signed by signer for issuer.
func respond(t testing.TB, leaf, issuer, signer *entity, change func(*ocsp.Response)) []byte {
	t.Helper()
	r := ocsp.Response{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now().Add(-time.Hour), NextUpdate: now().Add(24 * time.Hour)}
	if signer != issuer {
		r.Certificate = signer.Certificate
	}
	if change != nil {
		change(&r)
	}
	der, err := ocsp.CreateResponse(issuer.Certificate, signer.Certificate, r, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// log is a log of certificate transparency.
type log struct{ key *ecdsa.PrivateKey }

func (l log) der(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(l.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// text is the key as an option.
func (l log) text(t testing.TB) string { return base64.StdEncoding.EncodeToString(l.der(t)) }

// stamp signs an entry at a time; the entry is written by hand here, from RFC 6962, section 3.2.
func (l log) stamp(t testing.TB, kind uint16, issuerKey, body []byte, at time.Time) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddBytes([]byte{0, 0})
	b.AddUint64(uint64(at.UnixMilli()))
	b.AddUint16(kind)
	if kind == 1 {
		sum := sha256.Sum256(issuerKey)
		b.AddBytes(sum[:])
	}
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(body) })
	b.AddUint16(0)
	text := b.BytesOrPanic()
	sum := sha256.Sum256(text)
	signature, err := ecdsa.SignASN1(rand.Reader, l.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(l.der(t))
	var out cryptobyte.Builder
	out.AddUint8(0)
	out.AddBytes(id[:])
	out.AddUint64(uint64(at.UnixMilli()))
	out.AddUint16(0)
	out.AddBytes([]byte{4, 3})
	out.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(signature) })
	return out.BytesOrPanic()
}

// list serialises timestamps.
func list(stamps ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, s := range stamps {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(s) })
		}
	})
	return b.BytesOrPanic()
}

// extension is a list as an extension.
func extension(t testing.TB, id asn1.ObjectIdentifier, raw []byte) pkix.Extension {
	t.Helper()
	value, err := asn1.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: id, Value: value}
}

// logged makes a certificate with timestamps of logs in it: first without, for the logs to sign, then with.
func logged(t testing.TB, by *entity, name string, logs ...log) *entity {
	t.Helper()
	key := newKey(t)
	bare := issue(t, by, key, name, nil)
	var stamps [][]byte
	for _, l := range logs {
		stamps = append(stamps, l.stamp(t, 1, by.RawSubjectPublicKeyInfo, bare.RawTBSCertificate, now().AddDate(0, 0, -9)))
	}
	return issue(t, by, key, name, func(c *x509.Certificate) {
		c.ExtraExtensions = []pkix.Extension{extension(t, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, list(stamps...))}
	})
}
