package probe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TLSConfig makes the configuration that the options ask for. host is the name to send and verify unless the options have another; empty leaves it to
// the caller. The error says which option is not valid.
func TLSConfig(t *meshv1.TlsConfig, host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.GetInsecureSkipVerify()} //nolint:gosec // asked for by the check
	if t.GetServerName() != "" {
		c.ServerName = t.ServerName
	}
	if v := t.GetMinVersion(); v != "" {
		number, ok := spec.TLSVersion(v)
		if !ok {
			return nil, fmt.Errorf("min_version: %q is not a version of TLS", v)
		}
		c.MinVersion = number
	}
	if t.GetCaPem() != "" {
		pool, err := spec.CertPool(t.CaPem)
		if err != nil {
			return nil, fmt.Errorf("ca_pem: %w", err)
		}
		c.RootCAs = pool
	}
	if t.GetClientCertificatePem() != "" {
		cert, err := tls.X509KeyPair([]byte(t.ClientCertificatePem), []byte(t.ClientKeyPem))
		if err != nil {
			return nil, fmt.Errorf("client_certificate_pem: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// Handshake completes a TLS handshake over conn in phase HANDSHAKE and notes what it showed. conn stays the caller's to close when it fails.
func Handshake(ctx context.Context, a *Attempt, conn net.Conn, config *tls.Config) (*tls.Conn, error) {
	a.Enter(meshv1.Result_HANDSHAKE)
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		NoteHandshakeError(a, err)
		return nil, err
	}
	state := secure.ConnectionState()
	a.Secured(&state, !config.InsecureSkipVerify)
	return secure, nil
}

// NoteHandshakeError keeps the chain that a failed handshake was about, for the evidence.
func NoteHandshakeError(a *Attempt, err error) {
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) {
		a.Rejected(verification.UnverifiedCertificates)
	}
}

// tlsResult is the part of a result about a handshake.
func tlsResult(s *tls.ConnectionState) *meshv1.TlsResult {
	r := &meshv1.TlsResult{Version: versionText(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite)}
	if expiry, ok := earliestExpiry(s.PeerCertificates); ok {
		r.EarliestExpiry = timestamppb.New(expiry)
	}
	var longest time.Time
	for _, chain := range s.VerifiedChains {
		if expiry, ok := earliestExpiry(chain); ok && expiry.After(longest) {
			longest = expiry
		}
	}
	if !longest.IsZero() {
		r.ChainExpiry = timestamppb.New(longest)
	}
	return r
}

// responseTLS is what expectations see of a handshake.
func responseTLS(s *tls.ConnectionState, now time.Time) *meshv1.ResponseTls {
	r := &meshv1.ResponseTls{Version: versionText(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite), ChainLength: int64(len(s.PeerCertificates))}
	if expiry, ok := earliestExpiry(s.PeerCertificates); ok {
		r.DaysLeft = int64(math.Floor(expiry.Sub(now).Hours() / 24))
	}
	if len(s.PeerCertificates) > 0 {
		leaf := s.PeerCertificates[0]
		r.Subject, r.Issuer = clip(leaf.Subject.String(), 1024), clip(leaf.Issuer.String(), 1024)
		r.Names = certNames(leaf, 1000)
	}
	return r
}

// earliestExpiry is when the first of the certificates expires.
func earliestExpiry(certs []*x509.Certificate) (t time.Time, ok bool) {
	for _, c := range certs {
		if !ok || c.NotAfter.Before(t) {
			t, ok = c.NotAfter, true
		}
	}
	return t, ok
}

// versionText is "1.2" for tls.VersionTLS12.
func versionText(v uint16) string {
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

// certNames are the names and addresses that a certificate is for, at most so many.
func certNames(c *x509.Certificate, most int) []string {
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

// certificate is the summary of a certificate.
func certificate(c *x509.Certificate) *meshv1.Certificate {
	sum := sha256.Sum256(c.Raw)
	return &meshv1.Certificate{
		Subject:   clip(c.Subject.String(), 512),
		Issuer:    clip(c.Issuer.String(), 512),
		Serial:    clip(c.SerialNumber.Text(16), 64),
		Names:     certNames(c, 32),
		NotBefore: timestamppb.New(c.NotBefore),
		NotAfter:  timestamppb.New(c.NotAfter),
		Sha256:    hex.EncodeToString(sum[:]),
	}
}
