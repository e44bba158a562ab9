package api

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shape is a plan in a few words: "checks/a CREATE, checks/b UPDATE uri interval".
func shape(r *meshv1.ApplyResponse) string {
	var parts []string
	for _, c := range r.GetChanges() {
		part := c.GetName() + " " + c.GetAction().String()
		for _, f := range c.GetFields() {
			part += " " + f.GetPath()
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func (w *world) apply(req *meshv1.ApplyRequest) *meshv1.ApplyResponse {
	w.t.Helper()
	r, err := w.checks.Apply(context.Background(), req)
	if err != nil {
		w.t.Fatalf("apply: %v", err)
	}
	return r
}

func TestApplyPlansAndDoesWhatItPlanned(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		wish := func() *meshv1.ApplyRequest {
			return &meshv1.ApplyRequest{
				Checks:    []*meshv1.Check{{Name: "b", Uri: "tcp://b.example.com:1", Receivers: []string{"ops"}}, check("a")},
				Receivers: []*meshv1.Receiver{hook("ops")},
			}
		}
		dry := wish()
		dry.ValidateOnly = true
		before := w.etcd.Revision()
		const created = "checks/a CREATE, checks/b CREATE, receivers/ops CREATE"
		if got := shape(w.apply(dry)); got != created || w.etcd.Revision() != before {
			t.Errorf("plan: %s, want %s and nothing written", got, created)
		}
		if got := shape(w.apply(wish())); got != created {
			t.Errorf("apply: %s, want %s", got, created)
		}
		before = w.etcd.Revision()
		const same = "checks/a UNCHANGED, checks/b UNCHANGED, receivers/ops UNCHANGED"
		if got := shape(w.apply(wish())); got != same || w.etcd.Revision() != before {
			t.Errorf("again: %s, want %s and nothing written", got, same)
		}
		changed := wish()
		changed.Checks = changed.Checks[:1]
		changed.Checks[0].Uri, changed.Checks[0].Probers = "tcp://c.example.com:1", 3
		r := w.apply(changed)
		if got := shape(r); got != "checks/b UPDATE uri probers, receivers/ops UNCHANGED" {
			t.Errorf("change: %s", got)
		}
		if f := r.Changes[0].Fields[0]; f.Before != `"tcp://b.example.com:1"` || f.After != `"tcp://c.example.com:1"` {
			t.Errorf("field %v", f)
		}
		changed.Prune = true
		if got := shape(w.apply(changed)); got != "checks/a DELETE, checks/b UNCHANGED, receivers/ops UNCHANGED" {
			t.Errorf("prune: %s", got)
		}
		if got := shape(w.apply(&meshv1.ApplyRequest{Prune: true})); got != "checks/b DELETE, receivers/ops DELETE" {
			t.Errorf("prune of everything: %s", got)
		}
	})
}

func TestPruneLabelsSpareTheRest(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.receiver("ops")
		for id, labels := range map[string]map[string]string{"a": {"team": "x"}, "b": {"team": "y"}, "c": nil, "d": {"team": "x", "tier": "1"}} {
			c := check(id)
			c.Labels = labels
			w.create(c)
		}
		got := shape(w.apply(&meshv1.ApplyRequest{Prune: true, PruneLabels: map[string]string{"team": "x"}, Checks: []*meshv1.Check{check("e")}}))
		if got != "checks/a DELETE, checks/d DELETE, checks/e CREATE" {
			t.Error(got)
		}
	})
}

// One bad check among a hundred: everything is refused, and every fault is listed.
func TestOneBadCheckAmongAHundredChangesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.receiver("ops")
		req := &meshv1.ApplyRequest{Prune: true, Receivers: []*meshv1.Receiver{hook("new")}}
		for i := range 100 {
			req.Checks = append(req.Checks, check(fmt.Sprintf("c%02d", i)))
		}
		req.Checks[41].Uri = "gopher://old.example.com"
		before := w.etcd.Revision()
		_, err := w.checks.Apply(context.Background(), req)
		e := want(t, err, meshv1.ErrorReason_INVALID_FIELD)
		if len(e.Violations) != 1 || e.Violations[0].Field != "checks[41].uri" {
			t.Errorf("violations %v", e.Violations)
		}
		if after := w.etcd.Revision(); after != before {
			t.Errorf("revision %d became %d", before, after)
		}
	})
}

