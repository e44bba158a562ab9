package icmp

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzErrorQueue feeds the reader of the error queue, whose content is shaped by who sent the message.
func FuzzErrorQueue(f *testing.F) {
	entry := make([]byte, unix.CmsgSpace(32))
	binary.NativeEndian.PutUint64(entry, uint64(unix.CmsgLen(32)))
	binary.NativeEndian.PutUint32(entry[8:], unix.SOL_IP)
	binary.NativeEndian.PutUint32(entry[12:], unix.IP_RECVERR)
	entry[16+4], entry[16+5] = unix.SO_EE_ORIGIN_ICMP, exceededV4
	binary.NativeEndian.PutUint16(entry[32:], unix.AF_INET)
	copy(entry[36:], []byte{192, 0, 2, 254})
	s := &socket{v4: true, data: make([]byte, 64)}
	var got arrival
	s.tookError(8, copy(s.oob[:], entry), &got)
	if got.from != netip.MustParseAddr("192.0.2.254") || !got.says.exceeded(true) || len(got.packet) != 8 {
		f.Fatalf("got %+v", got)
	}
	f.Add(entry, true)
	f.Add(entry[:20], false)
	f.Fuzz(func(_ *testing.T, oob []byte, v4 bool) {
		s := &socket{v4: v4, data: make([]byte, 64)}
		var got arrival
		n := copy(s.oob[:], oob)
		s.tookError(8, n, &got)
		s.took(8, n, &unix.SockaddrInet4{}, &got)
	})
}
