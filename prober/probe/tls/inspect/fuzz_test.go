package inspect

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"testing"

	"golang.org/x/crypto/cryptobyte"
)

// FuzzTimestamps checks that a list that is accepted is the one that its parts make again, and that so is each timestamp.
func FuzzTimestamps(f *testing.F) {
	one := log{newKey(f)}
	stamp := one.stamp(f, 0, nil, []byte("certificate"), now())
	f.Add(list(stamp))
	f.Add(list(stamp, stamp))
	f.Add(list([]byte{1}))
	f.Add([]byte{0, 0})
	f.Add([]byte{0, 3, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		parts, err := SplitTimestamps(raw)
		if err != nil {
			return
		}
		if len(parts) == 0 || !bytes.Equal(list(parts...), raw) {
			t.Fatalf("%x is read as %d entries that do not make it again", raw, len(parts))
		}
		for _, p := range parts {
			got, ok, err := ParseTimestamp(p)
			if err != nil || !ok {
				continue
			}
			var b cryptobyte.Builder
			b.AddUint8(0)
			b.AddBytes(got.LogID[:])
			b.AddUint64(got.Millis)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(got.Extensions) })
			b.AddBytes([]byte{got.Hash, got.Algorithm})
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(got.Signature) })
			if !bytes.Equal(b.BytesOrPanic(), p) {
				t.Fatalf("%x is read as %v, which does not make it again", p, got)
			}
			if verifyTimestamp(got, one.key.Public(), func() ([]byte, error) { return []byte{0, 0, 0, 0, 1, 7}, nil }) == nil {
				t.Fatalf("%x verifies", p)
			}
		}
	})
}

// FuzzStaple checks that nothing but what the issuer signed is ever believed.
func FuzzStaple(f *testing.F) {
	root, stranger := authority(f), authority(f)
	leaf := issue(f, root, newKey(f), "a.example", nil)
	f.Add(respond(f, leaf, stranger, stranger, nil))
	good := respond(f, leaf, root, root, nil)
	f.Add(good[:len(good)-24])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := state(true, leaf, root)
		s.OCSPResponse = raw
		got := readStaple(s, now())
		if len(raw) > 0 && got.status != Invalid || len(got.problem) > 600 {
			t.Fatalf("%x is believed: %+v", raw, got)
		}
		_ = countTimestamps(s, got, map[[sha256.Size]byte]crypto.PublicKey{}, now())
	})
}

// FuzzCertificate checks that taking the timestamps out of the signed part of any certificate gives an error, or something that has none.
func FuzzCertificate(f *testing.F) {
	root := authority(f)
	f.Add(logged(f, root, "a.example", log{newKey(f)}).RawTBSCertificate)
	f.Add(root.RawTBSCertificate)
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := withoutTimestamps(raw)
		if err != nil {
			return
		}
		again, err := withoutTimestamps(out)
		if err != nil || !bytes.Equal(again, out) || len(out) > len(raw)+16 {
			t.Fatalf("%x gives %x and then %x, %v", raw, out, again, err)
		}
	})
}
