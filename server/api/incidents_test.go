package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/timeline"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// reign makes a leader, for the writes that only a leader may do.
func (w *world) reign() store.Fence {
	w.t.Helper()
	const key = "/test/leader"
	r, err := w.etcd.Client(w.t).Put(context.Background(), key, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return store.Fence{Key: key, CreateRevision: r.Header.Revision, Term: 1}
}

// id is the name of the n-th incident: names are time-ordered.
func id(n int) string { return fmt.Sprintf("incidents/01%024d", n) }

func (w *world) open(f store.Fence, n int, name string, owed ...*statev1.OutboxEntry) int64 {
	w.t.Helper()
	rev, err := w.store.OpenIncident(context.Background(), f, &statev1.StoredIncident{Incident: outage(n, name)}, owed, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return rev
}

func outage(n int, name string) *meshv1.Incident {
	return &meshv1.Incident{Name: id(n), Kind: meshv1.Incident_CHECK, Check: name, State: meshv1.Incident_OPEN, Verdict: meshv1.CheckStatus_DOWN,
		Labels: map[string]string{"team": "x"}}
}

func (w *world) resolve(f store.Fence, n int, name string, rev int64) {
	w.t.Helper()
	i := outage(n, name)
	i.State, i.ResolveTime = meshv1.Incident_RESOLVED, timestamppb.Now()
	if _, err := w.store.ResolveIncident(context.Background(), f, &statev1.StoredIncident{Incident: i}, nil, rev); err != nil {
		w.t.Fatal(err)
	}
}

func TestIncidentsAreListedNewestFirst(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, f := context.Background(), w.reign()
		for n := range 10 {
			name := fmt.Sprintf("checks/c%d", n)
			if rev := w.open(f, n, name); n%3 != 0 {
				w.resolve(f, n, name, rev)
			}
		}
		for filter, want := range map[string]string{
			"": "9876543210", "state = OPEN": "9630", "state != OPEN": "875421", "check = c4": "4", "verdict = DEGRADED": "", "kind = CHECK AND labels.team = x AND state = RESOLVED": "875421",
		} {
			got, token := "", ""
			for pages := 0; ; pages++ {
				r, err := w.incidents.ListIncidents(ctx, &meshv1.ListIncidentsRequest{Filter: filter, PageSize: 2, PageToken: token})
				if err != nil {
					t.Fatal(err)
				}
				for _, i := range r.Incidents {
					got += i.Name[len(i.Name)-1:]
				}
				if token = r.NextPageToken; token == "" {
					break
				}
			}
			if got != want {
				t.Errorf("%q: %s, want %s", filter, got, want)
			}
		}
		_, err := w.incidents.GetIncident(ctx, &meshv1.GetIncidentRequest{Name: id(77)})
		want(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND)
		_, err = w.incidents.ListIncidents(ctx, &meshv1.ListIncidentsRequest{Filter: "state = open"})
		if e := want(t, err, meshv1.ErrorReason_FILTER_INVALID); !strings.HasSuffix(e.Message, `state cannot be "open"; it is one of OPEN, RESOLVED; did you mean "OPEN"?`) {
			t.Error(e.Message)
		}
	})
}

