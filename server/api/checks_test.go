package api

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestACreatedCheckIsReadBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.receiver("ops")
		made, err := w.checks.CreateCheck(ctx, &meshv1.CreateCheckRequest{CheckId: "shop", Check: &meshv1.Check{
			Uri: "https://shop.example.com", Receivers: []string{"ops"}, Revision: 99, Status: &meshv1.CheckStatus{Summary: "mine"}, Etag: "x"}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.checks.GetCheck(ctx, &meshv1.GetCheckRequest{Name: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != "checks/shop" || got.Receivers[0] != "receivers/ops" || got.Etag == "" || got.Etag == "x" || got.Revision == 99 || got.CreateTime == nil {
			t.Errorf("got %v", got)
		}
		if got.Status.GetVerdict() != meshv1.CheckStatus_UP && got.Status.GetVerdict() != meshv1.CheckStatus_UNKNOWN || len(got.Status.GetVotes()) > 0 {
			t.Errorf("status %v, want one without votes", got.Status)
		}
		made.Status, got.Status = nil, nil
		if !proto.Equal(made, got) {
			t.Errorf("created %v, read %v", made, got)
		}
		if _, err = w.checks.CreateCheck(ctx, &meshv1.CreateCheckRequest{Check: check("shop")}); err == nil {
			t.Error("created twice")
		}
		e := want(t, err, meshv1.ErrorReason_RESOURCE_EXISTS)
		if e.Code != codes.AlreadyExists || e.Metadata["name"] != "checks/shop" {
			t.Errorf("got %+v", e)
		}
	})
}

// Each bad request is refused with exactly these sentences, and changes nothing.
func TestBadWritesAreExplained(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.receiver("ops")
		w.create(check("shop"))
		synctest.Wait()
		before := w.etcd.Revision()
		ctx := context.Background()
		create := func(r *meshv1.CreateCheckRequest) func() error {
			return func() error { _, err := w.checks.CreateCheck(ctx, r); return err }
		}
		update := func(r *meshv1.UpdateCheckRequest) func() error {
			return func() error { _, err := w.checks.UpdateCheck(ctx, r); return err }
		}
		edited := func(edit func(*meshv1.Check)) *meshv1.Check { c := check("new"); edit(c); return c }
		for _, c := range []struct {
			name string
			call func() error
			want []string
		}{
			{"no check", create(&meshv1.CreateCheckRequest{CheckId: "x"}), []string{"check: is missing; give the check to write"}},
			{"no name", create(&meshv1.CreateCheckRequest{Check: &meshv1.Check{Uri: "tcp://a.example.com:1"}}),
				[]string{"check.name: is missing; write checks/<id>, where <id> is 1 to 63 characters of a-z, 0-9 and -"}},
			{"two names", create(&meshv1.CreateCheckRequest{CheckId: "a", Check: check("b")}),
				[]string{"check_id: says checks/a, but check.name says checks/b; leave one out"}},
			{"a name that is none", create(&meshv1.CreateCheckRequest{CheckId: "Shop", Check: &meshv1.Check{Uri: "tcp://a.example.com:1"}}), []string{
				`check.name: "Shop" is not a name of checks; write checks/<id>, where <id> is 1 to 63 characters of a-z, 0-9 and -, not starting or ending with -`,
				`check_id: "Shop" is not a name of checks; write checks/<id>, where <id> is 1 to 63 characters of a-z, 0-9 and -, not starting or ending with -`}},
			{"a long request id", create(&meshv1.CreateCheckRequest{Check: check("new"), RequestId: strings.Repeat("x", 65)}),
				[]string{"request_id: has 65 characters; at most 64 are allowed"}},
			{"several faults", create(&meshv1.CreateCheckRequest{Check: edited(func(c *meshv1.Check) {
				c.Interval, c.Quorum, c.Probers, c.Receivers = durationpb.New(time.Millisecond), 4, 3, []string{"receivers/ops", "nobody"}
				c.Http = &meshv1.HttpProbe{Expect: []string{"response.status == 200", "response.nothing"}}
			})}), []string{
				"check.http.expect[1]: ",
				"check.interval: 1ms is shorter than 1s; raise it",
				"check.quorum: 4 is more than the 3 probers that run the check, so it could never be down; lower it, or raise probers",
				"check.receivers[1]: receivers/nobody does not exist; create it first"}},
			{"a mask of nothing", update(&meshv1.UpdateCheckRequest{Check: check("shop"), UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"http.expct"}}}),
				[]string{`update_mask: names "http.expct", which is not a field; the fields of http are method, headers, body, basic_auth, bearer_token, follow_redirects, ` +
					`max_redirects, ip_family, version, tls, proxy_url, body_limit, keep_alive, expect, header_lines, accepted_versions, body_bytes, body_file, form, graphql, ` +
					`compression, request_compression, fail_above_body_limit, digest_auth, oauth2, aws_sigv4, resolve_to, proxy_headers, fail_if_tls, fail_if_not_tls, traceparent, steps, send_body_to_other_hosts`}},
			{"an update that makes it invalid", update(&meshv1.UpdateCheckRequest{Check: &meshv1.Check{Name: "shop", Quorum: 9}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"quorum"}}}),
				[]string{"check.quorum: 9 is more than the 3 probers that run a check when probers is unset; set probers to 9 or more"}},
		} {
			e := want(t, c.call(), meshv1.ErrorReason_INVALID_FIELD)
			var got []string
			for _, v := range e.Violations {
				got = append(got, v.String())
			}
			if len(got) != len(c.want) {
				t.Errorf("%s: got\n%s\nwant\n%s", c.name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
				continue
			}
			for i := range got {
				if got[i] != c.want[i] && !(strings.HasSuffix(c.want[i], ": ") && strings.HasPrefix(got[i], c.want[i])) {
					t.Errorf("%s: got\n%s\nwant\n%s", c.name, got[i], c.want[i])
				}
			}
		}
		if after := w.etcd.Revision(); after != before {
			t.Errorf("revision %d became %d: something was written", before, after)
		}
	})
}

