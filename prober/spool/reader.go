package spool

import (
	"errors"
	"io"
	"os"
)

const readSize = 64 << 10

// Reader reads results in the order of their numbers. It stays valid while results are appended, acknowledged and dropped. Not safe for concurrent use;
// any number of readers may exist.
type Reader struct {
	spool *Spool
	next  uint64 // the next number to return

	// Where the file stands.
	segment uint64
	file    *os.File
	offset  int64
	place   uint64 // records of the file before offset
	at      uint64 // records before offset have lower numbers than this
	buf     []byte
}

// NewReader returns a reader that starts at the lowest number held. The caller closes it.
func (s *Spool) NewReader() *Reader { return &Reader{spool: s} }

// Seek makes sequence the next number.
func (r *Reader) Seek(sequence uint64) { r.next = sequence }

// Position is the next number; everything below was returned, acknowledged or dropped.
func (r *Reader) Position() uint64 { return r.next }

// Close lets go of the file.
func (r *Reader) Close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}

// Next returns up to n results with numbers up to until; none when there are none. The Reader's position moves past them, and past what was acknowledged
// or dropped.
func (r *Reader) Next(n int, until uint64) []Record {
	s := r.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Record
	r.next = max(r.next, s.acked+1)
	for _, g := range s.segments {
		if len(out) == n || r.next > until {
			return out
		}
		if g.count > 0 && g.last >= r.next {
			out = r.readSegment(out, g, n, until)
		}
	}
	if len(out) < n && r.next <= until {
		out = r.readPending(out, n, until)
	}
	if len(out) < n {
		r.next = max(r.next, min(until, s.next-1)+1)
	}
	return out
}

// readSegment appends records of g from r.next on. Called with the spool's lock: a read of 64 KiB from the page cache is short.
func (r *Reader) readSegment(out []Record, g *segment, n int, until uint64) []Record {
	if r.file == nil || r.segment != g.number || r.at > r.next {
		r.Close()
		f, err := os.Open(g.path)
		if err != nil {
			return r.lose(out, g, err)
		}
		r.file, r.segment, r.offset, r.place, r.at = f, g.number, int64(segmentHeader), 0, 0
	}
	size := readSize
	for r.offset < g.size && len(out) < n && r.next <= until {
		size = int(min(int64(size), g.size-r.offset))
		if cap(r.buf) < size {
			r.buf = make([]byte, size)
		}
		b := r.buf[:size]
		if _, err := r.file.ReadAt(b, r.offset); err != nil && !errors.Is(err, io.EOF) {
			return r.lose(out, g, err)
		}
		var used int
		var err error
		if out, used, err = r.parse(out, g, b, n, until); err != nil {
			return r.lose(out, g, err)
		}
		switch {
		case used > 0:
			size = readSize
		case len(out) == n || r.next > until:
		case int64(size) == g.size-r.offset:
			return r.lose(out, g, errTorn)
		default: // a record larger than what was read
			size = recordLimit + 8
		}
	}
	return out
}

// parse appends the whole records in b, and returns how many bytes they took.
func (r *Reader) parse(out []Record, g *segment, b []byte, n int, until uint64) ([]Record, int, error) {
	used := 0
	for len(out) < n && used < len(b) {
		raw, err := parseRecord(b[used:])
		if errors.Is(err, errTorn) {
			return out, used, nil
		}
		if err != nil {
			return out, used, err
		}
		sequence := raw.sequence
		if g.earlier {
			sequence = g.first + r.place - g.skip
			if r.place < g.skip {
				sequence = 0
			}
		}
		if sequence > until {
			r.next = until + 1
			return out, used, nil
		}
		if sequence >= r.next {
			rec, err := raw.record(sequence, g.earlier)
			if err != nil {
				return out, used, err
			}
			out = append(out, rec)
			r.next = sequence + 1
		}
		r.at = sequence + 1
		r.place++
		r.offset += int64(raw.size)
		used += raw.size
	}
	return out, used, nil
}

func (r *Reader) readPending(out []Record, n int, until uint64) []Record {
	s := r.spool
	b := s.pending[s.pendingAt:]
	for len(b) > 0 && len(out) < n {
		raw, err := parseRecord(b)
		if err != nil || raw.sequence > until {
			break
		}
		b = b[raw.size:]
		if raw.sequence < r.next {
			continue
		}
		if rec, err := raw.record(raw.sequence, false); err == nil {
			out = append(out, rec)
		}
		r.next = raw.sequence + 1
	}
	return out
}

// lose gives up on the rest of a segment that can no longer be read.
func (r *Reader) lose(out []Record, g *segment, err error) []Record {
	s := r.spool
	if g.last >= r.next {
		n := min(g.count, g.last-r.next+1)
		s.dropped += int64(n)
		s.corrupt++
		s.log.Error("spool segment cannot be read; the rest of it is lost", "file", g.path, "results", n, "err", err)
	}
	r.next = max(r.next, g.last+1)
	r.Close()
	return out
}
