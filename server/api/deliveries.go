package api

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// deliveriesSeen is how many of the newest resolved incidents are looked at for what was sent to receivers.
const deliveriesSeen = 200

// deliveries is what was sent to receivers, as far as the outbox and the timelines of the open and the newest resolved incidents tell. Only the
// leader delivers, but it records each attempt in the incident, so that every server can tell.
type deliveries struct {
	owed      map[string]int32
	delivered map[string]*timestamppb.Timestamp
	attempted map[string]attempt
}

// attempt is the newest attempt for a receiver.
type attempt struct {
	time  time.Time
	error string // empty after a success
}

func (a *API) deliveries(ctx context.Context) (*deliveries, error) {
	d := &deliveries{owed: map[string]int32{}, delivered: map[string]*timestamppb.Timestamp{}, attempted: map[string]attempt{}}
	outbox, _, err := a.store.ListOutbox(ctx)
	if err != nil {
		return nil, err
	}
	for _, entry := range outbox {
		d.owed[entry.Value.GetNotification().GetReceiver()]++
	}
	open, _, err := a.store.ListOpenIncidents(ctx)
	if err != nil {
		return nil, err
	}
	closed, _, err := a.store.ListClosedIncidents(ctx, "", deliveriesSeen)
	if err != nil {
		return nil, err
	}
	for _, incidents := range [][]store.Versioned[*statev1.StoredIncident]{open, closed} {
		for _, v := range incidents {
			for _, entry := range v.Value.GetIncident().GetTimeline() {
				d.see(entry)
			}
		}
	}
	return d, nil
}

func (d *deliveries) see(e *meshv1.TimelineEntry) {
	failed := e.GetEvent() == meshv1.TimelineEntry_NOTIFICATION_FAILED
	if !failed && e.GetEvent() != meshv1.TimelineEntry_NOTIFIED {
		return
	}
	at, receiver := e.GetTime().AsTime(), e.GetReceiver()
	if last, ok := d.attempted[receiver]; !ok || at.After(last.time) {
		a := attempt{time: at}
		if failed {
			a.error = e.GetText()
		}
		d.attempted[receiver] = a
	}
	if !failed && (d.delivered[receiver] == nil || at.After(d.delivered[receiver].AsTime())) {
		d.delivered[receiver] = e.GetTime()
	}
}

// fill fills in the output-only fields of a receiver.
func (d *deliveries) fill(r *meshv1.Receiver) {
	r.Owed = d.owed[r.GetName()]
	r.LastError = d.attempted[r.GetName()].error
	r.LastDeliveryTime = d.delivered[r.GetName()]
}
