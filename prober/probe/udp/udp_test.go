package udp_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/udp"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short is the timeout of probes that are to run into it.
const short = 300 * time.Millisecond

func within(t testing.TB, timeout time.Duration, address string, o *meshv1.UdpProbe) *meshv1.Result {
	t.Helper()
	return probetest.Run(t, udp.Compile, "udp://"+address, timeout, probe.Options{}, func(c *meshv1.Check) { c.Udp = o })
}

func run(t testing.TB, address string, o *meshv1.UdpProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, address, o)
}

// serve gives each datagram to answer, whose datagrams go back, until the test ends. It gives the address.
func serve(t testing.TB, answer func(n int, got []byte) [][]byte) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buffer := make([]byte, 70_000)
		for n := 0; ; n++ {
			size, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			for _, out := range answer(n, buffer[:size]) {
				_, _ = conn.WriteTo(out, from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); wg.Wait() })
	return conn.LocalAddr().String()
}

func echo(_ int, got []byte) [][]byte { return [][]byte{bytes.Clone(got)} }

func silent(int, []byte) [][]byte { return nil }

// refused is an address on which nobody listens.
func refused(t testing.TB) string {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

func TestAnAnswerIsNeededUnlessTheCheckSaysOtherwise(t *testing.T) {
	r := run(t, serve(t, echo), &meshv1.UdpProbe{Send: "hello", Match: "^hel+o$", Expect: []string{`response.body == "hello"`, `response.udp.loss == 0.0`}})
	probetest.OK().Match(t, r)
	if u := r.Udp; u.GetSent() != 1 || u.GetReceived() != 1 || u.GetRttMin().AsDuration() <= 0 || u.GetBytesReceived() != 5 || r.RemoteAddress == "" || r.Timings.Processing == nil {
		t.Errorf("got %v", r)
	}
	quiet := serve(t, silent)
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "no answer within 300ms to 1 datagram").Match(t, within(t, short, quiet, nil))
	begin := time.Now()
	probetest.OK().Match(t, within(t, 2*short, quiet, &meshv1.UdpProbe{AnswerOptional: true}))
	if took := time.Since(begin); took < short/2 || took > 10*short {
		t.Errorf("it waited %s for a refusal", took)
	}
	for _, o := range []*meshv1.UdpProbe{nil, {AnswerOptional: true}, {Count: 3}, {MaxLoss: proto.Float64(1)}} {
		r = run(t, refused(t), o)
		probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_PROCESSING, "the port is unreachable").Match(t, r)
		if r.Udp.GetRefused() != max(1, o.GetCount()) {
			t.Errorf("got %v", r.Udp)
		}
	}
}

func TestAnswersThatAreNotAsExpectedArePassedOverAndTold(t *testing.T) {
	noisy := serve(t, func(int, []byte) [][]byte { return [][]byte{[]byte("noise"), {}, []byte("\x01\x02good")} })
	probetest.OK().Match(t, run(t, noisy, &meshv1.UdpProbe{MatchBytes: []byte{1, 2}}))
	r := within(t, short, noisy, &meshv1.UdpProbe{Match: "better"})
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `3 answers were not as expected (better); the first is "noise"`).Match(t, r)
	if string(r.Evidence.Body) != "noise" || r.FailedExpectation != "better" || r.Udp.GetUnmatched() != 3 {
		t.Errorf("got %v", r)
	}
	flood := serve(t, func(int, []byte) [][]byte {
		out := make([][]byte, 100)
		for i := range out {
			out[i] = make([]byte, 1000)
		}
		return out
	})
	begin := time.Now()
	r = run(t, flood, &meshv1.UdpProbe{Match: "x"})
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "16 answers").Match(t, r)
	if time.Since(begin) > 5*time.Second {
		t.Error("a flood is waited out")
	}
}

func TestLossAndRoundTripsAreOfTheVeryDatagram(t *testing.T) {
	// The first of ten is never answered, the second late: neither is taken for another's.
	lossy := func() string {
		return serve(t, func(n int, got []byte) [][]byte {
			if n == 0 {
				return nil
			}
			return [][]byte{bytes.Clone(got), bytes.Clone(got)}
		})
	}
	gap := durationpb.New(5 * time.Millisecond)
	r := within(t, 2*short, lossy(), &meshv1.UdpProbe{Count: 10, Interval: gap, MaxLoss: proto.Float64(0.1), Expect: []string{"response.udp.received == 9", "response.udp.rtt_max < duration(\"500ms\")"}})
	probetest.OK().Match(t, r)
	if u := r.Udp; u.GetSent() != 10 || u.GetReceived() != 9 || u.GetRttMin().AsDuration() > u.GetRttAvg().AsDuration() || u.GetRttAvg().AsDuration() > u.GetRttMax().AsDuration() {
		t.Errorf("got %v", u)
	}
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "1 of 10 datagrams not answered within 600ms, more than max_loss 0.05 allows").
		Match(t, within(t, 2*short, lossy(), &meshv1.UdpProbe{Count: 10, Interval: gap, MaxLoss: proto.Float64(0.05)}))
	probetest.OK().Match(t, within(t, 2*short, lossy(), &meshv1.UdpProbe{Count: 10, Interval: gap}))
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "no answer within 300ms to 3 datagrams").Match(t, within(t, short, serve(t, silent), &meshv1.UdpProbe{Count: 3, MaxLoss: proto.Float64(0)}))
}

