package api

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Pages of 1,000 checks, read while others come and go, hold each check that existed throughout exactly once, in order.
func TestPagingLosesAndDoublesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		req := &meshv1.ApplyRequest{}
		for i := range 1000 {
			req.Checks = append(req.Checks, &meshv1.Check{Name: fmt.Sprintf("c%04d", i), Uri: "tcp://a.example.com:1"})
		}
		w.apply(req)
		synctest.Wait()
		ctx, stop := context.WithCancel(context.Background())
		var noise sync.WaitGroup
		for worker := range 3 {
			noise.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					c := &meshv1.Check{Name: fmt.Sprintf("checks/c%04d-noise-%d", (i*37)%1000, worker), Uri: "tcp://n.example.com:1"}
					if _, err := w.store.CreateCheck(context.Background(), c); err != nil {
						t.Error(err)
					}
					if err := w.store.DeleteCheck(context.Background(), c.Name, ""); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for _, filter := range []string{"", "kind = tcp"} {
			seen := map[string]int{}
			last, token, pages := "", "", 0
			for {
				r, err := w.checks.ListChecks(ctx, &meshv1.ListChecksRequest{PageSize: 37, PageToken: token, Filter: filter})
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range r.Checks {
					if c.Name <= last {
						t.Errorf("%s comes after %s", c.Name, last)
					}
					last = c.Name
					seen[c.Name]++
				}
				pages++
				if token = r.NextPageToken; token == "" {
					break
				}
			}
			for _, c := range req.Checks {
				if n := seen["checks/"+c.Name]; n != 1 {
					t.Errorf("filter %q: %s was listed %d times", filter, c.Name, n)
				}
			}
			if pages < 27 {
				t.Errorf("%d pages", pages)
			}
		}
		stop()
		noise.Wait()
	})
}

func TestListsFilterAndPage(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.receiver("ops")
		for i := range 12 {
			c := &meshv1.Check{Name: fmt.Sprintf("c%02d", i), Uri: "tcp://a.example.com:1", Labels: map[string]string{"parity": fmt.Sprint(i % 2)}}
			if i == 3 {
				c.Uri, c.Receivers = "https://a.example.com", []string{"ops"}
			}
			w.create(c)
		}
		synctest.Wait()
		w.mesh.decide("checks/c05", meshv1.CheckStatus_DOWN)
		for filter, count := range map[string]int{
			"": 12, `labels.parity = 1`: 6, `labels.parity != 1`: 6, "kind = http": 1, "receiver = ops": 1, "verdict = DOWN": 1, "verdict != DOWN": 11,
			"verdict = DOWN AND labels.parity = 0": 0, "name = c07": 1,
		} {
			checks, err := w.checks.ListChecks(ctx, &meshv1.ListChecksRequest{Filter: filter})
			if err != nil || len(checks.Checks) != count || checks.NextPageToken != "" {
				t.Errorf("checks, %q: %d, want %d, %v", filter, len(checks.GetChecks()), count, err)
			}
			statuses, err := w.statuses.ListStatuses(ctx, &meshv1.ListStatusesRequest{Filter: filter})
			if err != nil || len(statuses.Statuses) != count || statuses.NextPageToken != "" {
				t.Errorf("statuses, %q: %d, want %d, %v", filter, len(statuses.GetStatuses()), count, err)
			}
			for _, s := range statuses.GetStatuses() {
				if len(s.Votes) != 1 || s.Votes[0].Evidence != nil {
					t.Errorf("%s: want votes without evidence, got %v", s.Check, s.Votes)
				}
			}
		}
		first, err := w.statuses.ListStatuses(ctx, &meshv1.ListStatusesRequest{Filter: "labels.parity = 1", PageSize: 4})
		if err != nil || len(first.Statuses) != 4 || first.NextPageToken == "" {
			t.Fatalf("%v, %v", first, err)
		}
		second, err := w.statuses.ListStatuses(ctx, &meshv1.ListStatusesRequest{Filter: `labels.parity="1"`, PageSize: 4, PageToken: first.NextPageToken})
		if err != nil || len(second.Statuses) != 2 || second.NextPageToken != "" || second.Statuses[0].Check != "checks/c09" {
			t.Errorf("%v, %v", second, err)
		}
		_, err = w.statuses.ListStatuses(ctx, &meshv1.ListStatusesRequest{PageToken: first.NextPageToken})
		want(t, err, meshv1.ErrorReason_PAGE_TOKEN_INVALID)
		_, err = w.checks.ListChecks(ctx, &meshv1.ListChecksRequest{PageToken: first.NextPageToken, Filter: "labels.parity = 1"})
		want(t, err, meshv1.ErrorReason_PAGE_TOKEN_INVALID)
		_, err = w.checks.ListChecks(ctx, &meshv1.ListChecksRequest{Filter: "team = x"})
		if e := want(t, err, meshv1.ErrorReason_FILTER_INVALID).Message; e != "the filter is not valid: the key team is not known; the keys are labels.<key>, verdict, kind, receiver, name" {
			t.Error(e)
		}
	})
}

func TestAStatusShowsEvidenceWhenAsked(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(check("shop"))
		synctest.Wait()
		for _, with := range []bool{false, true} {
			s, err := w.statuses.GetStatus(context.Background(), &meshv1.GetStatusRequest{Check: "shop", WithEvidence: with})
			if err != nil || (s.Votes[0].Evidence != nil) != with {
				t.Errorf("with_evidence %v: %v, %v", with, s, err)
			}
		}
	})
}
