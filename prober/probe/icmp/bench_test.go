package icmp

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// probing gives a function that probes loopback once.
func probing(b *testing.B) func() {
	b.Helper()
	if !Available() {
		b.Skip(Unavailable)
	}
	c, t := probetest.Check(b, "icmp://127.0.0.1", 5*time.Second, func(c *meshv1.Check) { c.Icmp = &meshv1.IcmpProbe{Count: 1} })
	r, err := Compile(c, t, probetest.Env())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(r.Close)
	return func() {
		if got := r.Probe(context.Background(), probe.Options{}); got.Outcome != meshv1.Result_OK {
			b.Fatal(got)
		}
	}
}

// bare gives a function that pings loopback as a plain program would: a socket, a request, the reply.
func bare(b *testing.B) func() {
	payload := make([]byte, 56)
	buffer := make([]byte, 1500)
	return func() {
		network, to := "udp4", net.Addr(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		conn, err := icmp.ListenPacket(network, "0.0.0.0")
		if err != nil {
			network, to = "ip4:icmp", &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}
			if conn, err = icmp.ListenPacket(network, "0.0.0.0"); err != nil {
				b.Fatal(err)
			}
		}
		defer conn.Close()
		m := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: 7, Seq: 1, Data: payload}}
		wire, err := m.Marshal(nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.WriteTo(wire, to); err != nil {
			b.Fatal(err)
		}
		for {
			n, _, err := conn.ReadFrom(buffer)
			if err != nil {
				b.Fatal(err)
			}
			if got, err := icmp.ParseMessage(1, buffer[:n]); err == nil && got.Type == ipv4.ICMPTypeEchoReply {
				return
			}
		}
	}
}

// BenchmarkICMPProbe is a whole probe of one request.
func BenchmarkICMPProbe(b *testing.B) {
	probetest.Measure(b, probing(b))
}

// BenchmarkSocket is what the opening and closing of a socket of its own costs a probe.
func BenchmarkSocket(b *testing.B) {
	if !Available() {
		b.Skip(Unavailable)
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := open(settings{to: netip.AddrFrom4([4]byte{127, 0, 0, 1}), payload: 56})
		if err != nil {
			b.Fatal(err)
		}
		s.close()
	}
}

// BenchmarkICMPProbeAgainstBare compares with a plain ping. The kernel's share is in it: on loopback the same process pays for the target too.
func BenchmarkICMPProbeAgainstBare(b *testing.B) {
	probetest.Against(b, probing(b), bare(b))
}
