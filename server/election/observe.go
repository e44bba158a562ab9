package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	"github.com/probemesh/probemesh/server/store"
)

// errMissed says that the watch did not tell of a change that reading the key showed, or not yet.
var errMissed = errors.New("the watch said nothing of a change")

// sighting is the leader's key as it was last seen.
type sighting struct {
	known   bool                  // whether it was ever read
	rec     *statev1.LeaderRecord // nil: there is no key
	created int64                 // its create revision
	rev     int64                 // the revision of this knowledge
}

// sight is what is known now, and a channel that closes when more is.
func (e *Election) sight() (sighting, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seen, e.changed
}

// see takes newer knowledge in; older is ignored.
func (e *Election) see(s sighting) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.seen.known && s.rev < e.seen.rev {
		return
	}
	e.seen, e.newest = s, max(e.newest, s.rec.GetTerm())
	close(e.changed)
	e.changed = make(chan struct{})
}

// observe keeps the sighting up to date until ctx ends.
func (e *Election) observe(ctx context.Context) {
	pause := 50 * time.Millisecond
	for {
		worked, err := e.observeOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if worked {
			pause = 50 * time.Millisecond
		}
		if errors.Is(err, errMissed) {
			continue // what it missed is known by now; only the watch is to be opened anew
		}
		e.log.DebugContext(ctx, "watch of the leader's key broke, taking it up again", "err", err)
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, time.Second)
	}
}

// observeOnce reads the key and watches it until the watch breaks, or is found to have missed something: the key is read again every lease time,
// since a watch on a half-dead connection says nothing rather than end.
func (e *Election) observeOnce(ctx context.Context) (worked bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rev, err := e.look(ctx)
	if err != nil {
		return false, err
	}
	again := time.NewTicker(e.cfg.TTL)
	defer again.Stop()
	e.watches++
	_, watch, err := store.OpenWatch(ctx, e.client, fmt.Sprintf("election-%p-%d", e, e.watches), store.LeaderKey, clientv3.WithRev(rev+1))
	if err != nil {
		return false, err
	}
	for {
		select {
		case w, ok := <-watch:
			if err := w.Err(); !ok || err != nil {
				return true, errors.Join(err, ctx.Err())
			}
			for _, ev := range w.Events {
				if ev.Type == mvccpb.Event_DELETE {
					e.see(sightingOf(nil, ev.Kv.ModRevision))
				} else {
					e.see(sightingOf(ev.Kv, ev.Kv.ModRevision))
				}
			}
		case <-again.C:
			before, _ := e.sight()
			if _, err := e.look(ctx); err != nil {
				return true, err
			}
			if after, _ := e.sight(); after.created != before.created {
				return true, errMissed
			}
		}
	}
}

// look reads the key, and gives the revision at which it did.
func (e *Election) look(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := e.client.Get(ctx, store.LeaderKey)
	if err != nil {
		return 0, fmt.Errorf("read the leader's key: %w", err)
	}
	var kv *mvccpb.KeyValue
	if len(r.Kvs) > 0 {
		kv = r.Kvs[0]
	}
	e.see(sightingOf(kv, r.Header.Revision))
	return r.Header.Revision, nil
}

// sightingOf reads a key; kv is nil when there is none. A value that cannot be decoded is a leader of nobody knows what, which still leads.
func sightingOf(kv *mvccpb.KeyValue, rev int64) sighting {
	s := sighting{known: true, rev: rev}
	if kv != nil {
		s.rec, s.created = &statev1.LeaderRecord{}, kv.CreateRevision
		if proto.Unmarshal(kv.Value, s.rec) != nil {
			s.rec = &statev1.LeaderRecord{}
		}
	}
	return s
}

// askAgain is how often a server that may not stand asks whether it may by now.
const askAgain = 50 * time.Millisecond

// vacancy waits until nobody leads and this server may stand. The first time, a key of this very server is one of its former life, and is deleted.
func (e *Election) vacancy(ctx context.Context, first bool) error {
	var since time.Time // since when nobody has led without a break
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		seen, changed := e.sight()
		switch {
		case seen.known && seen.rec == nil:
			if since.IsZero() {
				since = time.Now()
			}
			if e.cfg.MayStand(time.Since(since)) {
				return nil
			}
			again.Reset(askAgain)
		case first && seen.known && seen.rec.GetServer() == e.cfg.Server:
			deleted, err := e.deleteKey(ctx, seen.created)
			e.log.InfoContext(ctx, "took away the leader's key of this server's former life",
				"term", seen.rec.GetTerm(), "boot", seen.rec.GetBootId(), "deleted", deleted, "err", err)
			if err != nil {
				if !sleep(ctx, time.Second) {
					return ctx.Err()
				}
				continue
			}
			first, since = false, time.Time{}
		default:
			since = time.Time{}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-again.C:
		}
	}
}
