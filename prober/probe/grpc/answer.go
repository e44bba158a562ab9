package grpc

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of what expectations and evidence see of a status.
const (
	maxStatusMessage = 1 << 10
	maxDetails       = 16
)

// answer is what the server sent.
type answer struct {
	options  *meshv1.GrpcProbe
	method   *spec.GRPCMethod // nil for the health service
	path     string
	status   *status.Status // nil when the call ended without the server's own
	answered bool           // there is a message
	message  []byte         // encoded
	json     []byte         // the message as JSON
	serving  string
	header   metadata.MD
	trailer  metadata.MD
}

// code is the status as text, empty without any.
func (g *answer) code() string {
	if g.status == nil {
		return ""
	}
	return spec.GRPCStatus(uint32(g.status.Code()))
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	r.Grpc = &meshv1.GrpcResult{Status: g.code(), Serving: g.serving, MessageBytes: int64(len(g.message))}
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	r.Grpc = &meshv1.ResponseGrpc{Status: g.code(), Serving: g.serving, Message: cut(g.status.Message(), maxStatusMessage)}
	if p.Reads("grpc") {
		r.Grpc.Details = g.details()
	}
	if p.Reads("headers") {
		r.Headers = make(map[string]string)
		for k, v := range metadata.Join(g.header, g.trailer) {
			r.Headers[strings.ToValidUTF8(k, "\uFFFD")] = headerText(k, v)
		}
	}
	if p.Reads("body") {
		r.Body = string(g.json)
	}
	if p.Reads("json") {
		r.Json = parseJSON(g.json)
	}
}

// details are the details of the status as JSON. Those that cannot be decoded are left out.
func (g *answer) details() (out []*structpb.Struct) {
	d := newDecoder(g.method)
	for _, one := range g.status.Proto().GetDetails() {
		if len(out) == maxDetails {
			break
		}
		if text := d.detail(one); text != nil {
			s := &structpb.Struct{}
			if s.UnmarshalJSON(text) == nil {
				out = append(out, s)
			}
		}
	}
	return out
}

// detail is one detail as JSON; nil when it cannot be decoded.
func (d *decoder) detail(one *anypb.Any) (text []byte) {
	defer func() {
		if recover() != nil { // as in toJSON
			text = nil
		}
	}()
	if d.within(one.ProtoReflect(), 0) != nil {
		return nil
	}
	text, err := d.marshal(one)
	if err != nil {
		return nil
	}
	return text
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	f := &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT}
	code, wanted := g.code(), g.options.GetStatuses()
	switch {
	case len(wanted) > 0 && !slices.Contains(wanted, code):
		f.Sentence = fmt.Sprintf("%s answered %s, not %s%s", g.path, code, strings.Join(wanted, " or "), g.because())
		if code == "UNIMPLEMENTED" {
			f.Class, f.Phase = meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER
		}
		return f
	case expected || len(wanted) > 0 && code != "OK":
		return nil
	case g.options.GetCall() == nil:
		return g.judgeHealth(f)
	case code == "OK":
		return nil
	case code == "UNIMPLEMENTED":
		f.Class, f.Phase = meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER
		f.Sentence = fmt.Sprintf("the server has no method %s (UNIMPLEMENTED%s)", g.path, g.because())
		return f
	}
	f.Sentence = fmt.Sprintf("%s answered %s%s; without expectations it must be OK", g.path, code, g.because())
	return f
}

// because is the message of the status behind a colon, if there is one.
func (g *answer) because() string {
	if m := g.status.Message(); m != "" {
		return ": " + cut(m, maxStatusMessage/2)
	}
	return ""
}

// judgeHealth judges the answer of the health service.
func (g *answer) judgeHealth(f *probe.Failure) *probe.Failure {
	switch code := g.status.Code(); {
	case g.serving == "SERVING":
		return nil
	case code == codes.Unimplemented:
		f.Class, f.Phase = meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER
		f.Sentence = "the server has no health service (UNIMPLEMENTED); register grpc.health.v1.Health there, or check it by other means"
	case code == codes.NotFound, g.serving == "SERVICE_UNKNOWN":
		f.Sentence = "the health service does not know the service of the URI (NOT_FOUND)"
	case code != codes.OK:
		f.Sentence = fmt.Sprintf("the health service answered %s%s", g.code(), g.because())
	case g.serving == "":
		f.Sentence = "the health service ended the stream without an answer"
	default:
		f.Sentence = fmt.Sprintf("the health service says %s; without expectations it must be SERVING", g.serving)
	}
	return f
}

// Evidence implements probe.Answer: the answer as JSON or the message of the status as the body, the details of the status as records.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = g.code()
	switch m := g.status.Message(); {
	case m != "":
		probe.EvidenceBody(e, []byte(m), false)
	case len(g.json) > 0:
		probe.EvidenceBody(e, g.json, false)
	}
	headers := make(map[string][]string)
	for k, v := range metadata.Join(g.header, g.trailer) {
		headers[k] = []string{headerText(k, v)}
	}
	probe.EvidenceHeaders(e, headers)
	var lines []string
	for _, d := range g.details() {
		if text, err := d.MarshalJSON(); err == nil {
			lines = append(lines, string(text))
		}
	}
	probe.EvidenceRecords(e, lines)
}

// servingText is the health status as text.
func servingText(s healthpb.HealthCheckResponse_ServingStatus) string {
	if name, ok := healthpb.HealthCheckResponse_ServingStatus_name[int32(s)]; ok {
		return name
	}
	return "UNKNOWN"
}

// cut is the beginning of a text, in valid UTF-8.
func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
