package starttls

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// canned is a connection to a peer that says what it says, whatever it is asked.
type canned struct {
	data []byte
	most int // bytes a read gives at most
	gave int
}

func (c *canned) Read(b []byte) (int, error) {
	if c.gave == len(c.data) {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.most)], c.data[c.gave:])
	c.gave += n
	return n, nil
}
func (c *canned) Write(b []byte) (int, error)      { return len(b), nil }
func (c *canned) Close() error                     { return nil }
func (c *canned) LocalAddr() net.Addr              { return nil }
func (c *canned) RemoteAddr() net.Addr             { return nil }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

// fuzz checks of one protocol that whatever a peer sends ends in an error of the right kind or in success with nothing left over, that no more than the limit is read, and that
// what succeeds in one piece does so byte by byte.
func fuzz(f *testing.F, protocol string) {
	for _, set := range []map[string]dialog{good(), bad()} {
		for _, d := range set {
			if d.protocol != protocol {
				continue
			}
			var all strings.Builder
			for _, s := range d.script {
				if s[0] == 'S' {
					all.WriteString(s[1:])
				}
			}
			f.Add([]byte(all.String()))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		run := func(most int) error {
			c := &canned{data: data, most: most}
			err := Upgrade(context.Background(), c, protocol, Options{ClientName: "x", ServerName: "y"})
			if c.gave > MaxBytes {
				t.Errorf("read %d bytes", c.gave)
			}
			var e *Error
			if err != nil && !errors.As(err, &e) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("an error of no kind: %v", err)
			}
			if e != nil && len(e.Sentence) > 1000 {
				t.Errorf("a sentence of %d bytes", len(e.Sentence))
			}
			return err
		}
		whole, bytewise := run(len(data)+1), run(1)
		if whole == nil && bytewise != nil {
			t.Errorf("succeeds in one piece, and byte by byte not: %v", bytewise)
		}
	})
}

func FuzzSMTP(f *testing.F)     { fuzz(f, "smtp") }
func FuzzIMAP(f *testing.F)     { fuzz(f, "imap") }
func FuzzPOP3(f *testing.F)     { fuzz(f, "pop3") }
func FuzzSieve(f *testing.F)    { fuzz(f, "sieve") }
func FuzzNNTP(f *testing.F)     { fuzz(f, "nntp") }
func FuzzFTP(f *testing.F)      { fuzz(f, "ftp") }
func FuzzLDAP(f *testing.F)     { fuzz(f, "ldap") }
func FuzzPostgres(f *testing.F) { fuzz(f, "postgres") }
func FuzzMySQL(f *testing.F)    { fuzz(f, "mysql") }
func FuzzXMPP(f *testing.F)     { fuzz(f, "xmpp") }
