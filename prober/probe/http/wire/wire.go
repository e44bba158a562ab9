// Package wire sends one request of HTTP/1.1 over a connection of its own and reads the answer, without the machinery that net/http's transport has for keeping
// connections: two goroutines for each, and the channels between them. That is about two fifths of what a plain probe costs (see BenchmarkAgainstBare of the kind http).
//
// It is no other HTTP: requests are written by [net/http.Request.Write] and answers are read by [net/http.ReadResponse], which a transport uses too, with the same limits. A transport is what is
// needed for everything else: proxies, HTTP/2, kept connections.
//
//	raw, err := wire.Prepare(req)                             // once
//	resp, err := wire.Do(conn, raw, req.Method, wrote, first) // for each probe
//	...
//	resp.Body.Close()                                         // closes conn
package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	nethttp "net/http"
	"sync"
)

// Limits of an answer.
const (
	// MaxHeader is how many bytes the headers of an answer may have, with those of informational answers before it.
	MaxHeader = 64 << 10
	// buffer is how much is read at once before the body is; what chunk extensions and trailers may have follows from it, see [net/http/internal.ErrLineTooLong].
	buffer = 2 << 10
)

// ErrHeaderTooLong is the error of an answer with more than [MaxHeader] bytes of headers.
var ErrHeaderTooLong = fmt.Errorf("the headers of the answer are longer than %d KiB", MaxHeader>>10)

// Prepare is a request as it is sent, saying that the connection is closed afterwards. The request is not changed, but its body is read.
func Prepare(req *nethttp.Request) ([]byte, error) {
	closing := *req
	closing.Close = true
	var b bytes.Buffer
	if err := closing.Write(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Do sends a request as [Prepare] made it, which has the method, and reads the head of the answer. wrote is called when the request has been written, first when the first byte
// of the answer is there. The deadline of conn bounds it. Informational answers (1xx) are stepped over, but for 101.
//
// conn is closed by closing the body of the answer, or before Do returns an error. An answer of which nothing came is [io.ErrUnexpectedEOF].
func Do(conn net.Conn, raw []byte, method string, wrote, first func()) (*nethttp.Response, error) {
	r, _ := readers.Get().(*reader)
	r.from, r.left = conn, MaxHeader
	r.buffered.Reset(r)
	resp, err := r.exchange(conn, raw, method, wrote, first)
	if err != nil {
		conn.Close()
		r.release()
		return nil, err
	}
	r.left = math.MaxInt64
	resp.Body = &body{ReadCloser: resp.Body, conn: conn, reader: r}
	return resp, nil
}

// reader is what an answer is read through.
type reader struct {
	from     net.Conn
	left     int64 // bytes that may still come
	buffered *bufio.Reader
}

// readers are kept for later answers.
var readers = sync.Pool{New: func() any { return &reader{buffered: bufio.NewReaderSize(nil, buffer)} }}

// release gives the reader back.
func (r *reader) release() {
	r.from = nil
	r.buffered.Reset(nil)
	readers.Put(r)
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, ErrHeaderTooLong
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.from.Read(p)
	r.left -= int64(n)
	return n, err
}

// exchange writes the request and reads the head of the answer.
func (r *reader) exchange(conn net.Conn, raw []byte, method string, wrote, first func()) (*nethttp.Response, error) {
	_, failed := conn.Write(raw) // an answer may be there although not all was taken
	wrote()
	if _, err := r.buffered.Peek(1); err != nil {
		return nil, whichever(failed, err)
	}
	first()
	var req *nethttp.Request // the method alone is looked at; without a request it is GET
	if method != nethttp.MethodGet {
		req = &nethttp.Request{Method: method}
	}
	for {
		resp, err := nethttp.ReadResponse(r.buffered, req)
		switch {
		case r.left <= 0 && err != nil:
			return nil, ErrHeaderTooLong
		case err != nil:
			return nil, whichever(failed, err)
		case resp.StatusCode < 100 || resp.StatusCode > 199 || resp.StatusCode == nethttp.StatusSwitchingProtocols:
			return resp, nil
		}
	}
}

// whichever is the error of reading, unless writing failed before and nothing but an end came.
func whichever(written, read error) error {
	switch {
	case !errors.Is(read, io.EOF) && !errors.Is(read, io.ErrUnexpectedEOF):
		return read
	case written != nil:
		return written
	}
	return io.ErrUnexpectedEOF
}

// body is the body of an answer, with the connection that it comes from.
type body struct {
	io.ReadCloser
	conn   net.Conn
	reader *reader
}

// Close closes the connection, whatever is left of the body. It may be called again.
func (b *body) Close() error {
	if b.reader == nil {
		return nil
	}
	err := b.conn.Close()
	b.reader.release()
	b.reader, b.ReadCloser = nil, nethttp.NoBody
	return err
}
