package spool

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	writeSize   = 32 << 10               // pending bytes that are written at once
	writeAge    = 100 * time.Millisecond // age at which fewer are
	syncEvery   = time.Second
	memoryMax   = 16 << 20 // pending bytes while the disk fails
	unsyncedMax = 4        // closed segments that wait for their sync
)

// Spool keeps results, or other messages. Safe for concurrent use; readers are not, see [Reader].
type Spool struct {
	cfg         Config
	log         *slog.Logger
	segmentSize int64
	write       func(*os.File, []byte) (int, error)
	kick        chan struct{}

	mu       sync.Mutex // guards everything below
	segments []*segment // oldest first; while file is open, the last one is written to
	file     *os.File
	number   uint64 // of the newest segment ever
	size     int64  // bytes of all segments
	next     uint64 // sequence number to give out
	acked    uint64

	pending      []byte // records that are not on disk; the bytes before pendingAt are gone
	pendingAt    int
	pendingCount uint64
	pendingFirst uint64
	pendingLast  uint64

	full      bool // results were dropped, and it has not been half empty since
	failing   bool // the last write failed
	unsynced  bool // written since the last sync
	closing   []*os.File
	headSaved uint64 // acked when the head was written

	dropped, torn, corrupt int64
}

// Stats counts since Open.
type Stats struct {
	// Held results: appended or left over, not acknowledged.
	Held int64
	// Dropped results: the spool was full.
	Dropped int64
	// DiskBytes of all segments.
	DiskBytes int64
	// MemoryBytes of results that are not on disk.
	MemoryBytes int64
	// Torn tails cut off and Corrupt segments set aside.
	Torn, Corrupt int64
	// Failing: the disk refuses writes, results are kept in memory.
	Failing bool
}

// Stats returns the counters.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Held: int64(s.heldLocked()), Dropped: s.dropped, DiskBytes: s.size, MemoryBytes: int64(len(s.pending) - s.pendingAt),
		Torn: s.torn, Corrupt: s.corrupt, Failing: s.failing}
}

func (s *Spool) heldLocked() uint64 {
	held := s.pendingCount
	for _, g := range s.segments {
		held += g.held(s.acked)
	}
	return held
}

// Above tells how many messages are held whose numbers are above one and not above another; exact unless numbers are missing in between.
func (s *Spool) Above(sequence, until uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	sequence = max(sequence, s.acked)
	n := uint64(0)
	for _, g := range s.segments {
		if g.first <= until {
			n += g.held(sequence)
		}
	}
	if s.pendingCount > 0 && s.pendingFirst <= until && s.pendingLast > sequence {
		n += min(s.pendingCount, s.pendingLast-sequence)
	}
	return int64(n)
}

// Range returns the lowest sequence number that is held, and the last that was given out; first is last + 1 when nothing is held.
func (s *Spool) Range() (first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.segments {
		if g.last > s.acked {
			return max(g.first, s.acked+1), s.next - 1
		}
	}
	if s.pendingCount > 0 {
		return s.pendingFirst, s.next - 1
	}
	return s.next, s.next - 1
}

// Append gives r the next sequence number and keeps it. r is not referenced afterwards. unsynced says that its start time is on a clock that was
// never compared with the mesh's. It never fails: what cannot be kept is dropped, counted and logged. It returns r as it was encoded, number included, appended to into, so that
// whoever needs that too need not do it again; what cannot be kept is not appended.
func (s *Spool) Append(r *meshv1.Result, unsynced bool, into []byte) []byte {
	var flags byte
	if unsynced {
		flags = flagUnsynced
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Sequence = s.next
	s.next++
	encoded, err := s.putLocked(r, r.Sequence, flags, into)
	if err != nil {
		s.log.Error("result cannot be encoded and is lost", "check", r.GetCheck(), "err", err)
	}
	return encoded
}

// Put gives each message the next number, in order, and keeps it; it returns the last number. Messages are not referenced afterwards. What cannot be kept is
// dropped, counted and logged. They are read with [Reader.Payloads].
func (s *Spool) Put(messages ...proto.Message) (last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		if _, err := s.putLocked(m, s.next, 0, nil); err != nil {
			s.log.Error("message cannot be encoded and is lost", "err", err)
		}
		s.next++
	}
	return s.next - 1
}

// Flush hands what is pending to the system at once, so that a killed process loses none of it. When the disk fails, it stays in memory as always.
func (s *Spool) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.failing {
		s.writeLocked()
	}
}

