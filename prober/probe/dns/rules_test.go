package dns

import (
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func probeOptions() probe.Options { return probe.Options{} }

// answering is a server that gives the same records to every question.
func answering(t testing.TB, change func(m *dns.Msg, q *dns.Msg), lines ...string) string {
	return listenBoth(t, "127.0.0.1:0", dns.HandlerFunc(func(to dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		for _, l := range lines {
			rr, err := dns.NewRR(l)
			if err != nil {
				panic(err)
			}
			m.Answer = append(m.Answer, rr)
		}
		if change != nil {
			change(m, q)
		}
		_ = to.WriteMsg(m)
	}))
}

func TestSectionsAreHeldToTheirRules(t *testing.T) {
	server := answering(t, func(m *dns.Msg, _ *dns.Msg) {
		rr, _ := dns.NewRR("a.test. 60 IN NS ns.a.test.")
		m.Ns = append(m.Ns, rr)
	}, "a.test. 300 IN A 192.0.2.1", "a.test. 60 IN A 192.0.2.2")
	some := func(s *meshv1.DnsSection) *meshv1.DnsProbe { return &meshv1.DnsProbe{AnswerSection: s} }
	list := func(s ...string) []string { return s }
	for _, c := range []struct {
		o    *meshv1.DnsProbe
		want string // empty: OK
	}{
		{some(&meshv1.DnsSection{FailIfMatchesRegexp: list(`192\.0\.2\.9`)}), ""},
		{some(&meshv1.DnsSection{FailIfMatchesRegexp: list(`x`, `192\.0\.2\.2$`)}), "matches"},
		{some(&meshv1.DnsSection{FailIfNotMatchesRegexp: list(`^a\.test\.\t\d+\tIN\tA\t`)}), ""},
		{some(&meshv1.DnsSection{FailIfNotMatchesRegexp: list(`192\.0\.2\.1`)}), "does not match"},
		{some(&meshv1.DnsSection{FailUnlessAllMatchRegexp: list(`192\.0\.2\.1`)}), "does not match"},
		{some(&meshv1.DnsSection{FailIfAllMatchRegexp: list(`192\.0\.2\.1`)}), ""},
		{some(&meshv1.DnsSection{FailIfAllMatchRegexp: list(`192`)}), "all records of the answer section match"},
		{some(&meshv1.DnsSection{FailIfNoneMatchesRegexp: list(`nope`, `2\.2`)}), ""},
		{some(&meshv1.DnsSection{FailIfNoneMatchesRegexp: list(`nope`)}), "no record of the answer section matches"},
		{some(&meshv1.DnsSection{Exact: list("A.test. A 192.0.2.2", "a.test 5 IN A 192.0.2.1")}), ""},
		{some(&meshv1.DnsSection{Exact: list("a.test. A 192.0.2.2")}), "has a record that is not expected: a.test. 300 IN A 192.0.2.1"},
		{some(&meshv1.DnsSection{Exact: list("a.test. A 192.0.2.2", "a.test. A 192.0.2.1", "a.test. A 192.0.2.3")}), "lacks a.test. IN A 192.0.2.3"},
		{some(&meshv1.DnsSection{MinRecords: 2, MaxRecords: 2}), ""},
		{some(&meshv1.DnsSection{MinRecords: 3}), "less than min_records (3)"},
		{some(&meshv1.DnsSection{MaxRecords: 1}), "more than max_records (1)"},
		{&meshv1.DnsProbe{AuthoritySection: &meshv1.DnsSection{Exact: list("a.test. NS ns.a.test.")}}, ""},
		{&meshv1.DnsProbe{AuthoritySection: &meshv1.DnsSection{FailIfMatchesRegexp: list("NS")}}, "the authority section matches"},
		{&meshv1.DnsProbe{AdditionalSection: &meshv1.DnsSection{FailIfNotMatchesRegexp: list("A")}}, "the additional section has no record"},
		{&meshv1.DnsProbe{AdditionalSection: &meshv1.DnsSection{FailIfNoneMatchesRegexp: list("A")}}, "the additional section has no record"},
		{&meshv1.DnsProbe{AdditionalSection: &meshv1.DnsSection{FailIfAllMatchRegexp: list("A"), FailUnlessAllMatchRegexp: list("A"), FailIfMatchesRegexp: list("A")}}, ""},
		{&meshv1.DnsProbe{Answers: list("192.0.2.2", "192.0.2.1")}, ""},
		{&meshv1.DnsProbe{Answers: list("192.0.2.2")}, "not expected"},
		{&meshv1.DnsProbe{Answers: list("192.0.2.2", "192.0.2.1", "192.0.2.7")}, "lacks"},
		{&meshv1.DnsProbe{MinTtl: durationpb.New(time.Minute), MaxTtl: durationpb.New(5 * time.Minute)}, ""},
		{&meshv1.DnsProbe{MinTtl: durationpb.New(61 * time.Second)}, "the TTL of a.test. A is 60s, which is less than min_ttl (61s)"},
		{&meshv1.DnsProbe{MaxTtl: durationpb.New(299 * time.Second)}, "is 300s, which is more than max_ttl (299s)"},
		{&meshv1.DnsProbe{MaxTtl: durationpb.New(0)}, "more than max_ttl (0s)"},
	} {
		r := probed(t, "dns://"+server+"/a.test", c.o, "")
		if (r.Outcome == meshv1.Result_OK) != (c.want == "") || !strings.Contains(r.Error, c.want) {
			t.Errorf("%v: got %v %q, want %q", c.o, r.Outcome, r.Error, c.want)
		}
	}
}

func TestEmptyAnswersAreFineWhenAsked(t *testing.T) {
	server := answering(t, nil)
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "the answer is empty").Match(t, probed(t, "dns://"+server+"/a.test", nil, ""))
	probetest.OK().Match(t, probed(t, "dns://"+server+"/a.test", &meshv1.DnsProbe{AllowEmpty: true}, ""))
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "lacks").Match(t, probed(t, "dns://"+server+"/a.test", &meshv1.DnsProbe{Answers: []string{"192.0.2.1"}}, ""))
}

