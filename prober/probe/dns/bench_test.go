package dns_test

import (
	"net"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe/dns"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestBenchTarget is the target process; it serves until its standard input ends.
func TestBenchTarget(t *testing.T) {
	probetest.AsTarget(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &mdns.Server{PacketConn: pc, Handler: mdns.HandlerFunc(zone)}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.ActivateAndServe() }()
	probetest.Announce(pc.LocalAddr().String())
	_ = s.Shutdown()
	<-done
}

// target starts the target process and gives its address.
func target(b *testing.B) string { return probetest.Target(b)[0] }

// probing gives a function that probes the target once.
func probing(b *testing.B, server string, o *meshv1.DnsProbe) func() {
	return probetest.Probing(b, dns.Compile, "dns://"+server+"/a.example.com", func(c *meshv1.Check) { c.Dns = o })
}

// bare gives a function that asks the server once as a plain program would: a message packed, a new socket, a deadline, a message unpacked.
func bare(b *testing.B, server string) func() {
	return func() {
		conn, err := net.Dial("udp", server)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		q := new(mdns.Msg)
		q.SetQuestion("a.example.com.", mdns.TypeA)
		q.SetEdns0(1232, false)
		wire := &mdns.Conn{Conn: conn, UDPSize: 1232}
		if err := wire.WriteMsg(q); err != nil {
			b.Fatal(err)
		}
		m, err := wire.ReadMsg()
		if err != nil || m.Id != q.Id || len(m.Answer) != 2 {
			b.Fatal(m, err)
		}
	}
}

// BenchmarkDNSProbe is a whole probe: question, answer, result, timings. Run it with -cpu 1 to learn what one core does.
func BenchmarkDNSProbe(b *testing.B) {
	probetest.Measure(b, probing(b, target(b), nil))
}

// BenchmarkDNSProbeRules is a probe with expectations and rules.
func BenchmarkDNSProbeRules(b *testing.B) {
	once := probing(b, target(b), &meshv1.DnsProbe{Expect: []string{`"192.0.2.1" in response.dns.answers`}, Answers: []string{"192.0.2.1", "192.0.2.2"},
		AnswerSection: &meshv1.DnsSection{FailIfNoneMatchesRegexp: []string{`192\.0\.2\.1$`}}})
	b.ReportAllocs()
	for b.Loop() {
		once()
	}
}

// BenchmarkBareDNS is the same question by the library alone.
func BenchmarkBareDNS(b *testing.B) {
	probetest.Measure(b, bare(b, target(b)))
}

// BenchmarkDNSProbeAgainstBare compares with the same question by the library alone.
func BenchmarkDNSProbeAgainstBare(b *testing.B) {
	server := target(b)
	probetest.Against(b, probing(b, server, nil), bare(b, server))
}
