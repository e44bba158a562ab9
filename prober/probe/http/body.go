package http

import (
	"errors"
	"io"
	nethttp "net/http"
	"sync"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// scratch are buffers to read into what nobody looks at.
var scratch = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// read reads the body of the last answer up to its limit. All of it is kept only if whole.
func (v *visit) read(resp *nethttp.Response, whole bool) error {
	limit := v.options.GetBodyLimit()
	if v.options.GetCompression() == meshv1.HttpProbe_RAW {
		return v.readFrom(resp.Body, nil, resp, limit, whole)
	}
	d, err := decode(resp, limit)
	if err != nil {
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "%s", err)
	}
	if d == nil {
		return v.readFrom(resp.Body, nil, resp, limit, whole)
	}
	defer d.close()
	return v.readFrom(d, d, resp, limit, whole)
}

// readFrom reads from a body, or from its decoders.
func (v *visit) readFrom(body io.Reader, d *decoded, resp *nethttp.Response, limit int64, whole bool) error {
	g := v.got
	var err error
	switch {
	case resp.Body == nethttp.NoBody:
	case whole:
		err = g.readAll(body, limit)
	default:
		bad := resp.StatusCode < 200 || resp.StatusCode > 299
		err = g.readHead(body, limit, v.a.Options().Evidence || bad || v.plan.Expect.Len() > 0 || len(v.steps) > 0)
	}
	g.encoded = g.bodyBytes
	if d != nil {
		g.encoded = d.wire.read
		if err != nil {
			err = d.failure(err, v.a)
		}
	}
	if err == nil && g.cut && v.options.GetFailAboveBodyLimit() {
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the body of the answer is longer than %d bytes, http.body_limit", limit)
	}
	return err
}

// readHead reads the body. When keep is set, or reading fails, its first bytes are kept as evidence.
func (g *answer) readHead(body io.Reader, limit int64, keep bool) error {
	buffer, _ := scratch.Get().(*[16 << 10]byte)
	defer scratch.Put(buffer)
	filled := 0 // of the part that is kept
	for {
		to := buffer[filled:]
		if left := limit - g.bodyBytes + 1; left < int64(len(to)) {
			to = to[:left]
		}
		n, err := body.Read(to)
		g.bodyBytes += int64(n)
		filled = min(filled+n, probe.MaxEvidenceBody)
		if g.bodyBytes > limit {
			g.bodyBytes, g.cut, err = limit, true, io.EOF
		}
		if err != nil {
			complete := errors.Is(err, io.EOF)
			if keep || !complete {
				head := min(int64(filled), probe.MaxEvidenceBody, g.bodyBytes)
				g.more = g.cut || g.bodyBytes > head
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
func (g *answer) readAll(from io.Reader, limit int64) error {
	body, err := io.ReadAll(io.LimitReader(from, limit+1))
	if int64(len(body)) > limit {
		body, g.cut, g.more = body[:limit], true, true
	}
	g.body, g.bodyBytes = body, int64(len(body))
	return err
}
