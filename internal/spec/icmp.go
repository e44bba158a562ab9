package spec

import (
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func icmpOptions(f *faults, o *meshv1.IcmpProbe, t *Target) {
	if o == nil {
		return
	}
	between(f, "icmp.count", int64(o.Count), 1, MaxICMPCount)
	if o.PayloadSize != nil && (*o.PayloadSize < 0 || *o.PayloadSize > MaxICMPPayload) {
		f.add("icmp.payload_size", "%d is not 0 to %d bytes", *o.PayloadSize, MaxICMPPayload)
	}
	family(f, "icmp.ip_family", o.IpFamily, t)
	expectations(f, "icmp.expect", o.Expect)
}

// icmpDefaults resolves the defaults of a block of kind icmp.
func icmpDefaults(o *meshv1.IcmpProbe) *meshv1.IcmpProbe {
	if o == nil {
		o = &meshv1.IcmpProbe{}
	}
	o.IpFamily = familyDefault(o.IpFamily)
	if o.Count == 0 {
		o.Count = DefaultICMPCount
	}
	if o.PayloadSize == nil {
		o.PayloadSize = proto.Int32(DefaultICMPPayload)
	}
	return o
}
