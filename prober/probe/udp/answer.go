package udp

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dialogue"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answer is what came back of all datagrams.
type answer struct {
	options           *meshv1.UdpProbe
	timeout, patience time.Duration
	sent              int
	refused           int
	unmatched         int
	received          int64
	trips             []time.Duration
	first             []byte // the first answer that matched, else the first of all
	failed            error  // the first error that is neither time nor a refusal
}

// add counts one datagram. The error is the prober's own: a datagram that could not even be sent.
func (g *answer) add(s shot) error {
	if s.err != nil && !s.sent {
		return s.err
	}
	if s.sent {
		g.sent++
	}
	if s.refused {
		g.refused++
	}
	if s.err != nil && g.failed == nil {
		g.failed = s.err
	}
	g.unmatched += s.unmatched
	g.received += s.received
	if s.answer != nil && (g.first == nil || s.trip > 0 && len(g.trips) == 0) {
		g.first = s.answer
	}
	if s.trip > 0 {
		g.trips = append(g.trips, s.trip)
	}
	return nil
}

// loss is the share of datagrams that were not answered.
func (g *answer) loss() float64 {
	if g.sent == 0 {
		return 0
	}
	return float64(g.sent-len(g.trips)) / float64(g.sent)
}

// span is the shortest, mean and longest round trip, nil without any.
func (g *answer) span() (least, mean, most *durationpb.Duration) {
	if len(g.trips) == 0 {
		return nil, nil, nil
	}
	low, high, sum := g.trips[0], g.trips[0], time.Duration(0)
	for _, t := range g.trips {
		low, high, sum = min(low, t), max(high, t), sum+t
	}
	return durationpb.New(low), durationpb.New(sum / time.Duration(len(g.trips))), durationpb.New(high)
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	least, mean, most := g.span()
	r.Udp = &meshv1.UdpResult{Sent: int32(g.sent), Received: int32(len(g.trips)), Refused: int32(g.refused), Unmatched: int32(g.unmatched),
		RttMin: least, RttAvg: mean, RttMax: most, BytesReceived: g.received}
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	least, mean, most := g.span()
	r.Udp = &meshv1.ResponseUdp{Sent: int64(g.sent), Received: int64(len(g.trips)), Loss: g.loss(), RttMin: least, RttAvg: mean, RttMax: most}
	if len(g.trips) > 0 && p.Reads("body") {
		r.Body = strings.ToValidUTF8(string(g.first), "\uFFFD")
	}
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	none := len(g.trips) == 0
	if none && g.refused > 0 {
		return &probe.Failure{Class: meshv1.Result_CONNECTION_REFUSED, Phase: meshv1.Result_PROCESSING,
			Sentence: fmt.Sprintf("connection refused: the host says that the port is unreachable (%d of %s)", g.refused, datagrams(g.sent))}
	}
	if g.options.MaxLoss != nil && g.loss() > g.options.GetMaxLoss() {
		return g.lost(fmt.Sprintf("max_loss %v", g.options.GetMaxLoss()))
	}
	if expected || g.options.GetAnswerOptional() || g.options.MaxLoss != nil || !none {
		return nil
	}
	return g.lost("")
}

// lost is the failure of datagrams without an answer.
func (g *answer) lost(limit string) *probe.Failure {
	missing := g.sent - len(g.trips)
	switch {
	case g.unmatched > 0:
		want := g.options.GetMatch()
		if want == "" {
			want = "match_bytes " + strconv.Quote(string(g.options.GetMatchBytes()))
		}
		return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Expectation: want,
			Sentence: fmt.Sprintf("%d of %d datagrams were answered, and %d answers were not as expected (%s); the first is %s", len(g.trips), g.sent, g.unmatched, want, quote(g.first))}
	case len(g.trips) > 0:
		return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Expectation: limit,
			Sentence: fmt.Sprintf("%d of %s not answered within %s, more than %s allows", missing, datagrams(g.sent), g.timeout, limit)}
	}
	return &probe.Failure{Class: meshv1.Result_TIMEOUT, Phase: meshv1.Result_PROCESSING,
		Sentence: fmt.Sprintf("no answer within %s to %s", g.timeout, datagrams(g.sent))}
}

// datagrams says how many, in words that go with it.
func datagrams(n int) string {
	if n == 1 {
		return "1 datagram"
	}
	return strconv.Itoa(n) + " datagrams"
}

// quote shows the beginning of an answer.
func quote(b []byte) string {
	if len(b) > 120 {
		return strconv.Quote(string(b[:120])) + "..."
	}
	return strconv.Quote(string(b))
}

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = fmt.Sprintf("%d datagrams sent, %d answered, %d refused, %d answers not as expected", g.sent, len(g.trips), g.refused, g.unmatched)
	probe.EvidenceBody(e, g.first, false)
}

// spoken is what was said in a dialogue.
type spoken struct{ record *dialogue.Record }

// Record implements probe.Answer.
func (s *spoken) Record(r *meshv1.Result) {
	r.Tcp = s.record.Result()
	r.Udp = &meshv1.UdpResult{Sent: int32(s.record.Writes), Received: int32(s.record.Reads), BytesReceived: s.record.Received}
}

// Respond implements probe.Answer.
func (s *spoken) Respond(r *meshv1.Response, p *expect.Program) {
	r.Udp = &meshv1.ResponseUdp{Sent: int64(s.record.Writes), Received: int64(s.record.Reads)}
	if p.Reads("body") {
		r.Body = strings.ToValidUTF8(string(s.record.Bytes), "\uFFFD")
	}
}

// Judge implements probe.Answer.
func (s *spoken) Judge(bool) *probe.Failure { return nil }

// Evidence implements probe.Answer.
func (s *spoken) Evidence(e *meshv1.Evidence) {
	body := s.record.Bytes
	if newest := s.record.Newest(); s.record.Failed != "" && len(newest) > 0 {
		body = newest
	}
	probe.EvidenceBody(e, body, false)
}
