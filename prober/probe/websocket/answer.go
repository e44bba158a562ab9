package websocket

import (
	"encoding/json"
	nethttp "net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answer is what the server answered and sent.
type answer struct {
	status      int // 0 without an answer
	statusText  string
	header      nethttp.Header
	subprotocol string
	compressed  bool
	sent        int
	received    int
	bytes       int64
	body        []byte // the newest message, or the body of an answer that is not 101
	binary      bool
	closeCode   int32
	ping        time.Duration
	done        int
	failed      string
}

// take notes the head of the answer.
func (g *answer) take(resp *nethttp.Response) {
	g.status, g.header = resp.StatusCode, resp.Header
	g.statusText = resp.Status
	if len(g.statusText) > 100 {
		g.statusText = g.statusText[:100]
	}
	g.statusText = strings.ToValidUTF8(g.statusText, "\uFFFD")
}

// orNil is the answer if there was any.
func (g *answer) orNil() probe.Answer {
	if g.status == 0 {
		return nil
	}
	return g
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	r.Websocket = &meshv1.WebsocketResult{Status: int32(g.status), Subprotocol: g.subprotocol, Compressed: g.compressed, MessagesSent: int32(g.sent), MessagesReceived: int32(g.received),
		BytesReceived: g.bytes, CloseCode: g.closeCode, StepsDone: int32(g.done), FailedStep: g.failed}
	if g.ping > 0 {
		r.Websocket.PingRtt = durationpb.New(g.ping)
	}
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	r.Status = int64(g.status)
	r.Websocket = &meshv1.ResponseWebsocket{Subprotocol: g.subprotocol, Compressed: g.compressed, Messages: int64(g.received), Binary: g.binary, CloseCode: int64(g.closeCode)}
	if g.ping > 0 {
		r.Websocket.PingRtt = durationpb.New(g.ping)
	}
	if p.Reads("headers") {
		r.Headers = make(map[string]string, len(g.header))
		for k, v := range g.header {
			r.Headers[text(strings.ToLower(k))] = text(strings.Join(v, ", "))
		}
	}
	if p.Reads("body") {
		r.Body = text(string(g.body))
	}
	if p.Reads("json") {
		r.Json = structpb.NewNullValue()
		if v := (&structpb.Value{}); json.Valid(g.body) && v.UnmarshalJSON(g.body) == nil {
			r.Json = v
		}
	}
}

func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// Judge implements probe.Answer.
func (g *answer) Judge(bool) *probe.Failure { return nil }

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	if g.status != 0 {
		e.StatusLine = "HTTP/1.1 " + g.statusText
		probe.EvidenceHeaders(e, g.header)
	}
	if g.closeCode != 0 {
		probe.EvidenceRecords(e, []string{"close frame with code " + strconv.Itoa(int(g.closeCode))})
	}
	probe.EvidenceBody(e, g.body, false)
}