func TestValuesOfEveryTypeAreCompared(t *testing.T) {
	for kind, c := range map[string]struct{ line, value string }{
		"MX":           {"a.test. 1 IN MX 10 Mail.a.test.", "10 mail.a.test."},
		"TXT":          {`a.test. 1 IN TXT "v=spf1 " "-all"`, "v=spf1 -all"},
		"CAA":          {`a.test. 1 IN CAA 0 issue "ca.test"`, `0 issue "ca.test"`},
		"HTTPS":        {`a.test. 1 IN HTTPS 1 . alpn="h2"`, `1 . alpn="h2"`},
		"SRV":          {`a.test. 1 IN SRV 1 2 53 b.test.`, `1 2 53 b.test.`},
		"TYPE65280":    {`a.test. 1 IN TYPE65280 \# 2 abcd`, `\# 2 ABCD`},
		"AAAA":         {`a.test. 1 IN AAAA 2001:db8::1`, `2001:0db8::0001`},
		"TXT;class=CH": {`a.test. 1 CH TXT "9.18"`, "9.18"},
	} {
		server := answering(t, nil, c.line)
		probetest.OK().Match(t, probed(t, "dns://"+server+"/a.test?type="+kind, &meshv1.DnsProbe{Answers: []string{c.value}}, ""))
	}
}

