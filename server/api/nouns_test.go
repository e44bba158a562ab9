package api

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestReceiversAreWrittenAndListed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		for _, id := range []string{"c", "a", "b"} {
			w.receiver(id)
		}
		r, err := w.receivers.ListReceivers(ctx, &meshv1.ListReceiversRequest{PageSize: 2})
		if err != nil || len(r.Receivers) != 2 || r.Receivers[0].Name != "receivers/a" || r.NextPageToken == "" {
			t.Errorf("%v, %v", r, err)
		}
		r, err = w.receivers.ListReceivers(ctx, &meshv1.ListReceiversRequest{Filter: "name != b"})
		if err != nil || len(r.Receivers) != 2 || r.NextPageToken != "" {
			t.Errorf("%v, %v", r, err)
		}
		u, err := w.receivers.UpdateReceiver(ctx, &meshv1.UpdateReceiverRequest{Receiver: &meshv1.Receiver{Name: "a", Paused: true}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"paused"}}})
		if err != nil || !u.Paused || u.Webhook == nil {
			t.Errorf("%v, %v", u, err)
		}
		_, err = w.receivers.CreateReceiver(ctx, &meshv1.CreateReceiverRequest{ReceiverId: "d", Receiver: &meshv1.Receiver{}})
		if e := want(t, err, meshv1.ErrorReason_INVALID_FIELD); e.Violations[0].Field != "receiver.webhook" {
			t.Errorf("%v", e.Violations)
		}
		answer, err := w.receivers.TestReceiver(ctx, &meshv1.TestReceiverRequest{Name: "a"})
		if err != nil || !answer.Delivered || answer.Error != "receivers/a" {
			t.Errorf("%v, %v", answer, err)
		}
		_, err = w.receivers.TestReceiver(ctx, &meshv1.TestReceiverRequest{Name: "x"})
		want(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND)
	})
}

func TestAReceiverInUseIsNotDeleted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.receiver("ops")
		for i := range 7 {
			c := check(fmt.Sprintf("c%d", i))
			c.Receivers = []string{"ops"}
			w.create(c)
		}
		_, err := w.receivers.DeleteReceiver(ctx, &meshv1.DeleteReceiverRequest{Name: "ops"})
		const message = "receivers/ops is named by checks/c0, checks/c1, checks/c2, checks/c3, checks/c4 and more; take it out of their receivers first"
		if e := want(t, err, meshv1.ErrorReason_RESOURCE_IN_USE); e.Message != message {
			t.Errorf("got %q, want %q", e.Message, message)
		}
		w.apply(&meshv1.ApplyRequest{Prune: true, Receivers: []*meshv1.Receiver{hook("ops")}})
		if _, err := w.receivers.DeleteReceiver(ctx, &meshv1.DeleteReceiverRequest{Name: "ops"}); err != nil {
			t.Error(err)
		}
		if _, err := w.receivers.DeleteReceiver(ctx, &meshv1.DeleteReceiverRequest{Name: "ops", AllowMissing: true}); err != nil {
			t.Error(err)
		}
	})
}

func TestAReceiverTellsWhatItIsOwed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, f := context.Background(), w.reign()
		w.receiver("ops")
		w.open(f, 1, "checks/shop", &statev1.OutboxEntry{Id: "1.OPENED.ops", Notification: &meshv1.Notification{Receiver: "receivers/ops"}})
		at := func(s int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(s, 0)) }
		if _, err := w.store.AmendIncident(ctx, &f, id(1), func(s *statev1.StoredIncident) error {
			s.Incident.Timeline = []*meshv1.TimelineEntry{
				{Time: at(5), Event: meshv1.TimelineEntry_NOTIFIED, Receiver: "receivers/ops"},
				{Time: at(7), Event: meshv1.TimelineEntry_NOTIFICATION_FAILED, Receiver: "receivers/ops", Text: "the answer was 500"},
				{Time: at(9), Event: meshv1.TimelineEntry_NOTIFIED, Receiver: "receivers/other"},
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		r, err := w.receivers.GetReceiver(ctx, &meshv1.GetReceiverRequest{Name: "ops"})
		if err != nil || r.Owed != 1 || r.LastError != "the answer was 500" || r.LastDeliveryTime.GetSeconds() != 5 {
			t.Errorf("%v, %v", r, err)
		}
	})
}

func (w *world) enrol(name, datacenter string, state meshv1.Prober_State) {
	w.t.Helper()
	if _, err := w.store.PutEnrolment(context.Background(), &statev1.Enrolment{Name: name, Datacenter: datacenter, Build: "1.0"}, 0); err != nil {
		w.t.Fatal(err)
	}
	p := &meshv1.Prober{Name: name, Datacenter: datacenter, State: state, Build: "1.0", Domains: map[string]string{"datacenter": datacenter, "provider": "x"}}
	if state == meshv1.Prober_ONLINE {
		p.Server = "servers/a"
	}
	w.mesh.mu.Lock()
	w.mesh.probers[name] = p
	w.mesh.mu.Unlock()
}

