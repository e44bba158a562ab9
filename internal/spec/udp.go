package spec

import (
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits and defaults of kind udp, as udp_probe.proto documents them.
const (
	MaxDatagrams       = 20
	DefaultDatagramGap = 100 * time.Millisecond
	maxDatagramGap     = 10 * time.Second
)

func udpOptions(f *faults, c *meshv1.Check, t *Target) {
	o := c.Udp
	if o == nil {
		return
	}
	bounded(f, "udp.send", len(o.Send), MaxRequestBody)
	bounded(f, "udp.send_bytes", len(o.SendBytes), MaxRequestBody)
	if o.Send != "" && len(o.SendBytes) > 0 {
		f.add("udp.send_bytes", "is given besides send; keep one")
	}
	between(f, "udp.count", int64(o.Count), 1, MaxDatagrams)
	if o.Match != "" {
		if _, err := Regexp(o.Match); err != nil {
			f.add("udp.match", "%s", err)
		}
	}
	bounded(f, "udp.match_bytes", len(o.MatchBytes), MaxStepBytes)
	if o.MaxLoss != nil && !(*o.MaxLoss >= 0 && *o.MaxLoss <= 1) {
		f.add("udp.max_loss", "%v is not 0.0 to 1.0", *o.MaxLoss)
	}
	if o.AnswerOptional && (o.MaxLoss != nil || o.Match != "" || len(o.MatchBytes) > 0) {
		f.add("udp.answer_optional", "does not go together with max_loss, match and match_bytes, which ask for an answer; remove one or the other")
	}
	udpInterval(f, c)
	dialogue(f, "udp.steps", o.Steps, c, true)
	if len(o.Steps) > 0 && (o.Send != "" || len(o.SendBytes) > 0 || o.Count != 0 || o.Interval != nil || o.Match != "" || len(o.MatchBytes) > 0 || o.MaxLoss != nil || o.AnswerOptional) {
		f.add("udp.steps", "does not go together with the other options of datagrams; keep ip_family and expect, and say the rest in steps")
	}
	family(f, "udp.ip_family", o.IpFamily, t)
	expectations(f, "udp.expect", o.Expect, sees(UDP, t).withoutSteps(len(o.Steps)))
}

// udpInterval checks that all datagrams can be sent in time.
func udpInterval(f *faults, c *meshv1.Check) {
	if c.Udp.Interval == nil {
		return
	}
	gap, ok := duration(f, "udp.interval", c.Udp.Interval, 0, time.Millisecond, maxDatagramGap)
	if !ok || c.Udp.Count < 0 || c.Udp.Count > MaxDatagrams {
		return
	}
	timeout := DefaultTimeout
	if c.Interval != nil {
		timeout = min(timeout, c.Interval.AsDuration())
	}
	if c.Timeout != nil {
		timeout = c.Timeout.AsDuration()
	}
	if last := gap * time.Duration(max(0, c.Udp.Count-1)); last >= timeout {
		f.add("udp.interval", "%s makes the last of %d datagrams leave after %s, when the timeout of %s is over; lower it or count, or raise the timeout", text(gap), c.Udp.Count, text(last), text(timeout))
	}
}

// udpDefaults resolves the defaults of a block of kind udp. What interval is when it is unset depends on the timeout and is left to the prober.
func udpDefaults(o *meshv1.UdpProbe) *meshv1.UdpProbe {
	if o == nil {
		o = &meshv1.UdpProbe{}
	}
	o.IpFamily = familyDefault(o.IpFamily)
	if o.Count == 0 && len(o.Steps) == 0 {
		o.Count = 1
	}
	return o
}
