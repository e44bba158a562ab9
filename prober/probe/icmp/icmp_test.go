package icmp_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/icmp"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, host string, o *meshv1.IcmpProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, host, o)
}

// short is the timeout of probes that are to run into it.
const short = 500 * time.Millisecond

// within is run with a timeout.
func within(t *testing.T, timeout time.Duration, host string, o *meshv1.IcmpProbe) *meshv1.Result {
	t.Helper()
	if !icmp.Available() {
		t.Skip(icmp.Unavailable)
	}
	return probetest.Run(t, icmp.Compile, "icmp://"+host, timeout, probe.Options{}, func(c *meshv1.Check) { c.Icmp = o })
}

func TestLoopbackAnswersEveryRequest(t *testing.T) {
	r := run(t, "127.0.0.1", &meshv1.IcmpProbe{Expect: []string{`response.icmp.loss == 0.0`, `response.icmp.received == 3`, `response.icmp.rtt_max < duration("9s")`}})
	probetest.OK().Match(t, r)
	if i := r.Icmp; i.Sent != 3 || i.Received != 3 || i.RttMin.AsDuration() <= 0 || i.RttMin.AsDuration() > i.RttAvg.AsDuration() || i.RttAvg.AsDuration() > i.RttMax.AsDuration() {
		t.Errorf("got %v", r.Icmp)
	}
	if r.RemoteAddress != "127.0.0.1" || r.Timings.Processing == nil {
		t.Errorf("got %v", r)
	}
	for _, size := range []int32{0, 1, 8, 9, 1400, 20_000} {
		probetest.OK().Match(t, run(t, "127.0.0.1", &meshv1.IcmpProbe{Count: 1, PayloadSize: proto.Int32(size), Expect: []string{`response.icmp.received == 1`}}))
	}
}

func TestIPv6IsPingedToo(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6 loopback")
	}
	l.Close()
	r := run(t, "[::1]", &meshv1.IcmpProbe{Count: 2})
	probetest.OK().Match(t, r)
	if r.Icmp.Received != 2 || r.RemoteAddress != "::1" {
		t.Errorf("got %v", r)
	}
}

func TestManyAtOnceDoNotTakeEachOthersReplies(t *testing.T) {
	if !icmp.Available() {
		t.Skip(icmp.Unavailable)
	}
	c, target := probetest.Check(t, "icmp://127.0.0.1", 2*time.Second, func(c *meshv1.Check) { c.Icmp = &meshv1.IcmpProbe{Count: 5} })
	r, err := icmp.Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan *meshv1.Result)
	for range 20 {
		go func() { results <- r.Probe(t.Context(), probe.Options{}) }()
	}
	for range 20 {
		if got := <-results; got.Icmp.GetReceived() != 5 {
			t.Errorf("got %v", got)
		}
	}
}

func TestAPinnedAddressIsPinged(t *testing.T) {
	if !icmp.Available() {
		t.Skip(icmp.Unavailable)
	}
	r := probetest.Run(t, icmp.Compile, "icmp://gateway.invalid", 10*time.Second, probe.Options{Pin: probe.Pin{Host: "gateway.invalid", Addr: netip.MustParseAddr("127.0.0.1")}}, nil)
	probetest.OK().Match(t, r)
	if r.RemoteAddress != "127.0.0.1" {
		t.Errorf("pinged %s", r.RemoteAddress)
	}
}

func TestBoundsHoldBesidesExpectations(t *testing.T) {
	probetest.OK().Match(t, run(t, "127.0.0.1", &meshv1.IcmpProbe{MaxLoss: proto.Float64(0), MaxRttAvg: durationpb.New(9 * time.Second), MaxRttMax: durationpb.New(9 * time.Second),
		MaxRttStddev: durationpb.New(9 * time.Second), MaxJitter: durationpb.New(9 * time.Second)}))
	for _, o := range []*meshv1.IcmpProbe{{MaxRttAvg: durationpb.New(time.Microsecond)}, {MaxRttMax: durationpb.New(time.Microsecond)}} {
		o.Expect = []string{"true"}
		probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "which is more than icmp.max_rtt_").Match(t, run(t, "127.0.0.1", o))
	}
}

func TestACancelledProbeEndsAtOnceAndSaysNothingOfTheTarget(t *testing.T) {
	if !icmp.Available() {
		t.Skip(icmp.Unavailable)
	}
	c, target := probetest.Check(t, "icmp://127.0.0.1", 50*time.Second, func(c *meshv1.Check) {
		c.Icmp = &meshv1.IcmpProbe{Count: 5, Interval: durationpb.New(10 * time.Second)}
	})
	r, err := icmp.Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	begin := time.Now()
	got := r.Probe(ctx, probe.Options{})
	if got.Outcome != meshv1.Result_ERROR || time.Since(begin) > 9*time.Second {
		t.Errorf("after %s: %v", time.Since(begin), got)
	}
}

func TestSilenceIsATimeout(t *testing.T) {
	// 198.51.100.0/24 is for documentation (RFC 5737): nobody answers, or a router says so.
	r := within(t, short, "198.51.100.77", &meshv1.IcmpProbe{Count: 2})
	switch r.ErrorClass {
	case meshv1.Result_TIMEOUT:
		probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "none of 2 echo requests was answered within 500ms").Match(t, r)
	case meshv1.Result_UNREACHABLE, meshv1.Result_PROBER:
	default:
		t.Errorf("got %v", r)
	}
	if r.Icmp.GetReceived() != 0 {
		t.Errorf("got %v", r.Icmp)
	}
}

func TestAProberWithoutICMPRefusesAndSaysWhatItNeeds(t *testing.T) {
	c, target := probetest.Check(t, "icmp://127.0.0.1", time.Second, nil)
	_, err := icmp.Compile(c, target, probe.Env{})
	var refusal *probe.Refusal
	if !errors.As(err, &refusal) || refusal.Capability != "icmp" || !strings.Contains(refusal.Reason, "net.ipv4.ping_group_range") || !strings.Contains(refusal.Reason, "CAP_NET_RAW") {
		t.Errorf("got %v", err)
	}
}
