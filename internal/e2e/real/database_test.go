//go:build linux

package real

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func testPostgres(t *testing.T, b *table) {
	path := program(t, "postgresql", "/usr/lib/postgresql/*/bin/postgres")
	ca, dir := probetest.NewCA(t), directory(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	user := as(t, "postgres", dir)
	runs(t, user, filepath.Join(filepath.Dir(path), "initdb"), "-D", dir+"/data", "-A", "trust", "-N", "--no-instructions", "-E", "UTF8", "--locale=C", "--lc-messages=C")
	run := func(ssl string) (*server, string) {
		at := port(t)
		settings := []string{"-D", dir + "/data", "-c", "listen_addresses=127.0.0.1", "-c", "port=" + at, "-c", "unix_socket_directories=" + dir, "-c", "fsync=off", "-c", "ssl=" + ssl,
			"-c", "ssl_cert_file=" + dir + "/good.pem", "-c", "ssl_key_file=" + dir + "/good.key", "-c", "shared_buffers=1MB"}
		s := start(t, user, path, settings...)
		s.await(t, "its message that it is ready", func() bool { return strings.Contains(s.log.String(), "ready to accept connections") })
		return s, at
	}
	bare, at := run("off")
	b.run(t, "postgresql", patience, []probed{
		{"tls, starttls postgres", "wrong: has no TLS", "tls://127.0.0.1:" + at, beginning("postgres", nil), probetest.Fail(meshv1.Result_TLS, meshv1.Result_PROCESSING, "the server has no TLS")}})
	bare.stop()
	if err := os.Remove(dir + "/data/postmaster.pid"); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	s, at := run("on")
	uri, trust := "tls://127.0.0.1:"+at, &meshv1.TlsConfig{CaPem: ca.PEM}
	// The messages of an AuthenticationOk: the startup message of the user postgres, and R with 8 and 0.
	startup := []byte("\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00")
	session := &meshv1.TcpProbe{Tls: trust, Starttls: "postgres", Steps: []*meshv1.DialogueStep{{SendBytes: startup, ExpectBytes: []byte("R\x00\x00\x00\x08\x00\x00\x00\x00")}}}
	b.life(t, "postgresql", s, []subject{
		{"tls, starttls postgres", uri, beginning("postgres", trust), ordinary()},
		{"tcp, starttls postgres", "tcp://127.0.0.1:" + at, talking(session), ordinary()},
	}, []probed{
		faults("postgres", uri, "mysql", ca)[0],
		faults("postgres", uri, "mysql", ca)[1],
		{"tcp, starttls postgres", "wrong: lets the user in", "tcp://127.0.0.1:" + at, talking(&meshv1.TcpProbe{Tls: trust, Starttls: "postgres", Steps: []*meshv1.DialogueStep{
			{SendBytes: startup, ExpectBytes: []byte("E")}}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"tls", "wrong: no TLS at once", uri, nil, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_HANDSHAKE, "")},
	})
}

func testMariaDB(t *testing.T, b *table) {
	path := program(t, "mariadb-server-core", "mariadbd")
	ca := probetest.NewCA(t)
	run := func(secure bool) (*server, string) {
		dir, at := directory(t), port(t)
		certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
		arguments := []string{"--no-defaults", "--datadir=" + dir, "--skip-grant-tables", "--skip-innodb", "--default-storage-engine=MyISAM", "--socket=" + dir + "/s", "--bind-address=127.0.0.1", "--port=" + at,
			"--pid-file=" + dir + "/pid", "--skip-networking=0", "--max-connections=20"}
		if secure {
			arguments = append(arguments, "--ssl-cert="+dir+"/good.pem", "--ssl-key="+dir+"/good.key")
		}
		user := as(t, "mysql", dir)
		if user == nil && os.Getuid() == 0 {
			arguments = append(arguments, "--user=root") // the package with the server alone makes no user
		}
		s := start(t, user, path, arguments...)
		s.ready(t, true, "127.0.0.1:"+at)
		return s, at
	}
	_, bare := run(false)
	s, at := run(true)
	uri, trust := "tls://127.0.0.1:"+at, &meshv1.TlsConfig{CaPem: ca.PEM}
	greeting := func(version string) func(*meshv1.Check) {
		return talking(&meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Expect: version, Match: meshv1.DialogueStep_BYTES}}})
	}
	b.life(t, "mariadb", s, []subject{
		{"tls, starttls mysql", uri, beginning("mysql", trust), ordinary()},
		{"tcp, dialogue", "tcp://127.0.0.1:" + at, greeting("MariaDB"), ordinary()},
	}, append(faults("mysql", uri, "smtp", ca),
		probed{"tls, starttls mysql", "wrong: offers no TLS", "tls://127.0.0.1:" + bare, beginning("mysql", trust), probetest.Fail(meshv1.Result_TLS, meshv1.Result_PROCESSING, "does not offer TLS")},
		probed{"tcp, dialogue", "wrong: another server", "tcp://127.0.0.1:" + at, talking(&meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Expect: "^SSH", Reject: "MariaDB", Match: meshv1.DialogueStep_BYTES}}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")}))
}
