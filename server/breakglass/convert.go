package breakglass

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/scheduler"
)

func cloneOutage(o *peerv1.Outage) *peerv1.Outage { return proto.CloneOf(o) }

// outageOf is an outage as the mind takes it.
func outageOf(o *peerv1.Outage) scheduler.Outage {
	x := scheduler.Outage{
		Key: o.GetKey(), Check: o.GetCheck(), Incident: o.GetIncident(), Verdict: o.GetVerdict(), Start: timeOf(o.GetStartTime()), Due: timeOf(o.GetDueTime()),
		End: timeOf(o.GetEndTime()), Created: timeOf(o.GetCheckCreateTime()),
	}
	for _, d := range o.GetDeliveries() {
		x.Told = append(x.Told, scheduler.Told{Receiver: d.GetReceiver(), URLDigest: d.GetUrlDigest(), Transition: d.GetTransition(), IdempotencyKey: d.GetIdempotencyKey(),
			Time: timeOf(d.GetTime()), Server: d.GetServer()})
	}
	return x
}

// protoOf is an outage as beats carry it, without deliveries.
func protoOf(o scheduler.Outage) *peerv1.Outage {
	return &peerv1.Outage{Check: o.Check, Key: o.Key, Incident: o.Incident, Verdict: o.Verdict, StartTime: stampOfTime(o.Start), DueTime: stampOfTime(o.Due), EndTime: stampOfTime(o.End),
		CheckCreateTime: stampOfTime(o.Created)}
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

func stampOfTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
