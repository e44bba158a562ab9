//go:build linux

package real

import (
	"os"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func testSlapd(t *testing.T, b *table) {
	path := program(t, "slapd", "slapd")
	ca, dir, at := probetest.NewCA(t), directory(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	conf := write(t, dir, "slapd.conf", "TLSCertificateFile DIR/good.pem\nTLSCertificateKeyFile DIR/good.key\npidfile DIR/pid\ndatabase config\n", "DIR", dir)
	s := start(t, nil, path, "-d", "0", "-f", conf, "-h", "ldap://127.0.0.1:"+at+"/")
	s.ready(t, false, "127.0.0.1:"+at)
	uri := "tls://127.0.0.1:" + at
	b.life(t, "slapd", s, []subject{{"tls, starttls ldap", uri, beginning("ldap", &meshv1.TlsConfig{CaPem: ca.PEM}), ordinary()}}, faults("ldap", uri, "", ca)[:2])
}

func testVsftpd(t *testing.T, b *table) {
	path := program(t, "vsftpd", "vsftpd")
	needsRoot(t, "vsftpd")
	ca, dir, at := probetest.NewCA(t), directory(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	if err := os.Mkdir(dir+"/empty", 0o555); err != nil { //nolint:gosec // vsftpd wants it so
		t.Fatal(err)
	}
	conf := write(t, dir, "vsftpd.conf", `listen=YES
listen_address=127.0.0.1
listen_port=PORT
background=NO
anonymous_enable=YES
local_enable=NO
secure_chroot_dir=DIR/empty
ssl_enable=YES
allow_anon_ssl=YES
rsa_cert_file=DIR/good.pem
rsa_private_key_file=DIR/good.key
ssl_ciphers=HIGH
seccomp_sandbox=NO
`, "DIR", dir, "PORT", at)
	s := start(t, nil, path, conf)
	s.ready(t, true, "127.0.0.1:"+at)
	uri := "tls://127.0.0.1:" + at
	b.life(t, "vsftpd", s, []subject{{"tls, starttls ftp", uri, beginning("ftp", &meshv1.TlsConfig{CaPem: ca.PEM}), ordinary()}}, faults("ftp", uri, "pop3", ca))
}

func testProsody(t *testing.T, b *table) {
	path := program(t, "prosody", "prosody")
	ca, dir, at := probetest.NewCA(t), directory(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "shop.test")
	conf := write(t, dir, "prosody.cfg.lua", `run_as_root = true
data_path = "DIR"
daemonize = false
interfaces = { "127.0.0.1" }
c2s_ports = { PORT }
s2s_ports = {}
c2s_direct_tls_ports = {}
modules_enabled = { "tls", "saslauth" }
modules_disabled = { "s2s", "http" }
log = { error = "*console" }
c2s_require_encryption = true
VirtualHost "shop.test"
  ssl = { key = "DIR/good.key"; certificate = "DIR/good.pem" }
`, "DIR", dir, "PORT", at)
	s := start(t, nil, path, "--config", conf, "-F")
	s.ready(t, false, "127.0.0.1:"+at)
	uri := "tls://127.0.0.1:" + at
	config := &meshv1.TlsConfig{CaPem: ca.PEM, ServerName: "shop.test"}
	b.life(t, "prosody", s, []subject{{"tls, starttls xmpp", uri, beginning("xmpp", config), ordinary()}}, []probed{
		{"tls, starttls xmpp", "wrong: authority not trusted", uri, beginning("xmpp", &meshv1.TlsConfig{ServerName: "shop.test"}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted")},
		{"tls, starttls xmpp", "wrong: does not serve the name", uri, beginning("xmpp", &meshv1.TlsConfig{CaPem: ca.PEM, ServerName: "other.example"}), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "")},
	})
}
