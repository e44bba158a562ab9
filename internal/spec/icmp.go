package spec

import (
	"math"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits and defaults of icmp checks, as icmp_probe.proto documents them.
const (
	MaxICMPCount    = 100
	MaxICMPPayload  = 65_000
	maxICMPBytes    = 1 << 20
	minICMPInterval = 10 * time.Millisecond
	maxICMPInterval = 10 * time.Second
	minReplyWithin  = time.Millisecond
	minRoundTrip    = time.Microsecond
)

// icmpOptions checks a block of kind icmp; timeout is that of the check, or its default.
func icmpOptions(f *faults, o *meshv1.IcmpProbe, t *Target, timeout time.Duration) {
	if o == nil {
		return
	}
	between(f, "icmp.count", int64(o.Count), 1, MaxICMPCount)
	switch size, count := o.GetPayloadSize(), int64(cmpOr(o.Count, DefaultICMPCount)); {
	case o.PayloadSize == nil:
	case size < 0 || size > MaxICMPPayload:
		f.add("icmp.payload_size", "%d is not 0 to %d bytes", size, MaxICMPPayload)
	case int64(size)*count > maxICMPBytes:
		f.add("icmp.payload_size", "%d requests of %d bytes are more than 1 MiB; lower one of them", count, size)
	}
	family(f, "icmp.ip_family", o.IpFamily, t)
	between(f, "icmp.hop_limit", int64(o.HopLimit), 1, 255)
	icmpTimes(f, o, timeout)
	icmpSource(f, o, t)
	icmpBounds(f, o, timeout)
	expectations(f, "icmp.expect", o.Expect, sees(ICMP, t))
}

// cmpOr is n, or otherwise when n is 0.
func cmpOr(n, otherwise int32) int32 {
	if n == 0 {
		return otherwise
	}
	return n
}

// icmpTimes checks that the requests and the last reply fit into the timeout.
func icmpTimes(f *faults, o *meshv1.IcmpProbe, timeout time.Duration) {
	interval, ok := duration(f, "icmp.interval", o.Interval, 0, minICMPInterval, maxICMPInterval)
	count := cmpOr(o.Count, DefaultICMPCount)
	span := interval * time.Duration(max(count, 1)-1)
	if ok && count <= MaxICMPCount && span >= timeout {
		f.add("icmp.interval", "%d requests %s apart take %s, which is not shorter than the timeout of %s; lower one of them, or raise the timeout", count, text(interval), text(span), text(timeout))
	}
	within, ok := duration(f, "icmp.reply_within", o.ReplyWithin, 0, minReplyWithin, MaxTimeout)
	if ok && within > timeout {
		f.add("icmp.reply_within", "%s is longer than the timeout of %s; lower it, or raise the timeout", text(within), text(timeout))
	}
}

// icmpSource checks the address to send from.
func icmpSource(f *faults, o *meshv1.IcmpProbe, t *Target) {
	if o.SourceAddress == "" {
		return
	}
	source, err := netip.ParseAddr(o.SourceAddress)
	if err != nil {
		f.add("icmp.source_address", "%q is not an IP address; write one of the prober's own, for example 192.0.2.10", clip(o.SourceAddress))
		return
	}
	source = source.Unmap()
	v4 := source.Is4()
	to, literal := t.Addr()
	switch {
	case source.IsUnspecified() || source.IsMulticast():
		f.add("icmp.source_address", "%s is no address to send from; write one of the prober's own, or remove it", source)
	case literal && to.Unmap().Is4() != v4:
		f.add("icmp.source_address", "%s is not of the IP family of %s in the URI", source, t.Host)
	case o.IpFamily == meshv1.IpFamily_IPV4 && !v4, o.IpFamily == meshv1.IpFamily_IPV6 && v4:
		f.add("icmp.source_address", "%s does not go with ip_family %s", source, o.IpFamily)
	}
}

// icmpBounds checks the bounds on what came back.
func icmpBounds(f *faults, o *meshv1.IcmpProbe, timeout time.Duration) {
	if o.MaxLoss != nil && !(*o.MaxLoss >= 0 && *o.MaxLoss <= 1) || math.IsNaN(o.GetMaxLoss()) {
		f.add("icmp.max_loss", "%v is not 0.0 to 1.0; it is a share, so write 0.2 for 20 %%", o.GetMaxLoss())
	}
	for _, b := range []struct {
		field string
		bound *durationpb.Duration
		two   bool
	}{
		{"icmp.max_rtt_avg", o.MaxRttAvg, false},
		{"icmp.max_rtt_max", o.MaxRttMax, false},
		{"icmp.max_rtt_stddev", o.MaxRttStddev, true},
		{"icmp.max_jitter", o.MaxJitter, true},
	} {
		if b.bound == nil {
			continue
		}
		d, ok := duration(f, b.field, b.bound, 0, minRoundTrip, MaxTimeout)
		if ok && d > timeout {
			f.add(b.field, "%s is longer than the timeout of %s, so it bounds nothing; lower it", text(d), text(timeout))
		}
		if b.two && o.Count == 1 {
			f.add(b.field, "needs two round trips at least; raise icmp.count, which is 1, or remove it")
		}
	}
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
