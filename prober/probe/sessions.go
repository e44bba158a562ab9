package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of sessions.
const (
	// maxSessionHosts is how many hosts sessions are kept of at most: a check meets more than one only by redirects.
	maxSessionHosts = 8
	// settleWait is how long what comes after a handshake is waited for where nothing else is read from the peer. It comes one round trip after the handshake.
	settleWait = 250 * time.Millisecond
	// settleAgain is for how long no ticket is waited for after one has been waited for in vain: a server that gives none, such as PostgreSQL, is not likely to begin with it.
	settleAgain = 10 * time.Minute
)

// sessions keeps the sessions of one check for resumption and has every so manyth handshake with a host be a full one. It implements [tls.ClientSessionCache]. What else forbids to resume a session, crypto/tls
// looks at itself: the expiry of the chain, the name, the version, the lifetime of the ticket.
type sessions struct {
	every int

	mu      sync.Mutex
	hosts   map[string]*session
	until   time.Time // until when all kept chains meet the demands of the check; zero without any
	waiting map[net.Conn]bool
	vain    time.Time // when a ticket was last waited for in vain
}

// session is what is kept of one host.
type session struct {
	state   *tls.ClientSessionState
	resumed int // handshakes since the last full one
}

// newSessions keeps sessions for every-1 resumptions each. With 1 it keeps none, and merely tells that tickets have come.
func newSessions(every int) *sessions {
	return &sessions{every: every, hosts: make(map[string]*session), waiting: make(map[net.Conn]bool)}
}

// Get implements tls.ClientSessionCache.
func (s *sessions) Get(key string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.IsZero() && !time.Now().Before(s.until) {
		// The peer may have a new certificate by now.
		clear(s.hosts)
		s.until = time.Time{}
	}
	kept := s.hosts[key]
	if kept == nil {
		return nil, false
	}
	if kept.resumed++; kept.resumed >= s.every {
		delete(s.hosts, key)
		return nil, false
	}
	return kept.state, true
}

// Put implements tls.ClientSessionCache.
func (s *sessions) Put(key string, state *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.hosts[key]
	switch {
	case state == nil:
		delete(s.hosts, key)
		return
	case kept != nil:
		kept.state = state
	case s.every > 1 && len(s.hosts) < maxSessionHosts:
		s.hosts[key] = &session{state: state}
	}
	for conn := range s.waiting {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// full notes a full handshake, whose chain meets the demands of the check until then.
func (s *sessions) full(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until.IsZero() || until.Before(s.until) {
		s.until = until
	}
}

// Settle waits for what a peer that speaks TLS 1.3 says only after the handshake, for kinds that read nothing from it: the ticket of a new session, when config keeps sessions, and the refusal of the client's
// certificate, when config was prepared by [Settling] and the peer asked for one. It waits no longer than for the first of them, and 250 ms at most. The error is the peer's refusal. What else the peer sends meanwhile is lost:
// the connection is only good for closing afterwards. ctx is the one of the handshake.
func Settle(ctx context.Context, conn *tls.Conn, config *tls.Config) error {
	kept, ok := config.ClientSessionCache.(*sessions)
	state := conn.ConnectionState()
	asked, _ := ctx.Value(askedKey{}).(*atomic.Bool)
	if !ok || state.Version != tls.VersionTLS13 || !(asked != nil && asked.Load() || kept.wants(state.DidResume)) {
		return nil
	}
	deadline := time.Now().Add(settleWait)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	kept.wait(conn, true)
	defer kept.wait(conn, false)
	if err := conn.SetReadDeadline(deadline); err != nil || ctx.Err() != nil {
		return ctx.Err()
	}
	var one [1]byte
	_, err := conn.Read(one[:])
	var refusal *net.OpError
	if errors.As(err, &refusal) && refusal.Op == "remote error" {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(deadline) {
		kept.waited(time.Now())
	}
	return nil
}

// wants tells whether a ticket should be waited for.
func (s *sessions) wants(resumed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.every > 1 && !resumed && (s.vain.IsZero() || time.Since(s.vain) > settleAgain)
}

// waited notes that a ticket was waited for in vain.
func (s *sessions) waited(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vain = now
}

// askedKey is the context key of whether the peer asked for the client's certificate.
type askedKey struct{}

// Settling prepares a configuration of [Env.TLSConfig] for [Settle]: connections with it tell whether the peer asked for a certificate, to a context of [Asking].
func Settling(config *tls.Config) {
	if config.ClientSessionCache == nil {
		config.ClientSessionCache = newSessions(1)
	}
	certificates := config.Certificates
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if asked, ok := info.Context().Value(askedKey{}).(*atomic.Bool); ok {
			asked.Store(true)
		}
		for i := range certificates {
			if info.SupportsCertificate(&certificates[i]) == nil {
				return &certificates[i], nil
			}
		}
		return &tls.Certificate{}, nil
	}
}

// Asking is a context for one handshake with a configuration that was prepared by [Settling], and for the [Settle] after it.
func Asking(ctx context.Context) context.Context {
	return context.WithValue(ctx, askedKey{}, new(atomic.Bool))
}

// wait notes that a connection waits for a ticket, or that it does not any more.
func (s *sessions) wait(conn net.Conn, begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begins {
		s.waiting[conn] = true
		return
	}
	delete(s.waiting, conn)
}