func TestProbersAreDrainedAndReturn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.enrol("probers/fra-1", "fra", meshv1.Prober_ONLINE)
		w.enrol("probers/iad-1", "iad", meshv1.Prober_OFFLINE)
		p, err := w.probers.GetProber(ctx, &meshv1.GetProberRequest{Name: "fra-1"})
		if err != nil || p.State != meshv1.Prober_ONLINE || p.Etag == "" {
			t.Fatalf("%v, %v", p, err)
		}
		drained, err := w.probers.DrainProber(ctx, &meshv1.DrainProberRequest{Name: "fra-1", Etag: p.Etag})
		if err != nil || !drained.Drained || drained.State != meshv1.Prober_DRAINED || drained.Etag == p.Etag {
			t.Errorf("%v, %v", drained, err)
		}
		again, err := w.probers.DrainProber(ctx, &meshv1.DrainProberRequest{Name: "fra-1"})
		if err != nil || again.Etag != drained.Etag {
			t.Errorf("drained again: %v, %v", again, err)
		}
		_, err = w.probers.UndrainProber(ctx, &meshv1.UndrainProberRequest{Name: "fra-1", Etag: p.Etag})
		want(t, err, meshv1.ErrorReason_ETAG_MISMATCH)
		for filter, count := range map[string]int{"": 2, "state = DRAINED": 1, "datacenter = iad": 1, "labels.provider = x": 2, "name = fra-1 AND build = 1.0": 1} {
			if r, err := w.probers.ListProbers(ctx, &meshv1.ListProbersRequest{Filter: filter}); err != nil || len(r.Probers) != count {
				t.Errorf("%q: %v, %v, want %d", filter, r, err, count)
			}
		}
		back, err := w.probers.UndrainProber(ctx, &meshv1.UndrainProberRequest{Name: "fra-1"})
		if err != nil || back.Drained || back.State != meshv1.Prober_ONLINE {
			t.Errorf("%v, %v", back, err)
		}
		_, err = w.probers.DeleteProber(ctx, &meshv1.DeleteProberRequest{Name: "fra-1"})
		want(t, err, meshv1.ErrorReason_STATE_CONFLICT)
		if _, err := w.probers.DeleteProber(ctx, &meshv1.DeleteProberRequest{Name: "iad-1"}); err != nil {
			t.Error(err)
		}
		_, err = w.probers.GetProber(ctx, &meshv1.GetProberRequest{Name: "iad-1"})
		want(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND)
	})
}

func TestDrainingManyTimesAtOnceSucceeds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.enrol("probers/fra-1", "fra", meshv1.Prober_ONLINE)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, err := w.probers.DrainProber(context.Background(), &meshv1.DrainProberRequest{Name: "fra-1"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

func TestServersAreListedWithTheirLeader(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		lease, err := w.etcd.Client(t).Grant(ctx, 3600)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"b", "a"} {
			if err := w.store.PublishServer(ctx, clientv3.LeaseID(lease.ID), &statev1.ServerRecord{Name: "servers/" + name, Datacenter: name}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait() // the mesh follows them
		w.mesh.mu.Lock()
		w.mesh.server = ServerInfo{Name: "servers/a", Leader: "servers/b", LeaderAddress: "10.0.0.2:7700", Term: 7, Sessions: 3, Revision: 42}
		w.mesh.mu.Unlock()
		r, err := w.servers.ListServers(ctx, &meshv1.ListServersRequest{})
		if err != nil || len(r.Servers) != 2 || r.Servers[0].Sessions != 3 || r.Servers[0].Revision != 42 || r.Servers[0].Leader || !r.Servers[1].Leader || r.Servers[1].Term != 7 {
			t.Errorf("%v, %v", r, err)
		}
		_, err = w.servers.StepDown(ctx, &meshv1.StepDownRequest{})
		if e := want(t, err, meshv1.ErrorReason_NOT_LEADER); e.Metadata["leader"] != "10.0.0.2:7700" {
			t.Errorf("%+v", e)
		}
		w.mesh.mu.Lock()
		w.mesh.server.Leading, w.mesh.server.Leader = true, "servers/a"
		w.mesh.mu.Unlock()
		_, err = w.servers.StepDown(ctx, &meshv1.StepDownRequest{Term: 6})
		want(t, err, meshv1.ErrorReason_NOT_LEADER)
		if r, err := w.servers.StepDown(ctx, &meshv1.StepDownRequest{Term: 7}); err != nil || r.Term != 7 {
			t.Errorf("%v, %v", r, err)
		}
		_, err = w.servers.StepDown(ctx, &meshv1.StepDownRequest{})
		want(t, err, meshv1.ErrorReason_NOT_LEADER)
		synctest.Wait()
	})
}
