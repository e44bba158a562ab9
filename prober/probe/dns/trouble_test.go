package dns

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// mixed is a resolver that says that a.test. is served by ns2, ns3 and so on, and gives their addresses, IPv4 or IPv6, one each.
func mixed(t *testing.T, addresses ...string) string {
	t.Helper()
	return listenBoth(t, "127.0.0.1:0", dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
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
		for i, addr := range addresses {
			switch name := fmt.Sprintf("ns%d.a.test.", i+2); q.Question[0].Qtype {
			case dns.TypeNS:
				add("a.test. 60 IN NS %s", name)
			case dns.TypeA, dns.TypeAAAA:
				if v6 := strings.Contains(addr, ":"); q.Question[0].Name == name && v6 == (q.Question[0].Qtype == dns.TypeAAAA) {
					add("%s 60 IN %s %s", name, dns.Type(q.Question[0].Qtype), addr)
				}
			}
		}
		if q.Question[0].Qtype == dns.TypeSOA {
			add("a.test. 60 IN SOA ns. host. 1 1 2 3 4")
		}
		_ = to.WriteMsg(m)
	}))
}

// surveyedBy probes with a prober that has IPv4 alone and may go where the fence permits.
func surveyedBy(t *testing.T, resolver string, s *meshv1.DnsSerials, fence *probe.Fence) *meshv1.Result {
	t.Helper()
	c, target := probetest.Check(t, "dns://"+resolver+"/a.test?type=SOA", 10*time.Second, func(c *meshv1.Check) { c.Dns = &meshv1.DnsProbe{Serials: s} })
	r, err := compile(c, target, probetest.Env(), filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	r.hasFamily = func(v4 bool) bool { return v4 }
	got := r.Probe(context.Background(), probe.Options{Evidence: true, Fence: fence})
	probetest.Promises(t, got)
	return got
}

func TestServersThatTheProberCannotAskAreLeftOutOfTheCount(t *testing.T) {
	resolver := mixed(t, "127.0.0.2", "2001:db8::53")
	_, port, _ := net.SplitHostPort(resolver)
	listenBoth(t, "127.0.0.2:"+port, authority(7, nil))
	r := surveyedBy(t, resolver, &meshv1.DnsSerials{}, nil)
	probetest.OK().Match(t, r)
	if s := r.Dns.Servers; len(s) != 2 || s[0].LeftOut || s[0].Serial != 7 || !s[1].LeftOut || !strings.Contains(s[1].Error, "no network of the IP family") {
		t.Errorf("got %v", s)
	}
	probetest.Error("can ask none of 2 authoritative servers, first ns2.a.test.").Match(t, surveyedBy(t, mixed(t, "2001:db8::53", "2001:db8::54"), &meshv1.DnsSerials{}, nil))

	fence, err := probe.NewFence(nil, []string{"127.0.0.3"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	resolver = mixed(t, "127.0.0.2", "127.0.0.3", "127.0.0.4", "2001:db8::53")
	_, port, _ = net.SplitHostPort(resolver)
	listenBoth(t, "127.0.0.2:"+port, authority(7, nil))
	r = surveyedBy(t, resolver, &meshv1.DnsSerials{MaxUnanswered: 1}, fence)
	probetest.OK().Match(t, r)
	if s := r.Dns.Servers; len(s) != 4 || !s[1].LeftOut || !strings.Contains(s[1].Error, "--deny-networks") || s[2].LeftOut || s[2].Error == "" {
		t.Errorf("got %v", s)
	}
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "1 of 2 authoritative servers give no answer that counts").Match(t, surveyedBy(t, resolver, &meshv1.DnsSerials{}, fence))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "besides, this prober could not ask 2").Match(t, surveyedBy(t, resolver, &meshv1.DnsSerials{}, fence))
}

// An authoritative server does not know the zones above its own, and need not.
func TestABrokenResolverOfTheProberIsNoFailureOfTheTarget(t *testing.T) {
	w := tree(t, false)
	var silent atomic.Bool
	authority := listenBoth(t, "127.0.0.1:0", dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		switch name := strings.ToLower(q.Question[0].Name); {
		case !strings.HasSuffix(name, "shop.test.") || q.Question[0].Qtype == dns.TypeDS:
			if silent.Load() {
				return
			}
			m.Rcode = dns.RcodeRefused
		default:
			w.mu.Lock()
			m.Authoritative = true
			w.answer(m, name, q.Question[0].Qtype, 0)
			w.mu.Unlock()
		}
		_ = to.WriteMsg(m)
	}))
	o := &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{Anchors: []string{w.anchor(".")}}}
	for resolver, want := range map[string]string{
		"":          "this prober has no resolver of its own",
		"127.0.0.9": "this prober's own resolver 127.0.0.9 gives no answer: ",
	} {
		r := probed(t, "dns://"+authority+"/a.shop.test", o, resolver)
		probetest.Error(want).Match(t, r)
		if r.GetDns().GetDnssec().GetStatus() != meshv1.DnssecResult_INDETERMINATE {
			t.Errorf("got %v", r.GetDns())
		}
	}
	silent.Store(true) // and then it is the server that fails, whatever the resolver does
	if r := probed(t, "dns://"+authority+"/a.shop.test", o, ""); r.Outcome != meshv1.Result_FAIL {
		t.Errorf("got %v", r)
	}
}

func TestAMismatchTellsWhatIsTooMuchAndWhatIsMissing(t *testing.T) {
	server := listenBoth(t, "127.0.0.1:0", dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, a := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			rr, err := dns.NewRR("a.test. 60 IN A " + a)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		_ = to.WriteMsg(m)
	}))
	for _, c := range []struct {
		answers []string
		want    string
	}{
		{[]string{"192.0.2.1", "192.0.2.2", "192.0.2.7"}, "the answer has a record that is not expected: a.test. 60 IN A 192.0.2.3, and lacks a.test. IN A 192.0.2.7"},
		{[]string{"192.0.2.1", "192.0.2.7", "192.0.2.8"}, "not expected: a.test. 60 IN A 192.0.2.2 (and 1 more), and lacks a.test. IN A 192.0.2.7 (and 1 more)"},
		{[]string{"192.0.2.1"}, "not expected: a.test. 60 IN A 192.0.2.2 (and 1 more)"},
		{[]string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}, "the answer lacks a.test. IN A 192.0.2.4"},
	} {
		r := probed(t, "dns://"+server+"/a.test", &meshv1.DnsProbe{Answers: c.answers}, "")
		probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, c.want).Match(t, r)
	}
}
