package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe/tls/inspect"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TLSConfig is [Env.TLSConfig] without an Env: trusted certificates are not shared with other checks.
func TLSConfig(t *meshv1.TlsConfig, host string) (*tls.Config, error) {
	return Env{}.TLSConfig(t, host)
}

// TLSConfig makes the configuration that the options ask for. host is the name to send and verify unless the options have another; empty leaves it to
// the caller. The error says which option is not valid.
//
// The configuration itself judges the peer by all that the options demand, in VerifyConnection, whoever uses it; the error that a handshake then fails of is for [NoteHandshakeError]. With
// resume_sessions it keeps sessions. It must not be changed but by [tls.Config.Clone], and then not in these respects.
func (e Env) TLSConfig(t *meshv1.TlsConfig, host string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, InsecureSkipVerify: t.GetInsecureSkipVerify()} //nolint:gosec // asked for by the check
	if t.GetServerName() != "" {
		c.ServerName = t.ServerName
	}
	if err := offer(c, t); err != nil {
		return nil, err
	}
	if t.GetCaPem() != "" {
		pool, err := Share(e.Shared, "pool", t.CaPem, func() (*x509.CertPool, error) { return spec.CertPool(t.CaPem) })
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
	return c, judge(c, t)
}

// offer sets what a peer is offered: versions, cipher suites, groups.
func offer(c *tls.Config, t *meshv1.TlsConfig) error {
	for field, v := range map[string]string{"min_version": t.GetMinVersion(), "max_version": t.GetMaxVersion()} {
		if _, ok := spec.TLSVersion(v); !ok && v != "" {
			return fmt.Errorf("%s: %q is not a version of TLS", field, v)
		}
	}
	c.MinVersion, c.MaxVersion = spec.TLSVersions(t)
	for _, name := range t.GetCipherSuites() {
		if suite, weak, ok := spec.CipherSuite(name); ok && !weak {
			c.CipherSuites = append(c.CipherSuites, suite.ID)
		}
	}
	for _, name := range t.GetGroups() {
		group, ok := spec.TLSGroup(name)
		if !ok {
			return fmt.Errorf("groups: %q is not known", name)
		}
		c.CurvePreferences = append(c.CurvePreferences, group)
	}
	return nil
}

// judge sets by what a peer is judged, and what is kept of it.
func judge(c *tls.Config, t *meshv1.TlsConfig) error {
	policy, err := inspect.Compile(t, c.RootCAs, c.ServerName)
	if err != nil {
		return err
	}
	if policy.SelfSigned() {
		c.InsecureSkipVerify = true // the policy verifies in its place
	}
	var kept *sessions
	if t.GetResumeSessions() {
		kept = newSessions(int(t.GetFullEvery()))
		c.ClientSessionCache = kept
	}
	c.VerifyConnection = func(s tls.ConnectionState) error {
		now := time.Now()
		if err := policy.Check(&s, now); err != nil {
			return &rejection{err: err, state: &s}
		}
		if kept != nil && !s.DidResume {
			kept.full(policy.Until(&s, now))
		}
		return nil
	}
	return nil
}

// rejection is the error of a handshake that was given up because the peer does not meet a demand of the check.
type rejection struct {
	err   error
	state *tls.ConnectionState
}

// Error is what the peer does not meet.
func (r *rejection) Error() string { return r.err.Error() }

// Unwrap gives what it rests on.
func (r *rejection) Unwrap() error { return r.err }

// Anew is a configuration without the sessions that another keeps, for handshakes that must be full: the other itself when it keeps none.
func Anew(config *tls.Config) *tls.Config {
	if config == nil || config.ClientSessionCache == nil {
		return config
	}
	config = config.Clone()
	config.ClientSessionCache = nil
	return config
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

// NoteHandshakeError keeps what a failed handshake was about: the chain, for the evidence, and all that the peer showed when it was given up for not meeting a demand.
func NoteHandshakeError(a *Attempt, err error) {
	var given *rejection
	if errors.As(err, &given) {
		a.Secured(given.state, false)
		return
	}
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) {
		a.Rejected(verification.UnverifiedCertificates)
	}
}

// namesOf are the names of a certificate in one line, for a sentence.
func namesOf(c *x509.Certificate) string {
	names := inspect.Names(c, 5)
	if len(names) == 0 {
		return "no name at all"
	}
	out := names[0]
	for _, n := range names[1:] {
		out += ", " + n
	}
	return out
}
