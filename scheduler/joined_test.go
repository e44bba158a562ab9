package scheduler

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// However many outages of older terms the store tells of, the one of this term is remembered.
func TestKeyIsNotUsedAgainAfterManyOtherOutages(t *testing.T) {
	first := lostShop(t)
	first.rounds(2, fail)
	first.rounds(6, ok)
	key := first.wantGlass("OPENED", "RESOLVED")[1].Outage.Key
	for _, others := range []int{8, 100} {
		r := lostShop(t)
		r.now = first.now
		r.apply(OutageOver{Check: "checks/shop", Key: key}) // it was joined here, then all that are over are read
		for n := range others {
			r.apply(OutageOver{Check: "checks/shop", Key: fmt.Sprint("outage-older-term-", n)})
		}
		if others > maxJoined {
			r.apply(OutageOver{Check: "checks/shop", Key: key}) // the newest comes last
		}
		r.rounds(3, fail)
		if b := r.wantGlass("OPENED")[0]; b.Outage.Key == key {
			t.Errorf("after %d others, %s is used again", others, key)
		}
	}
}

func incidentWithOutages(r *rig) *meshv1.Incident {
	return &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, State: meshv1.Incident_OPEN, StartTime: timestamppb.New(r.now),
		OpenTime: timestamppb.New(r.now), Receivers: []string{"receivers/ops"}, BreakGlassKey: "outage-1"}
}

// A check's incident takes outages in; its timeline names them, whether somebody was told or nobody.
func TestOutagesOfAnIncidentAreThoseThatItsTimelineNames(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	i := incidentWithOutages(r)
	told := []Told{{Receiver: "receivers/pager", Transition: meshv1.Notification_OPENED, Time: r.now, Server: "servers/a", IdempotencyKey: "outage-2.OPENED.pager"},
		{Receiver: "receivers/chat", Transition: meshv1.Notification_OPENED, Time: r.now, Server: "servers/a", IdempotencyKey: "outages-7.OPENED.chat"}}
	noteOutage(i, r.now, &outage{Outage: Outage{Key: "outage-1", Told: told[:1]}})
	noteOutage(i, r.now, &outage{Outage: Outage{Key: "outage-2", Told: told}})
	noteOutage(i, r.now, &outage{Outage: Outage{Key: "outage-3", Due: r.now}})
	note(i, r.now, meshv1.TimelineEntry_OPENED, "outage-4 is the name of a host.")
	if keys := OutagesOf(i); !slices.Equal(keys, []string{"outage-1", "outage-2", "outage-3"}) {
		t.Fatalf("keys %q", keys)
	}
}

// An incident whose end a watch lost is gone from the next snapshot: its outages are over with it. One that is there again goes on, and so do they.
func TestOutagesEndWithAnIncidentThatASnapshotDoesNotHave(t *testing.T) {
	for _, key := range []string{"outage-1", "outage-2"} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, there again %v", key, again), func(t *testing.T) {
				r := up(t, tcpCheck("shop", 2))
				r.apply(ReceiverPut{opsReceiver()})
				i := incidentWithOutages(r)
				noteOutage(i, r.now, &outage{Outage: Outage{Key: "outage-2", Due: r.now}})
				put := IncidentPut{Key: "checks/shop", Incident: &statev1.StoredIncident{Incident: i}, ModRevision: 77}
				seen := OutageSeen{Outage{Key: key, Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, Start: r.now, Due: r.now,
					Told: []Told{{Receiver: "receivers/pager", Transition: meshv1.Notification_OPENED, Time: r.now, Server: "servers/a"}}}}
				r.apply(Store{Term: 1}, put)
				snapshot := []Event{Reset{Revision: 90}, CheckPut{Check: tcpCheck("shop", 2), ModRevision: 1}}
				joined := OutageJoined{Key: key, Check: "checks/shop"}
				if again {
					snapshot, joined.Incident = append(snapshot, put), i.Name
				}
				r.apply(snapshot...)
				r.acted = nil
				r.apply(seen)
				r.after(5 * time.Second)
				if opened := r.opened(); len(opened) > 0 || !slices.Contains(r.acted, Action(joined)) {
					t.Fatalf("opened %v; want %v among %v", opened, joined, r.acted)
				}
			})
		}
	}
}

// However much is written in an incident after it has taken an outage in, that is not forgotten: a server that tells of the outage after it is closed would else have it opened again.
func TestALongTimelineForgetsNoOutageThatItTookIn(t *testing.T) {
	i := &meshv1.Incident{BreakGlassKey: "outage-a"}
	at := time.Unix(1, 0)
	for range 110 {
		note(i, at, meshv1.TimelineEntry_VERDICT_CHANGED, "before")
	}
	noteOutage(i, at, &outage{Outage: Outage{Key: "outage-b", Told: []Told{{Receiver: "receivers/ops"}}}})
	for range 300 {
		note(i, at, meshv1.TimelineEntry_VERDICT_CHANGED, "after")
	}
	if got := OutagesOf(i); !slices.Equal(got, []string{"outage-a", "outage-b"}) {
		t.Errorf("it has taken in %q", got)
	}
}
