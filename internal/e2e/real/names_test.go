//go:build linux

package real

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// answers waits until the server at the port knows the SOA of the zone.
func (s *server) answers(t *testing.T, at, zone string) {
	t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(zone, dns.TypeSOA)
	client := dns.Client{Timeout: time.Second}
	s.await(t, "an answer for "+zone, func() bool {
		m, _, err := client.Exchange(q, "127.0.0.1:"+at)
		return err == nil && m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0
	})
}

func asking(p *meshv1.DnsProbe) func(*meshv1.Check) {
	return func(c *meshv1.Check) { c.Dns = p }
}

// packed is a question for the kind udp, and what an answer to it begins with: the number and the flags of an authoritative answer.
func packed(t *testing.T, name string) (question, begin []byte) {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeA)
	m.Id, m.RecursionDesired = 0x1234, false
	question, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return question, []byte{0x12, 0x34, 0x84, 0x00}
}

func testKnot(t *testing.T, b *table) {
	path := program(t, "knot", "knotd")
	dir, at := directory(t), port(t)
	write(t, dir, "shop.test.zone", "$TTL 300\n@ IN SOA ns.test. host.test. 7 3600 600 86400 60\n@ NS ns.test.\nwww A 192.0.2.1\nwww A 192.0.2.2\n@ MX 10 mail\n")
	conf := write(t, dir, "knot.conf", "server:\n  rundir: DIR\n  listen: 127.0.0.1@PORT\ndatabase:\n  storage: DIR\nzone:\n- domain: shop.test.\n  storage: DIR\n  file: shop.test.zone\n  zonefile-sync: -1\n", "DIR", dir, "PORT", at)
	s := start(t, nil, path, "-c", conf)
	s.answers(t, at, "shop.test.")
	uri := "dns://127.0.0.1:" + at + "/"
	tcp := func(p *meshv1.DnsProbe) func(*meshv1.Check) {
		p.Transport = meshv1.DnsProbe_TCP
		return asking(p)
	}
	datagram := ordinary()
	datagram.down = probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_PROCESSING, "refused")
	both := []string{"192.0.2.2", "192.0.2.1"}
	question, begin := packed(t, "www.shop.test.")
	unknown, _ := packed(t, "none.shop.test.")
	udp := func(p *meshv1.UdpProbe) func(*meshv1.Check) { return func(c *meshv1.Check) { c.Udp = p } }
	b.life(t, "knot", s, []subject{
		{"dns", uri + "www.shop.test", asking(&meshv1.DnsProbe{Answers: both}), datagram},
		{"dns by TCP", uri + "shop.test?type=MX", tcp(&meshv1.DnsProbe{Answers: []string{"10 mail.shop.test."}}), ordinary()},
		{"udp", "udp://127.0.0.1:" + at, udp(&meshv1.UdpProbe{SendBytes: question, MatchBytes: begin}), datagram},
	}, []probed{
		{"dns", "wrong: no such name", uri + "none.shop.test", nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "NXDOMAIN")},
		{"dns", "wrong: no such type", uri + "www.shop.test?type=AAAA", nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")},
		{"dns", "wrong: not its zone", uri + "www.example.com", nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "REFUSED")},
		{"dns", "wrong: another address", uri + "www.shop.test", asking(&meshv1.DnsProbe{Answers: []string{"192.0.2.9"}}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "192.0.2.1")},
		{"dns by TCP", "wrong: no such name", uri + "none.shop.test", tcp(&meshv1.DnsProbe{}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "NXDOMAIN")},
	}, func() { // another answer is passed over until the time is up
		b.run(t, "knot", unhurried, []probed{
			{"udp", "wrong: another answer", "udp://127.0.0.1:" + at, udp(&meshv1.UdpProbe{SendBytes: unknown, MatchBytes: begin}), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "")}})
	})
}

func testUnbound(t *testing.T, b *table) {
	path := program(t, "unbound", "unbound")
	ca, dir, plain, secure, web := probetest.NewCA(t), directory(t), port(t), port(t), port(t)
	certificate(t, ca, dir, "good", time.Hour, "127.0.0.1")
	conf := write(t, dir, "unbound.conf", `server:
  username: ""
  chroot: ""
  use-syslog: no
  do-daemonize: no
  pidfile: ""
  directory: "DIR"
  module-config: "iterator"
  interface: 127.0.0.1@PLAIN
  interface: 127.0.0.1@SECURE
  interface: 127.0.0.1@WEB
  tls-service-pem: "DIR/good.pem"
  tls-service-key: "DIR/good.key"
  tls-port: SECURE
  https-port: WEB
  local-zone: "shop.test." static
  local-data: "shop.test. IN SOA ns.test. host.test. 7 3600 600 86400 60"
  local-data: "www.shop.test. IN A 192.0.2.1"
  local-zone: "closed.example." refuse
`, "DIR", dir, "PLAIN", plain, "SECURE", secure, "WEB", web)
	s := start(t, nil, path, "-d", "-c", conf)
	s.answers(t, plain, "shop.test.")
	with := func(tr meshv1.DnsProbe_Transport, answer string) func(*meshv1.Check) {
		p := &meshv1.DnsProbe{Transport: tr, Answers: []string{answer}}
		if tr > meshv1.DnsProbe_TCP {
			p.Tls = &meshv1.TlsConfig{CaPem: ca.PEM}
		}
		return asking(p)
	}
	datagram := ordinary()
	datagram.down = probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_PROCESSING, "refused")
	at := func(port, name string) string { return "dns://127.0.0.1:" + port + "/" + name }
	another := probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "192.0.2.1")
	b.life(t, "unbound", s, []subject{
		{"dns", at(plain, "www.shop.test"), with(meshv1.DnsProbe_UDP, "192.0.2.1"), datagram},
		{"dns by TCP", at(plain, "www.shop.test"), with(meshv1.DnsProbe_TCP, "192.0.2.1"), ordinary()},
		{"dns by TLS", at(secure, "www.shop.test"), with(meshv1.DnsProbe_TLS, "192.0.2.1"), handshaking()},
		{"dns by HTTPS", at(web, "www.shop.test"), with(meshv1.DnsProbe_HTTPS, "192.0.2.1"), handshaking()},
	}, []probed{
		{"dns", "wrong: refuses the zone", at(plain, "www.closed.example"), nil, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "REFUSED")},
		{"dns", "wrong: another address", at(plain, "www.shop.test"), with(meshv1.DnsProbe_UDP, "192.0.2.9"), another},
		{"dns by TCP", "wrong: another address", at(plain, "www.shop.test"), with(meshv1.DnsProbe_TCP, "192.0.2.9"), another},
		{"dns by TLS", "wrong: another address", at(secure, "www.shop.test"), with(meshv1.DnsProbe_TLS, "192.0.2.9"), another},
		{"dns by HTTPS", "wrong: another address", at(web, "www.shop.test"), with(meshv1.DnsProbe_HTTPS, "192.0.2.9"), another},
		{"dns by TLS", "wrong: authority not trusted", at(secure, "www.shop.test"), asking(&meshv1.DnsProbe{Transport: meshv1.DnsProbe_TLS}), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted")},
		{"dns by HTTPS", "wrong: another path", at(web, "www.shop.test"), asking(&meshv1.DnsProbe{Transport: meshv1.DnsProbe_HTTPS, HttpPath: "/none", Tls: &meshv1.TlsConfig{CaPem: ca.PEM}}), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "404")},
	})
}