func TestAMissingCheckIsNotFound(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		for name, call := range map[string]func() error{
			"get": func() error { _, err := w.checks.GetCheck(ctx, &meshv1.GetCheckRequest{Name: "checks/x"}); return err },
			"update": func() error {
				_, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: check("x")})
				return err
			},
			"delete":  func() error { _, err := w.checks.DeleteCheck(ctx, &meshv1.DeleteCheckRequest{Name: "x"}); return err },
			"explain": func() error { _, err := w.checks.ExplainCheck(ctx, &meshv1.ExplainCheckRequest{Name: "x"}); return err },
			"status":  func() error { _, err := w.statuses.GetStatus(ctx, &meshv1.GetStatusRequest{Check: "x"}); return err },
			"run": func() error {
				s, err := w.checks.RunCheck(ctx, &meshv1.RunCheckRequest{Name: "x"})
				if err == nil {
					_, err = s.Recv()
				}
				return err
			},
		} {
			if e := want(t, call(), meshv1.ErrorReason_RESOURCE_NOT_FOUND); e.Message != "checks/x does not exist" {
				t.Errorf("%s: %q", name, e.Message)
			}
		}
		if _, err := w.checks.DeleteCheck(ctx, &meshv1.DeleteCheckRequest{Name: "x", AllowMissing: true}); err != nil {
			t.Errorf("delete with allow_missing: %v", err)
		}
	})
}

func TestOfManyUpdatesWithOneEtagExactlyOneWins(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		made := w.create(check("shop"))
		const writers = 20
		errs := make([]error, writers)
		var all sync.WaitGroup
		for i := range writers {
			all.Go(func() {
				c := proto.CloneOf(made)
				c.DisplayName = fmt.Sprintf("writer %d", i)
				_, errs[i] = w.checks.UpdateCheck(context.Background(), &meshv1.UpdateCheckRequest{Check: c})
			})
		}
		all.Wait()
		won := -1
		for i, err := range errs {
			if err == nil && won >= 0 {
				t.Errorf("writers %d and %d both won", won, i)
			}
			if err == nil {
				won = i
				continue
			}
			if e := want(t, err, meshv1.ErrorReason_ETAG_MISMATCH); e.Code != codes.Aborted {
				t.Errorf("code %s", e.Code)
			}
		}
		got, err := w.checks.GetCheck(context.Background(), &meshv1.GetCheckRequest{Name: "shop"})
		if err != nil || won < 0 || got.DisplayName != fmt.Sprintf("writer %d", won) {
			t.Errorf("winner %d, stored %q, %v", won, got.GetDisplayName(), err)
		}
	})
}

