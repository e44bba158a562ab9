package icmp

import (
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// quoting is an error message about a request that s sent.
func quoting(t testing.TB, s *socket, number int) []byte {
	t.Helper()
	echo, err := (&icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: int(s.id), Seq: number}}).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	header := make([]byte, 20)
	header[0] = 0x45
	copy(header[16:], s.to.AsSlice())
	packet, err := (&icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 1, Body: &icmp.DstUnreach{Data: append(header, echo...)}}).Marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func TestARoutersWordIsBelievedOnlyAboutOwnRequests(t *testing.T) {
	router := netip.MustParseAddr("192.0.2.254")
	s := &socket{v4: true, raw: true, to: netip.MustParseAddr("192.0.2.7"), id: 77}
	if kind, number, ok := s.parse(quoting(t, s, 3), router); !ok || kind != unreachable || number != 3 {
		t.Errorf("got %d, %d, %v", kind, number, ok)
	}
	other := &socket{v4: true, raw: true, to: netip.MustParseAddr("192.0.2.7"), id: 78}
	if _, _, ok := s.parse(quoting(t, other, 3), router); ok {
		t.Error("another process's request was taken for an own one")
	}
	elsewhere := &socket{v4: true, raw: true, to: netip.MustParseAddr("192.0.2.8"), id: 77}
	if _, _, ok := s.parse(quoting(t, elsewhere, 3), router); ok {
		t.Error("a request to another address was taken for an own one")
	}
}

func FuzzParse(f *testing.F) {
	s := &socket{v4: true, raw: true, to: netip.MustParseAddr("192.0.2.7"), id: 77}
	f.Add(quoting(f, s, 3), true)
	f.Add([]byte{0, 0, 0, 0, 0, 77, 0, 1}, true)
	f.Add([]byte{129, 0, 0, 0, 0, 77, 0, 1}, false)
	f.Fuzz(func(t *testing.T, packet []byte, v4 bool) {
		from := netip.MustParseAddr("192.0.2.7")
		to := from
		if !v4 {
			to = netip.MustParseAddr("2001:db8::7")
		}
		for _, raw := range []bool{true, false} {
			s := &socket{v4: v4, raw: raw, to: to, id: 77, payload: []byte("0123456789abcdef")}
			s.parse(packet, from)
		}
	})
}
