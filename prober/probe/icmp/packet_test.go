package icmp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// afterSending is an exchange whose requests are all on their way.
func afterSending(v4 bool, count, size int, within time.Duration) *exchange {
	x := &exchange{runner: &runner{within: within, options: &meshv1.IcmpProbe{}}, attempt: &probe.Attempt{}, requests: newRequests(v4, count, size),
		answer: &answer{v4: v4, options: &meshv1.IcmpProbe{}, trips: make([]time.Duration, count), sent: count}}
	x.requests.id = 77
	for i := range count {
		x.requests.states[i], x.requests.sent[i] = waiting, time.Now()
	}
	return x
}

// replyTo is the reply to request i.
func (q *requests) replyTo(i int) []byte {
	packet := append([]byte(nil), q.request(i)...)
	packet[0] = echoReplyV6
	if q.v4 {
		packet[0] = echoReplyV4
	}
	return packet
}

func TestRequestsAreWhatAnotherImplementationReads(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 56, 57, 1400} {
		q := newRequests(true, 2, size)
		q.id = 0xabcd
		packet := append([]byte(nil), q.request(1)...)
		m, err := icmp.ParseMessage(1, packet)
		if err != nil {
			t.Fatal(err)
		}
		echo, ok := m.Body.(*icmp.Echo)
		if !ok || m.Type != ipv4.ICMPTypeEcho || echo.ID != 0xabcd || echo.Seq != int(q.first+1) || len(echo.Data) != size {
			t.Errorf("size %d: read as %v %v", size, m, echo)
		}
		again, err := m.Marshal(nil)
		if err != nil || string(again) != string(packet) {
			t.Errorf("size %d: the checksum is %x, not %x", size, packet[2:4], again[2:4])
		}
	}
}

func TestOnlyTheFirstIntactReplyInTimeCounts(t *testing.T) {
	for _, v4 := range []bool{true, false} {
		x := afterSending(v4, 5, 56, time.Second)
		q, now := x.requests, time.Now()
		send := func(packet []byte, at time.Time) { x.took(&arrival{packet: packet, hops: 61}, at) }
		changed := q.replyTo(1)
		changed[60] ^= 1
		longer := append(q.replyTo(1), 0)
		send(changed, now.Add(time.Millisecond))
		send(longer, now.Add(time.Millisecond))
		for range 3 {
			send(q.replyTo(0), now.Add(2*time.Millisecond))
		}
		send(q.replyTo(2), now.Add(2*time.Second))
		send(q.replyTo(2), now.Add(2*time.Second))
		send(q.replyTo(3)[:headerLen+tokenLen], now.Add(3*time.Millisecond)) // cut by the target, as some do
		a := x.answer
		if a.received != 2 || a.duplicates != 3 || a.late != 1 || a.corrupted != 2 || a.hopLimit != 61 || x.settled != 3 {
			t.Errorf("v4 %v: %d received, %d duplicates, %d late, %d corrupted, hop limit %d, %d settled", v4, a.received, a.duplicates, a.late, a.corrupted, a.hopLimit, x.settled)
		}
	}
}

func TestForgedPacketsAreOfNoAccount(t *testing.T) {
	for _, v4 := range []bool{true, false} {
		x := afterSending(v4, 2, 56, time.Second)
		q := x.requests
		change := func(at int, to byte) []byte { p := q.replyTo(0); p[at] = to; return p }
		forged := map[string][]byte{
			"another id": change(4, 1), "another number": change(6, byte(q.first>>8)+1), "another token": change(headerLen+3, q.payload[3]+1), "a code": change(1, 1),
			"an echo of the request": append([]byte(nil), q.request(0)...), "no token": q.replyTo(0)[:headerLen+tokenLen-1], "no header": q.replyTo(0)[:7], "nothing": nil,
		}
		for name, packet := range forged {
			x.took(&arrival{packet: packet}, time.Now())
			x.took(&arrival{packet: packet, error: true}, time.Now())
			if name == "an echo of the request" {
				continue // which an error message does quote
			}
			if x.answer.errors > 1 || x.answer.received > 0 {
				t.Fatalf("v4 %v: %s was believed", v4, name)
			}
		}
		if x.answer.received != 0 || x.answer.errors != 1 || x.answer.corrupted != 0 || x.arrivals != 2*len(forged) {
			t.Errorf("v4 %v: got %+v after %d packets", v4, x.answer, x.arrivals)
		}
	}
}