// Updates of different fields at the same time, without etags, lose nothing of each other.
func TestUpdatesOfDifferentFieldsDoNotLoseEachOther(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(check("shop"))
		var all sync.WaitGroup
		const writers = 10
		for i := range writers {
			all.Go(func() {
				key := fmt.Sprintf("k%d", i)
				_, err := w.checks.UpdateCheck(context.Background(), &meshv1.UpdateCheckRequest{
					Check:      &meshv1.Check{Name: "shop", Labels: map[string]string{key: "v"}},
					UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels." + key}},
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		got, err := w.checks.GetCheck(context.Background(), &meshv1.GetCheckRequest{Name: "shop"})
		if err != nil || len(got.Labels) != writers || got.Uri != check("shop").Uri {
			t.Errorf("got %v, %v, want %d labels and everything else as it was", got, err, writers)
		}
	})
}

func TestUpdateChangesWhatItSays(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		made := w.create(check("shop"))
		same, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: check("shop")})
		if err != nil || same.Etag != made.Etag {
			t.Errorf("an update that changes nothing wrote: etag %s became %s, %v", made.Etag, same.GetEtag(), err)
		}
		dry, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: &meshv1.Check{Name: "shop", Uri: "tcp://a.example.com:1"}, ValidateOnly: true})
		if err != nil || dry.Uri != "tcp://a.example.com:1" || dry.Interval != nil {
			t.Errorf("validate_only: %v, %v", dry, err)
		}
		if got, err := w.checks.GetCheck(ctx, &meshv1.GetCheckRequest{Name: "shop"}); err != nil || got.Etag != made.Etag {
			t.Errorf("validate_only wrote: %v, %v", got, err)
		}
		full, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: &meshv1.Check{Name: "shop", Uri: "tcp://a.example.com:1"}})
		if err != nil || full.Interval != nil || full.Etag == made.Etag || full.CreateTime.AsTime() != made.CreateTime.AsTime() {
			t.Errorf("full update: %v, %v", full, err)
		}
		born, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: check("born"), AllowMissing: true, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"quorum"}}})
		if err != nil || born.Uri != check("born").Uri {
			t.Errorf("allow_missing: %v, %v", born, err)
		}
	})
}

func TestAnEtagOfTheFormerStateAborts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		made := w.create(check("shop"))
		now, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: &meshv1.Check{Name: "shop", Uri: "tcp://a.example.com:1"}})
		if err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func() error{
			"update": func() error { _, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: made}); return err },
			"dry": func() error {
				_, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: made, ValidateOnly: true})
				return err
			},
			"delete": func() error {
				_, err := w.checks.DeleteCheck(ctx, &meshv1.DeleteCheckRequest{Name: "shop", Etag: made.Etag})
				return err
			},
		} {
			e := want(t, call(), meshv1.ErrorReason_ETAG_MISMATCH)
			if e.Code != codes.Aborted || e.Metadata["etag"] != now.Etag || e.Metadata["name"] != "checks/shop" {
				t.Errorf("%s: %+v", name, e)
			}
		}
		if _, err := w.checks.DeleteCheck(ctx, &meshv1.DeleteCheckRequest{Name: "shop", Etag: now.Etag, ValidateOnly: true}); err != nil {
			t.Error(err)
		}
		if _, err := w.checks.DeleteCheck(ctx, &meshv1.DeleteCheckRequest{Name: "shop", Etag: now.Etag}); err != nil {
			t.Error(err)
		}
		if _, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: made, AllowMissing: true}); !fault.IsReason(err, meshv1.ErrorReason_RESOURCE_NOT_FOUND) {
			t.Errorf("an etag of a deleted check: %v, want NOT_FOUND", err)
		}
	})
}

func TestARepeatedRequestChangesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		create := &meshv1.CreateCheckRequest{Check: check("shop"), RequestId: "r1"}
		first, err := w.checks.CreateCheck(ctx, create)
		if err != nil {
			t.Fatal(err)
		}
		update := &meshv1.UpdateCheckRequest{Check: &meshv1.Check{Name: "shop", Uri: "tcp://a.example.com:1"}, RequestId: "r2"}
		if _, err := w.checks.UpdateCheck(ctx, update); err != nil {
			t.Fatal(err)
		}
		last, err := w.checks.UpdateCheck(ctx, &meshv1.UpdateCheckRequest{Check: &meshv1.Check{Name: "shop", Uri: "tcp://b.example.com:1"}})
		if err != nil {
			t.Fatal(err)
		}
		for name, call := range map[string]func() (*meshv1.Check, error){
			"create": func() (*meshv1.Check, error) { return w.checks.CreateCheck(ctx, create) },
			"update": func() (*meshv1.Check, error) { return w.checks.UpdateCheck(ctx, update) },
		} {
			if again, err := call(); err != nil || again.Etag != last.Etag || again.Name != first.Name {
				t.Errorf("%s again: %v, %v, want the check as it is now, unchanged", name, again, err)
			}
		}
		_, err = w.checks.CreateCheck(ctx, &meshv1.CreateCheckRequest{Check: check("other"), RequestId: "r1"})
		want(t, err, meshv1.ErrorReason_REQUEST_ID_REUSED)
		_, err = w.receivers.CreateReceiver(ctx, &meshv1.CreateReceiverRequest{Receiver: hook("x"), RequestId: "r1"})
		want(t, err, meshv1.ErrorReason_REQUEST_ID_REUSED)
		time.Sleep(2 * time.Hour) // in a bubble: the requests are forgotten
		_, err = w.checks.CreateCheck(ctx, create)
		want(t, err, meshv1.ErrorReason_RESOURCE_EXISTS)
	})
}

