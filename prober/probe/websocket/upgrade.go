package websocket

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// maxHead is how many bytes of headers an answer may have, as with kind http.
	maxHead = 64 << 10
	// maxInformational is how many answers with status 1xx may come before the one that counts.
	maxInformational = 5
	// bodyPatience is how long is waited for the body of an answer that is not 101: it is for the evidence only.
	bodyPatience = 300 * time.Millisecond
)

// limitError is the end of reading at a limit.
type limitError struct{ what string }

// Error says what there was too much of.
func (e *limitError) Error() string { return e.what }

// meter bounds how many bytes are read from a connection. It belongs to one reader.
type meter struct {
	net.Conn
	left int64
	over error
}

// Read implements net.Conn.
func (m *meter) Read(b []byte) (int, error) {
	if m.left <= 0 {
		return 0, m.over
	}
	n, err := m.Conn.Read(b[:min(int64(len(b)), m.left)])
	m.left -= int64(n)
	return n, err
}

// stream is an upgraded connection, and what was read ahead of it.
type stream struct {
	*meter
	ahead *bufio.Reader
}

// Read implements io.Reader.
func (s *stream) Read(b []byte) (int, error) { return s.ahead.Read(b) }

// upgrader sends the one request of a probe, in timed phases, over a connection of its own. It belongs to one goroutine.
type upgrader struct {
	*runner
	attempt *probe.Attempt
	answer  *answer
	conn    net.Conn // what the WebSocket is spoken over
	stop    func()
	flood   atomic.Int64 // pings and pongs of the peer
}

// close gives back what RoundTrip has opened.
func (u *upgrader) close() {
	if u.conn != nil {
		u.conn.Close()
	}
	if u.stop != nil {
		u.stop()
	}
}

// control counts a ping or pong of the peer. Too many of them end the connection: each costs far more than the few bytes that it has.
func (u *upgrader) control() (answer bool) {
	if u.flood.Add(1) <= maxControl {
		return true
	}
	u.conn.Close()
	return false
}

// RoundTrip implements http.RoundTripper.
func (u *upgrader) RoundTrip(req *nethttp.Request) (*nethttp.Response, error) {
	ctx, a := req.Context(), u.attempt
	if err := u.connect(ctx, req); err != nil {
		return nil, err
	}
	over := &limitError{fmt.Sprintf("the headers of the answer are larger than %d KiB", maxHead>>10)}
	m := &meter{Conn: u.conn, left: maxHead, over: over}
	a.Enter(meshv1.Result_PROCESSING)
	var head bytes.Buffer
	if err := req.Write(&head); err != nil {
		return nil, err
	}
	if _, err := u.conn.Write(head.Bytes()); err != nil {
		return nil, err
	}
	a.Restart(meshv1.Result_PROCESSING)
	reader := bufio.NewReader(m)
	if _, err := reader.Peek(1); err != nil {
		return nil, err
	}
	a.Enter(meshv1.Result_TRANSFER)
	resp, err := u.read(reader, req)
	if err != nil {
		return nil, err
	}
	u.answer.take(resp)
	if resp.StatusCode != nethttp.StatusSwitchingProtocols {
		_ = u.conn.SetReadDeadline(time.Now().Add(min(bodyPatience, time.Until(a.Start().Add(a.Timeout())))))
		u.answer.body, _ = io.ReadAll(io.LimitReader(resp.Body, probe.MaxEvidenceBody))
		resp.Body = io.NopCloser(bytes.NewReader(nil))
		a.Enter(meshv1.Result_PROCESSING) // it is the request that failed
		return resp, nil
	}
	limit := u.options.GetReadLimit()
	m.left, m.over = max(0, limit-(maxHead-m.left)), &limitError{fmt.Sprintf("the peer sent more than the read limit of %d bytes", limit)}
	resp.Body = &stream{meter: m, ahead: reader}
	return resp, nil
}

// read reads the head of the answer, passing over informational ones.
func (u *upgrader) read(reader *bufio.Reader, req *nethttp.Request) (*nethttp.Response, error) {
	for range maxInformational {
		resp, err := nethttp.ReadResponse(reader, req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode/100 != 1 || resp.StatusCode == nethttp.StatusSwitchingProtocols {
			return resp, nil
		}
	}
	return nil, probe.Failf(u.attempt, meshv1.Result_PROTOCOL, "the server sent more than %d answers with status 1xx", maxInformational)
}

// connect opens the connection to the target, through the proxy if there is one, and begins TLS.
func (u *upgrader) connect(ctx context.Context, req *nethttp.Request) error {
	host, port := u.target.Host, u.target.Port
	if u.proxy != nil {
		n, err := strconv.ParseUint(u.proxy.Port(), 10, 16)
		if err != nil {
			return err
		}
		host, port = u.proxy.Hostname(), uint16(n)
	}
	conn, err := u.dialer.Dial(ctx, u.attempt, "tcp", host, port)
	if err != nil {
		return err
	}
	u.conn, u.stop = conn, probe.Watch(ctx, conn)
	u.attempt.Connecting(conn.RemoteAddr().String())
	if u.proxy != nil {
		if err := u.tunnel(conn, req); err != nil {
			return err
		}
		u.attempt.Meeting(u.target.Host)
	}
	if u.tls == nil {
		return nil
	}
	config := u.tls
	if u.attempt.Options().Fresh {
		config = u.fresh
	}
	secure, err := probe.Handshake(ctx, u.attempt, conn, config)
	if err != nil {
		return err
	}
	u.conn = secure
	return nil
}

// tunnel asks the proxy for a connection to the target.
func (u *upgrader) tunnel(conn net.Conn, req *nethttp.Request) error {
	to := net.JoinHostPort(u.target.Host, strconv.Itoa(int(u.target.Port)))
	head := "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\nUser-Agent: " + req.Header.Get("User-Agent") + "\r\n"
	for k, v := range u.options.GetHeaders() {
		if nethttp.CanonicalHeaderKey(k) == "Proxy-Authorization" {
			head += "Proxy-Authorization: " + v + "\r\n"
		}
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return err
	}
	m := &meter{Conn: conn, left: maxHead, over: &limitError{"the headers of the proxy's answer are too large"}}
	reader := bufio.NewReader(m)
	resp, err := nethttp.ReadResponse(reader, &nethttp.Request{Method: nethttp.MethodConnect})
	if err != nil {
		return err
	}
	if resp.StatusCode != nethttp.StatusOK {
		return probe.Failf(u.attempt, meshv1.Result_PROTOCOL, "the proxy %s answered CONNECT %s with %s", u.proxy.Host, to, quote([]byte(resp.Status)))
	}
	if reader.Buffered() > 0 {
		return probe.Failf(u.attempt, meshv1.Result_PROTOCOL, "the proxy %s sent %d bytes ahead of the tunnel", u.proxy.Host, reader.Buffered())
	}
	return nil
}
