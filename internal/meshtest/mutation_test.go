package meshtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/probemesh/probemesh/server/store"
)

// A guard is worth what happens without it. Each of these tests takes one away, outside the servers: in etcd, or on the wire; plays plans that lean on it, seed after
// seed, and expects an invariant to be broken within so many. With the guard in its place the plan that broke it breaks none.
func mutate(t *testing.T, within uint64, want string, lean func(*plan), without func(*mesh)) {
	t.Helper()
	for seed := uint64(1); seed <= within; seed++ {
		p := draw(seed, *lastsFlag)
		lean(&p)
		found := trial(t, p, without)
		i := slices.IndexFunc(found, func(v string) bool { return strings.Contains(v, want) })
		if i < 0 {
			continue
		}
		t.Logf("without the guard, plan %d of at most %d: %s", seed, within, found[i])
		if all := trial(t, p, func(*mesh) {}); len(all) > 0 {
			t.Errorf("with the guard, plan %d breaks invariants too: %s\n%s", seed, strings.Join(all, "\n"), p)
		}
		return
	}
	t.Errorf("no violation %q in %d plans: the invariant is blind", want, within)
}

// asDrawn leaves a plan as it is.
func asDrawn(*plan) {}

// Without the comparison of the leader's key, what a leader wrote reaches etcd and has its effect although another leads by then: the requests of all servers take
// most of a second to etcd here, and the leader loses its lease every few seconds, while outages are opened and told.
func TestWithoutTheFenceAnOldTermHasEffects(t *testing.T) {
	t.Parallel()
	mutate(t, 10, "an effect of an old term was applied", func(p *plan) {
		p.faults = nil
		for _, s := range p.servers {
			p.faults = append(p.faults, planned{kind: "slow to etcd from", node: s, n: 800, lasts: 40 * time.Second})
		}
		for i := range p.checks - 1 {
			p.faults = append(p.faults, planned{at: time.Duration(5+3*i) * time.Second, kind: "target is down", node: fmt.Sprint("checks/c", i), lasts: 20 * time.Second})
		}
		for at := 8 * time.Second; at < 38*time.Second; at += 2300 * time.Millisecond {
			p.faults = append(p.faults, planned{at: at, kind: "leader's lease is revoked"})
		}
		p.inOrder()
	}, func(m *mesh) {
		m.etcd.Rewrite(func(r *pb.TxnRequest) (now, then *pb.TxnRequest) {
			election := slices.ContainsFunc(r.Success, func(op *pb.RequestOp) bool {
				return string(op.GetRequestPut().GetKey()) == store.LeaderKey || string(op.GetRequestDeleteRange().GetKey()) == store.LeaderKey
			})
			if !election {
				r.Compare = slices.DeleteFunc(r.Compare, func(c *pb.Compare) bool { return string(c.Key) == store.LeaderKey && c.GetCreateRevision() != 0 })
			}
			return r, nil
		})
	})
}

// Without the votes that are told anew when a stream begins, a server that was started a moment ago does not know what the others know before the next round of probes: were
// it to lead, it would be blind.
func TestWithoutTheVotesAtAttachAServerDoesNotKnowWhatTheOthersKnow(t *testing.T) {
	t.Parallel()
	mutate(t, 5, "every server says the same", func(p *plan) {
		p.faults = []planned{{at: 3 * time.Second, kind: "kill", node: "follower", lasts: 20 * time.Second}}
	}, func(m *mesh) { m.skews.forget() })
}

// When the outbox is written after the incident instead of with it, a crash between the two loses notifications.
func TestWithoutTheOutboxInTheTransactionNotificationsAreLost(t *testing.T) {
	t.Parallel()
	mutate(t, 120, "nobody was told", asDrawn, func(m *mesh) {
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
