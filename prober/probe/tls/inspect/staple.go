package inspect

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"
)

// What a stapled OCSP response says.
const (
	Good    = "good"
	Revoked = "revoked"
	Unknown = "unknown"
	// Invalid is one that proves nothing: garbled, of another certificate, not signed by the issuer, or not fresh.
	Invalid = "invalid"
)

// skew is how far a clock may be off: a response or a timestamp from so little in the future is taken.
const skew = 5 * time.Minute

// maxIssuers is how many certificates that bear the name of the issuer are tried: a peer may send many, and each costs a signature.
const maxIssuers = 8

// staple is a stapled OCSP response, as far as it can be believed.
type staple struct {
	status     string // empty without one
	problem    string // why it is invalid
	revokedAt  time.Time
	nextUpdate time.Time
	scts       []byte // the extension with signed certificate timestamps
}

// readStaple reads the OCSP response that was stapled to a handshake.
func readStaple(s *tls.ConnectionState, now time.Time) staple {
	if len(s.OCSPResponse) == 0 || len(s.PeerCertificates) == 0 {
		return staple{}
	}
	r, err := verifyStaple(s.OCSPResponse, s.PeerCertificates[0], issuer(s), now)
	if err != nil {
		return staple{status: Invalid, problem: err.Error()}
	}
	out := staple{nextUpdate: r.NextUpdate, revokedAt: r.RevokedAt}
	for _, e := range r.Extensions {
		if isTimestampsOCSP(e.Id) {
			out.scts = e.Value
		}
	}
	switch r.Status {
	case ocsp.Good:
		out.status = Good
	case ocsp.Revoked:
		out.status = Revoked
	default:
		out.status = Unknown
	}
	return out
}

// verifyStaple parses an OCSP response about a certificate and verifies that it is signed by its issuer, or by a certificate of that one's for signing such responses, and fresh (RFC 6960, sections 3.2
// and 4.2.2.2). The library verifies the signatures; whom the issuer appointed is verified here.
func verifyStaple(raw []byte, leaf, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	if issuer == nil {
		return nil, errors.New("the certificate of the issuer, which must have signed it, is not known")
	}
	r, err := ocsp.ParseResponseForCert(raw, leaf, issuer)
	var refused ocsp.ResponseError
	switch {
	case errors.As(err, &refused):
		return nil, fmt.Errorf("the responder answered with an error: %s", refused.Status)
	case err != nil:
		return nil, fmt.Errorf("it does not verify: %s", clip(strings.TrimPrefix(err.Error(), "ocsp: "), 200))
	}
	if by := r.Certificate; by != nil && !bytes.Equal(by.Raw, issuer.Raw) {
		switch {
		case !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return nil, fmt.Errorf("it is signed by %s, which the issuer did not appoint for that", subject(by))
		case now.After(by.NotAfter) || now.Before(by.NotBefore.Add(-skew)):
			return nil, fmt.Errorf("it is signed by %s, whose certificate is not valid today", subject(by))
		}
	}
	switch {
	case r.ThisUpdate.After(now.Add(skew)):
		return nil, fmt.Errorf("it is of %s, in the future", date(r.ThisUpdate))
	case r.NextUpdate.IsZero():
		return nil, errors.New("it does not say until when it holds")
	case now.After(r.NextUpdate):
		return nil, fmt.Errorf("it held until %s; the server has not fetched a new one", date(r.NextUpdate))
	}
	return r, nil
}

// issuer is the certificate that signed the peer's own: the next one in a verified chain, else one that the peer sent and that did sign it; nil when there is none.
func issuer(s *tls.ConnectionState) *x509.Certificate {
	for _, chain := range s.VerifiedChains {
		if len(chain) > 1 {
			return chain[1]
		}
		if len(chain) == 1 {
			return chain[0]
		}
	}
	leaf := s.PeerCertificates[0]
	tried := 0
	for _, c := range append(s.PeerCertificates[1:len(s.PeerCertificates):len(s.PeerCertificates)], leaf) {
		if !bytes.Equal(c.RawSubject, leaf.RawIssuer) {
			continue
		}
		if c.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature) == nil {
			return c
		}
		if tried++; tried == maxIssuers {
			return nil
		}
	}
	return nil
}
