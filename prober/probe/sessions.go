package probe

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// Limits of sessions.
const (
	// maxSessionHosts is how many hosts sessions are kept of at most: a check meets more than one only by redirects.
	maxSessionHosts = 8
	// ticketWait is how long a ticket is waited for where nothing else is read from the peer. It comes one round trip after the handshake.
	ticketWait = 250 * time.Millisecond
)

// sessions keeps the sessions of one check for resumption and has every so manyth handshake with a host be a full one. It implements [tls.ClientSessionCache]. What else forbids to resume a session, crypto/tls
// looks at itself: the expiry of the chain, the name, the version, the lifetime of the ticket.
type sessions struct {
	every int

	mu      sync.Mutex
	hosts   map[string]*session
	until   time.Time // until when all kept chains meet the demands of the check; zero without any
	waiting map[net.Conn]bool
}

// session is what is kept of one host.
type session struct {
	state   *tls.ClientSessionState
	resumed int // handshakes since the last full one
}

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
	case len(s.hosts) < maxSessionHosts:
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

// AwaitTicket waits for the ticket with which a session can be resumed, at most 250 ms, when config keeps sessions and the handshake was a full one of TLS 1.3, where the ticket comes after the handshake.
// Who reads from the connection anyway need not call it. What the peer sends meanwhile is lost; the connection is only good for closing afterwards.
func AwaitTicket(ctx context.Context, conn *tls.Conn, config *tls.Config) {
	kept, ok := config.ClientSessionCache.(*sessions)
	if state := conn.ConnectionState(); !ok || state.DidResume || state.Version != tls.VersionTLS13 {
		return
	}
	deadline := time.Now().Add(ticketWait)
	if end, ok := ctx.Deadline(); ok && end.Before(deadline) {
		deadline = end
	}
	if ctx.Err() != nil || conn.SetReadDeadline(deadline) != nil {
		return
	}
	kept.wait(conn, true)
	var one [1]byte
	_, _ = conn.Read(one[:])
	kept.wait(conn, false)
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