// putLocked keeps a message, and appends it as it was encoded to into unless that is nil.
func (s *Spool) putLocked(m proto.Message, sequence uint64, flags byte, into []byte) ([]byte, error) {
	before := len(s.pending)
	b, err := appendRecord(s.pending, m, sequence, flags)
	s.pending = b
	if err != nil {
		s.dropped++
		return into, err
	}
	if into != nil {
		into = append(into, b[before+recordHeader:]...)
	}
	if s.pendingCount == 0 {
		s.pendingFirst = sequence
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	s.pendingCount++
	s.pendingLast = sequence
	if len(s.pending)-s.pendingAt >= writeSize {
		if !s.failing {
			s.writeLocked()
		}
		s.boundMemoryLocked()
	}
	return into, nil
}

// Ack lets go of the result with that number and all lower ones. A number that was never given out is an error, and changes nothing.
func (s *Spool) Ack(sequence uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sequence >= s.next {
		return fmt.Errorf("spool: result %d was acknowledged, but the last one is %d", sequence, s.next-1)
	}
	if sequence <= s.acked {
		return nil
	}
	s.acked = sequence
	for s.pendingCount > 0 && s.pendingFirst <= sequence {
		if s.pendingLast <= sequence {
			s.clearPendingLocked()
			break
		}
		s.popPendingLocked()
	}
	for len(s.segments) > 0 && s.segments[0].last <= sequence {
		if len(s.segments) == 1 && s.file != nil {
			if s.segments[0].size < s.segmentSize/4 {
				break // not worth a new file yet
			}
			s.file.Close()
			s.file, s.unsynced = nil, false
		}
		s.removeOldestLocked()
	}
	if s.full && s.size < s.cfg.Limit/2 {
		s.full = false
		s.log.Info("spool has room again", "dropped", s.dropped)
	}
	return nil
}

// writeLocked writes what is pending to the disk. After an error all of it is still pending.
func (s *Spool) writeLocked() {
	for s.pendingCount > 0 {
		n, count, last := s.chunkLocked()
		if err := s.writeChunkLocked(s.pending[s.pendingAt:s.pendingAt+n], count, last); err != nil {
			if !s.failing {
				s.log.Error("spool cannot be written; results are kept in memory until it can", "dir", s.cfg.Dir, "err", err)
			}
			s.failing = true
			return
		}
		if last == s.pendingLast {
			s.clearPendingLocked()
		} else {
			s.pendingAt += n
			s.pendingCount -= count
			s.pendingFirst = binary.BigEndian.Uint64(s.pending[s.pendingAt+8:])
		}
		s.trimLocked()
	}
	if s.failing {
		s.failing = false
		s.log.Info("spool can be written again", "dir", s.cfg.Dir)
	}
}

// chunkLocked measures as much of what is pending as fits into one segment; at least one record.
func (s *Spool) chunkLocked() (bytes int, count, last uint64) {
	b := s.pending[s.pendingAt:]
	if int64(len(b)) <= s.segmentSize {
		return len(b), s.pendingCount, s.pendingLast
	}
	for bytes < len(b) {
		n := recordSize(b[bytes:])
		if count > 0 && int64(bytes+n) > s.segmentSize {
			break
		}
		last = binary.BigEndian.Uint64(b[bytes+8:])
		bytes += n
		count++
	}
	return bytes, count, last
}

func (s *Spool) writeChunkLocked(b []byte, count, last uint64) error {
	if s.file != nil && s.current().count > 0 && s.current().size+int64(len(b)) > s.segmentSize {
		s.closing = append(s.closing, s.file)
		s.file = nil
		for len(s.closing) > unsyncedMax {
			s.closing[0].Close()
			s.closing = s.closing[1:]
		}
	}
	first := binary.BigEndian.Uint64(b[8:])
	if s.file == nil {
		g, f, err := createSegment(s.cfg.Dir, s.number+1, first, s.cfg.Boot)
		if err != nil {
			return err
		}
		s.number++
		s.file, s.segments = f, append(s.segments, g)
		s.size += g.size
	}
	g := s.current()
	if _, err := s.write(s.file, b); err != nil {
		// Whatever part of it was written is cut off again, so that the next attempt begins at a record.
		if terr := s.file.Truncate(g.size); terr == nil {
			_, terr = s.file.Seek(g.size, 0)
			if terr == nil {
				return err
			}
		}
		s.file.Close()
		s.file = nil
		return err
	}
	if g.count == 0 {
		g.first = first
	}
	g.count += count
	g.last = last
	g.size += int64(len(b))
	s.size += int64(len(b))
	s.unsynced = true
	return nil
}

func (s *Spool) current() *segment { return s.segments[len(s.segments)-1] }

// trimLocked drops the oldest segments while there are too many bytes.
func (s *Spool) trimLocked() {
	for s.size > s.cfg.Limit && len(s.segments) > 1 {
		n := s.segments[0].held(s.acked)
		if n > 0 && !s.full {
			s.full = true
			s.log.Warn("spool is full; from now on its oldest results are dropped and counted", "limit", s.cfg.Limit)
		}
		s.dropped += int64(n)
		s.removeOldestLocked()
	}
}

func (s *Spool) removeOldestLocked() {
	g := s.segments[0]
	if err := os.Remove(g.path); err != nil {
		s.log.Warn("spool segment cannot be removed", "file", g.path, "err", err)
	}
	s.size -= g.size
	s.segments[0] = nil
	s.segments = s.segments[1:]
}

// boundMemoryLocked drops the oldest of what is pending while that is too much.
func (s *Spool) boundMemoryLocked() {
	limit := int(min(memoryMax, s.cfg.Limit/4))
	before := s.dropped
	for len(s.pending)-s.pendingAt > limit {
		s.popPendingLocked()
		s.dropped++
	}
	if before == 0 && s.dropped > 0 {
		s.log.Warn("spool's memory is full while its disk fails; the oldest results are dropped", "limit", limit)
	}
}

func recordSize(b []byte) int { return 8 + int(binary.BigEndian.Uint32(b)) }

// popPendingLocked lets go of the first pending record.
func (s *Spool) popPendingLocked() {
	s.pendingAt += recordSize(s.pending[s.pendingAt:])
	s.pendingCount--
	if s.pendingCount == 0 {
		s.clearPendingLocked()
		return
	}
	s.pendingFirst = binary.BigEndian.Uint64(s.pending[s.pendingAt+8:])
	if s.pendingAt > len(s.pending)/2 && s.pendingAt > writeSize {
		s.pending = s.pending[:copy(s.pending, s.pending[s.pendingAt:])]
		s.pendingAt = 0
	}
}

func (s *Spool) clearPendingLocked() {
	s.pending, s.pendingAt, s.pendingCount = s.pending[:0], 0, 0
	if cap(s.pending) > 8*writeSize {
		s.pending = nil
	}
}
