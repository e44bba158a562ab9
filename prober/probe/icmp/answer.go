package icmp

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answer is what came back.
type answer struct {
	options    *meshv1.IcmpProbe
	timeout    time.Duration
	v4         bool
	sent       int
	received   int
	trips      []time.Duration // by request; 0: none
	hopLimit   int
	duplicates int
	late       int
	corrupted  int
	errors     int
	from       netip.Addr // who sent the last error message
	says       refusal    // what it said
}

// replied notes the reply to request i.
func (g *answer) replied(i int, trip time.Duration, hops int) {
	g.received++
	g.trips[i] = max(trip, 1)
	if hops > 0 {
		g.hopLimit = hops
	}
}

// refused notes an error message.
func (g *answer) refused(p *arrival) {
	g.errors++
	g.from, g.says = p.from, p.says
}

// loss is the share of requests without a reply.
func (g *answer) loss() float64 {
	if g.sent == 0 {
		return 0
	}
	return float64(g.sent-g.received) / float64(g.sent)
}

// figures are what the round trips tell; deviation and jitter only of two or more.
type figures struct{ least, mean, most, deviation, jitter time.Duration }

func (g *answer) figures() (f figures) {
	var sum, squares, steps float64
	last := time.Duration(0)
	for _, t := range g.trips {
		if t == 0 {
			continue
		}
		if f.least == 0 || t < f.least {
			f.least = t
		}
		f.most = max(f.most, t)
		sum += float64(t)
		if last != 0 {
			steps += math.Abs(float64(t - last))
		}
		last = t
	}
	if g.received == 0 {
		return f
	}
	mean := sum / float64(g.received)
	f.mean = time.Duration(mean)
	if g.received < 2 {
		return f
	}
	for _, t := range g.trips {
		if t != 0 {
			squares += (float64(t) - mean) * (float64(t) - mean)
		}
	}
	f.deviation = time.Duration(math.Sqrt(squares / float64(g.received)))
	f.jitter = time.Duration(steps / float64(g.received-1))
	return f
}

// protos are the figures in their proto form, unset where they are not known.
func (g *answer) protos() (least, mean, most, deviation, jitter *durationpb.Duration) {
	f := g.figures()
	if g.received > 0 {
		least, mean, most = durationpb.New(f.least), durationpb.New(f.mean), durationpb.New(f.most)
	}
	if g.received > 1 {
		deviation, jitter = durationpb.New(f.deviation), durationpb.New(f.jitter)
	}
	return least, mean, most, deviation, jitter
}

// sender is who sent the last error message, in text.
func (g *answer) sender() string {
	if !g.from.IsValid() {
		return ""
	}
	return g.from.String()
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	r.Icmp = &meshv1.IcmpResult{Sent: int32(g.sent), Received: int32(g.received), HopLimit: int32(g.hopLimit), Duplicates: int32(g.duplicates), Late: int32(g.late),
		Corrupted: int32(g.corrupted), Errors: int32(g.errors), ErrorFrom: g.sender()}
	r.Icmp.RttMin, r.Icmp.RttAvg, r.Icmp.RttMax, r.Icmp.RttStddev, r.Icmp.Jitter = g.protos()
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, _ *expect.Program) {
	r.Icmp = &meshv1.ResponseIcmp{Sent: int64(g.sent), Received: int64(g.received), Loss: g.loss(), HopLimit: int64(g.hopLimit), Duplicates: int64(g.duplicates), Late: int64(g.late),
		Corrupted: int64(g.corrupted), Errors: int64(g.errors), ErrorFrom: g.sender()}
	r.Icmp.RttMin, r.Icmp.RttAvg, r.Icmp.RttMax, r.Icmp.RttStddev, r.Icmp.Jitter = g.protos()
}

// Judge implements probe.Answer. The bounds hold whatever else is expected.
func (g *answer) Judge(expected bool) *probe.Failure {
	lenient := expected || g.options.GetMaxLoss() == 1 && g.options.MaxLoss != nil
	if g.received == 0 && (!lenient || g.options.MaxLoss != nil && *g.options.MaxLoss < 1) {
		return g.silence()
	}
	return g.exceeded()
}

