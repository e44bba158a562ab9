package blackbox

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of an answer's body.
const (
	// bodyHeld is the longest body that regular expressions and CEL are tried on, decompressed. A longer one fails the probe.
	bodyHeld = 16 << 20
	// bodyRead is the most bytes that are read of a body that nobody looks at, decompressed. A longer one fails the probe.
	bodyRead = 1 << 30
	// bodyBudget is the most bytes of bodies that all probes hold together. A probe that would need more is not made: 503.
	bodyBudget = 256 << 20
	// requestBody is the most bytes of a body_file.
	requestBody = 16 << 20
)

// overBudget marks the failure of a probe that found no memory for the answer, as the expectation that failed.
const overBudget = "memory for bodies"

// budget is memory that probes share.
type budget struct {
	mu   sync.Mutex
	left int64
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.left {
		return false
	}
	b.left -= n
	return true
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
}

// counted is a body that counts what is read of it and fails beyond a limit.
type counted struct {
	io.Reader
	n, limit int64
	option   bool // the limit is the module's
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	if room := c.limit - c.n + 1; int64(len(p)) > room {
		p = p[:room]
	}
	n, err := c.Reader.Read(p)
	if c.n += int64(n); c.n <= c.limit {
		return n, err
	}
	n -= int(c.n - c.limit)
	c.n = c.limit
	if c.option {
		return n, fmt.Errorf("the body is longer than body_size_limit, %d bytes", c.limit)
	}
	return n, fmt.Errorf("the body is longer than %d MiB", c.limit>>20)
}

// hold reads a body to its end. The function that it returns gives the memory back and must be called.
func (e *Exporter) hold(a *probe.Attempt, body io.Reader) (text []byte, release func(), err error) {
	var taken int64
	release = func() { e.bodies.give(taken) }
	for {
		if len(text) == cap(text) {
			more := int64(max(4<<10, cap(text)))
			if !e.bodies.take(more) {
				return nil, release, &probe.Failure{Class: meshv1.Result_PROBER, Phase: a.Phase(), Expectation: overBudget,
					Sentence: fmt.Sprintf("the probes that run hold %d MiB of answers already; this one was given up", bodyBudget>>20)}
			}
			taken += more
			grown := make([]byte, len(text), int64(cap(text))+more)
			copy(grown, text)
			text = grown
		}
		n, err := body.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case errors.Is(err, io.EOF):
			return text, release, nil
		case err != nil:
			return nil, release, err
		case len(text) > bodyHeld:
			return nil, release, fmt.Errorf("the body is longer than the %d MiB that expressions are tried on", bodyHeld>>20)
		}
	}
}

// decompressor reads body as an encoding says; nil when the encoding leaves it as it is.
func decompressor(encoding string, body io.Reader) (io.Reader, error) {
	switch strings.ToLower(encoding) {
	case "br":
		return brotli.NewReader(body), nil
	case "deflate":
		return flate.NewReader(body), nil
	case "gzip":
		return gzip.NewReader(body)
	case "", "identity":
		return nil, nil
	}
	return nil, fmt.Errorf("compression %q is not known", encoding)
}
