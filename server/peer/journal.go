package peer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/spool"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/server/history"
)

// bootPositions is how many positions each boot has for itself: 2^40, a hundred thousand results a second for a hundred and twenty days. So no position is given
// out twice, although a crash loses the last ones.
const bootPositions = 1 << 40

// journal is what this server's probers brought, in the order in which it came, until the other servers have it. It is a spool whose positions outlive restarts.
type journal struct {
	id   string // of the directory's first boot; another when it was lost
	path string
	log  *slog.Logger

	// What the spool would tell only after its disk has answered, as of the last look.
	newest  atomic.Uint64
	dropped atomic.Int64 // since the journal's beginning
	counted atomic.Int64 // of those, since this boot's
	held    atomic.Int64
	bytes   atomic.Int64

	spool *spool.Spool
	first uint64      // the first position of this boot
	file  journalFile // as it was written last; of one goroutine at a time

	mu     sync.Mutex // guards closed, and keeps close apart from put
	closed bool
}

// journalFile is what the journal remembers besides its entries.
type journalFile struct {
	ID      string `json:"id"`
	Boots   uint64 `json:"boots"`
	Dropped int64  `json:"dropped"`
	// Begun is when the first boot began, in seconds since 1970; 0: long ago.
	Begun int64 `json:"begun"`
}

func openJournal(cfg Config, log *slog.Logger) (*journal, error) {
	log = log.With("part", "journal")
	dir := filepath.Join(cfg.Dir, "journal")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &journal{path: filepath.Join(cfg.Dir, "journal.json"), log: log}
	f := j.read()
	f.Boots++
	if f.ID == "" {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		f.ID, f.Begun = hex.EncodeToString(b[:]), time.Now().Unix()
	}
	j.id, j.file, j.first = f.ID, f, f.Boots*bootPositions
	if err := j.write(f); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	var err error
	j.spool, err = spool.Open(spool.Config{Dir: dir, Limit: cfg.JournalBytes, Boot: cfg.BootID, First: j.first}, log)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	_, last := j.spool.Range()
	j.newest.Store(last)
	j.dropped.Store(f.Dropped)
	j.look()
	return j, nil
}

// begun is when the journal's first boot began, by the clock that counts on from now. One that the clock says is still to come began now.
func (j *journal) begun(now time.Time) time.Time {
	return now.Add(-max(now.Sub(time.Unix(j.file.Begun, 0)), 0))
}

// read gives what was remembered. When that is lost, the number of boots is too, and the entries that are there have positions of a journal that nobody can go on
// with: a new journal begins above them.
func (j *journal) read() journalFile {
	var f journalFile
	b, err := os.ReadFile(j.path)
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		j.log.Warn("what was known of the journal cannot be read; the other servers are sent all of it again", "file", j.path, "err", err)
	}
	if err != nil || f.ID == "" {
		return journalFile{Boots: uint64(time.Now().Unix()) >> 8}
	}
	return f
}

func (j *journal) write(f journalFile) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return replaceFile(j.path, b)
}

// replaceFile writes a file anew, whole or not at all.
func replaceFile(path string, b []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// put keeps entries; false when the journal is closed. It waits for the disk.
func (j *journal) put(entries []history.Entry) bool {
	messages := make([]proto.Message, len(entries))
	for i, e := range entries {
		r := e.Result
		if r.GetProber() == "" {
			r = proto.CloneOf(r)
			r.Prober = spec.Name(spec.Probers, spec.ID(e.Prober))
		}
		messages[i] = &peerv1.HistoryEntry{Result: r, Datacenter: e.Datacenter, Uri: e.URI}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false
	}
	last := j.spool.Put(messages...)
	// The probers will forget them: what this process has not handed to the system would die with it, and be in this server's history alone.
	j.spool.Flush()
	j.newest.Store(last)
	return true
}

// last is the position of the newest entry. It does not wait.
func (j *journal) last() uint64 { return j.newest.Load() }

// run keeps the spool, and what is known of it, until ctx ends.
func (j *journal) run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { _ = j.spool.Run(ctx) }) // it returns nil
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			j.look()
		}
	}
	group.Wait()
}

// look takes the spool's figures. It waits for the disk.
func (j *journal) look() {
	s := j.spool.Stats()
	j.dropped.Add(s.Dropped - j.counted.Swap(s.Dropped))
	j.held.Store(s.Held)
	j.bytes.Store(s.DiskBytes + s.MemoryBytes)
}

// release lets go of what nobody needs any more. It waits for the disk.
func (j *journal) release(position uint64) {
	if err := j.spool.Ack(min(position, j.last())); err != nil {
		j.log.Error("journal cannot let go", "err", err)
	}
}

// close writes everything. Nothing can be put afterwards.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.closed = true
	j.look()
	err := j.spool.Close()
	return errors.Join(err, j.note())
}

// note writes down what was dropped, if that has changed.
func (j *journal) note() error {
	f := j.file
	if f.Dropped = j.dropped.Load(); f == j.file {
		return nil
	}
	if err := j.write(f); err != nil {
		return err
	}
	j.file = f
	return nil
}

// older tells how many entries of earlier boots are held above a position. It waits for the disk.
func (j *journal) older(position uint64) int64 {
	if position >= j.first {
		return 0
	}
	return j.spool.Above(position, j.first-1)
}

// lack is how many entries are above a position, of which so many are older than this boot. It does not wait.
func (j *journal) lack(position uint64, older int64) uint64 {
	last := j.last()
	if position < j.first {
		return uint64(older) + last + 1 - min(j.first, last+1)
	}
	return last - min(position, last)
}