func TestADialogueOfDatagramsReturnsTheChallengeByteByByte(t *testing.T) {
	var challenged atomic.Bool
	game := serve(t, func(_ int, got []byte) [][]byte {
		question := []byte("\xff\xff\xff\xffQuery\x00")
		rest, ok := bytes.CutPrefix(got, question)
		switch {
		case !ok:
			return nil
		case len(rest) == 0:
			challenged.Store(true)
			return [][]byte{[]byte("noise"), []byte("\xff\xff\xff\xffA\x00\xfe\xc3\n")}
		case string(rest) == "\x00\xfe\xc3\n":
			return [][]byte{[]byte("\xff\xff\xff\xffIde_dust")}
		}
		return [][]byte{[]byte("\xff\xff\xff\xffE")}
	})
	const answer = `(?s)^\xff{4}A(?P<challenge>.{4})$`
	r := run(t, game, &meshv1.UdpProbe{Steps: []*meshv1.DialogueStep{
		{SendEscaped: `\xff\xff\xff\xffQuery\0`, Expect: answer, Match: meshv1.DialogueStep_BYTES},
		{Name: "info", SendEscaped: `\xff\xff\xff\xffQuery\0${challenge}`, Expect: `^\xff{4}I(?P<map>\w+)`, Match: meshv1.DialogueStep_BYTES, Reject: "^....E"},
	}, Expect: []string{`response.captures.map == "de_dust"`}})
	probetest.OK().Match(t, r)
	if !challenged.Load() || r.Tcp.GetStepsDone() != 2 || r.Udp.GetSent() != 2 || r.Udp.GetReceived() != 3 {
		t.Errorf("got %v", r)
	}
	r = within(t, short, serve(t, silent), &meshv1.UdpProbe{Steps: []*meshv1.DialogueStep{{Send: "x", Expect: "y"}}})
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "step 1: ").Match(t, r)
	r = run(t, refused(t), &meshv1.UdpProbe{Steps: []*meshv1.DialogueStep{{Send: "x", ExpectBytes: []byte("y")}}})
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_PROCESSING, "connection refused").Match(t, r)
}

func TestACancelledProbeEndsAtOnceAndIsNoVote(t *testing.T) {
	for _, o := range []*meshv1.UdpProbe{{Count: 1}, {Count: 20, Interval: durationpb.New(400 * time.Millisecond)}, {Steps: []*meshv1.DialogueStep{{Expect: "x"}}}} {
		c, target := probetest.Check(t, "udp://"+serve(t, silent), 10*time.Second, func(c *meshv1.Check) { c.Udp = o })
		r, err := udp.Compile(c, target, probetest.Env())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		begin := time.Now()
		if got := r.Probe(ctx, probe.Options{}); got.Outcome != meshv1.Result_ERROR || time.Since(begin) > 5*time.Second {
			t.Errorf("got %v", got)
		}
		r.Close()
	}
}

// FuzzAnswer: whatever comes back, a probe ends with a result that keeps its promises.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("hello"), "h(?P<a>.*)o", true)
	f.Add([]byte("\xff\xff\x00"), `\xff`, false)
	var now atomic.Pointer[[]byte]
	address := serve(f, func(int, []byte) [][]byte { return [][]byte{*now.Load(), *now.Load(), []byte("end")} })
	f.Fuzz(func(t *testing.T, answer []byte, pattern string, text bool) {
		data := answer[:min(len(answer), 60_000)]
		now.Store(&data)
		o := &meshv1.UdpProbe{Match: "^end$"}
		if text {
			o = &meshv1.UdpProbe{Steps: []*meshv1.DialogueStep{{Send: "x", Expect: "(?P<a>end)|(?P<b>x*)", Match: meshv1.DialogueStep_BYTES}, {SendEscaped: `\xff${a}${b}`, ExpectBytes: []byte("end")}}}
		}
		r := within(t, 2*time.Second, address, o)
		if r.ErrorClass == meshv1.Result_PROBER {
			t.Fatal(r)
		}
	})
}
