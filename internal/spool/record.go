package spool

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// recordHeader is length (4), CRC-32C (4), sequence (8), flags (1). The length counts what follows the CRC; the CRC covers the same.
	recordHeader = 17
	// recordLimit bounds what a length may claim. A result has at most about 40 KiB of evidence.
	recordLimit = 1 << 20
	// flagUnsynced marks a result whose start time was taken before the prober knew the mesh's clock.
	flagUnsynced = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// errTorn says that the bytes end in the middle of a record.
	errTorn = errors.New("spool: torn record")
	// errCorrupt says that the bytes are no record.
	errCorrupt = errors.New("spool: corrupt record")
)

// appendRecord encodes a message behind b.
func appendRecord(b []byte, m proto.Message, sequence uint64, flags byte) ([]byte, error) {
	start := len(b)
	b = append(b, make([]byte, recordHeader)...)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return b[:start], err
	}
	if len(b)-start > recordLimit {
		return b[:start], errors.New("spool: it is larger than 1 MiB")
	}
	h := b[start:]
	binary.BigEndian.PutUint32(h[0:], uint32(len(h)-8))
	binary.BigEndian.PutUint64(h[8:], sequence)
	h[16] = flags
	binary.BigEndian.PutUint32(h[4:], crc32.Checksum(h[8:], castagnoli))
	return b, nil
}

// rawRecord is a record that verified; its payload is part of the buffer that it was parsed from.
type rawRecord struct {
	sequence uint64
	flags    byte
	payload  []byte
	size     int // bytes of the whole record
}

// parseRecord reads the record at the start of b. On errCorrupt, size is that of the whole record when its length is plausible, else 0.
func parseRecord(b []byte) (rawRecord, error) {
	if len(b) < 8 {
		return rawRecord{}, errTorn
	}
	n := int(binary.BigEndian.Uint32(b))
	if n < recordHeader-8 || n > recordLimit {
		return rawRecord{}, errCorrupt
	}
	if len(b) < 8+n {
		return rawRecord{}, errTorn
	}
	body := b[8 : 8+n]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[4:]) {
		return rawRecord{size: 8 + n}, errCorrupt
	}
	return rawRecord{sequence: binary.BigEndian.Uint64(body), flags: body[8], payload: body[9:], size: 8 + n}, nil
}

// Record is a result that the spool keeps.
type Record struct {
	// Result has its sequence number.
	Result *meshv1.Result
	// Unsynced: its start time is on the prober's own clock, which had not been compared with the mesh's.
	Unsynced bool
	// Earlier: a boot before this one left it.
	Earlier bool
}

// Payload is a message that the spool keeps, as it was encoded.
type Payload struct {
	// Sequence is its number.
	Sequence uint64
	// Bytes are the message's; they belong to whoever reads them.
	Bytes []byte
}

func (r rawRecord) record(sequence uint64, earlier bool) (Record, error) {
	out := Record{Result: &meshv1.Result{}, Unsynced: r.flags&flagUnsynced != 0, Earlier: earlier}
	if err := proto.Unmarshal(r.payload, out.Result); err != nil {
		return Record{}, errCorrupt
	}
	out.Result.Sequence = sequence
	return out, nil
}
