// Package page makes and reads page tokens: where a list goes on, bound to the call and filter it was made for.
//
// A token is opaque to clients. It carries a version, so that a server of another release refuses it instead of misreading it, and a checksum,
// so that a cut or altered token is refused too; it is no secret and grants nothing. Since it names the last resource that was sent and lists are
// sorted by name, resources that exist throughout are neither lost nor doubled however many are written meanwhile.
package page

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// version is the first byte of a token.
	version = 1
	// header is the version and 8 bytes of what the token is bound to; trailer is the checksum.
	header, trailer = 9, 4
	// lengthMax is how long a token can be: no name is near it.
	lengthMax = 512

	// SizeDefault is the size of a page that asks for none.
	SizeDefault = 100
	// SizeMax is the largest page.
	SizeMax = 1000
)

// Cursor is a list in progress.
type Cursor struct {
	// After is the name of the last resource of the page before; empty for the first page.
	After string
	// Size is how many resources to send at most, 1 to SizeMax.
	Size int
	// bound is what tokens are bound to.
	bound uint64
}

// Read makes the cursor of a call from its request. call is a constant such as "ListChecks"; filter is the canonical form of the request's. The
// error is a *fault.Error: PAGE_TOKEN_INVALID for a token, INVALID_FIELD for a negative size.
func Read(call, filter, token string, size int32) (Cursor, error) {
	if size < 0 {
		return Cursor{}, fault.Invalid(fault.Violation{Field: "page_size", Problem: "is negative; give 1 to 1000, or 0 for 100"})
	}
	c := Cursor{Size: min(int(size), SizeMax), bound: binding(call, filter)}
	if size == 0 {
		c.Size = SizeDefault
	}
	if token == "" {
		return c, nil
	}
	after, ok := decode(token, c.bound)
	if !ok {
		e := fault.New(codes.InvalidArgument, meshv1.ErrorReason_PAGE_TOKEN_INVALID, "",
			"the page token is not one that %s gave for this filter; use next_page_token as it came, with the same filter, or start again without a token", call)
		e.Violations = []fault.Violation{{Field: "page_token", Problem: "was not given by " + call + " for this filter"}}
		return Cursor{}, e
	}
	c.After = after
	return c, nil
}

// Next is the token of the page that begins after the resource last.
func (c Cursor) Next(last string) string {
	b := make([]byte, header, header+len(last)+trailer)
	b[0] = version
	binary.BigEndian.PutUint64(b[1:], c.bound)
	b = append(b, last...)
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	return base64.RawURLEncoding.EncodeToString(b)
}

func decode(token string, bound uint64) (after string, ok bool) {
	if len(token) > lengthMax {
		return "", false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) <= header+trailer || b[0] != version {
		return "", false
	}
	body := b[:len(b)-trailer]
	if crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(b[len(body):]) || binary.BigEndian.Uint64(body[1:]) != bound {
		return "", false
	}
	return string(body[header:]), true
}

func binding(call, filter string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(call)) // never fails: see hash.Hash
	h.Write([]byte{0})
	h.Write([]byte(filter))
	return h.Sum64()
}
