package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits of a QUIC connection: what a target may have under way towards a prober at once.
const (
	quicStreamWindow     = 256 << 10
	quicConnectionWindow = 512 << 10
	quicServerStreams    = 8 // control, two of QPACK, and some to spare for what servers try
)

// quicConfig is how QUIC is spoken in a probe that ends at deadline at the latest.
func quicConfig(deadline time.Time) *quic.Config {
	left := max(time.Until(deadline), time.Millisecond)
	return &quic.Config{
		HandshakeIdleTimeout: left, MaxIdleTimeout: left + time.Second,
		InitialStreamReceiveWindow: quicStreamWindow, MaxStreamReceiveWindow: quicStreamWindow,
		InitialConnectionReceiveWindow: quicConnectionWindow, MaxConnectionReceiveWindow: quicConnectionWindow,
		MaxIncomingStreams: -1, MaxIncomingUniStreams: quicServerStreams, DisablePathMTUDiscovery: true,
	}
}

// quic sends a request over a new QUIC connection, which ends when the body of the answer is closed.
func (v *visit) quic(req *nethttp.Request, config *tls.Config) (*nethttp.Response, error) {
	link, err := v.dialQUIC(req, config)
	if err != nil {
		return nil, err
	}
	v.a.Enter(meshv1.Result_PROCESSING)
	transport := &http3.Transport{DisableCompression: true, MaxResponseHeaderBytes: maxResponseHeaders}
	resp, err := transport.NewClientConn(link.conn).RoundTrip(req)
	if err != nil {
		link.close()
		return nil, timely(req.Context(), err)
	}
	resp.Body = &linkedBody{ReadCloser: resp.Body, ctx: req.Context(), link: link}
	return resp, nil
}

// dialQUIC connects. Phase CONNECT is until the server's first packet, HANDSHAKE from there until the handshake is complete.
func (v *visit) dialQUIC(req *nethttp.Request, config *tls.Config) (*quicLink, error) {
	socket, err := v.reach(req.Context(), v.a, "udp", hostPort(req.URL))
	if err != nil {
		return nil, err
	}
	v.a.Connecting(socket.RemoteAddr().String())
	if v.a.Options().Fresh {
		config = probe.Anew(config)
	}
	config = http3.ConfigureTLSConfig(config)
	if config.ServerName == "" {
		config.ServerName = req.URL.Hostname()
	}
	deadline, _ := req.Context().Deadline()
	packets := &packets{udp: socket, first: func() { v.a.Enter(meshv1.Result_HANDSHAKE) }}
	link := &quicLink{socket: socket, transport: &quic.Transport{Conn: packets}}
	if link.conn, err = link.transport.Dial(req.Context(), socket.RemoteAddr(), config, quicConfig(deadline)); err != nil {
		link.close()
		probe.NoteHandshakeError(v.a, err)
		if broken := packets.broken.Load(); broken != nil && context.Cause(req.Context()) == nil {
			err = *broken
		}
		return nil, err
	}
	return link, nil
}

// quicLink is a connection with what carries it.
type quicLink struct {
	socket    net.Conn
	transport *quic.Transport
	conn      *quic.Conn
}

// close ends the connection and waits until its goroutines have ended.
func (l *quicLink) close() {
	if l.conn != nil {
		_ = l.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		<-l.conn.Context().Done()
	}
	_ = l.transport.Close()
	l.socket.Close()
}

// linkedBody ends its connection when it is closed.
type linkedBody struct {
	io.ReadCloser
	ctx  context.Context //nolint:containedctx // that of the request, whose part the body is
	link *quicLink
}

// Read implements io.Reader.
func (b *linkedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	return n, timely(b.ctx, err)
}

// timely is err, or the end of the context where that is what ended the request: quic says that it was cancelled by this side.
func timely(ctx context.Context, err error) error {
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Close implements io.Closer.
func (b *linkedBody) Close() error {
	err := b.ReadCloser.Close()
	b.link.close()
	return err
}

// packets is a connected UDP socket in the form that quic wants. Being connected, it hears of ports that nobody listens on, and of no other peer. It hides that it is a UDP
// socket, so that quic does not ask the kernel for the megabytes of buffers that a download would need.
type packets struct {
	udp    net.Conn
	first  func() // called with the first packet
	heard  atomic.Bool
	broken atomic.Pointer[error]
}

// ReadFrom implements net.PacketConn.
func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := p.udp.Read(b)
	switch {
	case err != nil && !errors.Is(err, net.ErrClosed) && !timeout(err):
		p.broken.CompareAndSwap(nil, &err)
	case err == nil && p.heard.CompareAndSwap(false, true):
		p.first()
	}
	return n, p.udp.RemoteAddr(), err
}

// timeout tells whether err is a deadline's, by which quic ends its reading.
func timeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// WriteTo implements net.PacketConn.
func (p *packets) WriteTo(b []byte, _ net.Addr) (int, error) { return p.udp.Write(b) }

// Close implements net.PacketConn.
func (p *packets) Close() error { return p.udp.Close() }

// LocalAddr implements net.PacketConn.
func (p *packets) LocalAddr() net.Addr { return p.udp.LocalAddr() }

// SetDeadline implements net.PacketConn.
func (p *packets) SetDeadline(t time.Time) error { return p.udp.SetDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (p *packets) SetReadDeadline(t time.Time) error { return p.udp.SetReadDeadline(t) }

// SetWriteDeadline implements net.PacketConn.
func (p *packets) SetWriteDeadline(t time.Time) error { return p.udp.SetWriteDeadline(t) }

// SetReadBuffer leaves the buffer as the system made it.
func (p *packets) SetReadBuffer(int) error { return nil }

// SetWriteBuffer leaves the buffer as the system made it.
func (p *packets) SetWriteBuffer(int) error { return nil }

// quicError makes a failure of what a peer says over QUIC; nil for all else.
func quicError(err error, a *probe.Attempt) error {
	var (
		transport   *quic.TransportError
		application *quic.ApplicationError
		reset       *quic.StatelessResetError
		version     *quic.VersionNegotiationError
		stream      *http3.Error
	)
	switch {
	case errors.As(err, &reset):
		return fmt.Errorf("%w: stateless reset", io.ErrUnexpectedEOF)
	case errors.As(err, &version):
		return probe.Failf(a, meshv1.Result_PROTOCOL, "the server at %s speaks no version of QUIC that the prober does", a.Remote())
	case errors.As(err, &transport) && transport.Remote && transport.ErrorCode.IsCryptoError():
		return probe.Failf(a, meshv1.Result_TLS, "TLS handshake with %s: the peer refused the handshake: %s", a.Remote(), short(transport.Error()))
	case errors.As(err, &transport) && transport.Remote:
		return probe.Failf(a, meshv1.Result_CONNECTION_RESET, "the server at %s closed the connection: %s", a.Remote(), short(transport.Error()))
	case errors.As(err, &application) && application.Remote:
		return probe.Failf(a, meshv1.Result_CONNECTION_RESET, "the server at %s closed the connection: %s", a.Remote(), short(application.Error()))
	case errors.As(err, &stream) && stream.Remote:
		return probe.Failf(a, meshv1.Result_CONNECTION_RESET, "the server at %s ended the request: %s", a.Remote(), short(stream.Error()))
	}
	return nil
}
