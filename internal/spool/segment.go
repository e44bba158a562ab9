package spool

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// magic begins a segment file, before the 32 characters of the boot.
const magic = "PMSPOOL1"

const segmentHeader = len(magic) + 32

// segment is one file. Its records are in order.
type segment struct {
	number      uint64
	path        string
	first, last uint64 // sequence numbers of the first and last record; first > last: empty
	count       uint64
	size        int64
	skip        uint64 // records at the start that were acknowledged in an earlier boot
	earlier     bool   // of an earlier boot: sequence = first + place in the file - skip
}

// held is how many of its records are above acked; exact unless some were acknowledged before they were written.
func (g *segment) held(acked uint64) uint64 {
	switch {
	case g.last <= acked:
		return 0
	case g.first > acked:
		return g.count - g.skip
	}
	return min(g.count-g.skip, g.last-acked)
}

func segmentPath(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016d.seg", number))
}

// createSegment makes an empty segment file for records from first on.
func createSegment(dir string, number, first uint64, boot string) (*segment, *os.File, error) {
	path := segmentPath(dir, number)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	head := make([]byte, segmentHeader)
	copy(head, magic)
	copy(head[len(magic):], boot)
	if _, err := f.Write(head); err != nil {
		f.Close()
		os.Remove(path)
		return nil, nil, err
	}
	return &segment{number: number, path: path, first: first, last: first - 1, size: int64(segmentHeader)}, f, nil
}

// listSegments returns the numbers of the segment files in dir, in order.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []uint64
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".seg")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(base, 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	sort.Slice(numbers, func(i, j int) bool { return numbers[i] < numbers[j] })
	return numbers, nil
}

// scanned is what a segment file turned out to hold.
type scanned struct {
	count   uint64
	first   uint64 // sequence numbers of the first and the last record
	last    uint64
	acked   uint64 // records with a sequence number up to the one asked about
	good    []byte // header and all records that verify
	torn    int    // bytes of a torn tail
	corrupt bool   // something else was wrong
}

// scan verifies the bytes of a segment file, and counts the records up to sequence number acked. newest: a record that does not verify at its very end
// is a torn write.
func scan(b []byte, newest bool, acked uint64) scanned {
	if len(b) < segmentHeader || string(b[:len(magic)]) != magic {
		// A crash right after the file was made leaves less than a header.
		return scanned{corrupt: len(b) >= segmentHeader || !newest, torn: len(b)}
	}
	s := scanned{good: b[:segmentHeader:segmentHeader]}
	rest := b[segmentHeader:]
	clean := true // good is still a prefix of b
	for len(rest) > 0 {
		r, err := parseRecord(rest)
		if err == nil {
			if clean {
				s.good = b[: len(b)-len(rest)+r.size : len(b)-len(rest)+r.size]
			} else {
				s.good = append(s.good, rest[:r.size]...)
			}
			if s.count == 0 {
				s.first = r.sequence
			}
			s.count++
			s.last = r.sequence
			if r.sequence <= acked {
				s.acked++
			}
			rest = rest[r.size:]
			continue
		}
		atEnd := errors.Is(err, errTorn) || r.size == len(rest) || len(bytes.TrimLeft(rest, "\x00")) == 0
		if newest && atEnd {
			s.torn = len(rest)
			return s
		}
		clean, s.corrupt = false, true
		if r.size == 0 || errors.Is(err, errTorn) {
			return s // no way to tell where the next record begins
		}
		rest = rest[r.size:]
	}
	return s
}

// setAside renames a corrupt file and puts the good part in its place, when there is any. It keeps the newest four of such files.
func setAside(dir, path string, good []byte) (string, error) {
	aside := path + ".corrupt"
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.corrupt"))
	if err == nil {
		sort.Strings(old)
		for len(old) > 4 {
			os.Remove(old[0])
			old = old[1:]
		}
	}
	if len(good) == 0 {
		return aside, nil
	}
	return aside, os.WriteFile(path, good, 0o600)
}
