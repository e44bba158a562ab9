package dns

import (
	"fmt"
	"net"
	"testing"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// authority serves a zone with a serial on a loopback address; change may spoil the answer.
func authority(serial uint32, change func(*dns.Msg)) dns.HandlerFunc {
	return func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Authoritative = true
		rr, err := dns.NewRR(fmt.Sprintf("a.test. 60 IN SOA ns. host. %d 1 2 3 4", serial))
		if err != nil {
			panic(err)
		}
		m.Answer = []dns.RR{rr}
		if change != nil {
			change(m)
		}
		_ = to.WriteMsg(m)
	}
}

// fleet is a resolver at 127.0.0.1 that names the servers of a.test., which are at 127.0.0.2 and so on, all on one port. A server that is nil is silent.
func fleet(t *testing.T, servers ...dns.Handler) string {
	t.Helper()
	resolver := listenBoth(t, "127.0.0.1:0", dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		m.RecursionAvailable = true
		add := func(line string, args ...any) {
			rr, err := dns.NewRR(fmt.Sprintf(line, args...))
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		switch q.Question[0].Qtype {
		case dns.TypeSOA:
			add("a.test. 60 IN SOA ns. host. 1 1 2 3 4")
		case dns.TypeNS:
			for i := range servers {
				add("a.test. 60 IN NS ns%d.a.test.", i+2)
			}
		case dns.TypeA:
			var n int
			if _, err := fmt.Sscanf(q.Question[0].Name, "ns%d.", &n); err == nil {
				add("%s 60 IN A 127.0.0.%d", q.Question[0].Name, n)
			}
		}
		_ = to.WriteMsg(m)
	}))
	_, port, _ := net.SplitHostPort(resolver)
	for i, s := range servers {
		if s != nil {
			listenBoth(t, fmt.Sprintf("127.0.0.%d:%s", i+2, port), s)
		}
	}
	return "dns://" + resolver + "/a.test?type=SOA"
}

func TestAuthoritativeServersAreHeldToOneSerial(t *testing.T) {
	with := func(s *meshv1.DnsSerials) *meshv1.DnsProbe { return &meshv1.DnsProbe{Serials: s} }
	same := fleet(t, authority(4294967295, nil), authority(4294967295, nil))
	r := probed(t, same, with(&meshv1.DnsSerials{}), "")
	probetest.OK().Match(t, r)
	if len(r.Dns.Servers) != 2 || r.Dns.Servers[0].Serial != 4294967295 || r.Dns.Servers[0].Name != "ns2.a.test." || r.Dns.Servers[0].Duration == nil {
		t.Errorf("got %v", r.Dns)
	}
	behind := fleet(t, authority(4294967295, nil), authority(2, nil)) // 2 is newer: serials wrap
	r = probed(t, behind, with(&meshv1.DnsSerials{}), "")
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "has serial 4294967295, which is 3 behind the newest (2)").Match(t, r)
	probetest.OK().Match(t, probed(t, behind, with(&meshv1.DnsSerials{MaxLag: 3}), ""))
}

func TestServersWithoutAnAuthoritativeAnswerAreCounted(t *testing.T) {
	with := func(s *meshv1.DnsSerials) *meshv1.DnsProbe { return &meshv1.DnsProbe{Serials: s} }
	for want, spoiled := range map[string]dns.Handler{
		"not authoritative":  authority(7, func(m *dns.Msg) { m.Authoritative = false }),
		"REFUSED":            authority(7, func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeRefused, nil }),
		"no SOA":             authority(7, func(m *dns.Msg) { m.Answer = nil }),
		"connection refused": nil,
	} {
		uri := fleet(t, authority(7, nil), spoiled)
		r := probed(t, uri, with(&meshv1.DnsSerials{}), "")
		probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, want).Match(t, r)
		if r.Dns.Servers[0].Error != "" || r.Dns.Servers[1].Error == "" {
			t.Errorf("got %v", r.Dns.Servers)
		}
		probetest.OK().Match(t, probed(t, uri, with(&meshv1.DnsSerials{MaxUnanswered: 1}), ""))
	}
	many := fleet(t, authority(7, nil), authority(7, nil), authority(7, nil))
	r := probed(t, many, with(&meshv1.DnsSerials{MaxServers: 2}), "")
	probetest.OK().Match(t, r)
	if len(r.Dns.Servers) != 2 || !r.Dns.ServersLeftOut {
		t.Errorf("got %v", r.Dns)
	}
}
