//go:build linux

package real

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	postfixMain = `compatibility_level = 3.6
queue_directory = DIR/spool
data_directory = DIR/data
maillog_file = DIR/log
maillog_file_prefixes = DIR
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.shop.test
mydestination =
alias_maps =
smtpd_tls_security_level = may
smtpd_tls_chain_files = DIR/good.key, DIR/good.pem
`
	postfixMaster = `127.0.0.1:PLAIN inet n - n - - smtpd
127.0.0.1:BARE inet n - n - - smtpd -o smtpd_tls_security_level=none
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
tlsmgr unix - - n 1000? 1 tlsmgr
`
	dovecotConf = `base_dir = DIR/run
state_dir = DIR/state
log_path = /dev/stderr
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <DIR/good.pem
ssl_key = <DIR/good.key
mail_location = maildir:DIR/mail
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=DIR
}
service imap-login {
  inet_listener imap {
    port = IMAP
  }
  inet_listener imaps {
    port = SECURE
  }
}
service pop3-login {
  inet_listener pop3 {
    port = POP
  }
  inet_listener pop3s {
    port = 0
  }
}
`
)

// beginning is a tls probe that begins TLS by a dialogue.
func beginning(protocol string, config *meshv1.TlsConfig) func(*meshv1.Check) {
	return func(c *meshv1.Check) { c.Tls = &meshv1.TlsProbe{Starttls: protocol, Tls: config} }
}

func talking(p *meshv1.TcpProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Tcp = p } }

// faults are the wrong answers that every server with STARTTLS gives: a certificate of nobody's, of another name, and a dialogue of another protocol.
func faults(protocol, uri, other string, ca *probetest.CA) []probed {
	return []probed{
		{"tls, starttls " + protocol, "wrong: authority not trusted", uri, beginning(protocol, nil), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted")},
		{"tls, starttls " + protocol, "wrong: another name", uri, beginning(protocol, &meshv1.TlsConfig{CaPem: ca.PEM, ServerName: "other.example"}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not for other.example")},
		{"tls, starttls " + other, "wrong: " + protocol + " there", uri, beginning(other, &meshv1.TlsConfig{CaPem: ca.PEM}), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "STARTTLS ("+other+")")},
	}
}

func testPostfix(t *testing.T, b *table) {
	path := program(t, "postfix", "postfix")
	needsRoot(t, "Postfix")
	ca, dir, plain, bare := probetest.NewCA(t), directory(t), port(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	write(t, dir, "main.cf", postfixMain, "DIR", dir)
	write(t, dir, "master.cf", postfixMaster, "PLAIN", plain, "BARE", bare)
	for _, name := range []string{"spool", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil { //nolint:gosec // Postfix wants it so
			t.Fatal(err)
		}
	}
	as(t, "postfix", filepath.Join(dir, "data"))
	runs(t, nil, path, "-c", dir, "check")
	s := start(t, nil, path, "-c", dir, "start-fg")
	s.ready(t, true, "127.0.0.1:"+plain, "127.0.0.1:"+bare)
	uri := "tls://127.0.0.1:" + plain
	trust := &meshv1.TlsConfig{CaPem: ca.PEM}
	greeting := []*meshv1.DialogueStep{{Expect: "^220 mx[.]shop[.]test "}, {Send: "EHLO probe.test\r\n", Expect: "^250 "}, {Send: "STARTTLS\r\n", Expect: "^220 ", Reject: "^[45]"}, {Starttls: true},
		{Send: "EHLO probe.test\r\n", Expect: "^250 "}, {Send: "QUIT\r\n", Expect: "^221 "}}
	b.life(t, "postfix", s, []subject{
		{"tls, starttls smtp", uri, beginning("smtp", trust), ordinary()},
		{"tcp, dialogue with STARTTLS", "tcp://127.0.0.1:" + plain, talking(&meshv1.TcpProbe{Tls: trust, Steps: greeting}), ordinary()},
		{"tcp, starttls smtp", "tcp://127.0.0.1:" + plain, talking(&meshv1.TcpProbe{Tls: trust, Starttls: "smtp", Steps: greeting[4:]}), ordinary()},
	}, append(faults("smtp", uri, "imap", ca),
		probed{"tls, starttls smtp", "wrong: offers no TLS", "tls://127.0.0.1:" + bare, beginning("smtp", trust), probetest.Fail(meshv1.Result_TLS, meshv1.Result_PROCESSING, "does not offer STARTTLS")},
		probed{"tcp, dialogue with STARTTLS", "wrong: offers no TLS", "tcp://127.0.0.1:" + bare, talking(&meshv1.TcpProbe{Tls: trust, Steps: greeting}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		probed{"tls", "wrong: no TLS at once", uri, nil, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "")},
		probed{"http", "wrong: SMTP there", "http://127.0.0.1:" + plain, nil, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "malformed HTTP")}))
}

func testDovecot(t *testing.T, b *table) {
	path := program(t, "dovecot-imapd dovecot-pop3d", "dovecot")
	needsRoot(t, "Dovecot")
	ca, dir, imap, pop, secure := probetest.NewCA(t), directory(t), port(t), port(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	conf := write(t, dir, "dovecot.conf", dovecotConf, "DIR", dir, "IMAP", imap, "POP", pop, "SECURE", secure)
	s := start(t, func(c *exec.Cmd) { c.Dir = dir }, path, "-F", "-c", conf)
	s.ready(t, true, "127.0.0.1:"+imap, "127.0.0.1:"+pop)
	s.ready(t, false, "127.0.0.1:"+secure)
	trust := &meshv1.TlsConfig{CaPem: ca.PEM}
	login := []*meshv1.DialogueStep{{Send: "a CAPABILITY\r\n", Expect: "^a OK"}, {Send: "b LOGOUT\r\n", Expect: "^[*] BYE"}}
	wrong := append(faults("imap", "tls://127.0.0.1:"+imap, "pop3", ca), faults("pop3", "tls://127.0.0.1:"+pop, "smtp", ca)...)
	b.life(t, "dovecot", s, []subject{
		{"tls, starttls imap", "tls://127.0.0.1:" + imap, beginning("imap", trust), ordinary()},
		{"tls, starttls pop3", "tls://127.0.0.1:" + pop, beginning("pop3", trust), ordinary()},
		{"tls", "tls://127.0.0.1:" + secure, func(c *meshv1.Check) { c.Tls = &meshv1.TlsProbe{Tls: trust} }, handshaking()},
		{"tcp, starttls imap", "tcp://127.0.0.1:" + imap, talking(&meshv1.TcpProbe{Tls: trust, Starttls: "imap", Steps: login}), ordinary()},
		{"tcp over TLS", "tcp://127.0.0.1:" + secure, talking(&meshv1.TcpProbe{Tls: trust, UseTls: true, Steps: []*meshv1.DialogueStep{{Expect: `^\* OK`}}}), handshaking()},
	}, append(wrong,
		probed{"tcp over TLS", "wrong: another greeting", "tcp://127.0.0.1:" + secure, talking(&meshv1.TcpProbe{Tls: trust, UseTls: true, Steps: []*meshv1.DialogueStep{{Expect: "^220 ", Reject: "^[*]"}}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")}))
}
