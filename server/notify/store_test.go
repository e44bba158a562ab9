package notify

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// TestOutboxOfTheRealStoreIsDeliveredAcrossALostWatchAndANewReign runs two reigns over the real store on an etcd that restarts in between: what
// is owed comes with incidents, as the leader writes them.
func TestOutboxOfTheRealStoreIsDeliveredAcrossALostWatchAndANewReign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		client := etcd.Client(t)
		s := store.New(client, store.Options{})
		if _, err := s.CreateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/ops", Webhook: &meshv1.Webhook{Url: "https://ops.example.com"}}); err != nil {
			t.Fatal(err)
		}
		sender := &fakeSender{each: map[string]int{}, topEach: map[string]int{}}
		n, err := New(s, Config{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		n.sender = sender
		reign := func(term int64) (store.Fence, func() error) {
			if _, err := client.Delete(t.Context(), store.LeaderKey); err != nil {
				t.Fatal(err)
			}
			r, err := client.Put(t.Context(), store.LeaderKey, "")
			if err != nil {
				t.Fatal(err)
			}
			fence := store.Fence{Key: store.LeaderKey, CreateRevision: r.Header.Revision, Term: term}
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- n.Run(ctx, fence) }()
			return fence, func() error { cancel(); return <-ended }
		}
		incident := func(i int) *statev1.StoredIncident {
			return &statev1.StoredIncident{Ordinals: 1, Incident: &meshv1.Incident{Name: fmt.Sprintf("incidents/%026d", i), Kind: meshv1.Incident_CHECK,
				Check: fmt.Sprint("checks/c", i), State: meshv1.Incident_OPEN, OpenTime: timestamppb.Now()}}
		}
		owed := func(inc *statev1.StoredIncident, tr meshv1.Notification_Transition, ordinal int32) []*statev1.OutboxEntry {
			return []*statev1.OutboxEntry{{Id: inc.Incident.Name[len("incidents/"):] + "." + tr.String() + ".ops", Ordinal: ordinal, CreateTime: timestamppb.Now(),
				Notification: &meshv1.Notification{Incident: inc.Incident.Name, Transition: tr, Receiver: "receivers/ops", DecideTime: timestamppb.Now()}}}
		}
		fence, stop := reign(1)
		var revs []int64
		for i := range 10 {
			inc := incident(i)
			rev, err := s.OpenIncident(t.Context(), fence, inc, owed(inc, opened, 1), 0)
			if err != nil {
				t.Fatal(err)
			}
			revs = append(revs, rev)
		}
		time.Sleep(time.Second)
		etcd.Stop()
		time.Sleep(time.Second)
		etcd.Start()
		time.Sleep(10 * time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		for i := range 5 { // resolved while nobody delivers
			got, err := s.GetIncident(t.Context(), incident(i).Incident.Name)
			if err != nil {
				t.Fatal(err)
			}
			if got.ModRevision == revs[i] {
				t.Errorf("%s was not told of the delivery", got.Value.Incident.Name)
			}
			inc := got.Value
			inc.Incident.State = meshv1.Incident_RESOLVED
			if _, err := s.ResolveIncident(t.Context(), fence, inc, owed(inc, resolved, 2), got.ModRevision); err != nil {
				t.Fatal(err)
			}
		}
		_, stop = reign(2)
		time.Sleep(10 * time.Second)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if left, _, err := s.ListOutbox(t.Context()); err != nil || len(left) != 0 {
			t.Errorf("%d are still owed (%v)", len(left), err)
		}
		if got := sender.sent(); len(got) != 15 {
			t.Errorf("%d were sent, want each of 15 once: %v", len(got), got)
		}
		for i := range 10 {
			got, err := s.GetIncident(t.Context(), incident(i).Incident.Name)
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if i < 5 {
				want = 2
			}
			if tl := got.Value.Incident.Timeline; len(tl) != want || tl[0].Event != meshv1.TimelineEntry_NOTIFIED {
				t.Errorf("timeline of incident %d: %v, want %d deliveries", i, tl, want)
			}
		}
	})
}

func TestOldReignOverTheRealStoreIsFencedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		s := store.New(etcd.Client(t), store.Options{})
		if _, err := s.CreateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/ops", Webhook: &meshv1.Webhook{Url: "https://ops.example.com"}}); err != nil {
			t.Fatal(err)
		}
		client := etcd.Client(t)
		r, err := client.Put(t.Context(), store.LeaderKey, "")
		if err != nil {
			t.Fatal(err)
		}
		fence := store.Fence{Key: store.LeaderKey, CreateRevision: r.Header.Revision, Term: 1}
		inc := &statev1.StoredIncident{Incident: &meshv1.Incident{Name: "incidents/1", Check: "checks/c"}}
		owed := []*statev1.OutboxEntry{{Id: "1.OPENED.ops", Notification: &meshv1.Notification{Incident: "incidents/1", Receiver: "receivers/ops"}}}
		if _, err := s.OpenIncident(t.Context(), fence, inc, owed, 0); err != nil {
			t.Fatal(err)
		}
		n, err := New(s, Config{Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		n.sender = &fakeSender{each: map[string]int{}, topEach: map[string]int{}}
		if _, err := client.Delete(t.Context(), store.LeaderKey); err != nil { // somebody else leads now
			t.Fatal(err)
		}
		if err := n.Run(t.Context(), fence); !errors.Is(err, store.ErrFenced) {
			t.Errorf("Run returned %v, want ErrFenced", err)
		}
		if left, _, err := s.ListOutbox(t.Context()); err != nil || len(left) != 1 {
			t.Errorf("%d are owed (%v), want the one that the old leader could not settle", len(left), err)
		}
	})
}
