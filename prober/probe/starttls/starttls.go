// Package starttls speaks the plain dialogues after which a connection goes on in TLS, one protocol each, up to the point where the TLS handshake may begin.
//
// The dialogues, and where they are written down (C is this package, S the peer):
//
//	smtp         S 220, C EHLO name, S 250 with STARTTLS, C STARTTLS, S 220             RFC 3207, section 4
//	lmtp         the same with LHLO                                                     RFC 2033, section 4.1
//	imap         S * OK, C CAPABILITY, S with STARTTLS, C STARTTLS, S OK                RFC 9051, section 6.2.1
//	pop3         S +OK, C STLS, S +OK                                                   RFC 2595, section 4
//	sieve        S capabilities with STARTTLS and OK, C STARTTLS, S OK                  RFC 5804, section 2.2
//	nntp         S 200 or 201, C STARTTLS, S 382                                        RFC 4642, section 2.2
//	ftp          S 220 (perhaps 120 before), C AUTH TLS, S 234                          RFC 4217, section 4
//	ldap         C extended request 1.3.6.1.4.1.1466.20037, S success                   RFC 4511, section 4.14
//	postgres     C SSLRequest, S the byte S                                             PostgreSQL's manual, Message Flow, SSL Session Encryption
//	mysql        S initial handshake with CLIENT_SSL, C SSL request (no answer)         MySQL's manual, Connection Phase (MariaDB's is the same)
//	xmpp         C stream, S stream and features, C starttls, S proceed                 RFC 6120, section 5.4, namespace jabber:client
//	xmpp-server  the same with the namespace jabber:server
//
// A peer is read strictly and within bounds: at most [MaxBytes] and [MaxLines] in all, every answer as its protocol says, nothing before it was asked for, and
// nothing in the clear behind the answer after which TLS begins: what stands there could be meant for a client that takes it for encrypted (the fault of
// CVE-2011-0411 and its relatives, and of CVE-2021-23222). A line may end in a bare LF, which is harmless here. The only thing that is not checked is what the peer
// announces without need: a POP3 server is asked for STLS whether or not CAPA names it.
package starttls

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"
)

// Bounds of what a peer may send before TLS begins. They are a multiple of what servers send: Dovecot's greeting and capabilities are 400 bytes, a long FTP banner
// has 30 lines.
const (
	MaxBytes = 8 << 10
	MaxLines = 64
)

// Options are what a dialogue needs to know besides the protocol.
type Options struct {
	// ClientName is the name given in EHLO and LHLO. If empty, the local address in brackets, as RFC 5321, section 4.1.3 allows.
	ClientName string
	// ServerName is the domain asked for in an XMPP stream. If empty, the peer's address, which most XMPP servers refuse.
	ServerName string
}

// Error says that the peer spoke, and that TLS does not begin. What the network says (a reset, a timeout, the end of ctx) is returned as it is instead.
type Error struct {
	// NoTLS is true when the peer follows its protocol, and does not offer TLS or refuses it; false when it breaks the protocol, speaks another one or refuses the client
	// as a whole.
	NoTLS bool
	// Sentence says what the peer did, and what it should have done.
	Sentence string
}

// Error is the sentence.
func (e *Error) Error() string { return e.Sentence }

// broken is the error of a peer that breaks the protocol.
func broken(format string, args ...any) error { return &Error{Sentence: fmt.Sprintf(format, args...)} }

// refused is the error of a peer that has no TLS.
func refused(format string, args ...any) error {
	return &Error{NoTLS: true, Sentence: fmt.Sprintf(format, args...)}
}

// dialogue speaks with a peer until TLS may begin.
type dialogue func(*peer, Options) error

// dialogues is the one place that lists the protocols.
func dialogues(protocol string) (dialogue, bool) {
	switch protocol {
	case "smtp":
		return func(p *peer, o Options) error { return smtp(p, "EHLO", o) }, true
	case "lmtp":
		return func(p *peer, o Options) error { return smtp(p, "LHLO", o) }, true
	case "imap":
		return imap, true
	case "pop3":
		return pop3, true
	case "sieve":
		return sieve, true
	case "nntp":
		return nntp, true
	case "ftp":
		return ftp, true
	case "ldap":
		return ldap, true
	case "postgres":
		return postgres, true
	case "mysql":
		return mysql, true
	case "xmpp":
		return func(p *peer, o Options) error { return xmpp(p, "jabber:client", o) }, true
	case "xmpp-server":
		return func(p *peer, o Options) error { return xmpp(p, "jabber:server", o) }, true
	}
	return nil, false
}

// Protocols are the protocols that [Upgrade] knows, in alphabetical order.
func Protocols() []string {
	all := []string{"smtp", "lmtp", "imap", "pop3", "sieve", "nntp", "ftp", "ldap", "postgres", "mysql", "xmpp", "xmpp-server"}
	slices.Sort(all)
	return all
}

// Upgrade speaks the dialogue of a protocol over a connection on which nothing was read or written yet. When it returns nil, the next byte in both directions is the first
// of the TLS handshake, and conn is the caller's to wrap. When it fails, conn is of no more use, and still the caller's to close. It reads no byte too many: what it
// returns nil for has left nothing in a buffer.
//
// It ends when ctx does, with the error of ctx, after which every read and write on conn fails. The error is an [*Error] when the peer is at fault.
func Upgrade(ctx context.Context, conn net.Conn, protocol string, o Options) error {
	speak, ok := dialogues(protocol)
	if !ok {
		return fmt.Errorf("STARTTLS is not known for %q; the protocols are %v", protocol, Protocols())
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p := &peer{conn: conn}
	err := speak(p, o)
	if err == nil && len(p.unread) > 0 {
		err = broken("the server sent %d bytes in the clear behind its consent to TLS: %s; a client might take them for encrypted", len(p.unread), quote(p.unread))
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == io.EOF: //nolint:errorlint // as net.Conn returns it
		return io.ErrUnexpectedEOF
	}
	return err
}