func TestARoutersWordIsBelievedOnceAndAReplyOverridesIt(t *testing.T) {
	x := afterSending(true, 1, 56, time.Second)
	says := &arrival{packet: append([]byte(nil), x.requests.request(0)[:headerLen]...), error: true, from: netip.MustParseAddr("192.0.2.254"), says: refusal{kind: exceededV4}}
	x.took(says, time.Now())
	x.took(says, time.Now())
	if x.answer.errors != 1 || x.settled != 1 {
		t.Errorf("%d errors, %d settled", x.answer.errors, x.settled)
	}
	x.took(&arrival{packet: x.requests.replyTo(0)}, time.Now())
	if x.answer.received != 1 || x.settled != 1 {
		t.Errorf("%d received, %d settled", x.answer.received, x.settled)
	}
}

func TestRoundTripsAreCountedWithoutTheWaitForThisProcess(t *testing.T) {
	x := afterSending(true, 1, 0, time.Second)
	x.took(&arrival{packet: x.requests.replyTo(0), aged: 9 * time.Millisecond}, x.requests.sent[0].Add(10*time.Millisecond))
	if x.answer.trips[0] != time.Millisecond {
		t.Errorf("got %s", x.answer.trips[0])
	}
}

func TestFiguresOfRoundTrips(t *testing.T) {
	ms := time.Millisecond
	g := &answer{received: 4, sent: 5, trips: []time.Duration{10 * ms, 0, 20 * ms, 10 * ms, 20 * ms}}
	f := g.figures()
	if f.least != 10*ms || f.mean != 15*ms || f.most != 20*ms || f.deviation != 5*ms || f.jitter != 10*ms || g.loss() != 0.2 {
		t.Errorf("got %+v, loss %v", f, g.loss())
	}
	if one := (&answer{received: 1, trips: []time.Duration{ms}}).figures(); one.deviation != 0 || one.jitter != 0 || one.mean != ms {
		t.Errorf("of one: %+v", one)
	}
	if none := (&answer{trips: []time.Duration{0}}).figures(); none != (figures{}) {
		t.Errorf("of none: %+v", none)
	}
}

func TestEveryErrorMessageHasItsSentence(t *testing.T) {
	router := netip.MustParseAddr("192.0.2.254")
	for want, g := range map[string]*answer{
		"the hop limit ran out at 192.0.2.254 (ICMP time exceeded, 3 of 3 echo requests)": {v4: true, says: refusal{kind: exceededV4}},
		"at most 1372 bytes of payload pass":                                              {v4: true, says: refusal{kind: unreachableV4, code: 4, mtu: 1400}},
		"look for a link with a smaller MTU":                                              {v4: true, says: refusal{kind: unreachableV4, code: 4}},
		"at most 1232 bytes of payload pass":                                              {says: refusal{kind: tooBigV6, mtu: 1280}},
		"192.0.2.254 says: host unreachable (3 of 3":                                      {v4: true, says: refusal{kind: unreachableV4, code: 1}},
		"192.0.2.254 says: communication prohibited by a filter":                          {v4: true, says: refusal{kind: unreachableV4, code: 13}},
		"192.0.2.254 says: no route to destination":                                       {says: refusal{kind: unreachableV6}},
		"192.0.2.254 says: destination unreachable":                                       {v4: true, says: refusal{kind: unreachableV4, code: 99}},
		"192.0.2.254 says: fragment reassembly time exceeded (3 of":                       {says: refusal{kind: exceededV6, code: 1}},
	} {
		g.options, g.sent, g.errors, g.from = &meshv1.IcmpProbe{}, 3, 3, router
		f := g.Judge(false)
		if f == nil || f.Class != meshv1.Result_UNREACHABLE || !strings.Contains(f.Sentence, want) {
			t.Errorf("got %v, want %s", f, want)
		}
		if g.Judge(true) != nil {
			t.Errorf("%s: expectations do not decide", want)
		}
	}
}

func FuzzPacket(f *testing.F) {
	q := newRequests(true, 3, 56)
	f.Add(q.replyTo(1), true, 56)
	f.Add(append([]byte{0x45, 19: 0}, q.replyTo(1)...), true, 0)
	f.Add([]byte{0x4f, 3: 0}, true, 8)
	f.Add(newRequests(false, 3, 56).replyTo(2), false, 3)
	f.Fuzz(func(t *testing.T, packet []byte, v4 bool, size int) {
		x := afterSending(v4, 3, max(0, min(size, 2000)), time.Second)
		x.took(&arrival{packet: packet}, time.Now())
		x.took(&arrival{packet: packet, error: true}, time.Now())
		x.took(&arrival{packet: stripIPv4(packet)}, time.Now())
		if x.answer.received > 0 && len(x.requests.payload) >= 8 {
			t.Errorf("a reply without the token was believed")
		}
	})
}
