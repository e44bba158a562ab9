package etcdfake

import (
	"context"
	"sort"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// minTTL is what a real member with default ticks raises a shorter TTL to: one and a half election timeouts, in whole seconds.
const minTTL = 2

// lease is one lease. Server.mu guards it.
type lease struct {
	id      int64
	ttl     int64 // granted, seconds
	expires time.Time
	keys    map[string]bool
	timer   *time.Timer
}

// leaseServer is etcd's Lease service.
type leaseServer struct {
	pb.UnimplementedLeaseServer
	s *Server
}

func (l leaseServer) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if err := l.s.admit(ctx, true); err != nil {
		return nil, err
	}
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.ID
	if id == 0 {
		s.nextLease++
		id = s.nextLease
	}
	if s.leases[id] != nil {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	le := &lease{id: id, ttl: max(r.TTL, minTTL), keys: map[string]bool{}}
	s.leases[id] = le
	s.renewLocked(le)
	return &pb.LeaseGrantResponse{Header: s.headerLocked(), ID: id, TTL: le.ttl}, nil
}

func (l leaseServer) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if err := l.s.admit(ctx, true); err != nil {
		return nil, err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.s.leases[r.ID] == nil {
		return nil, rpctypes.ErrGRPCLeaseNotFound
	}
	l.s.endLeaseLocked(r.ID)
	return &pb.LeaseRevokeResponse{Header: l.s.headerLocked()}, nil
}

func (l leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil
		}
		if err := l.s.admit(stream.Context(), false); err != nil {
			return err
		}
		resp, answer := l.s.renew(r.ID)
		if !answer {
			continue
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
}

func (l leaseServer) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	if err := l.s.admit(ctx, false); err != nil {
		return nil, err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	resp := &pb.LeaseTimeToLiveResponse{Header: l.s.headerLocked(), ID: r.ID, TTL: -1}
	le := l.s.leases[r.ID]
	if le == nil {
		return resp, nil
	}
	resp.TTL, resp.GrantedTTL = int64(time.Until(le.expires)/time.Second), le.ttl
	if r.Keys {
		for _, key := range sortedKeys(le.keys) {
			resp.Keys = append(resp.Keys, []byte(key))
		}
	}
	return resp, nil
}

func (l leaseServer) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	if err := l.s.admit(ctx, false); err != nil {
		return nil, err
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	resp := &pb.LeaseLeasesResponse{Header: l.s.headerLocked()}
	for id := range l.s.leases {
		resp.Leases = append(resp.Leases, &pb.LeaseStatus{ID: id})
	}
	sort.Slice(resp.Leases, func(i, j int) bool { return resp.Leases[i].ID < resp.Leases[j].ID })
	return resp, nil
}

// renew extends a lease; answer is false while keep-alives are muted.
func (s *Server) renew(id int64) (resp *pb.LeaseKeepAliveResponse, answer bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults.muteLeases {
		return nil, false
	}
	resp = &pb.LeaseKeepAliveResponse{Header: s.headerLocked(), ID: id}
	if le := s.leases[id]; le != nil {
		s.renewLocked(le)
		resp.TTL = le.ttl
	}
	return resp, true
}

// renewLocked sets the lease's expiry anew.
func (s *Server) renewLocked(le *lease) {
	ttl := time.Duration(le.ttl) * time.Second
	le.expires = time.Now().Add(ttl)
	if le.timer != nil {
		le.timer.Stop()
	}
	le.timer = time.AfterFunc(ttl, func() { s.expire(le) })
}

// expire ends a lease whose time is over; a renewal that won the race for the lock keeps it.
func (s *Server) expire(le *lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[le.id] == le && !time.Now().Before(le.expires) {
		s.endLeaseLocked(le.id)
	}
}

// endLeaseLocked deletes the lease's keys in one revision.
func (s *Server) endLeaseLocked(id int64) {
	le := s.leases[id]
	le.timer.Stop()
	delete(s.leases, id)
	before := len(s.data.events)
	for _, key := range sortedKeys(le.keys) {
		if v := s.data.at(key, s.data.rev); v != nil {
			s.data.remove(v, s.data.rev+1)
		}
	}
	if len(s.data.events) > before {
		s.advanceLocked(before)
	}
}

func (s *Server) attachLocked(id int64, key string) {
	if le := s.leases[id]; le != nil {
		le.keys[key] = true
	}
}

func (s *Server) detachLocked(id int64, key string) {
	if le := s.leases[id]; le != nil {
		delete(le.keys, key)
	}
}

func sortedKeys(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
