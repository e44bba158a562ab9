package dns

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// mediaType is what DNS over HTTPS speaks (RFC 8484, section 6).
const mediaType = "application/dns-message"

// Limits of what the encrypted transports take from a peer besides messages.
const (
	maxHTTPHeaders = 16 << 10
	quicWindow     = maxMessage + 2
)

// protocols are the names that a handshake negotiates (ALPN).
func protocols(t meshv1.DnsProbe_Transport) []string {
	switch t {
	case meshv1.DnsProbe_TLS:
		return []string{"dot"}
	case meshv1.DnsProbe_HTTPS:
		return []string{"h2", "http/1.1"}
	case meshv1.DnsProbe_QUIC:
		return []string{"doq"}
	}
	return nil
}

// web is a line over HTTPS.
type web struct {
	conn      net.Conn
	transport *nethttp.Transport
	url       *url.URL
	get       bool
	userAgent string
	resp      *nethttp.Response
}

// openHTTP connects by TLS; HTTP/2 or HTTP/1.1 is spoken over that connection alone.
func (p *peer) openHTTP(ctx context.Context) (line, error) {
	conn, err := p.secure(ctx)
	if err != nil {
		return nil, err
	}
	var taken atomic.Bool
	w := &web{conn: conn, get: p.r.options.GetHttpMethod() == meshv1.DnsProbe_GET, userAgent: p.r.userAgent}
	w.url = &url.URL{Scheme: "https", Host: hostPort(p.r.target.Host, p.r.port), Path: p.r.options.GetHttpPath()}
	w.transport = &nethttp.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if taken.Swap(true) {
				return nil, io.ErrUnexpectedEOF // it was closed; a peer opens another line
			}
			return conn, nil
		},
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHTTPHeaders,
	}
	return w, nil
}

// hostPort is the authority of a URL; the default port is left out.
func hostPort(host string, port uint16) string {
	if port != portHTTPS {
		return net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func (w *web) traits() traits { return traits{} }

func (w *web) close() {
	if w.resp != nil {
		w.resp.Body.Close()
	}
	w.conn.Close()
	w.transport.CloseIdleConnections()
}

func (w *web) send(ctx context.Context, query []byte) error {
	req := (&nethttp.Request{Method: nethttp.MethodPost, URL: w.url, Host: w.url.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: nethttp.Header{
		"Accept": {mediaType}, "User-Agent": {w.userAgent}}}).WithContext(ctx)
	if w.get {
		u := *w.url
		u.RawQuery = "dns=" + base64.RawURLEncoding.EncodeToString(query)
		req.Method, req.URL = nethttp.MethodGet, &u
	} else {
		req.Header.Set("Content-Type", mediaType)
		req.ContentLength, req.Body = int64(len(query)), io.NopCloser(bytes.NewReader(query))
	}
	var err error
	w.resp, err = w.transport.RoundTrip(req)
	return err
}

// receive implements line. The request is answered already; what is left is its body.
func (w *web) receive(_ context.Context, a *probe.Attempt) ([]byte, error) {
	resp := w.resp
	w.resp = nil
	defer resp.Body.Close()
	enter(a, meshv1.Result_TRANSFER)
	if resp.StatusCode != nethttp.StatusOK {
		return nil, malformed(fmt.Sprintf("the status is HTTP %d, which is not 200", resp.StatusCode))
	}
	if got := resp.Header.Get("Content-Type"); !strings.EqualFold(strings.TrimSpace(strings.SplitN(got, ";", 2)[0]), mediaType) {
		return nil, malformed(fmt.Sprintf("its content type is %.60q, which is not %s", got, mediaType))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxMessage {
		return nil, malformed("it has more than 65535 bytes")
	}
	return b, nil
}

// quicLine is a line over QUIC: a stream for each question.
type quicLine struct {
	socket    net.Conn
	transport *quic.Transport
	conn      *quic.Conn
	stream    *quic.Stream
	stop      func() bool
}

// socketOf makes a connected UDP socket what quic-go wants. Being connected, it learns of a port that nobody listens on.
type socketOf struct{ net.Conn }

func (s socketOf) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := s.Read(b)
	return n, s.RemoteAddr(), err
}

func (s socketOf) WriteTo(b []byte, _ net.Addr) (int, error) { return s.Write(b) }

// SetReadBuffer and SetWriteBuffer leave the buffers as they are: a probe sends and receives a few packets.
func (s socketOf) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing; see SetReadBuffer.
func (s socketOf) SetWriteBuffer(int) error { return nil }

// openQUIC completes a handshake of QUIC.
func (p *peer) openQUIC(ctx context.Context) (line, error) {
	socket, err := p.dial(ctx, "udp")
	if err != nil {
		return nil, err
	}
	enter(p.a, meshv1.Result_HANDSHAKE)
	l := &quicLine{socket: socket, transport: &quic.Transport{Conn: socketOf{socket}}}
	l.conn, err = l.transport.Dial(ctx, socket.RemoteAddr(), p.tls, &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           p.r.plan.Timeout,
		MaxIdleTimeout:                 2 * p.r.plan.Timeout,
		InitialStreamReceiveWindow:     quicWindow,
		MaxStreamReceiveWindow:         quicWindow,
		InitialConnectionReceiveWindow: quicWindow,
		MaxConnectionReceiveWindow:     2 * quicWindow,
		MaxIncomingStreams:             -1,
		MaxIncomingUniStreams:          -1,
		DisablePathMTUDiscovery:        true,
	})
	if err != nil {
		l.close()
		if p.a != nil {
			probe.NoteHandshakeError(p.a, err)
		}
		return nil, quicError(err)
	}
	if p.a != nil {
		state := l.conn.ConnectionState().TLS
		p.a.Secured(&state, !p.tls.InsecureSkipVerify)
	}
	return l, nil
}

// quicError is an error of a connection in the words of TLS where it is one: an alert of the peer is told as such.
func quicError(err error) error {
	var transport *quic.TransportError
	if !errors.As(err, &transport) || !transport.ErrorCode.IsCryptoError() {
		return err
	}
	var verification *tls.CertificateVerificationError
	if errors.As(err, &verification) {
		return verification
	}
	if alert := tls.AlertError(uint8(transport.ErrorCode & 0xff)); transport.Remote {
		return alert
	}
	return err
}

func (l *quicLine) traits() traits { return traits{prefix: 2} }

func (l *quicLine) close() {
	if l.stop != nil {
		l.stop()
	}
	if l.conn != nil {
		_ = l.conn.CloseWithError(0, "")
	}
	_ = l.transport.Close()
	l.socket.Close()
}

// send opens a stream, sends the question and says that there is no more (RFC 9250, section 4.2).
func (l *quicLine) send(ctx context.Context, query []byte) error {
	if l.stop != nil {
		l.stop()
	}
	conn := l.conn
	l.stop = context.AfterFunc(ctx, func() { _ = conn.CloseWithError(0, "") })
	var err error
	if l.stream, err = conn.OpenStreamSync(ctx); err != nil {
		return lineError(ctx, err)
	}
	query[0], query[1] = byte((len(query)-2)>>8), byte(len(query)-2)
	if _, err := l.stream.Write(query); err != nil {
		return lineError(ctx, err)
	}
	return lineError(ctx, l.stream.Close())
}

func (l *quicLine) receive(ctx context.Context, a *probe.Attempt) ([]byte, error) {
	b, err := readMessage(l.stream, a)
	l.stream.CancelRead(0)
	return b, lineError(ctx, err)
}

// lineError is the end of the time where that is why the connection ended.
func lineError(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
