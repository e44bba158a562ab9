package scheduler

import (
	"fmt"
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
}
