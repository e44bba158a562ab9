package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// reopenFirst and reopenLast bound the wait between attempts to open a store that failed.
	reopenFirst = time.Second
	reopenLast  = 30 * time.Second
	// complainEvery is the shortest time between two log lines about results left out for one reason.
	complainEvery = time.Minute
)

// errClosed is why a closed history answers nothing.
var errClosed = errors.New("the history is closed")

// History is an open history. All methods may be called concurrently. Whoever called Open calls Close.
type History struct {
	config      Config
	deps        Dependencies
	log         *slog.Logger
	groups      *groups
	verdicts    *verdictRefs
	instruments *instruments
	turns       chan struct{} // one token for each question under way
	turnWait    time.Duration // how long a question waits for its token

	mu      sync.RWMutex // held for reading while the store is used, for writing while it is exchanged
	store   *store       // nil while there is none
	failure atomic.Pointer[error]
	failed  chan struct{} // capacity 1: tells Run that there is a failure
	started chan struct{} // capacity 1: held by the one Run

	complaints [fateCount]complaint
}

// Open opens the history in c.Dir, and makes it if there is none. It reads the log of the last two to three hours, which takes the longer the more was
// written. An error says what in the configuration or around the directory is wrong; damage inside the directory is no error, see the package.
func Open(c Config, d Dependencies) (*History, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	h := &History{
		config:   c,
		deps:     d,
		log:      d.Log,
		groups:   newGroups(c.MaxGroups),
		verdicts: newVerdictRefs(c.MaxGroups),
		turns:    make(chan struct{}, c.MaxQueries),
		turnWait: turnWait,
		failed:   make(chan struct{}, 1),
		started:  make(chan struct{}, 1),
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if h.instruments, err = newInstruments(d.Meter, h); err != nil {
		return nil, fmt.Errorf("history: make instruments: %w", err)
	}
	s, err := openStore(c, d, h.log, h.countSetAside)
	if err != nil {
		_ = h.instruments.registration.Unregister()
		return nil, fmt.Errorf("history: open %s: %w", c.Dir, explain(err))
	}
	h.install(s)
	return h, nil
}

// install puts s in place and shows its figures.
func (h *History) install(s *store) {
	if h.deps.Registry != nil {
		if err := h.deps.Registry.Register(s.registry); err != nil {
			h.log.Warn("the store's own figures are not shown", "err", err)
		}
	}
	h.mu.Lock()
	h.store = s
	h.mu.Unlock()
	h.failure.Store(nil)
}

// remove takes the store out of its place and closes it, after the appends under way have ended. Questions under way end at once.
func (h *History) remove() error {
	h.mu.RLock()
	s := h.store
	h.mu.RUnlock()
	if s == nil {
		return nil
	}
	s.end()
	h.mu.Lock()
	mine := h.store == s
	if mine {
		h.store = nil
	}
	h.mu.Unlock()
	if !mine {
		return nil
	}
	if h.deps.Registry != nil {
		h.deps.Registry.Unregister(s.registry)
	}
	h.groups.forget()
	h.verdicts.forget()
	return s.close()
}

// Run keeps the history open: after a failed write it closes the store and opens it again, which repairs the log, first after 1 s and then, while that
// fails, up to every 30 s. It returns when ctx ends, with nil. Only one Run may be under way.
func (h *History) Run(ctx context.Context) error {
	select {
	case h.started <- struct{}{}:
		defer func() { <-h.started }()
	default:
		return errors.New("history: Run is under way already")
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.failed:
		}
		if err := h.remove(); err != nil {
			h.log.Warn("closing the failed history reported a fault too", "err", err)
		}
		if !h.reopen(ctx) {
			return nil
		}
	}
}

// reopen opens the store again, however long it takes; it gives up when ctx ends.
func (h *History) reopen(ctx context.Context) bool {
	for wait := reopenFirst; ; wait = min(2*wait, reopenLast) {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
		if err := h.failure.Load(); err != nil && errors.Is(*err, errClosed) {
			return false
		}
		s, err := openStore(h.config, h.deps, h.log, h.countSetAside)
		if err == nil {
			h.install(s)
			h.log.Info("the history is open again", "directory", h.config.Dir)
			return true
		}
		h.log.Error("the history cannot be opened; it will be tried again", "directory", h.config.Dir, "err", explain(err))
		err = explain(err)
		h.failure.Store(&err)
	}
}

// Close waits for appends under way, ends questions under way, and closes the store. End Run before. A second Close does nothing.
func (h *History) Close() error {
	err := errClosed
	if old := h.failure.Swap(&err); old != nil && errors.Is(*old, errClosed) {
		return nil
	}
	return errors.Join(h.remove(), h.instruments.registration.Unregister())
}

// fail notes that the store cannot be written to, and wakes Run.
func (h *History) fail(err error) {
	if !h.failure.CompareAndSwap(nil, &err) {
		return
	}
	h.log.Error("the history cannot be written to; results are not acknowledged until it is open again", "directory", h.config.Dir, "err", err)
	select {
	case h.failed <- struct{}{}:
	default:
	}
}

// open gives the store, held until release is called, or the reason why there is none.
func (h *History) open() (s *store, release func(), err error) {
	if f := h.failure.Load(); f != nil {
		return nil, nil, unavailable(*f)
	}
	h.mu.RLock()
	if h.store == nil {
		h.mu.RUnlock()
		return nil, nil, unavailable(errors.New("the store is being opened again"))
	}
	return h.store, h.mu.RUnlock, nil
}

// state is what the gauges show: series in the head, and whether the history takes results.
func (h *History) state() (series, available int64) {
	if !h.mu.TryRLock() {
		return 0, 0
	}
	defer h.mu.RUnlock()
	if h.store == nil || h.failure.Load() != nil {
		return 0, 0
	}
	return int64(h.store.db.Head().NumSeries()), 1
}

// Available tells whether results can be written now.
func (h *History) Available() bool {
	_, available := h.state()
	return available == 1
}

func (h *History) countSetAside() { h.instruments.setAside.Add(context.Background(), 1) }

// unavailable is the error of a history that has failed.
func unavailable(cause error) error {
	return fault.New(codes.Unavailable, meshv1.ErrorReason_HISTORY_UNAVAILABLE, "",
		"the history of this server is not available: %v; verdicts and alerts go on, ask another server or try again", explain(cause)).Retry(reopenFirst).Because(cause)
}

// explain adds to an error of the operating system what to do about it.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk is full; free some space or lower the retention: %w", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the disk is read-only; look at the system's log: %w", err)
	case errors.Is(err, syscall.EWOULDBLOCK):
		return fmt.Errorf("another process uses the directory; end it or choose another directory: %w", err)
	}
	return err
}
