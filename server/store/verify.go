package store

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// comparison is a listing of all keys at a revision, to be compared with what the follower was told once it has been told up to there.
type comparison struct {
	rev     int64
	listed  map[string]int64 // mod revision by key
	changed map[string]bool  // keys with an event after rev
	begun   time.Time
}

// touched notes an event; a nil comparison notes nothing.
func (c *comparison) touched(key string, rev int64) {
	if c != nil && rev > c.rev {
		c.changed[key] = true
	}
}

// doubtRest is how long after a comparison that a doubt began the next doubt waits: one reads every key.
const doubtRest = 10 * time.Second

// Doubt has the Follow of this store compare what it handed over with what etcd has, soon and out of turn: its caller has met in etcd what Follow should have told it
// before. Doubts that come close together, or while nobody follows, are one. It does not wait.
func (s *Store) Doubt() {
	select {
	case s.doubts <- struct{}{}:
	default:
	}
}

// compare begins a comparison; watchCtx is that of the watch. One that the watch has not caught up with since the last tick means that the watch is stuck.
func (w *follower) compare(ctx, watchCtx context.Context) error {
	if w.check != nil && time.Since(w.check.begun) < watchPulse {
		return nil // one that a doubt began a moment ago
	}
	if w.check != nil {
		w.s.log.WarnContext(ctx, "watch of etcd is stuck, reading everything again",
			"revision", w.rev, "wanted", w.check.rev, "for", time.Since(w.check.begun))
		return errDiverged
	}
	c := &comparison{listed: map[string]int64{}, changed: map[string]bool{}, begun: time.Now()}
	for _, k := range w.kinds {
		rev, err := w.s.scan(ctx, page{prefix: k.prefix, rev: c.rev, keysOnly: true}, "compare the state", func(kv *mvccpb.KeyValue) {
			c.listed[string(kv.Key)] = kv.ModRevision
		})
		if err != nil {
			w.s.log.WarnContext(ctx, "comparison with etcd skipped", "err", err)
			return nil
		}
		c.rev = rev
	}
	if c.rev < w.rev {
		w.s.log.ErrorContext(ctx, "etcd went back in time: was it restored from a backup? reading everything again", "revision", c.rev, "was", w.rev)
		return errDiverged
	}
	w.check = c
	if w.rev >= c.rev {
		return w.settleCheck(ctx)
	}
	return w.askProgress(watchCtx)
}

// settleCheck compares once the follower knows everything up to the listing's revision.
func (w *follower) settleCheck(ctx context.Context) error {
	c := w.check
	if c == nil || w.rev < c.rev {
		return nil
	}
	w.check = nil
	wrong := 0
	for key, mod := range c.listed {
		if w.held[key].mod != mod && !c.changed[key] {
			wrong++
		}
	}
	for key := range w.held {
		if _, ok := c.listed[key]; !ok && !c.changed[key] {
			wrong++
		}
	}
	if wrong == 0 {
		return nil
	}
	w.s.m.mismatches.Add(ctx, int64(wrong))
	w.s.log.ErrorContext(ctx, "state differs from etcd: changes were missed, reading everything again", "keys", wrong, "revision", c.rev)
	return errDiverged
}
