package store

import (
	"context"
	"log/slog"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

// PublishServer writes what a server says of itself; the record goes when the lease does.
func (s *Store) PublishServer(ctx context.Context, lease clientv3.LeaseID, rec *statev1.ServerRecord) error {
	value, err := encode(rec)
	if err != nil {
		return err
	}
	return settle(ctx, func() error {
		_, err := s.commit(ctx, txn{what: "publish " + rec.GetName(),
			then: []clientv3.Op{clientv3.OpPut(serverKey(rec.GetName()), value, clientv3.WithLease(lease))}})
		return err
	})
}

// ListServers reads the servers whose leases live, by name, and the revision at which they were read.
func (s *Store) ListServers(ctx context.Context) ([]Versioned[*statev1.ServerRecord], int64, error) {
	return listAll(ctx, s, page{prefix: serverPrefix}, "list servers", func() *statev1.ServerRecord { return &statev1.ServerRecord{} })
}

// KeepServer publishes a server for as long as ctx lives: it takes a lease of ttl (whole seconds, at least 2s; etcd may grant more), renews it,
// and takes a new one when it is lost. It returns when ctx ends, after having taken the record away, which takes at most a second.
func (s *Store) KeepServer(ctx context.Context, rec *statev1.ServerRecord, ttl time.Duration) error {
	wait := backoff{first: 100 * time.Millisecond, most: ttl}
	for told := false; ; {
		kept, err := s.keepServerOnce(ctx, rec, ttl, &wait)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		level := slog.LevelWarn
		if told && !kept { // etcd is away, and said to be
			level = slog.LevelDebug
		}
		told = true
		log := s.log
		if err != nil {
			log = log.With("err", err)
		}
		log.Log(ctx, level, "server record lost its lease, taking another", "server", rec.GetName())
		if !wait.sleep(ctx) {
			return ctx.Err()
		}
	}
}

// keepServerOnce lives as long as one lease, and tells whether there was one.
func (s *Store) keepServerOnce(ctx context.Context, rec *statev1.ServerRecord, ttl time.Duration, wait *backoff) (kept bool, err error) {
	grantCtx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	lease, err := s.client.Grant(grantCtx, int64(max(ttl, 2*time.Second)/time.Second))
	cancel()
	if err != nil {
		return false, writeFault("take a lease", err)
	}
	defer func() {
		revokeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if _, err := s.client.Revoke(revokeCtx, lease.ID); err != nil {
			s.log.DebugContext(ctx, "server record left to expire", "server", rec.GetName(), "err", err)
		}
	}()
	if err := s.PublishServer(ctx, lease.ID, rec); err != nil {
		return false, err
	}
	alive, err := s.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return false, writeFault("renew the lease", err)
	}
	wait.reset()
	for range alive {
		// Each answer renews the lease; the channel closes when it is lost or ctx ends.
	}
	return true, nil
}
