// Package assignment has the hashes by which a server and a prober agree on what the prober runs, and the point in the interval at which it runs it.
// They are part of the session protocol (see session_service.proto) and must never change within a protocol version.
package assignment

import (
	"encoding/binary"
	"hash/fnv"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Fingerprint is the hash of an assignment without its own fingerprint: FNV-1a, 64 bit, over the deterministic encoding.
func Fingerprint(a *meshv1.Assignment) uint64 {
	held := a.GetFingerprint()
	a.Fingerprint = 0
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
	a.Fingerprint = held
	if err != nil {
		// An assignment is built from valid UTF-8 only; anything else was refused when the check was applied.
		panic("assignment: " + err.Error())
	}
	h := fnv.New64a()
	h.Write(b)
	return h.Sum64()
}

// Digest is the digest of a set of assignments. The zero value is that of the empty set; adding and removing commute.
type Digest uint64

// Add puts an assignment into the set.
func (d *Digest) Add(check string, fingerprint uint64) { *d += Digest(item(check, fingerprint)) }

// Remove takes an assignment out of the set.
func (d *Digest) Remove(check string, fingerprint uint64) { *d -= Digest(item(check, fingerprint)) }

func item(check string, fingerprint uint64) uint64 {
	h := fnv.New64a()
	h.Write([]byte(check))
	var b [9]byte
	binary.BigEndian.PutUint64(b[1:], fingerprint)
	h.Write(b[:])
	return h.Sum64()
}

// Phase is where in the interval the prober of the given rank starts a check: (hash(check) + rank * interval / probers) mod interval.
// It depends on nothing else, so a restart, an edit or a move never re-rolls it, and the probers of a check are evenly staggered.
// It panics unless interval and probers are positive: the caller has introduced a bug.
func Phase(check string, rank, probers int, interval time.Duration) time.Duration {
	if interval <= 0 || probers <= 0 {
		panic("assignment: phase of a check without interval or probers")
	}
	h := fnv.New64a()
	h.Write([]byte(check))
	// FNV's low bits are its best mixed ones; a modulo by a round interval uses them all.
	base := time.Duration(h.Sum64() % uint64(interval))
	step := time.Duration(int64(interval) / int64(probers) * int64(rank))
	return (base + step) % interval
}

// Next is the first start at or after now of a check with the interval and phase: the smallest t >= now with t modulo interval = phase,
// counted from the Unix epoch.
func Next(now time.Time, interval, phase time.Duration) time.Time {
	n := now.UnixNano()
	since := (n - int64(phase)) % int64(interval)
	if since < 0 {
		since += int64(interval)
	}
	if since == 0 {
		return now
	}
	return now.Add(interval - time.Duration(since))
}
