package http

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of compressed bodies.
const (
	// maxCodings is how many codings an answer may have, one over the other. RFC 9110 allows any number; nobody sends more than one.
	maxCodings = 3
	// codingSlack is how many bytes a body may have before decompression, or between two decompressions, besides the body limit.
	codingSlack = 64 << 10
	// maxZstdWindow is what a decoder of zstd on the web must support, and need not exceed (RFC 9659).
	maxZstdWindow = 8 << 20
)

// errEncodedTooLong is the error of a body that is longer compressed than it may be decompressed.
var errEncodedTooLong = errors.New("it is longer compressed than body_limit allows")

// codingName is the name of a compression in Content-Encoding; empty for those that are none.
func codingName(c meshv1.HttpProbe_Compression) string {
	switch c {
	case meshv1.HttpProbe_GZIP:
		return "gzip"
	case meshv1.HttpProbe_DEFLATE:
		return "deflate"
	case meshv1.HttpProbe_BR:
		return "br"
	case meshv1.HttpProbe_ZSTD:
		return "zstd"
	}
	return ""
}

// offer is the Accept-Encoding for a compression that the check expects; empty to send none.
func offer(c meshv1.HttpProbe_Compression) string {
	switch c {
	case meshv1.HttpProbe_COMPRESSION_UNSPECIFIED:
		return "gzip"
	case meshv1.HttpProbe_IDENTITY:
		return "identity"
	}
	return codingName(c)
}

// codings are those of an answer in the order in which they were applied.
func codings(h nethttp.Header) []string {
	var out []string
	for _, line := range h["Content-Encoding"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.ToLower(strings.TrimSpace(name))
			switch name {
			case "", "identity":
				continue
			case "x-gzip":
				name = "gzip"
			}
			out = append(out, name)
		}
	}
	return out
}

// wrongCoding is the failure of an answer that is not compressed as the check expects.
func (v *visit) wrongCoding(resp *nethttp.Response) *probe.Failure {
	wanted := v.options.GetCompression()
	name := codingName(wanted)
	if name == "" && wanted != meshv1.HttpProbe_IDENTITY {
		return nil
	}
	got := codings(resp.Header)
	switch {
	case name == "" && len(got) == 0, name != "" && len(got) == 1 && got[0] == name:
		return nil
	case len(got) == 0:
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the answer is not compressed; the check expects Content-Encoding %s", name)
	case name == "":
		return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the answer is compressed with %s; the check expects it not to be", short(strings.Join(got, ", ")))
	}
	return probe.Failf(v.a, meshv1.Result_PROTOCOL, "the answer is compressed with %s; the check expects %s", short(strings.Join(got, ", ")), name)
}

// decoded is a body on its way through its decoders. It is read to its end or its limit, then closed.
type decoded struct {
	io.Reader
	wire   *bounded // what was received
	name   string
	closes []func()
}

// decode undoes the codings of an answer whose body may have limit bytes. It is nil when there is nothing to be undone, or when one is not known: then the body is what it
// is.
func decode(resp *nethttp.Response, limit int64) (*decoded, error) {
	names := codings(resp.Header)
	if len(names) == 0 || resp.Body == nethttp.NoBody {
		return nil, nil
	}
	if len(names) > maxCodings {
		return nil, fmt.Errorf("the answer has %d codings one over the other; %d are too many", len(names), maxCodings+1)
	}
	for _, n := range names {
		if codingOf(n) == meshv1.HttpProbe_COMPRESSION_UNSPECIFIED {
			return nil, nil
		}
	}
	d := &decoded{wire: &bounded{r: resp.Body, left: limit + codingSlack}, name: strings.Join(names, ", ")}
	d.Reader = d.wire
	for i := len(names) - 1; i >= 0; i-- {
		coded := d.Reader
		if coded != io.Reader(d.wire) {
			coded = &bounded{r: coded, left: limit + codingSlack}
		}
		d.Reader = &lazy{from: bufio.NewReaderSize(coded, 4<<10), coding: codingOf(names[i]), closes: &d.closes}
	}
	return d, nil
}

// codingOf is the compression of a name, UNSPECIFIED for one that is not known.
func codingOf(name string) meshv1.HttpProbe_Compression {
	for _, c := range []meshv1.HttpProbe_Compression{meshv1.HttpProbe_GZIP, meshv1.HttpProbe_DEFLATE, meshv1.HttpProbe_BR, meshv1.HttpProbe_ZSTD} {
		if codingName(c) == name {
			return c
		}
	}
	return meshv1.HttpProbe_COMPRESSION_UNSPECIFIED
}

// failure is what a decoder's error says of the answer: the connection's own error, if there was one.
func (d *decoded) failure(err error, a *probe.Attempt) error {
	if d.wire.err != nil && !errors.Is(d.wire.err, errEncodedTooLong) {
		return d.wire.err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = errors.New("it ends too early")
	}
	return probe.Failf(a, meshv1.Result_PROTOCOL, "decompress the answer of %s, which says that it is %s: %s", a.Remote(), short(d.name), short(err.Error()))
}

// close gives back what the decoders hold.
func (d *decoded) close() {
	for _, c := range d.closes {
		c()
	}
}

// bounded fails after left bytes, and remembers the error of what it reads from.
type bounded struct {
	r    io.Reader
	left int64
	read int64
	err  error
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.read += int64(n)
	if b.left -= int64(n); b.left < 0 {
		err = errEncodedTooLong
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// lazy begins to decode with the first byte: a body without any, as the answer to HEAD has, is empty and not an error.
type lazy struct {
	from   *bufio.Reader
	coding meshv1.HttpProbe_Compression
	closes *[]func()
	out    io.Reader
}

// Read implements io.Reader.
func (l *lazy) Read(p []byte) (int, error) {
	if l.out == nil {
		if _, err := l.from.Peek(1); err != nil {
			return 0, err
		}
		out, err := l.begin()
		if err != nil {
			return 0, err
		}
		l.out = out
	}
	return l.out.Read(p)
}

// begin makes the decoder.
func (l *lazy) begin() (io.Reader, error) {
	switch l.coding {
	case meshv1.HttpProbe_GZIP:
		return gzip.NewReader(l.from)
	case meshv1.HttpProbe_DEFLATE:
		if b, err := l.from.Peek(2); err == nil && b[0]&0x0f == 8 && (uint(b[0])<<8|uint(b[1]))%31 == 0 { // the header of zlib, RFC 1950 section 2.2
			return zlib.NewReader(l.from)
		}
		return flate.NewReader(l.from), nil
	case meshv1.HttpProbe_BR:
		return brotli.NewReader(l.from), nil
	}
	z, err := zstd.NewReader(l.from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderMaxMemory(2*maxZstdWindow))
	if err != nil {
		return nil, err
	}
	*l.closes = append(*l.closes, z.Close)
	return z, nil
}

// compress is a body in a coding.
func compress(name string, body []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	switch name {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		z, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstd.MinWindowSize*8))
		if err != nil {
			return nil, err
		}
		w = z
	default:
		return nil, fmt.Errorf("the coding %q is not known", name)
	}
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
