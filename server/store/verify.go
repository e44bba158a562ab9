package store

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// comparison is a listing of all keys at a revision, to be compared with what the follower was told once it has been told up to there.
type comparison struct {
	rev     int64
	listed  map[string]int64 // mod revision by key
	changed map[string]bool  // keys with an event after rev
	since   time.Time        // since when it waits for the watch: the listing may have taken long
}

// touched notes an event; a nil comparison notes nothing.
func (c *comparison) touched(key string, rev int64) {
	if c != nil && rev > c.rev {
		c.changed[key] = true
	}
}

// doubtRest is how long after a comparison that a doubt began the next doubt waits: one reads every key.
const doubtRest = 10 * time.Second

// doubtPatience is how long after that the watch may take to be as far as the listing. One that says nothing for so long may say nothing for much longer, and somebody has
// met what it keeps back: everything is read anew.
const doubtPatience = 2 * time.Second

// doubts is where those who follow hear of doubts. Safe for concurrent use.
type doubts struct {
	mu     sync.Mutex
	raised chan struct{} // closed by the next one; nil: nobody listens
}

// next is closed by the next doubt.
func (d *doubts) next() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.raised == nil {
		d.raised = make(chan struct{})
	}
	return d.raised
}

// Doubt has every Follow of this store compare what it handed over with what etcd has, soon and out of turn: its caller has met in etcd what Follow should have told it
// before. A watch that does not catch up within two seconds is left, and everything read anew. Doubts that come close together are one; a snapshot answers those from
// before it. It does not wait.
func (s *Store) Doubt() {
	d := &s.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.raised != nil {
		close(d.raised)
		d.raised = nil
	}
}

// compare begins a comparison; watchCtx is that of the watch. One that the watch has not caught up with since the last tick means that the watch is stuck.
func (w *follower) compare(ctx, watchCtx context.Context) error {
	if w.check != nil && time.Since(w.check.since) < watchPulse {
		return nil // one that a doubt began a moment ago
	}
	if w.check != nil {
		return w.stuck(ctx)
	}
	c := &comparison{listed: map[string]int64{}, changed: map[string]bool{}}
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
	c.since = time.Now()
	w.check = c
	if w.rev >= c.rev {
		return w.settleCheck(ctx)
	}
	return w.askProgress(watchCtx)
}

// stuck gives a watch up that has not caught up with the comparison under way.
func (w *follower) stuck(ctx context.Context) error {
	w.s.log.WarnContext(ctx, "watch of etcd is stuck, reading everything again", "revision", w.rev, "wanted", w.check.rev, "for", time.Since(w.check.since))
	return errDiverged
}

// doubted begins a comparison because of a doubt, unless one is under way.
func (w *follower) doubted(ctx, watchCtx context.Context) error {
	w.doubt, w.rested = w.s.doubts.next(), time.Now().Add(doubtRest)
	if w.check != nil {
		return nil
	}
	return w.compare(ctx, watchCtx)
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