func TestFaultsOfAnApplyAreListedWithTheirPaths(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.receiver("old")
		w.create(check("stored"))
		before := w.etcd.Revision()
		bad := check("x")
		bad.Receivers = []string{"old", "nobody", "new"}
		for _, c := range []struct {
			name   string
			req    *meshv1.ApplyRequest
			reason meshv1.ErrorReason
			want   []string
		}{
			{"duplicates", &meshv1.ApplyRequest{Checks: []*meshv1.Check{check("a"), check("b"), {Name: "a", Uri: "tcp://a.example.com:1"}}, Receivers: []*meshv1.Receiver{hook("r"), hook("r")}},
				meshv1.ErrorReason_INVALID_FIELD, []string{
					`checks[2].name: "checks/a" is the name of checks[0] already; names must be unique`,
					`receivers[1].name: "receivers/r" is the name of receivers[0] already; names must be unique`}},
			{"receivers", &meshv1.ApplyRequest{Checks: []*meshv1.Check{check("a"), bad}, Receivers: []*meshv1.Receiver{hook("new")}, Prune: true},
				meshv1.ErrorReason_INVALID_FIELD, []string{
					`checks[1].receivers[0]: receivers/old is not in the request, so prune would delete it; put it into the request`,
					`checks[1].receivers[1]: receivers/nobody does not exist; put it into the request, or create it first`}},
			{"etags", &meshv1.ApplyRequest{Checks: []*meshv1.Check{{Name: "stored", Uri: "tcp://a.example.com:1", Etag: "1"}, {Name: "gone", Uri: "tcp://a.example.com:1", Etag: "2"}}},
				meshv1.ErrorReason_ETAG_MISMATCH, []string{
					fmt.Sprintf(`checks[0].etag: is "1", but the stored one is "%d": it changed since you read it; read it again, or leave the etag out`, before),
					`checks[1].etag: is that of a resource that was deleted since; leave it out to create it anew`}},
			{"labels without prune", &meshv1.ApplyRequest{PruneLabels: map[string]string{"a": "b"}},
				meshv1.ErrorReason_INVALID_FIELD, []string{`prune_labels: is given without prune; set prune too, or leave it out`}},
			{"too many", &meshv1.ApplyRequest{Checks: make([]*meshv1.Check, applyChecksMax+1)},
				meshv1.ErrorReason_INVALID_FIELD, []string{`checks: has 10001 entries; at most 10000 are allowed in one request`}},
		} {
			for i := range c.req.Checks {
				if c.req.Checks[i] == nil {
					c.req.Checks[i] = &meshv1.Check{}
				}
			}
			_, err := w.checks.Apply(context.Background(), c.req)
			var got []string
			for _, v := range want(t, err, c.reason).Violations {
				got = append(got, v.String())
			}
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("%s: got\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		}
		if after := w.etcd.Revision(); after != before {
			t.Errorf("revision %d became %d", before, after)
		}
	})
}

func TestVeryManyFaultsAreCounted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		req := &meshv1.ApplyRequest{}
		for i := range 1200 {
			req.Checks = append(req.Checks, &meshv1.Check{Name: fmt.Sprintf("c%d", i), Uri: "x"})
		}
		_, err := w.checks.Apply(context.Background(), req)
		e := want(t, err, meshv1.ErrorReason_INVALID_FIELD)
		if len(e.Violations) != faultsMax+1 || e.Violations[0].Problem != "there are 200 more faults, which are not listed" {
			t.Errorf("%d violations, the first: %v", len(e.Violations), e.Violations[0])
		}
	})
}

// Two appliers of overlapping wishes: both end well, and what is stored is the wish of one of them for each check.
func TestConcurrentAppliesBothEnd(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var all sync.WaitGroup
		for i := range 2 {
			all.Go(func() {
				req := &meshv1.ApplyRequest{}
				for n := range 250 {
					req.Checks = append(req.Checks, &meshv1.Check{Name: fmt.Sprintf("c%d", n), Uri: fmt.Sprintf("tcp://host%d.example.com:1", i)})
				}
				if _, err := w.checks.Apply(context.Background(), req); err != nil {
					if e := want(t, err, meshv1.ErrorReason_ETAG_MISMATCH); e.Code != codes.Aborted {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		stored, _, err := w.store.ListChecks(context.Background(), "", 0)
		if err != nil || len(stored) != 250 {
			t.Errorf("%d checks, %v", len(stored), err)
		}
	})
}

func TestARepeatedApplyChangesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		req := &meshv1.ApplyRequest{Checks: []*meshv1.Check{check("a")}, RequestId: "r"}
		w.apply(req)
		w.apply(&meshv1.ApplyRequest{Prune: true})
		synctest.Wait()
		before := w.etcd.Revision()
		if got := shape(w.apply(req)); got != "checks/a UNCHANGED" || w.etcd.Revision() != before {
			t.Errorf("got %s, want nothing changed", got)
		}
		_, err := w.checks.Apply(context.Background(), &meshv1.ApplyRequest{Checks: []*meshv1.Check{check("b")}, RequestId: "r"})
		want(t, err, meshv1.ErrorReason_REQUEST_ID_REUSED)
	})
}

// What ends a plan in the middle says how much of it was written.
func TestAnApplyThatBreaksOffSaysSo(t *testing.T) {
	e, ok := fault.From(partly(2, fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "", "etcd does not answer")))
	const message = "the first 2 transactions, of up to 100 changes each, were written; apply again to complete them. What ended it: etcd does not answer"
	if !ok || e.Reason != meshv1.ErrorReason_STORE_UNAVAILABLE || e.Message != message {
		t.Errorf("got %v", e)
	}
	if err := fault.NotFound("checks/x"); partly(0, err) != error(err) {
		t.Error("an error before anything was written was changed")
	}
}
