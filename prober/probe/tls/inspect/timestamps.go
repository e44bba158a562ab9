package inspect

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// isTimestamps tells whether an extension of a certificate is its list of signed certificate timestamps (RFC 6962, section 3.3).
func isTimestamps(id asn1.ObjectIdentifier) bool {
	return id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2})
}

// isTimestampsOCSP is isTimestamps for the extensions of an OCSP response.
func isTimestampsOCSP(id asn1.ObjectIdentifier) bool {
	return id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 5})
}

// maxTimestamps is how many timestamps of a handshake are looked at. Certificates have two to five.
const maxTimestamps = 64

// Timestamp is a signed certificate timestamp of version 1 (RFC 6962, section 3.2).
type Timestamp struct {
	// LogID is the SHA-256 of the log's public key.
	LogID [sha256.Size]byte
	// Millis is when the log saw the certificate, in milliseconds since 1970.
	Millis uint64
	// Extensions is empty as yet.
	Extensions []byte
	// Hash and Algorithm are what Signature was made by, in the numbers of TLS 1.2.
	Hash, Algorithm uint8
	// Signature is what the log signed.
	Signature []byte
}

// ParseTimestamp parses one serialised timestamp. ok is false, without an error, when it is of a version that is not known, which RFC 6962 lets clients ignore.
func ParseTimestamp(raw []byte) (t Timestamp, ok bool, err error) {
	s := cryptobyte.String(raw)
	var version uint8
	if !s.ReadUint8(&version) {
		return t, false, errors.New("a timestamp is empty")
	}
	if version != 0 {
		return t, false, nil
	}
	var extensions, signature cryptobyte.String
	if !s.CopyBytes(t.LogID[:]) || !s.ReadUint64(&t.Millis) || !s.ReadUint16LengthPrefixed(&extensions) || !s.ReadUint8(&t.Hash) || !s.ReadUint8(&t.Algorithm) ||
		!s.ReadUint16LengthPrefixed(&signature) {
		return t, false, errors.New("a timestamp is cut short")
	}
	if !s.Empty() {
		return t, false, errors.New("something stands behind a timestamp")
	}
	t.Extensions, t.Signature = extensions, signature
	return t, true, nil
}

// SplitTimestamps takes a list of serialised timestamps apart. It has at least one, and nothing stands behind it.
func SplitTimestamps(raw []byte) ([][]byte, error) {
	s := cryptobyte.String(raw)
	var list cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&list) || !s.Empty() || list.Empty() {
		return nil, errors.New("its length is not that of its contents, or it is empty")
	}
	var out [][]byte
	for !list.Empty() {
		var one cryptobyte.String
		if !list.ReadUint16LengthPrefixed(&one) || one.Empty() {
			return nil, errors.New("an entry is cut short or empty")
		}
		out = append(out, one)
	}
	return out, nil
}

// splitExtension takes a list apart that stands in an extension, as an OCTET STRING.
func splitExtension(value []byte) ([][]byte, error) {
	s := cryptobyte.String(value)
	var list cryptobyte.String
	if !s.ReadASN1(&list, cbasn1.OCTET_STRING) || !s.Empty() {
		return nil, errors.New("it is no OCTET STRING")
	}
	return SplitTimestamps(list)
}

// timestamps is what was found of timestamps in a handshake.
type timestamps struct {
	logs     int      // different logs
	problems []string // lists that cannot be read
	forged   string   // the sentence about one that claims to be of a given log and is not
}

// countTimestamps counts the logs that have timestamps in the handshake: with keys only those of the keys' logs, verified.
func countTimestamps(s *tls.ConnectionState, staple staple, keys map[[sha256.Size]byte]crypto.PublicKey, now time.Time) timestamps {
	var got timestamps
	leaf := s.PeerCertificates[0]
	logs, seen := make(map[[sha256.Size]byte]bool), 0
	take := func(where string, list [][]byte, err error, entry func() ([]byte, error)) {
		for _, raw := range list {
			if seen++; err != nil || seen > maxTimestamps {
				break
			}
			t, known, wrong := ParseTimestamp(raw)
			if err = wrong; err != nil || !known || t.Millis > uint64(now.Add(skew).UnixMilli()) {
				continue
			}
			if keys != nil {
				key, given := keys[t.LogID]
				if !given {
					continue
				}
				if reason := verifyTimestamp(t, key, entry); reason != nil {
					got.forged = fmt.Sprintf("a timestamp in %s claims to be of a log of tls.sct_log_keys and is not: %s", where, reason)
					continue
				}
			}
			logs[t.LogID] = true
		}
		if err != nil {
			got.problems = append(got.problems, fmt.Sprintf("the list in %s is malformed: %s", where, err))
		}
	}
	for _, e := range leaf.Extensions {
		if isTimestamps(e.Id) {
			list, err := splitExtension(e.Value)
			take("the certificate", list, err, func() ([]byte, error) { return precertEntry(leaf, issuer(s)) })
		}
	}
	whole := func() ([]byte, error) { return certEntry(leaf) }
	take("the TLS extension", s.SignedCertificateTimestamps, nil, whole)
	if len(staple.scts) > 0 {
		list, err := splitExtension(staple.scts)
		take("the OCSP response", list, err, whole)
	}
	got.logs = len(logs)
	return got
}

