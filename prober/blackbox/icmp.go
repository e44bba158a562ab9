package blackbox

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// maxPayload is the most bytes that a request may carry.
const maxPayload = 65000

// payload is how many bytes blackbox_exporter sends unless told otherwise: its own name.
const payload = 28

func probeICMP(ctx context.Context, j *job) *meshv1.Result {
	o := &j.module.ICMP
	result := j.run(ctx, func(ctx context.Context, a *probe.Attempt) error {
		ip, err := j.choose(ctx, a, o.Family, j.target)
		if err != nil {
			return err
		}
		size := int32(payload)
		if o.PayloadSize < 0 || o.PayloadSize > maxPayload {
			return probe.Failf(a, meshv1.Result_PROBER, "payload_size must be 0 to %d", maxPayload)
		}
		if o.PayloadSize > 0 {
			size = int32(o.PayloadSize)
		}
		host := ip.String()
		if ip.IP.To4() == nil {
			host = "[" + strings.Replace(host, "%", "%25", 1) + "]"
		}
		check := j.check("icmp://"+host, deadline(ctx))
		check.Icmp = &meshv1.IcmpProbe{Count: 1, PayloadSize: proto.Int32(size), DontFragment: o.DontFragment && ip.IP.To4() != nil, HopLimit: int32(o.TTL),
			SourceAddress: o.SourceIPAddress}
		r, err := j.probe(ctx, a, check, probe.Options{})
		if err != nil {
			return err
		}
		setup, trip := r.GetTimings().GetConnect().AsDuration(), r.GetIcmp().GetRttAvg().AsDuration()
		j.out.phases("probe_icmp_duration_seconds", phase{"setup", setup}, phase{"rtt", trip})
		if hops := r.GetIcmp().GetHopLimit(); hops > 0 && r.GetIcmp().GetReceived() > 0 {
			j.out.set("probe_icmp_reply_hop_limit", float64(hops))
		}
		return failureOf(r)
	})
	j.out.phases("probe_icmp_duration_seconds", phase{"resolve", j.lookup})
	for _, p := range []string{"setup", "rtt"} {
		j.out.atLeast("probe_icmp_duration_seconds", "phase", p)
	}
	return result
}

// probe compiles a check, which is what the mesh itself would run, and runs it once.
func (j *job) probe(ctx context.Context, a *probe.Attempt, c *meshv1.Check, o probe.Options) (*meshv1.Result, error) {
	runner, err := kinds.Compile(c, j.exporter.options.Env)
	if err != nil {
		return nil, probe.Failf(a, meshv1.Result_PROBER, "%v", err)
	}
	defer runner.Close()
	return runner.Probe(ctx, o), nil
}

// failureOf is the failure that a result tells of; nil when there is none.
func failureOf(r *meshv1.Result) error {
	if r.GetOutcome() == meshv1.Result_OK {
		return nil
	}
	return &probe.Failure{Class: r.GetErrorClass(), Phase: r.GetFailedPhase(), Sentence: r.GetError(), Expectation: r.GetFailedExpectation()}
}
