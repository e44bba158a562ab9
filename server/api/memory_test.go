package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// lostWorld has a check, an open incident, a receiver, a server and a prober, all of which the mesh has heard of; then etcd stops answering.
func lostWorld(t *testing.T, test func(t *testing.T, w *world, incident string)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.receiver("ops")
		w.create(check("shop"))
		w.open(w.reign(), 1, "checks/shop")
		lease, err := w.etcd.Client(t).Grant(ctx, 3600)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.store.PublishServer(ctx, clientv3.LeaseID(lease.ID), &statev1.ServerRecord{Name: "servers/a", Datacenter: "a"}); err != nil {
			t.Fatal(err)
		}
		w.enrol("probers/fra-1", "fra", meshv1.Prober_ONLINE)
		synctest.Wait()
		w.etcd.SetDelay(time.Hour)
		test(t, w, id(1))
		w.etcd.SetDelay(0)
	})
}

func TestReadsAreAnsweredFromMemoryWhileEtcdIsSilent(t *testing.T) {
	lostWorld(t, func(t *testing.T, w *world, incident string) {
		ctx := context.Background()
		reads := map[string]func(...grpc.CallOption) (string, error){
			"GetCheck": func(o ...grpc.CallOption) (string, error) {
				r, err := w.checks.GetCheck(ctx, &meshv1.GetCheckRequest{Name: "checks/shop"}, o...)
				return r.GetName() + r.GetStatus().GetVerdict().String(), err
			},
			"ListChecks": func(o ...grpc.CallOption) (string, error) {
				r, err := w.checks.ListChecks(ctx, &meshv1.ListChecksRequest{}, o...)
				return r.GetChecks()[0].GetName(), err
			},
			"GetStatus": func(o ...grpc.CallOption) (string, error) {
				r, err := w.statuses.GetStatus(ctx, &meshv1.GetStatusRequest{Check: "checks/shop"}, o...)
				return r.GetCheck(), err
			},
			"ListStatuses": func(o ...grpc.CallOption) (string, error) {
				r, err := w.statuses.ListStatuses(ctx, &meshv1.ListStatusesRequest{}, o...)
				return r.GetStatuses()[0].GetCheck(), err
			},
			"ExplainCheck": func(o ...grpc.CallOption) (string, error) {
				r, err := w.checks.ExplainCheck(ctx, &meshv1.ExplainCheckRequest{Name: "checks/shop"}, o...)
				return r.GetText(), err
			},
			"GetIncident": func(o ...grpc.CallOption) (string, error) {
				r, err := w.incidents.GetIncident(ctx, &meshv1.GetIncidentRequest{Name: incident}, o...)
				return r.GetName(), err
			},
			"ListIncidents": func(o ...grpc.CallOption) (string, error) {
				r, err := w.incidents.ListIncidents(ctx, &meshv1.ListIncidentsRequest{Filter: "state = OPEN"}, o...)
				return r.GetIncidents()[0].GetName(), err
			},
			"GetReceiver": func(o ...grpc.CallOption) (string, error) {
				r, err := w.receivers.GetReceiver(ctx, &meshv1.GetReceiverRequest{Name: "receivers/ops"}, o...)
				return fmt.Sprintf("%s %t %s", r.GetName(), r.GetDeliveryUnknown(), r.GetLastError()), err
			},
			"ListReceivers": func(o ...grpc.CallOption) (string, error) {
				r, err := w.receivers.ListReceivers(ctx, &meshv1.ListReceiversRequest{}, o...)
				return fmt.Sprintf("%s %t %s", r.GetReceivers()[0].GetName(), r.GetReceivers()[0].GetDeliveryUnknown(), r.GetReceivers()[0].GetLastError()), err
			},
			"GetProber": func(o ...grpc.CallOption) (string, error) {
				r, err := w.probers.GetProber(ctx, &meshv1.GetProberRequest{Name: "probers/fra-1"}, o...)
				return r.GetName(), err
			},
			"ListProbers": func(o ...grpc.CallOption) (string, error) {
				r, err := w.probers.ListProbers(ctx, &meshv1.ListProbersRequest{}, o...)
				return r.GetProbers()[0].GetName(), err
			},
			"ListServers": func(o ...grpc.CallOption) (string, error) {
				r, err := w.servers.ListServers(ctx, &meshv1.ListServersRequest{}, o...)
				return r.GetServers()[0].GetName(), err
			},
		}
		want := map[string]string{"GetCheck": "checks/shopUP", "GetReceiver": "receivers/ops true not known: ", "ListReceivers": "receivers/ops true not known: ", "GetIncident": incident,
			"ListIncidents": incident, "GetProber": "probers/fra-1", "ListProbers": "probers/fra-1", "ListServers": "servers/a"}
		for name, read := range reads {
			var header metadata.MD
			begin := time.Now()
			got, err := read(grpc.Header(&header))
			prefix := want[name]
			if prefix == "" {
				prefix = "checks/shop"
			}
			if err != nil || !strings.HasPrefix(got, prefix) {
				t.Errorf("%s: %q, %v; want %q", name, got, err, prefix)
			}
			if took := time.Since(begin); took > 2*storeMoment {
				t.Errorf("%s took %v", name, took)
			}
			// These never ask the store.
			direct := name == "ListStatuses" || name == "ListServers" || name == "ExplainCheck"
			if said := len(header.Get(FromMemory)) > 0; said == direct {
				t.Errorf("%s says that it is from memory: %v", name, said)
			}
		}
	})
}

func TestReadsDoNotWaitForAnEtcdThatIsKnownToBeLost(t *testing.T) {
	lostWorld(t, func(t *testing.T, w *world, _ string) {
		w.api.lost = func() (time.Time, bool) { return time.Now(), true }
		begin := time.Now()
		ctx := context.Background()
		if _, err := w.checks.ListChecks(ctx, &meshv1.ListChecksRequest{}); err != nil {
			t.Error(err)
		}
		if _, err := w.receivers.ListReceivers(ctx, &meshv1.ListReceiversRequest{}); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWhatIsInNoMemoryIsRefusedWithASentence(t *testing.T) {
	lostWorld(t, func(t *testing.T, w *world, _ string) {
		ctx := context.Background()
		_, err := w.incidents.ListIncidents(ctx, &meshv1.ListIncidentsRequest{})
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "state = OPEN") {
			t.Errorf("%v", err)
		}
		_, err = w.incidents.GetIncident(ctx, &meshv1.GetIncidentRequest{Name: id(2)})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%v", err)
		}
		_, err = w.checks.GetCheck(ctx, &meshv1.GetCheckRequest{Name: "checks/other"})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%v: whether a check exists is not known", err)
		}
	})
}

func TestIncidentsAreWatchedWhileEtcdIsSilent(t *testing.T) {
	lostWorld(t, func(t *testing.T, w *world, incident string) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := w.incidents.WatchIncidents(ctx, &meshv1.WatchIncidentsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || m.GetIncident().GetName() != incident {
			t.Fatalf("%v, %v", m, err)
		}
		if m, err := stream.Recv(); err != nil || !m.GetSynced() {
			t.Errorf("%v, %v", m, err)
		}
	})
}
