package spool

import (
	"bytes"
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
	var out []Record
	r.read(n, until, func(raw rawRecord, sequence uint64, earlier bool) error {
		rec, err := raw.record(sequence, earlier)
		if err == nil {
			out = append(out, rec)
		}
		return err
	})
	return out
}

// Payloads is as Next, for messages of any kind: they come as they were encoded.
func (r *Reader) Payloads(n int, until uint64) []Payload {
	var out []Payload
	r.read(n, until, func(raw rawRecord, sequence uint64, _ bool) error {
		out = append(out, Payload{Sequence: sequence, Bytes: bytes.Clone(raw.payload)})
		return nil
	})
	return out
}

// demand is what a read shall still give.
type demand struct {
	n     int
	until uint64
	take  func(raw rawRecord, sequence uint64, earlier bool) error
}

func (r *Reader) read(n int, until uint64, take func(raw rawRecord, sequence uint64, earlier bool) error) {
	w := &demand{n: n, until: until, take: take}
	s := r.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	r.next = max(r.next, s.acked+1)
	for _, g := range s.segments {
		if w.n == 0 || r.next > until {
			return
		}
		if g.count > 0 && g.last >= r.next {
			r.readSegment(w, g)
		}
	}
	if w.n > 0 && r.next <= until {
		r.readPending(w)
	}
	if w.n > 0 {
		r.next = max(r.next, min(until, s.next-1)+1)
	}
}

// readSegment takes records of g from r.next on. Called with the spool's lock: a read of 64 KiB from the page cache is short.
func (r *Reader) readSegment(w *demand, g *segment) {
	if r.file == nil || r.segment != g.number || r.at > r.next {
		r.Close()
		f, err := os.Open(g.path)
		if err != nil {
			r.lose(g, err)
			return
		}
		r.file, r.segment, r.offset, r.place, r.at = f, g.number, int64(segmentHeader), 0, 0
	}
	size := readSize
	for r.offset < g.size && w.n > 0 && r.next <= w.until {
		size = int(min(int64(size), g.size-r.offset))
		if cap(r.buf) < size {
			r.buf = make([]byte, size)
		}
		b := r.buf[:size]
		if _, err := r.file.ReadAt(b, r.offset); err != nil && !errors.Is(err, io.EOF) {
			r.lose(g, err)
			return
		}
		used, err := r.parse(w, g, b)
		if err != nil {
			r.lose(g, err)
			return
		}
		switch {
		case used > 0:
			size = readSize
		case w.n == 0 || r.next > w.until:
		case int64(size) == g.size-r.offset:
			r.lose(g, errTorn)
			return
		default: // a record larger than what was read
			size = recordLimit + 8
		}
	}
}

// parse takes the whole records in b, and returns how many bytes they took.
func (r *Reader) parse(w *demand, g *segment, b []byte) (int, error) {
	used := 0
	for w.n > 0 && used < len(b) {
		raw, err := parseRecord(b[used:])
		if errors.Is(err, errTorn) {
			return used, nil
		}
		if err != nil {
			return used, err
		}
		sequence := raw.sequence
		if g.earlier {
			sequence = g.first + r.place - g.skip
			if r.place < g.skip {
				sequence = 0
			}
		}
		if sequence > w.until {
			r.next = w.until + 1
			return used, nil
		}
		if sequence >= r.next {
			if err := w.take(raw, sequence, g.earlier); err != nil {
				return used, err
			}
			w.n--
			r.next = sequence + 1
		}
		r.at = sequence + 1
		r.place++
		r.offset += int64(raw.size)
		used += raw.size
	}
	return used, nil
}

func (r *Reader) readPending(w *demand) {
	s := r.spool
	b := s.pending[s.pendingAt:]
	for len(b) > 0 && w.n > 0 {
		raw, err := parseRecord(b)
		if err != nil || raw.sequence > w.until {
			break
		}
		b = b[raw.size:]
		if raw.sequence < r.next {
			continue
		}
		if w.take(raw, raw.sequence, false) == nil {
			w.n--
		}
		r.next = raw.sequence + 1
	}
}

// lose gives up on the rest of a segment that can no longer be read.
func (r *Reader) lose(g *segment, err error) {
	s := r.spool
	if g.last >= r.next {
		n := min(g.count, g.last-r.next+1)
		s.dropped += int64(n)
		s.corrupt++
		s.log.Error("spool segment cannot be read; the rest of it is lost", "file", g.path, "results", n, "err", err)
	}
	r.next = max(r.next, g.last+1)
	r.Close()
}
