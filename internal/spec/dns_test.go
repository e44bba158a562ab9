package spec_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// problems validates a check of kind dns and joins what is wrong with it.
func problems(uri string, o *meshv1.DnsProbe) string {
	c := &meshv1.Check{Name: "checks/a", Uri: uri, Dns: o}
	var out []string
	for _, v := range spec.ValidateCheck(c, "") {
		out = append(out, v.String())
	}
	return strings.Join(out, "\n")
}

func TestFaultyDNSOptionsAreExplained(t *testing.T) {
	const plain = "dns://192.0.2.53/a.example.com"
	yes := true
	for _, c := range []struct {
		uri  string
		o    *meshv1.DnsProbe
		want string
	}{
		{plain, &meshv1.DnsProbe{Rcodes: []string{"NOPE"}}, `"NOPE" is not a response code`},
		{plain, &meshv1.DnsProbe{Tls: &meshv1.TlsConfig{}}, "only for transport TLS, HTTPS or QUIC"},
		{plain, &meshv1.DnsProbe{HttpPath: "/x"}, "only for transport HTTPS"},
		{plain, &meshv1.DnsProbe{HttpMethod: meshv1.DnsProbe_GET}, "only for transport HTTPS"},
		{plain, &meshv1.DnsProbe{Transport: meshv1.DnsProbe_HTTPS, HttpPath: "dns{?dns}"}, "is not a path"},
		{plain, &meshv1.DnsProbe{Transport: meshv1.DnsProbe_TCP, TcpFallback: &yes}, "only for transport UDP"},
		{plain, &meshv1.DnsProbe{SourceAddress: "here"}, "is not an address to ask from"},
		{plain, &meshv1.DnsProbe{SourceAddress: "2001:db8::1"}, "not of the same IP family"},
		{plain, &meshv1.DnsProbe{Edns: &meshv1.DnsEdns{Disabled: true, Nsid: true}}, "does not go with the other options"},
		{plain, &meshv1.DnsProbe{Edns: &meshv1.DnsEdns{UdpSize: 100}}, "100 is not 512 to 4096"},
		{plain, &meshv1.DnsProbe{Edns: &meshv1.DnsEdns{ClientSubnet: "192.0.2.1/24"}}, "write 192.0.2.0/24"},
		{plain, &meshv1.DnsProbe{Answers: []string{"::1"}}, `"::1" is not the value of a record of type A`},
		{plain + "?type=ANY", &meshv1.DnsProbe{Answers: []string{"1.2.3.4"}}, "does not go with type ANY"},
		{plain, &meshv1.DnsProbe{AnswerSection: &meshv1.DnsSection{FailIfMatchesRegexp: []string{"("}}}, "is not a regular expression"},
		{plain, &meshv1.DnsProbe{AnswerSection: &meshv1.DnsSection{FailIfMatchesRegexp: make([]string, 17)}}, "17 expressions"},
		{plain, &meshv1.DnsProbe{AnswerSection: &meshv1.DnsSection{Exact: []string{"$INCLUDE /etc/passwd"}}}, "is not one record"},
		{plain, &meshv1.DnsProbe{AnswerSection: &meshv1.DnsSection{Exact: []string{"a.example.com. A 1.2.3"}}}, "is not a record"},
		{plain, &meshv1.DnsProbe{AnswerSection: &meshv1.DnsSection{MinRecords: 3, MaxRecords: 2}}, "3 is more than max_records"},
		{plain, &meshv1.DnsProbe{MinTtl: durationpb.New(time.Minute), MaxTtl: durationpb.New(time.Second)}, "1m is longer than max_ttl"},
		{plain, &meshv1.DnsProbe{MaxTtl: durationpb.New(time.Millisecond)}, "in whole seconds"},
		{plain, &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{}, Edns: &meshv1.DnsEdns{Disabled: true}}, "does not go with edns.disabled"},
		{plain + "?class=CH", &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{}}, "only for class IN"},
		{plain, &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{Anchors: []string{"a. A 192.0.2.1"}}}, "is not a trust anchor"},
		{plain, &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{Anchors: []string{"org. DS 1 8 2 " + strings.Repeat("ab", 32)}}}, "has none for a.example.com."},
		{plain, &meshv1.DnsProbe{Dnssec: &meshv1.DnsDnssec{MinDaysLeft: 366}}, "366 is not 1 to 365"},
		{plain, &meshv1.DnsProbe{Serials: &meshv1.DnsSerials{}}, "only for questions for the SOA"},
		{plain + "?type=SOA", &meshv1.DnsProbe{Serials: &meshv1.DnsSerials{MaxLag: -1, MaxServers: 99}}, "99 is not 1 to 32"},
	} {
		if got := problems(c.uri, c.o); !strings.Contains(got, c.want) {
			t.Errorf("%v: got %q, want %q", c.o, got, c.want)
		}
	}
}

func TestGoodDNSOptionsAreAccepted(t *testing.T) {
	no := false
	for uri, o := range map[string]*meshv1.DnsProbe{
		"dns://[2001:db8::53]/a.example.com?type=MX": {Answers: []string{"10 mail.example.com."}, SourceAddress: "2001:db8::1", TcpFallback: &no, Rcodes: []string{"NOERROR", "RCODE11"}},
		"dns://a.example.com/b.?type=TXT":            {Answers: []string{`v=spf1 "quoted" -all`}, Transport: meshv1.DnsProbe_TLS, Tls: &meshv1.TlsConfig{ServerName: "b.example.com"}},
		"dns:///b.?type=TYPE65280":                   {Answers: []string{`\# 2 abcd`}},
		"dns:///version.bind?type=TXT;class=CH":      {AnswerSection: &meshv1.DnsSection{Exact: []string{`version.bind. CH TXT "9"`}}},
		"dns:///example.com?type=SOA":                {Serials: &meshv1.DnsSerials{}, Dnssec: &meshv1.DnsDnssec{MinDaysLeft: 5}, Edns: &meshv1.DnsEdns{ClientSubnet: "192.0.2.0/24", Cookie: true, Nsid: true}},
	} {
		if got := problems(uri, o); got != "" {
			t.Errorf("%s: %s", uri, got)
		}
	}
}
