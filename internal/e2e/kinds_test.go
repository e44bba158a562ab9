//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/miekg/dns"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// One file with a check of every kind, against real servers in this process: all come up within two intervals, and explain says why.
func TestCheckOfEveryKindComesUp(t *testing.T) {
	t.Parallel()
	const interval = 5 * time.Second
	m := startMesh(t, "up", []string{"--unix-sockets", "/"})
	m.awaitProber("local-1")
	yaml, names := everyKind(t, interval)
	me, err := m.probers.GetProber(m.ctx(), &meshv1.GetProberRequest{Name: "probers/local-1"})
	if err != nil {
		t.Fatal(err)
	}
	ping := slices.Contains(me.GetCapabilities(), "icmp")

	applied := time.Now()
	m.apply(yaml)
	for _, name := range names {
		if name == "icmp" && !ping {
			continue
		}
		m.awaitVerdict(name, meshv1.CheckStatus_UP, 1)
		t.Logf("%-6s UP %s after apply", name, time.Since(applied).Round(time.Millisecond))
	}
	if took := time.Since(applied); took > 2*interval {
		t.Errorf("all were UP after %s, which is more than two intervals of %s", took, interval)
	}
	if !ping {
		m.expectICMPRefused(me)
	}
	m.expectExplained("https")
	out, errs, code := m.cli("", "get", "checks")
	if code != 0 || strings.Count(out, "UP") < len(names)-1 {
		t.Errorf("get checks ended with %d:\n%s%s", code, out, errs)
	}
	t.Logf("get checks:\n%s", out)
}

// expectICMPRefused: where the prober has no ICMP socket, the check says so and nobody believes that the target is down.
func (m *mesh) expectICMPRefused(me *meshv1.Prober) {
	m.t.Helper()
	out, _, code := m.cli("", "explain", "check", "icmp")
	if code != 0 || !strings.Contains(out, "icmp") || !strings.Contains(out, "UNKNOWN") {
		m.t.Errorf("without icmp among its capabilities (%v) nobody can run the check; explain should say so:\n%s", me.GetCapabilities(), out)
	}
	m.t.Logf("this machine gives no ICMP socket; explain says:\n%s", out)
}

func (m *mesh) expectExplained(check string) {
	m.t.Helper()
	out, errs, code := m.cli("", "explain", "check", check)
	if code != 0 {
		m.t.Fatalf("explain ended with %d: %s", code, errs)
	}
	for _, want := range []string{"checks/" + check + " is UP", "Placement", "rank 0: probers/local-1", "Votes", "OK", "Arithmetic", "a vote is fresh for", "the quorum is 1", "QUORUM_UP"} {
		if !strings.Contains(strings.ReplaceAll(out, "rank 0: local-1", "rank 0: probers/local-1"), want) {
			m.t.Errorf("explain lacks %q:\n%s", want, out)
		}
	}
	m.t.Logf("explain check %s:\n%s", check, out)
}

// everyKind starts a server for each kind of check and gives the file that watches them all.
func everyKind(t *testing.T, interval time.Duration) (yaml string, names []string) {
	t.Helper()
	ca, serverTLS := authority(t)
	web := startWebTarget(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"ok": true, "queue": 3}`)
	})
	var b strings.Builder
	b.WriteString("checks:\n")
	add := func(name, uri string, fields ...string) {
		names = append(names, name)
		fmt.Fprintf(&b, "  - name: checks/%s\n    uri: %q\n    interval: %s\n    timeout: 2s\n", name, uri, interval)
		for _, f := range fields {
			b.WriteString("    " + strings.ReplaceAll(f, "\n", "\n    ") + "\n")
		}
	}
	caField := "    ca_pem: |\n" + indent(ca, "      ")
	add("http", web.url(), "http:\n  expect:\n    - response.status == 200\n    - response.json.ok\n    - response.json.queue < 10")
	add("https", "https://"+startHTTPS(t, serverTLS)+"/", "http:\n  tls:\n"+caField+"\n  expect: [\"response.body.contains('secret')\"]")
	add("tcp", "tcp://"+startBanner(t), "tcp:\n  expect: [\"response.body.startsWith('220 ')\"]")
	add("tls", "tls://"+startTLS(t, serverTLS), "tls:\n  tls:\n"+caField+"\n  expect: [response.tls.days_left >= 1]")
	add("dns", "dns://"+startDNS(t)+"/shop.example.com?type=A", "dns:\n  expect: [\"'192.0.2.1' in response.dns.answers\"]")
	add("icmp", "icmp://127.0.0.1", "icmp: {count: 2, expect: [response.icmp.loss == 0.0]}")
	add("grpc", "grpc://"+startHealth(t)+"/shop.Cart", "grpc: {expect: [\"response.grpc.serving == 'SERVING'\"]}")
	add("unix", "unix://"+startSocket(t), "tcp:\n  steps: [{expect: '^hello (?P<whom>.*)$', expect_close: true}]\n  expect: [\"response.captures.whom == 'prober'\"]")
	add("udp", "udp://"+startEcho(t), "udp: {send: ping, match: '^ping$', count: 3, max_loss: 0.0}")
	add("websocket", "ws://"+startWebsocket(t)+"/feed", "websocket:\n  steps: [{ping: true}, {send: 'hi $${no}', expect: '^you said hi'}, {close: true}]")
	return b.String(), names
}

func startSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go serve(l, func(c net.Conn) { fmt.Fprint(c, "hello prober\n") })
	return path
}

func startEcho(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}()
	return conn.LocalAddr().String()
}

func startWebsocket(t *testing.T) string {
	t.Helper()
	l := listen(t)
	s := &http.Server{ErrorLog: log.New(new(output), "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, data, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, append([]byte("you said "), data...)) != nil {
				return
			}
		}
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n"+by)
}

// authority makes a certificate authority and a server certificate of 127.0.0.1 by it.
func authority(t *testing.T) (caPEM string, server *tls.Config) {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(err)
		return k
	}
	caKey, leafKey := key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(72 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test server"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(48 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	must(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})),
		&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}}}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func startHTTPS(t *testing.T, c *tls.Config) string {
	t.Helper()
	l := listen(t)
	s := &http.Server{TLSConfig: c, ErrorLog: log.New(new(output), "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "the secret page") })}
	go func() { _ = s.ServeTLS(l, "", "") }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// serve accepts connections until the listener is closed, and lets f speak with each.
func serve(l net.Listener, f func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			f(c)
		}()
	}
}

func startBanner(t *testing.T) string {
	t.Helper()
	l := listen(t)
	go serve(l, func(c net.Conn) { fmt.Fprint(c, "220 mail.example.com ready\r\n") })
	return l.Addr().String()
}

func startTLS(t *testing.T, c *tls.Config) string {
	t.Helper()
	l := listen(t)
	go serve(l, func(conn net.Conn) { _ = tls.Server(conn, c).HandshakeContext(context.Background()) })
	return l.Addr().String()
}

func startDNS(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg)
		r.SetReply(q)
		if q.Question[0].Name == "shop.example.com." && q.Question[0].Qtype == dns.TypeA {
			r.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)}}
		} else {
			r.Rcode = dns.RcodeNameError
		}
		_ = w.WriteMsg(r)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { pc.Close() })
	return pc.LocalAddr().String()
}

func startHealth(t *testing.T) string {
	t.Helper()
	l := listen(t)
	s, h := grpc.NewServer(), health.NewServer()
	h.SetServingStatus("shop.Cart", healthv1.HealthCheckResponse_SERVING)
	healthv1.RegisterHealthServer(s, h)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}
