package spec

import (
	"fmt"

	"github.com/miekg/dns"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func dnsOptions(f *faults, o *meshv1.DnsProbe, t *Target) {
	if o == nil {
		return
	}
	enum(f, "dns.transport", o.Transport)
	family(f, "dns.ip_family", o.IpFamily, t)
	for i, r := range o.Rcodes {
		if _, ok := dns.StringToRcode[r]; !ok {
			f.add(fmt.Sprintf("dns.rcodes[%d]", i), "%q is not a response code; write for example NOERROR, NXDOMAIN, SERVFAIL or REFUSED", clip(r))
		}
	}
	count(f, "dns.rcodes", len(o.Rcodes), 16)
	expectations(f, "dns.expect", o.Expect)
}

func dnsDefaults(d *meshv1.DnsProbe) *meshv1.DnsProbe {
	if d == nil {
		d = &meshv1.DnsProbe{}
	}
	if d.Transport == meshv1.DnsProbe_TRANSPORT_UNSPECIFIED {
		d.Transport = meshv1.DnsProbe_UDP
	}
	if d.RecursionDesired == nil {
		d.RecursionDesired = proto.Bool(true)
	}
	if len(d.Rcodes) == 0 && len(d.Expect) == 0 { // expectations decide alone, unless the check names response codes too
		d.Rcodes = []string{"NOERROR"}
	}
	d.IpFamily = familyDefault(d.IpFamily)
	return d
}
