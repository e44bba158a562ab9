package starttls

import (
	"bytes"
	"net"
	"strconv"
	"strings"
)

// peer is the other end of a connection: what it sent and was not read yet, and how much it sent in all. It implements [io.ByteReader].
type peer struct {
	conn     net.Conn
	unread   []byte
	received int
	lines    int
}

// say writes to the peer. What the peer sent before it was asked is against every protocol.
func (p *peer) say(text string) error {
	if len(p.unread) > 0 {
		return broken("the server sent %s before it was asked", quote(p.unread))
	}
	_, err := p.conn.Write([]byte(text))
	return err
}

// fill waits for more from the peer.
func (p *peer) fill() error {
	if p.received >= MaxBytes {
		return broken("the server sent more than %d bytes before TLS could begin", MaxBytes)
	}
	var buffer [1 << 10]byte
	n, err := p.conn.Read(buffer[:min(len(buffer), MaxBytes-p.received)])
	p.received += n
	p.unread = append(p.unread, buffer[:n]...)
	if n > 0 {
		return nil
	}
	return err
}

// ReadByte implements io.ByteReader.
func (p *peer) ReadByte() (byte, error) {
	for len(p.unread) == 0 {
		if err := p.fill(); err != nil {
			return 0, err
		}
	}
	b := p.unread[0]
	p.unread = p.unread[1:]
	return b, nil
}

// Read implements io.Reader, for readers that want one although they read byte by byte.
func (p *peer) Read(out []byte) (int, error) {
	if len(out) == 0 {
		return 0, nil
	}
	b, err := p.ReadByte()
	if err != nil {
		return 0, err
	}
	out[0] = b
	return 1, nil
}

// take reads n bytes.
func (p *peer) take(n int) ([]byte, error) {
	if n > MaxBytes {
		return nil, broken("the server announced %d bytes, which is more than %d", n, MaxBytes)
	}
	for len(p.unread) < n {
		if err := p.fill(); err != nil {
			return nil, err
		}
	}
	out := p.unread[:n:n]
	p.unread = p.unread[n:]
	return out, nil
}

// line reads a line, without its end.
func (p *peer) line() (string, error) {
	if p.lines++; p.lines > MaxLines {
		return "", broken("the server sent more than %d lines before TLS could begin", MaxLines)
	}
	seen := 0
	for {
		if i := bytes.IndexByte(p.unread[seen:], '\n'); i >= 0 {
			text := string(p.unread[:seen+i])
			p.unread = p.unread[seen+i+1:]
			text = strings.TrimSuffix(text, "\r")
			if strings.ContainsAny(text, "\x00\r") {
				return "", broken("the server sent a line with a control character in it: %s", quote([]byte(text)))
			}
			return text, nil
		}
		seen = len(p.unread)
		if err := p.fill(); err != nil {
			return "", err
		}
	}
}

// skipSpace drops the white space that has come, which XMPP allows between elements (RFC 6120, section 4.6.1).
func (p *peer) skipSpace() { p.unread = bytes.TrimLeft(p.unread, " \t\r\n") }

// most is how much of what a peer sent an error quotes.
const most = 80

// quote is the beginning of what a peer sent, safe to print.
func quote(b []byte) string {
	if len(b) > most {
		return strconv.QuoteToASCII(string(b[:most])) + "..."
	}
	return strconv.QuoteToASCII(string(b))
}
