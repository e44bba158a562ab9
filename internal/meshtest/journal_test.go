package meshtest

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// journalMost bounds the lines that a journal keeps; the oldest go.
const journalMost = 2000

// journal keeps what servers and probers log, so that a seed that failed says who decided, wrote and told what, and when: it may not fail again. Its text is made when it
// is asked for only.
type journal struct {
	mu      sync.Mutex
	entries []entry
}

type entry struct {
	with []slog.Attr
	r    slog.Record
}

// recorder is a slog.Handler that writes into a journal.
type recorder struct {
	j    *journal
	with []slog.Attr
}

// Enabled is for slog.Handler.
func (h recorder) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle is for slog.Handler.
func (h recorder) Handle(_ context.Context, r slog.Record) error {
	h.j.mu.Lock()
	defer h.j.mu.Unlock()
	if len(h.j.entries) >= journalMost {
		h.j.entries = append(h.j.entries[:0:0], h.j.entries[journalMost/2:]...)
	}
	h.j.entries = append(h.j.entries, entry{h.with, r})
	return nil
}

// WithAttrs is for slog.Handler.
func (h recorder) WithAttrs(list []slog.Attr) slog.Handler {
	return recorder{h.j, append(h.with[:len(h.with):len(h.with)], list...)}
}

// WithGroup is for slog.Handler; nothing here has groups.
func (h recorder) WithGroup(string) slog.Handler { return h }

// since is what was logged from a time on, a line each, with times counted from there. What servers and probers say as they stop at the end is not.
func (j *journal) since(begun, end time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var b strings.Builder
	for _, e := range j.entries {
		if e.r.Time.Before(begun) || !e.r.Time.Before(end) {
			continue
		}
		fmt.Fprintf(&b, "  %6.1fs %s", e.r.Time.Sub(begun).Seconds(), e.r.Message)
		said := map[string]bool{}
		add := func(a slog.Attr) bool {
			if !said[a.Key] {
				said[a.Key] = true
				fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
			}
			return true
		}
		for _, a := range e.with {
			add(a)
		}
		e.r.Attrs(add)
		b.WriteByte('\n')
	}
	return b.String()
}