// Twins of one call, sent at once by a client that lost patience, both get the check.
func TestTwinRequestsBothSucceed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		// The first request takes the lease of request records, under a mutex, which would stop the bubble's time below.
		if _, err := w.checks.CreateCheck(context.Background(), &meshv1.CreateCheckRequest{Check: check("other"), RequestId: "first"}); err != nil {
			t.Fatal(err)
		}
		w.etcd.SetDelay(10 * time.Millisecond)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if _, err := w.checks.CreateCheck(context.Background(), &meshv1.CreateCheckRequest{Check: check("shop"), RequestId: "r"}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

func TestValidateOnlyCreatesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		dry, err := w.checks.CreateCheck(ctx, &meshv1.CreateCheckRequest{Check: check("shop"), ValidateOnly: true, RequestId: "r"})
		if err != nil || dry.Name != "checks/shop" || dry.Etag != "" {
			t.Errorf("%v, %v", dry, err)
		}
		w.create(check("shop"))
		_, err = w.checks.CreateCheck(ctx, &meshv1.CreateCheckRequest{Check: check("shop"), ValidateOnly: true})
		want(t, err, meshv1.ErrorReason_RESOURCE_EXISTS)
		_, err = w.checks.CreateCheck(ctx, &meshv1.CreateCheckRequest{Check: &meshv1.Check{Name: "x"}, ValidateOnly: true})
		want(t, err, meshv1.ErrorReason_INVALID_FIELD)
	})
}

func TestALostStoreIsUnavailableAndChangesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.etcd.SetLeaderless(true)
		_, err := w.checks.CreateCheck(context.Background(), &meshv1.CreateCheckRequest{Check: check("shop")})
		if e := want(t, err, meshv1.ErrorReason_STORE_UNAVAILABLE); e.Code != codes.Unavailable || e.RetryAfter == 0 {
			t.Errorf("%+v", e)
		}
		w.etcd.SetLeaderless(false)
		w.create(check("shop"))
	})
}

func TestExplainAndRunKnowAJustCreatedCheck(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.create(check("shop"))
		e, err := w.checks.ExplainCheck(ctx, &meshv1.ExplainCheckRequest{Name: "shop"})
		if err != nil || e.GetText() != "checks/shop is UP" {
			t.Errorf("%v, %v", e, err)
		}
		stream, err := w.checks.RunCheck(ctx, &meshv1.RunCheckRequest{Name: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		var got []*meshv1.RunCheckResponse
		for {
			r, err := stream.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		if len(got) != 3 || got[0].Asked[0] != "probers/fra-1" || got[1].Result.Check != "checks/shop" {
			t.Errorf("got %v", got)
		}
		stream, err = w.checks.RunCheck(ctx, &meshv1.RunCheckRequest{Name: "shop", Probers: []string{"nowhere"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = stream.Recv(); want(t, err, meshv1.ErrorReason_RESOURCE_NOT_FOUND).Message != "probers/nowhere does not exist" {
			t.Error(err)
		}
	})
}

// A server whose watch of etcd says nothing answers what it can and says so where it cannot.
func TestALaggingServerSaysSo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		w.etcd.SetStarved(true)
		c := check("shop")
		c.Paused = true
		w.create(c)
		s, err := w.statuses.GetStatus(ctx, &meshv1.GetStatusRequest{Check: "shop"})
		if err != nil || s.Verdict != meshv1.CheckStatus_PAUSED {
			t.Errorf("%v, %v, want PAUSED", s, err)
		}
		_, err = w.checks.ExplainCheck(ctx, &meshv1.ExplainCheckRequest{Name: "shop"})
		want(t, err, meshv1.ErrorReason_STORE_UNAVAILABLE)
		w.etcd.SetStarved(false)
		if _, err := w.checks.ExplainCheck(ctx, &meshv1.ExplainCheckRequest{Name: "shop"}); err != nil {
			t.Error(err)
		}
	})
}