func TestQuestionsCarryWhatTheCheckSays(t *testing.T) {
	var last atomic.Pointer[dns.Msg]
	server := answering(t, func(m *dns.Msg, q *dns.Msg) {
		last.Store(q)
		if opt := q.IsEdns0(); opt != nil {
			m.SetEdns0(4096, false)
			m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID, Nsid: "667261312e74657374"}, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, SourceScope: 20, Address: net.IP{192, 0, 2, 0}},
				&dns.EDNS0_EDE{InfoCode: 3, ExtraText: "stale"}}
		}
	}, "a.test. 1 IN A 192.0.2.1")
	no := false
	r := probed(t, "dns://"+server+"/a.test", &meshv1.DnsProbe{RecursionDesired: &no, CheckingDisabled: true, AuthenticatedData: true, SourceAddress: "127.0.0.1",
		Edns: &meshv1.DnsEdns{UdpSize: 4000, DnssecOk: true, ClientSubnet: "192.0.2.0/24", Nsid: true}}, "")
	probetest.OK().Match(t, r)
	if r.Dns.Nsid != "fra1.test" || r.Dns.ClientSubnet != "192.0.2.0/24 scope /20" || fmt.Sprint(r.Dns.ExtendedErrors) != "[3 (Stale Answer): stale]" || r.Dns.Additionals != 0 {
		t.Errorf("got %v", r.Dns)
	}
	got := last.Load()
	opt := got.IsEdns0()
	if got.RecursionDesired || !got.CheckingDisabled || !got.AuthenticatedData || opt == nil || opt.UDPSize() != 4000 || !opt.Do() || len(opt.Option) != 2 {
		t.Errorf("asked %v", got)
	}
	probed(t, "dns://"+server+"/version.bind?class=CH;type=TXT", &meshv1.DnsProbe{Edns: &meshv1.DnsEdns{Disabled: true}}, "")
	if got = last.Load(); got.IsEdns0() != nil || got.Question[0].Qclass != dns.ClassCHAOS || got.Question[0].Qtype != dns.TypeTXT || !got.RecursionDesired {
		t.Errorf("asked %v", got)
	}
}

func TestCookiesAreCheckedAndRepeated(t *testing.T) {
	var questions atomic.Int32
	server := answering(t, func(m *dns.Msg, q *dns.Msg) {
		questions.Add(1)
		c := cookieOf(q)
		m.SetEdns0(1232, false)
		whole := fmt.Sprintf("%x%s", c[:8], "0011223344556677")
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: whole}}
		if len(c) == 8 {
			m.Answer, m.Rcode = nil, dns.RcodeBadCookie
		}
	}, "a.test. 1 IN A 192.0.2.1")
	probetest.OK().Match(t, probed(t, "dns://"+server+"/a.test", &meshv1.DnsProbe{Edns: &meshv1.DnsEdns{Cookie: true}}, ""))
	if n := questions.Load(); n != 2 {
		t.Errorf("%d questions", n)
	}
	liar := answering(t, func(m *dns.Msg, _ *dns.Msg) {
		m.SetEdns0(1232, false)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "00112233445566778899aabbccddeeff"}}
	}, "a.test. 1 IN A 192.0.2.1")
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "a cookie that was not sent").Match(t,
		probed(t, "dns://"+liar+"/a.test", &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP, Edns: &meshv1.DnsEdns{Cookie: true}}, ""))
}

func TestTruncatedAnswersAreJudgedWhenThereIsToBeNoFallback(t *testing.T) {
	server := answering(t, func(m *dns.Msg, _ *dns.Msg) { m.Truncated = true }, "a.test. 1 IN A 192.0.2.1")
	no := false
	r := probed(t, "dns://"+server+"/a.test", &meshv1.DnsProbe{TcpFallback: &no}, "")
	if r.Outcome != meshv1.Result_OK || r.Dns.Transport != meshv1.DnsProbe_UDP || fmt.Sprint(r.Dns.Flags) != "[tc rd]" {
		t.Errorf("got %v", r)
	}
	if r := probed(t, "dns://"+server+"/a.test", nil, ""); r.Dns.Transport != meshv1.DnsProbe_TCP {
		t.Errorf("got %v", r)
	}
}

func TestEncryptedTransportsHaveTheirOwnPorts(t *testing.T) {
	for transport, want := range map[meshv1.DnsProbe_Transport]uint16{meshv1.DnsProbe_UDP: 53, meshv1.DnsProbe_TCP: 53, meshv1.DnsProbe_TLS: 853, meshv1.DnsProbe_HTTPS: 443, meshv1.DnsProbe_QUIC: 853} {
		for uri, want := range map[string]uint16{"dns://192.0.2.1/a.": want, "dns://192.0.2.1:53/a.": 53} {
			c, target := probetest.Check(t, uri, time.Second, func(c *meshv1.Check) { c.Dns = &meshv1.DnsProbe{Transport: transport} })
			if got := port(target, c.Dns); got != want {
				t.Errorf("%s by %s: port %d", uri, transport, got)
			}
		}
	}
}
