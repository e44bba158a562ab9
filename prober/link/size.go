package link

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// textKept is how much of an error's text is kept of a result that is too large.
const textKept = 1 << 10

// pieces cuts an acknowledgement so that each message keeps to the frame, but for a single larger refusal.
func pieces(ack *meshv1.AssignmentAck, frame int) []*meshv1.AssignmentAck {
	rest := ack.GetRefusals()
	var out []*meshv1.AssignmentAck
	for {
		n, bytes := 0, 0
		for n < len(rest) {
			bytes += proto.Size(rest[n]) + 4
			if n > 0 && bytes > frame {
				break
			}
			n++
		}
		a := &meshv1.AssignmentAck{Revision: ack.GetRevision(), Digest: ack.GetDigest(), Held: ack.GetHeld(), Refusals: rest[:n], More: n < len(rest),
			ShrinkRefused: ack.GetShrinkRefused(), ShrinkCount: ack.GetShrinkCount()}
		out, rest = append(out, a), rest[n:]
		if !a.More {
			return out
		}
	}
}

// within makes a message small enough for the server. A single result may be larger than a frame; one larger than the server takes would end this session and, since
// it stays in the spool, every one after it. It loses its evidence, and all else that it does not need if that is not enough.
func (s *session) within(m *meshv1.ProberMessage) *meshv1.ProberMessage {
	b := m.GetResults()
	if len(b.GetResults()) != 1 || proto.Size(m) <= s.limit {
		return m
	}
	r := b.GetResults()[0]
	size := proto.Size(r)
	s.link.count(func(st *Stats) { st.Trimmed++ })
	s.link.log.Warn("a result is too large for the server; it is sent without its evidence", "check", r.GetCheck(), "sequence", r.GetSequence(), "bytes", size,
		"limit", s.limit)
	r = proto.CloneOf(r) // it is not ours to change
	r.Evidence = nil
	if trimmed := batch(b.GetKind(), []*meshv1.Result{r}); proto.Size(trimmed) <= s.limit {
		return trimmed
	}
	text, degraded := kept(r.GetError()), kept(r.GetDegraded())
	return batch(b.GetKind(), []*meshv1.Result{{
		Check: r.GetCheck(), Sequence: r.GetSequence(), CheckRevision: r.GetCheckRevision(), RunId: r.GetRunId(), Outcome: r.GetOutcome(), ErrorClass: r.GetErrorClass(),
		FailedPhase: r.GetFailedPhase(), StartTime: r.GetStartTime(), Duration: r.GetDuration(), Lag: r.GetLag(), Timings: r.GetTimings(), Degraded: degraded,
		Error: fmt.Sprintf("%s (the result had %d bytes, the server takes %d; what was measured besides was left out)", text, size, s.limit),
	}})
}

// kept is the beginning of a text.
func kept(text string) string {
	if len(text) > textKept {
		text = strings.ToValidUTF8(text[:textKept], "")
	}
	return text
}
