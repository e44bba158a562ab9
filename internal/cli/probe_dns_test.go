package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestDNSResultsTellWhatWasFound(t *testing.T) {
	expiry := time.Date(2027, 1, 2, 0, 0, 0, 0, time.UTC)
	got := strings.Join(measuredDNS(&meshv1.DnsResult{Rcode: "NOERROR", Answers: 1, Flags: []string{"aa", "rd"}, MessageBytes: 96, Transport: meshv1.DnsProbe_UDP, Serial: 7, Nsid: "fra1",
		ExtendedErrors: []string{"3 (Stale Answer)"},
		Dnssec:         &meshv1.DnssecResult{Status: meshv1.DnssecResult_SECURE, DaysLeft: 40, Expiry: timestamppb.New(expiry), Chain: []string{". 20326 RSASHA256"}},
		Servers:        []*meshv1.DnsServer{{Name: "ns1.", Address: "192.0.2.1:53", Serial: 7}, {Name: "ns2.", Address: "192.0.2.2:53", Serial: 5, Lag: 2}, {Name: "ns3.", Error: "timed out"}}, ServersLeftOut: true},
		[]string{"a. 1 IN SOA"}), "\n")
	for _, want := range []string{"NOERROR, 1 answer, flags aa rd, 96 bytes over UDP, serial 7, by fra1", "the server says 3 (Stale Answer)", "  a. 1 IN SOA",
		"DNSSEC SECURE, the first signature ends in 40 days (2027-01-02)", "  . 20326 RSASHA256", "serial 5, 2 behind", "timed out", "and more"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if measuredDNS(nil, nil) != nil {
		t.Error("lines of nothing")
	}
}

func TestFlagsForDNSAreHeldToKindDNS(t *testing.T) {
	for want, o := range map[string]probeOptions{
		"has no --dnssec":              {dns: probeDNSOptions{dnssec: true}},
		"has no --dns-transport, --dn": {dns: probeDNSOptions{dnssec: true, transport: "tls"}},
	} {
		if _, err := o.check("tcp://a:1", time.Second); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	for want, o := range map[string]probeOptions{
		`--dns-transport "sctp" is not known`: {dns: probeDNSOptions{transport: "sctp"}},
		"unless --dns-transport is tls":       {insecure: true},
		"end the URI with ?type=SOA":          {dns: probeDNSOptions{serials: true}},
	} {
		if _, err := o.check("dns://192.0.2.1/a", time.Second); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	good := probeOptions{insecure: true, dns: probeDNSOptions{transport: "https", dnssec: true, serials: true}}
	c, err := good.check("dns://192.0.2.1/a?type=SOA", time.Second)
	if err != nil || c.Dns.Transport != meshv1.DnsProbe_HTTPS || c.Dns.Dnssec == nil || c.Dns.Serials == nil || !c.Dns.Tls.InsecureSkipVerify {
		t.Errorf("got %v, %v", c, err)
	}
}