func TestAcknowledgingIsOncePerPerson(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, f := context.Background(), w.reign()
		rev := w.open(f, 1, "checks/shop")
		first, err := w.incidents.AcknowledgeIncident(ctx, &meshv1.AcknowledgeIncidentRequest{Name: id(1), By: "ann", Comment: "on it", Etag: fmt.Sprint(rev)})
		if err != nil || first.AcknowledgedBy != "ann" || len(first.Timeline) != 1 || first.Timeline[0].Text != "ann takes care of it: on it" {
			t.Fatalf("%v, %v", first, err)
		}
		again, err := w.incidents.AcknowledgeIncident(ctx, &meshv1.AcknowledgeIncidentRequest{Name: id(1), By: "ann", Etag: fmt.Sprint(rev)})
		if err != nil || again.Etag != first.Etag || len(again.Timeline) != 1 {
			t.Errorf("again: %v, %v, want nothing changed", again, err)
		}
		_, err = w.incidents.AcknowledgeIncident(ctx, &meshv1.AcknowledgeIncidentRequest{Name: id(1), By: "bob", Etag: fmt.Sprint(rev)})
		want(t, err, meshv1.ErrorReason_ETAG_MISMATCH)
		bob, err := w.incidents.AcknowledgeIncident(ctx, &meshv1.AcknowledgeIncidentRequest{Name: id(1), By: "bob"})
		if err != nil || bob.AcknowledgedBy != "bob" || len(bob.Timeline) != 2 {
			t.Errorf("bob: %v, %v", bob, err)
		}
		v, err := w.store.GetIncident(ctx, id(1))
		if err != nil {
			t.Fatal(err)
		}
		w.resolve(f, 1, "checks/shop", v.ModRevision)
		_, err = w.incidents.AcknowledgeIncident(ctx, &meshv1.AcknowledgeIncidentRequest{Name: id(1), By: "bob"})
		if e := want(t, err, meshv1.ErrorReason_STATE_CONFLICT); e.Code != codes.FailedPrecondition {
			t.Errorf("code %s", e.Code)
		}
		_, err = w.incidents.AcknowledgeIncident(ctx, &meshv1.AcknowledgeIncidentRequest{Name: "", By: " ", Comment: strings.Repeat("x", 1001)})
		if e := want(t, err, meshv1.ErrorReason_INVALID_FIELD); fmt.Sprint(e.Violations) !=
			"[by: is missing; say who takes care comment: has 1001 characters; at most 1000 are allowed name: is missing; give incidents/<id>]" {
			t.Errorf("%v", e.Violations)
		}
	})
}

func TestAFullTimelineDropsItsMiddle(t *testing.T) {
	i := outage(1, "checks/shop")
	for n := range timeline.Most {
		i.Timeline = append(i.Timeline, &meshv1.TimelineEntry{Text: fmt.Sprint(n)})
	}
	if err := acknowledge(i, &meshv1.AcknowledgeIncidentRequest{By: "ann"}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if len(i.Timeline) != timeline.Most || i.TimelineDropped != 1 || i.Timeline[0].Text != "0" || i.Timeline[99].Text != "99" || i.Timeline[100].Text != "101" {
		t.Errorf("%d entries, %d dropped, %v", len(i.Timeline), i.TimelineDropped, i.Timeline[99:101])
	}
}

func TestAWatchOfIncidentsTellsTheirWholeLife(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		f := w.reign()
		w.resolve(f, 1, "checks/old", w.open(f, 1, "checks/old"))
		rev := w.open(f, 2, "checks/shop")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := w.incidents.WatchIncidents(ctx, &meshv1.WatchIncidentsRequest{Filter: "state = OPEN"})
		if err != nil {
			t.Fatal(err)
		}
		next := func() string {
			t.Helper()
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if r.Synced {
				return "synced"
			}
			return strings.TrimLeft(r.Incident.Name, "cdeinst/01") + " " + r.Incident.State.String() + " " + r.Incident.AcknowledgedBy
		}
		for _, want := range []string{"2 OPEN ", "synced"} {
			if got := next(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		synctest.Wait()
		w.open(f, 3, "checks/other")
		if got := next(); got != "3 OPEN " {
			t.Errorf("got %q", got)
		}
		i, err := w.incidents.AcknowledgeIncident(ctx, &meshv1.AcknowledgeIncidentRequest{Name: id(2), By: "ann"})
		if err != nil || i.Etag == fmt.Sprint(rev) {
			t.Fatal(i, err)
		}
		if got := next(); got != "2 OPEN ann" {
			t.Errorf("got %q", got)
		}
		v, err := w.store.GetIncident(ctx, id(2))
		if err != nil {
			t.Fatal(err)
		}
		w.resolve(f, 2, "checks/shop", v.ModRevision)
		if got := next(); got != "2 RESOLVED " {
			t.Errorf("got %q: one that was shown and is resolved has to be told", got)
		}
		cancel()
		synctest.Wait()
		if n := w.mesh.incidents.subscribers(); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
}