// verifyTimestamp verifies that a log signed a timestamp of an entry: the certificate, or what it was before timestamps were put into it.
func verifyTimestamp(t Timestamp, key crypto.PublicKey, entry func() ([]byte, error)) error {
	signed, err := entry()
	if err != nil {
		return err
	}
	var b cryptobyte.Builder
	b.AddUint8(0) // version 1
	b.AddUint8(0) // certificate_timestamp
	b.AddUint64(t.Millis)
	b.AddBytes(signed)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(t.Extensions) })
	text, err := b.Bytes()
	if err != nil {
		return err
	}
	const hashSHA256, signedByRSA, signedByECDSA = 4, 1, 3
	sum := sha256.Sum256(text)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if t.Hash == hashSHA256 && t.Algorithm == signedByECDSA && ecdsa.VerifyASN1(k, sum[:], t.Signature) {
			return nil
		}
	case *rsa.PublicKey:
		if t.Hash == hashSHA256 && t.Algorithm == signedByRSA && rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], t.Signature) == nil {
			return nil
		}
	}
	return errors.New("its signature does not verify")
}

// certEntry is a certificate as a log signs it: its type, 0, and the certificate.
func certEntry(leaf *x509.Certificate) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint16(0)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(leaf.Raw) })
	return b.Bytes()
}

// precertEntry is a certificate as a log signs it before timestamps are put into it: its type, 1, the hash of the issuer's key, and what is to be signed without the list of timestamps.
func precertEntry(leaf, issuer *x509.Certificate) ([]byte, error) {
	if issuer == nil {
		return nil, errors.New("the certificate of the issuer is not known")
	}
	tbs, err := withoutTimestamps(leaf.RawTBSCertificate)
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	var b cryptobyte.Builder
	b.AddUint16(1)
	b.AddBytes(hash[:])
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(tbs) })
	return b.Bytes()
}

// withoutTimestamps is the to-be-signed part of a certificate without the extension that has the list of timestamps; everything else stays as it is, byte for byte.
func withoutTimestamps(raw []byte) ([]byte, error) {
	malformed := errors.New("the certificate cannot be taken apart")
	s := cryptobyte.String(raw)
	var body cryptobyte.String
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, malformed
	}
	extensionsTag := cbasn1.Tag(3).Constructed().ContextSpecific()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for !body.Empty() {
			var element cryptobyte.String
			var tag cbasn1.Tag
			if !body.ReadAnyASN1Element(&element, &tag) {
				b.SetError(malformed)
				return
			}
			if tag != extensionsTag {
				b.AddBytes(element)
				continue
			}
			var explicit, list cryptobyte.String
			if !element.ReadASN1(&explicit, extensionsTag) || !explicit.ReadASN1(&list, cbasn1.SEQUENCE) || !explicit.Empty() {
				b.SetError(malformed)
				return
			}
			b.AddASN1(extensionsTag, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { copyExtensions(b, list, malformed) })
			})
		}
	})
	return b.Bytes()
}

// copyExtensions copies all extensions but the list of timestamps.
func copyExtensions(b *cryptobyte.Builder, list cryptobyte.String, malformed error) {
	for !list.Empty() {
		var element cryptobyte.String
		if !list.ReadASN1Element(&element, cbasn1.SEQUENCE) {
			b.SetError(malformed)
			return
		}
		parts, id := element, asn1.ObjectIdentifier(nil)
		var fields cryptobyte.String
		if !parts.ReadASN1(&fields, cbasn1.SEQUENCE) || !fields.ReadASN1ObjectIdentifier(&id) {
			b.SetError(malformed)
			return
		}
		if !isTimestamps(id) {
			b.AddBytes(element)
		}
	}
}