// silence says why nothing came back.
func (g *answer) silence() *probe.Failure {
	f := &probe.Failure{Class: meshv1.Result_UNREACHABLE, Phase: meshv1.Result_PROCESSING}
	of := fmt.Sprintf("%d of %d echo requests", g.errors, g.sent)
	switch {
	case g.errors == 0 && g.late+g.corrupted > 0:
		f.Class = meshv1.Result_TIMEOUT
		f.Sentence = fmt.Sprintf("no echo request of %d was answered in time and unchanged: %d replies were late, %d were corrupted", g.sent, g.late, g.corrupted)
	case g.errors == 0:
		f.Class = meshv1.Result_TIMEOUT
		f.Sentence = fmt.Sprintf("none of %d echo requests was answered within %s", g.sent, g.patience())
	case g.says.exceeded(g.v4):
		f.Sentence = fmt.Sprintf("the hop limit ran out at %s (ICMP time exceeded, %s); raise icmp.hop_limit, or look for a loop in the routing", g.sender(), of)
	case g.says.tooBig(g.v4):
		f.Sentence = fmt.Sprintf("%s says that %d bytes of payload are too big for its next link (fragmentation needed, %s)%s", g.sender(), g.options.GetPayloadSize(), of, g.room())
	default:
		f.Sentence = fmt.Sprintf("%s says: %s (%s)", g.sender(), g.says.text(g.v4), of)
	}
	return f
}

// room says what would be small enough for the link that a packet was too big for.
func (g *answer) room() string {
	if g.says.mtu <= overhead(g.v4) {
		return "; lower icmp.payload_size, or look for a link with a smaller MTU than the others"
	}
	return fmt.Sprintf(", whose MTU is %d: at most %d bytes of payload pass", g.says.mtu, g.says.mtu-overhead(g.v4))
}

// patience is how long the last request was waited for.
func (g *answer) patience() time.Duration {
	if w := g.options.GetReplyWithin(); w != nil {
		return w.AsDuration()
	}
	return g.timeout
}

// exceeded is the first bound that does not hold.
func (g *answer) exceeded() *probe.Failure {
	f := &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT}
	if most := g.options.MaxLoss; most != nil && g.loss() > *most {
		f.Sentence = fmt.Sprintf("%d of %d echo requests were lost (%.3g %%), which is more than icmp.max_loss %.3g %%", g.sent-g.received, g.sent, 100*g.loss(), 100**most)
		if g.errors > 0 {
			f.Sentence += fmt.Sprintf("; %d were sent back, the last by %s: %s", g.errors, g.sender(), g.says.text(g.v4))
		}
		return f
	}
	if g.received == 0 {
		return nil
	}
	figures := g.figures()
	for _, b := range []struct {
		name, field string
		value       time.Duration
		most        *durationpb.Duration
	}{
		{"mean round trip", "max_rtt_avg", figures.mean, g.options.MaxRttAvg},
		{"longest round trip", "max_rtt_max", figures.most, g.options.MaxRttMax},
		{"standard deviation of the round trips", "max_rtt_stddev", figures.deviation, g.options.MaxRttStddev},
		{"jitter", "max_jitter", figures.jitter, g.options.MaxJitter},
	} {
		if b.most != nil && b.value > b.most.AsDuration() {
			f.Sentence = fmt.Sprintf("the %s is %s, which is more than icmp.%s %s", b.name, b.value, b.field, b.most.AsDuration())
			return f
		}
	}
	return nil
}

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = fmt.Sprintf("%d echo requests sent, %d replies, %d late, %d duplicates, %d corrupted, %d sent back", g.sent, g.received, g.late, g.duplicates, g.corrupted, g.errors)
	if g.errors > 0 {
		probe.EvidenceRecords(e, []string{g.sender() + ": " + g.says.text(g.v4)})
	}
}
