package etcdfake

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faults are what the server does wrong. Server.mu guards them.
type faults struct {
	leaderless bool
	delay      time.Duration
	lose       int
	refuse     int
	hide       int
	starve     bool
	muteLeases bool
	stale      int64
	// answerDelay is for writes.
	answerDelay time.Duration
}

// errLost is what a client sees when the connection breaks between its request and the answer.
var errLost = status.Error(codes.Unavailable, "error reading from server: EOF")

// SetLeaderless makes every call fail as etcd does without a leader, and ends watches, until it is set to false.
func (s *Server) SetLeaderless(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.leaderless = yes
	if yes {
		s.breakLocked()
	}
}

// SetDelay makes every call wait before it is carried out. 0: none.
func (s *Server) SetDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.delay = d
}

// LoseAnswers makes the next n writes happen, and their callers be told that the connection broke.
func (s *Server) LoseAnswers(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.lose = n
}

// LoseRequests makes the next n writes not happen, and their callers be told that the connection broke.
func (s *Server) LoseRequests(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.refuse = n
}

// HideEvents makes the next n events never reach a watcher.
func (s *Server) HideEvents(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.hide = n
}

// SetStarved makes watches stay open and say nothing, until it is set to false; then they are told what they missed.
func (s *Server) SetStarved(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.starve = yes
	s.wakeLocked()
}

// BreakWatches ends all watch streams, as a broken connection does.
func (s *Server) BreakWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breakLocked()
}

// MuteLeases makes the server neither answer nor count keep-alives, until it is set to false.
func (s *Server) MuteLeases(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.muteLeases = yes
}

// Compact compacts up to a revision, or up to the present one when rev is 0.
func (s *Server) Compact(rev int64) {
	if rev == 0 {
		rev = s.Revision()
	}
	// Compacting again what is compacted is no mistake of a test.
	_ = s.compact(rev)
}

// RevokeLeaseOf ends the lease of a key at once, as an expiry would. It is false when the key has no lease.
func (s *Server) RevokeLeaseOf(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.data.at(key, s.data.rev)
	if v == nil || s.leases[v.Lease] == nil {
		return false
	}
	s.endLeaseLocked(v.Lease)
	return true
}

func (s *Server) compact(rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.data.compact(rev); err != nil {
		return err
	}
	s.wakeLocked()
	return nil
}

func (s *Server) breakLocked() {
	close(s.broken)
	s.broken = make(chan struct{})
}

// breakReason is what broken watch streams end with.
func (s *Server) breakReason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.leaderless {
		return rpctypes.ErrGRPCNoLeader
	}
	return errLost
}

// admit delays or refuses a call.
func (s *Server) admit(ctx context.Context, write bool) error {
	s.mu.Lock()
	delay := s.faults.delay
	s.mu.Unlock()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	err := s.refusal(write)
	if err != nil {
		// A refusal takes a moment too, or a client that tries again at once would do so for ever in a bubble, where time stands still meanwhile.
		t := time.NewTimer(time.Millisecond)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return err
}

func (s *Server) refusal(write bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.leaderless {
		return rpctypes.ErrGRPCNoLeader
	}
	if write && s.faults.refuse > 0 {
		s.faults.refuse--
		return errLost
	}
	return nil
}

// answer makes the answer of a write late, or loses it.
func (s *Server) answer(ctx context.Context) error {
	s.mu.Lock()
	delay := s.faults.answerDelay
	s.mu.Unlock()
	if delay > 0 {
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	if s.loseAnswer() {
		return errLost
	}
	return nil
}

func (s *Server) loseAnswer() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.lose == 0 {
		return false
	}
	s.faults.lose--
	return true
}

func (s *Server) starved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults.starve
}
