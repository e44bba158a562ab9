package etcdfake

import (
	"context"
	"net"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// Write is a transaction that has a write in it, as its client sent it, and what came of it.
type Write struct {
	// Request is what the client asked for, also when Rewrite made something else of it. It is not to be changed.
	Request *pb.TxnRequest
	// Response is what was answered, or was to be answered when the answer got lost.
	Response *pb.TxnResponse
	// At gives the value and the create revision of a key just before the transaction, nil and 0 when there was none. It is valid during the call.
	At func(key string) (value []byte, created int64)
}

// Observe has f see every write at the moment at which it is applied, one after the other. f must not call the server. Call it before any client is made.
func (s *Server) Observe(f func(Write)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observe = f
}

// Rewrite has f change what writes do: they are carried out as the first request that it gives; the second, unless it is nil, follows a moment later, and does not when
// the client is gone by then. It is how a test takes a guard away. Call it before any client is made.
func (s *Server) Rewrite(f func(*pb.TxnRequest) (now, then *pb.TxnRequest)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewrite = f
}

// afterwards is how much later the second part of a rewritten transaction comes: a round trip between datacenters.
const afterwards = 50 * time.Millisecond

// Serve serves on a further listener until the server stops.
func (s *Server) Serve(l net.Listener) {
	s.mu.Lock()
	m := s.member
	s.mu.Unlock()
	s.receivers.Go(func() {
		_ = m.server.Serve(l) // ends with the server
	})
}

// SetStale makes reads answer with the state of n revisions ago, as serializable reads of a member that lags do. Transactions are not stale.
func (s *Server) SetStale(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.stale = n
}

// SetAnswerDelay makes writes happen at once and their answers late. 0: at once.
func (s *Server) SetAnswerDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults.answerDelay = d
}

// Leaderless tells whether SetLeaderless is in force.
func (s *Server) Leaderless() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults.leaderless
}

// readAtLocked is the revision at which a read without one is answered.
func (s *Server) readAtLocked() int64 {
	return max(s.data.rev-s.faults.stale, s.data.compacted, min(1, s.data.rev))
}

// commit applies a transaction as the rewriter wants it.
func (s *Server) commit(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.mu.Lock()
	rewrite := s.rewrite
	s.mu.Unlock()
	if rewrite == nil {
		return s.apply(r, r)
	}
	now, then := rewrite(proto.CloneOf(r))
	resp, err := s.apply(now, r)
	if err != nil || then == nil || !resp.Succeeded || s.willLose() {
		return resp, err
	}
	t := time.NewTimer(afterwards)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return resp, nil
	case <-t.C:
	}
	_, err = s.apply(then, then)
	return resp, err
}

func (s *Server) willLose() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults.lose > 0
}

// tellLocked tells the observer of a write; before is the revision before it.
func (s *Server) tellLocked(r *pb.TxnRequest, resp *pb.TxnResponse, before int64) {
	if s.observe == nil || !hasWrite(r) {
		return
	}
	s.observe(Write{Request: r, Response: resp, At: func(key string) ([]byte, int64) {
		if v := s.data.at(key, before); v != nil {
			return v.Value, v.CreateRevision
		}
		return nil, 0
	}})
}

// Has tells whether a key lives now.
func (s *Server) Has(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.at(key, s.data.rev) != nil
}
