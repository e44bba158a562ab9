// Package inspect looks at what a TLS handshake showed: it tells it in the terms of results and expectations, and judges it by what a check demands.
//
// Everything here is a pure function of the state of a connection, the options of the check and the time, so that a resumed session, whose certificates are those of
// the handshake that it began with, is judged as of now.
//
//	Compile(options) -> Policy.Check(state, now) -> nil or a sentence
//	                    Policy.Until(state, now) -> when that will change
//	Result(state), Response(state, now), Certificate(certificate, now)
//
// What a peer sends is bounded before it comes here: crypto/tls refuses messages of more than 64 KiB, and certificate messages of more than 256 KiB. The formats that crypto/tls
// does not take apart are parsed strictly: an OCSP response by golang.org/x/crypto/ocsp, a list of signed certificate timestamps here.
package inspect

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unique"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of what is told, as the protos document them.
const (
	maxExpiries    = 8
	maxDays        = 32
	maxNames       = 1000
	maxText        = 1024
	maxIssuersTold = 4
	maxIssuer      = 512
)

// Result is the part of a result about a handshake.
func Result(s *tls.ConnectionState) *meshv1.TlsResult {
	r := &meshv1.TlsResult{Version: Version(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite), Resumed: s.DidResume,
		Group: spec.TLSGroupName(s.CurveID), Alpn: clip(s.NegotiatedProtocol, 255)}
	if expiry, ok := earliest(s.PeerCertificates); ok {
		r.EarliestExpiry = timestamppb.New(expiry)
	}
	if expiry, ok := ChainExpiry(s); ok {
		r.ChainExpiry = timestamppb.New(expiry)
	}
	for _, c := range s.PeerCertificates[:min(len(s.PeerCertificates), maxExpiries)] {
		r.CertificateExpiries = append(r.CertificateExpiries, timestamppb.New(c.NotAfter))
	}
	return r
}

// Issuers are who issued the certificates of a chain, in its order, without repetition and at most four, as RFC 2253 text. Texts that many checks share are kept once.
func Issuers(chain []*x509.Certificate) []string {
	var list []string
	for _, c := range chain {
		if len(list) == maxIssuersTold {
			break
		}
		text := clip(c.Issuer.String(), maxIssuer)
		if text != "" && !slices.Contains(list, text) {
			list = append(list, unique.Make(text).Value())
		}
	}
	return list
}

// Response is what expectations see of a handshake.
func Response(s *tls.ConnectionState, now time.Time) *meshv1.ResponseTls {
	r := &meshv1.ResponseTls{Version: Version(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite), ChainLength: int64(len(s.PeerCertificates)), Resumed: s.DidResume,
		Group: spec.TLSGroupName(s.CurveID), Alpn: clip(s.NegotiatedProtocol, 255)}
	if expiry, ok := earliest(s.PeerCertificates); ok {
		r.DaysLeft = Days(expiry, now)
	}
	if expiry, ok := ChainExpiry(s); ok {
		r.ChainDaysLeft = Days(expiry, now)
	}
	for _, c := range s.PeerCertificates[:min(len(s.PeerCertificates), maxDays)] {
		r.CertificatesDaysLeft = append(r.CertificatesDaysLeft, Days(c.NotAfter, now))
	}
	if len(s.PeerCertificates) == 0 {
		return r
	}
	leaf := s.PeerCertificates[0]
	r.Subject, r.Issuer = clip(leaf.Subject.String(), maxText), clip(leaf.Issuer.String(), maxText)
	r.Names = Names(leaf, maxNames)
	r.KeyType, r.KeyBits = key(leaf)
	r.SignatureAlgorithm = leaf.SignatureAlgorithm.String()
	r.SelfSigned = SelfSigned(leaf)
	sum, public := sha256.Sum256(leaf.Raw), sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	r.Sha256, r.PublicKeySha256 = hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(public[:])
	r.Serial = clip(leaf.SerialNumber.Text(16), 64)
	staple := readStaple(s, now)
	r.Ocsp = staple.status
	r.Scts = int64(countTimestamps(s, staple, nil, now).logs)
	return r
}

// Certificate is the summary of a certificate for the evidence.
func Certificate(c *x509.Certificate, now time.Time) *meshv1.Certificate {
	sum := sha256.Sum256(c.Raw)
	out := &meshv1.Certificate{
		Subject:            clip(c.Subject.String(), 512),
		Issuer:             clip(c.Issuer.String(), maxIssuer),
		Serial:             clip(c.SerialNumber.Text(16), 64),
		Names:              Names(c, 32),
		NotBefore:          timestamppb.New(c.NotBefore),
		NotAfter:           timestamppb.New(c.NotAfter),
		Sha256:             hex.EncodeToString(sum[:]),
		DaysLeft:           int32(Days(c.NotAfter, now)),
		SignatureAlgorithm: c.SignatureAlgorithm.String(),
	}
	if kind, bits := key(c); kind != "" {
		out.Key = fmt.Sprintf("%s %d", kind, bits)
	}
	return out
}

// Version is "1.2" for tls.VersionTLS12.
func Version(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "1.0"
	case tls.VersionTLS11:
		return "1.1"
	case tls.VersionTLS12:
		return "1.2"
	case tls.VersionTLS13:
		return "1.3"
	}
	return fmt.Sprintf("0x%04x", v)
}

// Names are the names and addresses that a certificate is for, at most so many.
func Names(c *x509.Certificate, most int) []string {
	if c == nil {
		return nil
	}
	var names []string
	for _, n := range c.DNSNames {
		if len(names) < most {
			names = append(names, clip(n, 256))
		}
	}
	for _, ip := range c.IPAddresses {
		if len(names) < most {
			names = append(names, ip.String())
		}
	}
	return names
}

// Days are the whole days from now until t, negative once it has passed.
func Days(t, now time.Time) int64 {
	return int64(math.Floor(t.Sub(now).Hours() / 24))
}

// ChainExpiry is when the verified chain that lasts longest expires.
func ChainExpiry(s *tls.ConnectionState) (longest time.Time, ok bool) {
	for _, chain := range s.VerifiedChains {
		if expiry, any := earliest(chain); any && (!ok || expiry.After(longest)) {
			longest, ok = expiry, true
		}
	}
	return longest, ok
}

// earliest is when the first of the certificates expires.
func earliest(certs []*x509.Certificate) (t time.Time, ok bool) {
	for _, c := range certs {
		if !ok || c.NotAfter.Before(t) {
			t, ok = c.NotAfter, true
		}
	}
	return t, ok
}

// SelfSigned tells whether a certificate is signed by its own key. An algorithm that is too weak to verify is as good as any here: what one signs oneself proves nothing.
func SelfSigned(c *x509.Certificate) bool {
	if !bytes.Equal(c.RawIssuer, c.RawSubject) {
		return false
	}
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	var weak x509.InsecureAlgorithmError
	return err == nil || errors.As(err, &weak)
}

// key is the kind and the size of a certificate's key.
func key(c *x509.Certificate) (kind string, bits int64) {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return "RSA", int64(k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA", int64(k.Curve.Params().BitSize)
	case ed25519.PublicKey:
		return "Ed25519", 256
	}
	return "", 0
}

// clip cuts a text at a number of bytes, leaving valid UTF-8.
func clip(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}
