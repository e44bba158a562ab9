package grpc

import (
	"fmt"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answer is what the server sent.
type answer struct {
	status  *status.Status
	serving string
	header  metadata.MD
	trailer metadata.MD
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	r.Grpc = &meshv1.GrpcResult{Status: codeText(g.status.Code()), Serving: g.serving}
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, _ *expect.Program) {
	r.Grpc = &meshv1.ResponseGrpc{Status: codeText(g.status.Code()), Serving: g.serving}
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	if expected || g.serving == "SERVING" {
		return nil
	}
	f := &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT,
		Sentence: fmt.Sprintf("the health service says %s; without expectations it must be SERVING", g.serving)}
	switch code := g.status.Code(); {
	case code == codes.Unimplemented:
		f.Class, f.Phase = meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER
		f.Sentence = "the server has no health service (UNIMPLEMENTED); register grpc.health.v1.Health there, or check it by other means"
	case code == codes.NotFound:
		f.Sentence = "the health service does not know the service of the URI (NOT_FOUND)"
	case code != codes.OK:
		f.Sentence = fmt.Sprintf("the health service answered %s: %s", codeText(code), g.status.Message())
	}
	return f
}

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = codeText(g.status.Code())
	if m := g.status.Message(); m != "" {
		probe.EvidenceBody(e, []byte(m), false)
	}
	probe.EvidenceHeaders(e, metadata.Join(g.header, g.trailer))
}

// serving is the health status as text.
func serving(s healthpb.HealthCheckResponse_ServingStatus) string {
	if name, ok := healthpb.HealthCheckResponse_ServingStatus_name[int32(s)]; ok {
		return name
	}
	return "UNKNOWN"
}

// codeText is a code in the spelling of the specification, for example `NOT_FOUND`.
func codeText(c codes.Code) string {
	names := [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
		"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("CODE_%d", c)
}
