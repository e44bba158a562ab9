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

// What the leader still owed when etcd was lost was told without it meanwhile.
func TestIncidentThatTakesAnOutageInOwesNobodyWhoWasTold(t *testing.T) {
	r := lostShop(t)
	r.apply(ReceiverPut{&meshv1.Receiver{Name: "receivers/chat", Webhook: &meshv1.Webhook{Url: "https://chat.example.com"}}})
	r.rounds(2, fail)
	seen := r.wantGlass("OPENED")[0].Outage
	seen.Told = []Told{{Receiver: "receivers/pager", URLDigest: URLDigest(opsReceiver()), Transition: meshv1.Notification_OPENED, Time: r.now, Server: "servers/a"}}
	r.apply(OutageSeen{seen})
	if joining, _ := r.s.Joining("checks/shop", r.now); !joining {
		t.Error("while etcd is lost, what it owes may be sent")
	}
	r.apply(Store{Term: 1})
	if joining, _ := r.s.Joining("checks/shop", r.now); !joining {
		t.Error("before it is known who was told, what is owed may be sent")
	}
	i := &meshv1.Incident{Name: "incidents/01x", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, State: meshv1.Incident_OPEN, StartTime: timestamppb.New(r.now),
		OpenTime: timestamppb.New(r.now), Receivers: []string{"receivers/ops", "receivers/chat"}}
	r.rev = 77 // the store is that far
	r.apply(IncidentPut{Key: "checks/shop", Incident: &statev1.StoredIncident{Incident: i}, ModRevision: 77}, Leadership{Leading: true, Term: 2})
	r.after(time.Second)
	var adopted []Escalate
	for _, a := range r.acted {
		if e, yes := a.(Escalate); yes {
			adopted = append(adopted, e)
		}
	}
	if len(adopted) != 1 || fmt.Sprint(adopted[0].Paid) != "[01x.OPENED.ops]" {
		t.Fatalf("adopted %v", adopted)
	}
	if joining, rev := r.s.Joining("checks/shop", r.now); joining || rev != r.rev {
		t.Errorf("joining %v, revision %d, want that of the adoption, %d", joining, rev, r.rev)
	}
	i = r.s.checks["checks/shop"].incident.GetIncident()
	if key := r.s.OutageKey("checks/shop", i.GetName()); key == "" || key != i.GetBreakGlassKey() || r.s.OutageKey("checks/shop", "incidents/another") != "" {
		t.Errorf("key %q of %s, want %q, and none of another incident", key, i.GetName(), i.GetBreakGlassKey())
	}
}

// A server that died before its file said that an outage is joined tells of it again, with etcd or without: it is that incident, to its end, and no other.
func TestOutageThatAnOpenIncidentTookInEndsWithIt(t *testing.T) {
	for _, key := range []string{"outage-1", "outage-2"} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, etcd lost %v", key, lost), func(t *testing.T) {
				r := up(t, tcpCheck("shop", 2))
				r.apply(ReceiverPut{opsReceiver()})
				r.votes("shop", fail, "ams", "fra", "iad")
				r.after(time.Second)
				st := r.opened()[0].Incident
				st.Incident.BreakGlassKey = "outage-1"
				st.Incident.Timeline = append(st.Incident.Timeline, &meshv1.TimelineEntry{Event: meshv1.TimelineEntry_BREAK_GLASS,
					Text: "receivers/pager was told of OPENED by servers/a without etcd, under the key outage-2.OPENED.pager (of outage outage-2)."})
				r.apply(IncidentPut{Key: "checks/shop", Incident: st, ModRevision: 77})
				seen := OutageSeen{Outage{Key: key, Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, Start: r.now, Due: r.now,
					Told: []Told{{Receiver: "receivers/pager", Transition: meshv1.Notification_OPENED, Time: r.now, Server: "servers/a"}}}}
				r.acted = nil
				if lost {
					r.lose()
				}
				r.apply(seen)
				if want := (OutageJoined{Key: key, Check: "checks/shop", Incident: st.Incident.Name}); !slices.Contains(r.acted, Action(want)) {
					t.Fatalf("not joined: %v", r.acted)
				}
				r.after(time.Second)
				if lost {
					r.regain()
				}
				r.apply(IncidentGone{Key: "checks/shop", ModRevision: 90})
				r.votes("shop", ok, "ams", "fra", "iad")
				r.wantGlass("RESOLVED again")
				r.acted = nil
				r.apply(seen)
				r.after(5 * time.Second)
				if again := r.opened(); len(again) > 0 || len(r.s.Outages()) > 0 {
					t.Fatalf("opened again %v, outages %v", again, r.s.Outages())
				}
			})
		}
	}
}
