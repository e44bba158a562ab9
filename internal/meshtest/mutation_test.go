package meshtest

import (
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/probemesh/probemesh/server/store"
)

// A guard is worth what happens without it. Each of these tests takes one away, outside the servers: in etcd, or on the wire; plays the plans of seed after seed, and
// expects an invariant to be broken within so many. They run one after the other until one is.
func mutate(t *testing.T, within uint64, want string, prepare func(*mesh)) {
	t.Helper()
	for seed := uint64(1); seed <= within; seed++ {
		p := draw(seed, 60*time.Second)
		for _, v := range trial(t, p, prepare) {
			if strings.Contains(v, want) {
				t.Logf("seed %d: %s", seed, v)
				return
			}
		}
	}
	t.Errorf("no violation %q in %d seeds: the invariant is blind", want, within)
}

// When the outbox is written after the incident instead of with it, a crash between the two loses notifications.
func TestWithoutTheOutboxInTheTransactionNotificationsAreLost(t *testing.T) {
	t.Parallel()
	mutate(t, 120, "nobody was told", func(m *mesh) {
		m.etcd.Rewrite(func(r *pb.TxnRequest) (now, then *pb.TxnRequest) {
			var with, without []*pb.RequestOp
			incident := false
			for _, op := range r.Success {
				key := string(op.GetRequestPut().GetKey())
				incident = incident || strings.HasPrefix(key, store.Prefix+"incident/")
				if strings.HasPrefix(key, outboxPrefix) {
					with = append(with, op)
				} else {
					without = append(without, op)
				}
			}
			if !incident || len(with) == 0 {
				return r, nil
			}
			r.Success = without
			return r, &pb.TxnRequest{Success: with}
		})
	})
}
