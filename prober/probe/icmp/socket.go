package icmp

import (
	"net/netip"
	"time"
)

// Unavailable says what a prober that cannot send echo requests needs.
const Unavailable = "this prober can send no ICMP: allow its group in net.ipv4.ping_group_range (sysctl), or give it CAP_NET_RAW"

// settings are how a socket sends.
type settings struct {
	to           netip.Addr
	source       netip.Addr // zero: the system chooses
	hopLimit     int        // 0: the system's
	dontFragment bool
	payload      int // bytes, for buffers
}

// arrival is one packet that came in: a candidate for a reply, or what an error message quotes of a request.
type arrival struct {
	packet []byte        // from the ICMP header on; valid until the next one is received
	from   netip.Addr    // who sent it
	hops   int           // hop limit that it came with; 0: not known
	aged   time.Duration // how long it had waited in the kernel
	error  bool          // it is an error message
	says   refusal       // what the error message says
}

// Available tells whether this process may send echo requests, by opening a socket as a probe would.
func Available() bool {
	s, err := open(settings{to: netip.AddrFrom4([4]byte{127, 0, 0, 1})})
	if err != nil {
		return false
	}
	s.close()
	return true
}
