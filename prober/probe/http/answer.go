package http

import (
	"encoding/json"
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxCodingText is how much of a Content-Encoding a result tells.
const maxCodingText = 64

// answer is the last answer of a probe.
type answer struct {
	resp            *nethttp.Response
	uri             string
	last            *url.URL // the same, parsed
	visited         []string
	redirects       int32
	redirectsBefore int32  // those of the steps before
	body            []byte // all of it when an expectation reads it, else its beginning when the status is bad
	bodyBytes       int64  // after decompression
	encoded         int64  // before it
	more            bool   // there was more than body
	cut             bool   // there was more than the body limit
	graphql         *meshv1.GraphQl
	traceID         string
	tokenTime       time.Duration // to get a token; 0 when none was fetched
}

// orNil is the answer, or nil when there was none at all.
func (g *answer) orNil() probe.Answer {
	if g.resp == nil {
		return nil
	}
	return g
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	r.Http = &meshv1.HttpResult{
		Status:        int32(g.resp.StatusCode),
		Version:       version(g.resp),
		Redirects:     g.redirects,
		BodyBytes:     g.bodyBytes,
		ContentLength: g.resp.ContentLength,
		EncodedBytes:  g.encoded,
	}
	if coding := g.resp.Header.Get("Content-Encoding"); coding != "" {
		r.Http.ContentEncoding = strings.ToValidUTF8(coding[:min(len(coding), maxCodingText)], "\uFFFD")
	}
	if text := g.resp.Header.Get("Last-Modified"); text != "" {
		if modified, err := nethttp.ParseTime(text); err == nil {
			r.Http.LastModified = timestamppb.New(modified)
		}
	}
	if g.tokenTime > 0 {
		r.Http.TokenDuration = durationpb.New(g.tokenTime)
	}
	r.TraceId = g.traceID
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	r.Status = int64(g.resp.StatusCode)
	r.Version = version(g.resp)
	r.Uri = g.uri
	r.Redirects = int64(g.redirects)
	if p.Reads("headers") {
		r.Headers = make(map[string]string, len(g.resp.Header))
		for k, v := range g.resp.Header {
			r.Headers[strings.ToValidUTF8(strings.ToLower(k), "\uFFFD")] = strings.ToValidUTF8(strings.Join(v, ", "), "\uFFFD")
		}
	}
	if p.Reads("header_values") {
		r.HeaderValues = make(map[string]*meshv1.HeaderValues, len(g.resp.Header))
		for k, v := range g.resp.Header {
			values := make([]string, len(v))
			for i, one := range v {
				values[i] = strings.ToValidUTF8(one, "\uFFFD")
			}
			r.HeaderValues[strings.ToValidUTF8(strings.ToLower(k), "\uFFFD")] = &meshv1.HeaderValues{Values: values}
		}
	}
	if p.Reads("body") {
		r.Body = strings.ToValidUTF8(string(g.body), "\uFFFD")
	}
	if p.Reads("json") {
		r.Json = parseJSON(g.body)
	}
}

// parseJSON is the body as JSON, null when it is not.
func parseJSON(body []byte) *structpb.Value {
	v := &structpb.Value{}
	if !json.Valid(body) || v.UnmarshalJSON(body) != nil {
		return structpb.NewNullValue()
	}
	return v
}

// Judge implements probe.Answer.
func (g *answer) Judge(expected bool) *probe.Failure {
	if !expected && (g.resp.StatusCode < 200 || g.resp.StatusCode > 299) {
		return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT,
			Sentence: "status " + short(g.resp.Status) + "; without expectations it must be 200 to 299"}
	}
	if g.graphql != nil {
		return g.judgeGraphQL()
	}
	return nil
}

// Evidence implements probe.Answer.
func (g *answer) Evidence(e *meshv1.Evidence) {
	e.StatusLine = short(g.resp.Proto + " " + g.resp.Status)
	probe.EvidenceHeaders(e, g.resp.Header)
	probe.EvidenceBody(e, g.body, g.more)
	for _, uri := range append(g.visited, g.uri) {
		if g.redirects > 0 && len(e.Redirects) < probe.MaxEvidenceHops {
			e.Redirects = append(e.Redirects, short(uri))
		}
	}
}

// version is the version of HTTP of an answer: "1.0", "1.1", "2" or "3".
func version(resp *nethttp.Response) string {
	if resp.ProtoMajor >= 2 {
		return strconv.Itoa(resp.ProtoMajor)
	}
	return strconv.Itoa(resp.ProtoMajor) + "." + strconv.Itoa(resp.ProtoMinor)
}
