package spool

import (
	"context"
	"errors"
	"os"
	"time"
)

// Run writes what is pending when it is old enough, syncs, and tries a failing disk again, until ctx ends. It returns nil. [Spool.Close] does the rest.
func (s *Spool) Run(ctx context.Context) error {
	timer := time.NewTimer(writeAge)
	defer timer.Stop()
	var synced time.Time
	armed := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
			if !armed {
				timer.Reset(writeAge)
				armed = true
			}
		case <-timer.C:
			var wait time.Duration
			if wait, synced = s.upkeep(synced); wait > 0 {
				timer.Reset(wait)
			}
			armed = wait > 0
		}
	}
}

// upkeep writes and, when a second has passed, syncs. It returns when it should be called again, 0 for not before the next Append.
func (s *Spool) upkeep(synced time.Time) (time.Duration, time.Time) {
	s.mu.Lock()
	s.writeLocked()
	s.boundMemoryLocked()
	failing := s.failing
	if since := time.Since(synced); since < syncEvery {
		again := time.Duration(0)
		if failing || s.unsynced || s.acked != s.headSaved {
			again = syncEvery - since
		}
		s.mu.Unlock()
		return again, synced
	}
	s.mu.Unlock()
	s.sync()
	if failing {
		return syncEvery, time.Now()
	}
	return 0, time.Now()
}

// sync makes what was written durable. The lock is not held meanwhile, so a slow disk delays no result.
func (s *Spool) sync() {
	s.mu.Lock()
	files := s.closing
	s.closing = nil
	closing := len(files)
	if s.file != nil && s.unsynced {
		files = append(files, s.file)
	}
	s.unsynced = false
	h, save := s.headLocked(), s.headSaved != s.acked
	s.headSaved = s.acked
	s.mu.Unlock()
	for i, f := range files {
		// The current file may be closed meanwhile, because all of it was acknowledged.
		if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			s.log.Warn("spool cannot be synced", "file", f.Name(), "err", err)
		}
		if i < closing {
			f.Close()
		}
	}
	if save && h.segment > 0 {
		if err := writeHead(s.headPath(), h); err != nil {
			s.log.Debug("spool head cannot be written; some results may be sent twice after a restart", "err", err)
		}
	}
}

func (s *Spool) headLocked() head {
	if len(s.segments) == 0 {
		return head{segment: s.number + 1}
	}
	g := s.segments[0]
	h := head{segment: g.number}
	switch {
	case !g.earlier:
		h.sequence = s.acked
	case s.acked >= g.first:
		h.records = g.skip + s.acked - g.first + 1
	default:
		h.records = g.skip
	}
	return h
}

// Close writes and syncs everything. Nothing may be appended afterwards. The error says that results in memory are lost with the process.
func (s *Spool) Close() error {
	s.mu.Lock()
	s.writeLocked()
	lost := s.pendingCount
	s.headSaved = s.acked - 1
	s.mu.Unlock()
	s.sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
	for len(s.segments) > 0 && s.segments[0].last <= s.acked {
		s.removeOldestLocked()
	}
	if lost > 0 {
		s.dropped += int64(lost)
		s.log.Error("results are lost: the spool could not be written", "results", lost)
		return errors.New("spool: results could not be written")
	}
	return nil
}
