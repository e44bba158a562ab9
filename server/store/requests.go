package store

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// requestTTL is how long an answered request is remembered, at least.
	requestTTL = time.Hour
	// requestLeaseUse is how long one lease is given to new requests: one lease for many keeps etcd's number of leases small.
	requestLeaseUse = 10 * time.Minute
)

// requestLease is the lease that new request records get. mu guards everything below.
type requestLease struct {
	mu    sync.Mutex
	id    clientv3.LeaseID
	until time.Time
}

// RememberRequest keeps, for an hour at least, that the request id with the digest wrote the resource name. The same again is no error.
// Errors: REQUEST_ID_REUSED when the id was used with another digest.
func (s *Store) RememberRequest(ctx context.Context, id, digest, name string) error {
	value, err := encode(&statev1.RequestRecord{Digest: digest, Name: name})
	if err != nil {
		return err
	}
	key := requestKey(id)
	return settle(ctx, func() error {
		lease, err := s.requestLease(ctx)
		if err != nil {
			return err
		}
		r, err := s.commit(ctx, txn{what: "remember the request",
			ifs:  []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
			then: []clientv3.Op{clientv3.OpPut(key, value, clientv3.WithLease(lease))},
			els:  []clientv3.Op{clientv3.OpGet(key)}})
		if err != nil {
			s.dropRequestLease(lease)
			return err
		}
		if kvs := r.Responses[0].GetResponseRange().GetKvs(); !r.Succeeded && len(kvs) > 0 {
			held := &statev1.RequestRecord{}
			if err := decode(kvs[0], held); err != nil {
				return err
			}
			if held.GetDigest() != digest {
				return requestReused(id)
			}
		}
		return nil
	})
}

// LookupRequest finds the resource that a request with this id and digest wrote. found is false when it is not remembered.
// Errors: REQUEST_ID_REUSED when the id was used with another digest.
func (s *Store) LookupRequest(ctx context.Context, id, digest string) (name string, found bool, err error) {
	kv, err := s.get(ctx, requestKey(id), "look the request up")
	if err != nil || kv == nil {
		return "", false, err
	}
	held := &statev1.RequestRecord{}
	if err := decode(kv, held); err != nil {
		return "", false, err
	}
	if held.GetDigest() != digest {
		return "", false, requestReused(id)
	}
	return held.GetName(), true, nil
}

func requestReused(id string) error {
	return fault.New(codes.InvalidArgument, meshv1.ErrorReason_REQUEST_ID_REUSED, "",
		"request_id %q was used for another request within the last hour; choose a new one for each request", id)
}

// requestLease gives the present lease, or takes another.
func (s *Store) requestLease(ctx context.Context) (clientv3.LeaseID, error) {
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	if time.Now().Before(s.requests.until) {
		return s.requests.id, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	r, err := s.client.Grant(ctx, int64((requestTTL+requestLeaseUse)/time.Second))
	if err != nil {
		return 0, readFault("take a lease", err)
	}
	s.requests.id, s.requests.until = r.ID, time.Now().Add(requestLeaseUse)
	return r.ID, nil
}

// dropRequestLease makes the next request take another lease: this one may be lost.
func (s *Store) dropRequestLease(id clientv3.LeaseID) {
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	if s.requests.id == id {
		s.requests.until = time.Time{}
	}
}
