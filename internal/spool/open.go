package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
)

// Limits of Config.Limit, in bytes.
const (
	LimitMin     = 1 << 20
	LimitDefault = 256 << 20
)

// Config says where the spool is and how large.
type Config struct {
	// Dir is its directory, made if need be. Nothing else may be in it, and no other process may use it.
	Dir string
	// Limit is how many bytes it may take on disk; at least [LimitMin], default [LimitDefault]. When full, the oldest segment (a sixteenth, at most
	// 4 MiB) is dropped.
	Limit int64
	// Boot is the number of this boot, 32 hex characters. It is kept in the files for whoever looks into them.
	Boot string
	// First, unless it is 0, is the number at which this boot begins, above all numbers that earlier boots gave out: what they left keeps its numbers. 0: numbers begin
	// at 1, and what was left is numbered anew.
	First uint64
}

// Open opens the spool, and keeps and renumbers what an earlier boot left. The error says that the directory cannot be made or read; files that
// are corrupt are no error.
func Open(cfg Config, log *slog.Logger) (*Spool, error) {
	if cfg.Limit == 0 {
		cfg.Limit = LimitDefault
	}
	if cfg.Limit < LimitMin {
		return nil, fmt.Errorf("spool: a limit of %d bytes is below the minimum of %d", cfg.Limit, LimitMin)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	s := &Spool{cfg: cfg, log: log, kick: make(chan struct{}, 1), segmentSize: min(max(cfg.Limit/16, 64<<10), 4<<20), write: (*os.File).Write}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return s, nil
}

func (s *Spool) load() error {
	numbers, err := listSegments(s.cfg.Dir)
	if err != nil {
		return err
	}
	h := readHead(s.headPath())
	s.next = max(1, s.cfg.First)
	for i, n := range numbers {
		s.number = n
		path := segmentPath(s.cfg.Dir, n)
		if n < h.segment {
			os.Remove(path)
			continue
		}
		if n != h.segment {
			h = head{}
		}
		g := s.loadSegment(path, n, i == len(numbers)-1, h)
		if g == nil {
			continue
		}
		if g.count == g.skip {
			os.Remove(path)
			continue
		}
		if s.cfg.First > 0 {
			s.keepNumbers(g, h)
			continue
		}
		// The records that were acknowledged have no number in this boot.
		g.first = s.next
		s.next += g.count - g.skip
		g.last = s.next - 1
		s.segments = append(s.segments, g)
		s.size += g.size
	}
	if left := s.heldLocked(); left > 0 {
		s.log.Info("results of an earlier run are in the spool", "results", left, "bytes", s.size)
	}
	s.trimLocked()
	return nil
}

// keepNumbers takes a segment whose records keep the numbers that an earlier boot gave them.
func (s *Spool) keepNumbers(g *segment, h head) {
	g.earlier, g.skip = false, 0
	s.acked = max(s.acked, h.sequence)
	s.next = max(s.next, g.last+1)
	s.segments = append(s.segments, g)
	s.size += g.size
}

// loadSegment verifies one file; nil when nothing of it can be kept.
func (s *Spool) loadSegment(path string, number uint64, newest bool, h head) *segment {
	b, err := os.ReadFile(path)
	if err != nil {
		s.log.Warn("spool segment cannot be read", "file", path, "err", err)
		return nil
	}
	found := scan(b, newest, h.sequence)
	if found.torn > 0 && !found.corrupt {
		s.torn++
		s.log.Warn("spool segment ended in the middle of a record", "file", path, "bytes", found.torn)
		if err := os.Truncate(path, int64(len(found.good))); err != nil {
			s.log.Warn("spool segment cannot be cut", "file", path, "err", err)
		}
	}
	if found.corrupt {
		s.corrupt++
		aside, err := setAside(s.cfg.Dir, path, found.good)
		s.log.Warn("spool segment is corrupt and was set aside; what verifies is kept", "file", aside, "kept", found.count, "err", err)
	}
	if found.count == 0 {
		if !found.corrupt {
			os.Remove(path)
		}
		return nil
	}
	return &segment{number: number, path: path, first: found.first, last: found.last, count: found.count, size: int64(len(found.good)), earlier: true,
		skip: min(found.count, max(h.records, found.acked))}
}

func (s *Spool) headPath() string { return filepath.Join(s.cfg.Dir, "head") }

// head says up to where the oldest segment was acknowledged: its first `records` if it was of an earlier boot already, else those up to `sequence`.
type head struct{ segment, records, sequence uint64 }

// readHead returns zeros when the file does not verify, which only means that some results are sent twice.
func readHead(path string) head {
	b, err := os.ReadFile(path)
	if err != nil || len(b) != 28 || crc32.Checksum(b[:24], castagnoli) != binary.BigEndian.Uint32(b[24:]) {
		return head{}
	}
	return head{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])}
}

func writeHead(path string, h head) error {
	b := binary.BigEndian.AppendUint64(nil, h.segment)
	b = binary.BigEndian.AppendUint64(b, h.records)
	b = binary.BigEndian.AppendUint64(b, h.sequence)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	return os.Rename(path+".tmp", path)
}
