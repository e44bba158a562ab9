package http

import (
	"encoding/json"
	"errors"
	"io"
	nethttp "net/http"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answer is the last answer of a probe.
type answer struct {
	resp      *nethttp.Response
	uri       string
	visited   []string
	redirects int32
	body      []byte // all of it when an expectation reads it, else its beginning when the status is bad
	bodyBytes int64
	more      bool // there was more than body
}

// take notes an answer, which may turn out to be a redirect.
func (g *answer) take(resp *nethttp.Response) { g.resp = resp }

// orNil is the answer, or nil when there was none at all.
func (g *answer) orNil() probe.Answer {
	if g.resp == nil {
		return nil
	}
	return g
}

// scratch are buffers to read into what nobody looks at.
var scratch = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// readHead reads the body. When keep is set, or reading fails, its first bytes are kept as evidence.
func (g *answer) readHead(resp *nethttp.Response, limit int64, keep bool) error {
	if resp.Body == nethttp.NoBody {
		return nil
	}
	buffer, _ := scratch.Get().(*[16 << 10]byte)
	defer scratch.Put(buffer)
	filled := 0 // of the part that is kept
	for {
		to := buffer[filled:]
		if left := limit - g.bodyBytes + 1; left < int64(len(to)) {
			to = to[:left]
		}
		n, err := resp.Body.Read(to)
		g.bodyBytes += int64(n)
		filled = min(filled+n, probe.MaxEvidenceBody)
		if g.bodyBytes > limit {
			g.bodyBytes, g.more, err = limit, true, io.EOF
		}
		if err != nil {
			complete := errors.Is(err, io.EOF)
			if keep || !complete {
				head := min(int64(filled), probe.MaxEvidenceBody, g.bodyBytes)
				g.more = g.more || g.bodyBytes > head
				g.body = append([]byte(nil), buffer[:head]...)
			}
			if complete {
				return nil
			}
			return err
		}
	}
}

// readAll reads the body up to the limit and keeps it.
func (g *answer) readAll(resp *nethttp.Response, limit int64) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if int64(len(body)) > limit {
		body, g.more = body[:limit], true
	}
	g.body, g.bodyBytes = body, int64(len(body))
	return err
}

// Record implements probe.Answer.
func (g *answer) Record(r *meshv1.Result) {
	r.Http = &meshv1.HttpResult{
		Status:        int32(g.resp.StatusCode),
		Version:       version(g.resp),
		Redirects:     g.redirects,
		BodyBytes:     g.bodyBytes,
		ContentLength: g.resp.ContentLength,
	}
}

// Respond implements probe.Answer.
func (g *answer) Respond(r *meshv1.Response, p *expect.Program) {
	r.Status = int64(g.resp.StatusCode)
	r.Version = version(g.resp)
	r.Uri = g.uri
	if p.Reads("headers") {
		r.Headers = make(map[string]string, len(g.resp.Header))
		for k, v := range g.resp.Header {
			r.Headers[strings.ToValidUTF8(strings.ToLower(k), "\uFFFD")] = strings.ToValidUTF8(strings.Join(v, ", "), "\uFFFD")
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
	if expected || g.resp.StatusCode >= 200 && g.resp.StatusCode <= 299 {
		return nil
	}
	return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT,
		Sentence: "status " + short(g.resp.Status) + "; without expectations it must be 200 to 299"}
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

// version is the version of HTTP of an answer: "1.0", "1.1" or "2".
func version(resp *nethttp.Response) string {
	if resp.ProtoMajor >= 2 {
		return strconv.Itoa(resp.ProtoMajor)
	}
	return strconv.Itoa(resp.ProtoMajor) + "." + strconv.Itoa(resp.ProtoMinor)
}
