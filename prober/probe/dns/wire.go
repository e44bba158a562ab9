package dns

import (
	"encoding/binary"
	"errors"
)

// Limits of one message.
const (
	headerBytes = 12
	maxMessage  = 65535
	// maxExpanded is how many bytes the names that begin the records of a message may have once their compression is undone. A message of records that all have the longest name there is,
	// told by two bytes each, would have a hundred times its size.
	maxExpanded = 1 << 20
	// maxHIP is how many bytes the HIP records of a message may have: each two of them can be a name of 1,020 characters.
	maxHIP = 4 << 10
	// maxRecords is how many records a message may have.
	maxRecords = 8192
	// maxPointers is how often a name may go on elsewhere.
	maxPointers = 127
	typeHIP     = 55
)

// Bits of the header.
const (
	bitResponse  = 0x80
	bitsOpcode   = 0x78
	bitTruncated = 0x02
	bitsRcode    = 0x0f
)

// Errors of a message that is not unpacked.
var (
	errShort    = errors.New("it ends in the middle of a record")
	errPointers = errors.New("a name in it is a loop")
	errExpanded = errors.New("its names have more than 1 MiB once decompressed")
	errRecords  = errors.New("it has more than 8192 records")
	errHIP      = errors.New("it has more than 4 KiB of HIP records")
)

// answersQuestion tells whether message b answers query: the same id and opcode, and the same question, whose letters may differ in case. Servers that cannot read a question
// do not repeat it, but then they say so by their response code.
func answersQuestion(b, query []byte) bool {
	if len(b) < headerBytes || b[0] != query[0] || b[1] != query[1] || b[2]&bitResponse == 0 || b[2]&bitsOpcode != query[2]&bitsOpcode {
		return false
	}
	switch binary.BigEndian.Uint16(b[4:]) {
	case 0:
		return b[3]&bitsRcode != 0
	case 1:
	default:
		return false
	}
	end := questionEnd(query)
	if len(b) < end {
		return false
	}
	for i := headerBytes; i < end; i++ {
		if lower(b[i]) != lower(query[i]) {
			return false
		}
	}
	return true
}

// questionEnd is where the question of a query of ours ends, which has one and no compression.
func questionEnd(query []byte) int {
	i := headerBytes
	for query[i] != 0 {
		i += int(query[i]) + 1
	}
	return i + 1 + 4
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// truncated tells whether a message says that it is cut short.
func truncated(b []byte) bool { return len(b) > 2 && b[2]&bitTruncated != 0 }

// tolerable looks a message through without keeping anything of it, and says why it should not be unpacked: the size of what unpacking would make is not bounded by the size of the message.
func tolerable(b []byte) error {
	if len(b) < headerBytes {
		return errShort
	}
	questions := int(binary.BigEndian.Uint16(b[4:]))
	records := int(binary.BigEndian.Uint16(b[6:])) + int(binary.BigEndian.Uint16(b[8:])) + int(binary.BigEndian.Uint16(b[10:]))
	if records > maxRecords || questions > maxRecords {
		return errRecords
	}
	at, expanded, hip := headerBytes, 0, 0
	for i := range questions + records {
		if at == len(b) && i > questions {
			return nil // some servers count records that they cut off
		}
		size, next, err := nameSize(b, at)
		if err != nil {
			return err
		}
		if expanded += size; expanded > maxExpanded {
			return errExpanded
		}
		at = next + 4
		if i < questions {
			continue
		}
		if at+6 > len(b) {
			return errShort
		}
		length := int(binary.BigEndian.Uint16(b[at+4:]))
		if binary.BigEndian.Uint16(b[next:]) == typeHIP {
			if hip += length; hip > maxHIP {
				return errHIP
			}
		}
		if at += 6 + length; at > len(b) {
			return errShort
		}
	}
	if at > len(b) {
		return errShort
	}
	return nil
}

// nameSize is how many bytes the name at an offset has when decompressed, and where what follows it begins.
func nameSize(b []byte, at int) (size, next int, err error) {
	jumps := 0
	for {
		if at >= len(b) {
			return 0, 0, errShort
		}
		c := int(b[at])
		switch {
		case c == 0:
			if jumps == 0 {
				next = at + 1
			}
			return size + 1, next, nil
		case c&0xc0 == 0xc0:
			if at+1 >= len(b) {
				return 0, 0, errShort
			}
			if jumps == 0 {
				next = at + 2
			}
			if jumps++; jumps > maxPointers {
				return 0, 0, errPointers
			}
			at = (c&0x3f)<<8 | int(b[at+1])
		case c&0xc0 != 0:
			return 0, 0, errors.New("a name in it has a label of a kind that nobody knows")
		default:
			if size += c + 1; size > 255 {
				return 0, 0, errors.New("a name in it has more than 255 bytes")
			}
			at += c + 1
		}
	}
}
