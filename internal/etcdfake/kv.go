package etcdfake

import (
	"bytes"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"
)

// Limits of a real member with default flags.
const (
	maxTxnOps       = 128
	maxRequestBytes = 1536 << 10
)

// kvServer is etcd's KV service.
type kvServer struct {
	pb.UnimplementedKVServer
	s *Server
}

func (k kvServer) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := k.s.admit(ctx, false); err != nil {
		return nil, err
	}
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	at := k.s.data.rev
	if r.Revision == 0 {
		at = k.s.readAtLocked()
	}
	resp, err := k.s.data.read(r, at)
	if err != nil {
		return nil, err
	}
	resp.Header = k.s.headerLocked()
	resp.Header.Revision = at
	return resp, nil
}

func (k kvServer) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	resp, err := k.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
	if err != nil {
		return nil, err
	}
	put := resp.Responses[0].GetResponsePut()
	put.Header = resp.Header
	return put, nil
}

func (k kvServer) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: r}}
	resp, err := k.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
	if err != nil {
		return nil, err
	}
	del := resp.Responses[0].GetResponseDeleteRange()
	del.Header = resp.Header
	return del, nil
}

func (k kvServer) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	writes := hasWrite(r)
	if err := checkTxn(r); err != nil {
		return nil, err
	}
	if err := k.s.admit(ctx, writes); err != nil {
		return nil, err
	}
	resp, err := k.s.commit(ctx, r)
	if err != nil || !writes {
		return resp, err
	}
	if err := k.s.answer(ctx); err != nil {
		return nil, err
	}
	return resp, nil
}

func (k kvServer) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	if err := k.s.admit(ctx, true); err != nil {
		return nil, err
	}
	if err := k.s.compact(r.Revision); err != nil {
		return nil, err
	}
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	return &pb.CompactionResponse{Header: k.s.headerLocked()}, nil
}

func hasWrite(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if op.GetRequestRange() == nil && (op.GetRequestTxn() == nil || hasWrite(op.GetRequestTxn())) {
				return true
			}
		}
	}
	return false
}

// checkTxn refuses what a real member refuses before it proposes anything.
func checkTxn(r *pb.TxnRequest) error {
	if max(len(r.Compare), len(r.Success), len(r.Failure)) > maxTxnOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	if proto.Size(r) > maxRequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		seen := map[string]bool{}
		for _, op := range ops {
			p := op.GetRequestPut()
			if p == nil {
				continue
			}
			if len(p.Key) == 0 {
				return rpctypes.ErrGRPCEmptyKey
			}
			if seen[string(p.Key)] {
				return rpctypes.ErrGRPCDuplicateKey
			}
			seen[string(p.Key)] = true
		}
	}
	return nil
}

// apply runs a transaction at one revision and wakes the watchers; asked is what the client sent.
func (s *Server) apply(r, asked *pb.TxnRequest) (*pb.TxnResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.checkLeasesLocked(r); err != nil {
		return nil, err
	}
	before, rev := len(s.data.events), s.data.rev
	resp, err := s.txnLocked(r, s.data.rev+1)
	if err != nil {
		return nil, err
	}
	defer s.tellLocked(asked, resp, rev)
	if len(s.data.events) > before {
		s.advanceLocked(before)
	}
	resp.Header = s.headerLocked()
	return resp, nil
}

// advanceLocked makes the events appended since `before` the next revision.
func (s *Server) advanceLocked(before int) {
	s.data.rev++
	for _, ev := range s.data.events[before:] {
		if s.faults.hide > 0 {
			s.faults.hide--
			s.data.hidden[ev] = true
		}
	}
	s.wakeLocked()
}

// checkLeasesLocked refuses puts with a lease that is not there, before anything is written.
func (s *Server) checkLeasesLocked(r *pb.TxnRequest) error {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if p := op.GetRequestPut(); p != nil && p.Lease != 0 && s.leases[p.Lease] == nil {
				return rpctypes.ErrGRPCLeaseNotFound
			}
		}
	}
	return nil
}

func (s *Server) txnLocked(r *pb.TxnRequest, rev int64) (*pb.TxnResponse, error) {
	resp := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		if !s.holdsLocked(c, rev) {
			resp.Succeeded = false
			break
		}
	}
	ops := r.Success
	if !resp.Succeeded {
		ops = r.Failure
	}
	for _, op := range ops {
		one, err := s.opLocked(op, rev)
		if err != nil {
			return nil, err
		}
		resp.Responses = append(resp.Responses, one)
	}
	return resp, nil
}

func (s *Server) opLocked(op *pb.RequestOp, rev int64) (*pb.ResponseOp, error) {
	switch op := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		r, err := s.data.read(op.RequestRange, rev)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: r}}, err
	case *pb.RequestOp_RequestPut:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: s.putLocked(op.RequestPut, rev)}}, nil
	case *pb.RequestOp_RequestDeleteRange:
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: s.deleteLocked(op.RequestDeleteRange, rev)}}, nil
	default:
		r, err := s.txnLocked(op.(*pb.RequestOp_RequestTxn).RequestTxn, rev)
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: r}}, err
	}
}

func (s *Server) putLocked(r *pb.PutRequest, rev int64) *pb.PutResponse {
	value, lease := r.Value, r.Lease
	held := s.data.at(string(r.Key), rev)
	if r.IgnoreValue && held != nil {
		value = held.Value
	}
	if r.IgnoreLease && held != nil {
		lease = held.Lease
	}
	prev := s.data.put(r.Key, value, lease, rev)
	if prev != nil {
		s.detachLocked(prev.Lease, string(r.Key))
	}
	s.attachLocked(lease, string(r.Key))
	resp := &pb.PutResponse{}
	if r.PrevKv {
		resp.PrevKv = prev
	}
	return resp
}

func (s *Server) deleteLocked(r *pb.DeleteRangeRequest, rev int64) *pb.DeleteRangeResponse {
	resp := &pb.DeleteRangeResponse{}
	for _, v := range s.data.span(r.Key, r.RangeEnd, rev) {
		s.data.remove(v, rev)
		s.detachLocked(v.Lease, string(v.Key))
		resp.Deleted++
		if r.PrevKv {
			resp.PrevKvs = append(resp.PrevKvs, v)
		}
	}
	return resp
}

// holdsLocked evaluates a comparison; a key that does not exist has all revisions 0 and fails every comparison of its value.
func (s *Server) holdsLocked(c *pb.Compare, rev int64) bool {
	if len(c.RangeEnd) > 0 {
		for _, v := range s.data.span(c.Key, c.RangeEnd, rev) {
			if !compare(c, v) {
				return false
			}
		}
		return true
	}
	v := s.data.at(string(c.Key), rev)
	if v == nil {
		if c.Target == pb.Compare_VALUE {
			return false
		}
		v = &version{}
	}
	return compare(c, v)
}

func compare(c *pb.Compare, v *version) bool {
	var d int64
	switch c.Target {
	case pb.Compare_VERSION:
		d = v.Version - c.GetVersion()
	case pb.Compare_CREATE:
		d = v.CreateRevision - c.GetCreateRevision()
	case pb.Compare_MOD:
		d = v.ModRevision - c.GetModRevision()
	case pb.Compare_VALUE:
		d = int64(bytes.Compare(v.Value, c.GetValue()))
	case pb.Compare_LEASE:
		d = v.Lease - c.GetLease()
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return d == 0
	case pb.Compare_GREATER:
		return d > 0
	case pb.Compare_LESS:
		return d < 0
	default:
		return d != 0
	}
}
