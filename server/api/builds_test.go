package api

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func (w *world) builds() meshv1.BuildServiceClient { return meshv1.NewBuildServiceClient(w.conn) }

// putBuild stores a build and has the mesh know it, with a prober that runs it.
func (w *world) putBuild(build string, stage meshv1.Build_Stage) {
	w.t.Helper()
	b := &meshv1.Build{Name: "builds/" + build, Build: build, Stage: stage}
	if _, err := w.store.PutBuild(w.t.Context(), b, 0); err != nil {
		w.t.Fatal(err)
	}
	b.Probers, b.Comparisons, b.Dissents, b.WaitsFor = []string{"probers/" + "p-" + strings.ReplaceAll(build, ".", "-")}, 70, 2, "30 comparisons more"
	w.mesh.mu.Lock()
	defer w.mesh.mu.Unlock()
	if w.mesh.builds == nil {
		w.mesh.builds = map[string]*meshv1.Build{}
	}
	w.mesh.builds[b.Name] = b
}

func TestBuildsAreListedApprovedAndHalted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.putBuild("1.0", meshv1.Build_SETTLED)
		w.putBuild("2.0+dirty", meshv1.Build_SHADOW)
		list, err := w.builds().ListBuilds(t.Context(), &meshv1.ListBuildsRequest{Filter: "stage = SHADOW"})
		if err != nil || len(list.GetBuilds()) != 1 || list.GetBuilds()[0].GetComparisons() != 70 || list.GetBuilds()[0].GetWaitsFor() == "" || len(list.GetBuilds()[0].GetProbers()) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		_, err = w.builds().HaltBuild(t.Context(), &meshv1.HaltBuildRequest{Name: "builds/1.0"})
		if !fault.IsReason(err, meshv1.ErrorReason_STATE_CONFLICT) {
			t.Fatalf("the only settled build was halted, or it was refused with %v", err)
		}
		_, err = w.builds().ApproveBuild(t.Context(), &meshv1.ApproveBuildRequest{Name: "builds/2.0+dirty", Etag: "1"})
		if !fault.IsReason(err, meshv1.ErrorReason_ETAG_MISMATCH) {
			t.Fatalf("a stale etag was taken, or refused with %v", err)
		}
		b, err := w.builds().ApproveBuild(t.Context(), &meshv1.ApproveBuildRequest{Name: "builds/2.0+dirty", By: "ann"})
		if err != nil || b.GetStage() != meshv1.Build_SETTLED || b.GetBy() != "ann" || b.GetReason() != "approved by ann" || b.GetComparisons() != 70 {
			t.Fatalf("%v, %v", b, err)
		}
		again, err := w.builds().ApproveBuild(t.Context(), &meshv1.ApproveBuildRequest{Name: "builds/2.0+dirty", By: "bob"})
		if err != nil || again.GetEtag() != b.GetEtag() {
			t.Fatalf("approving it twice changed it: %v, %v", again, err)
		}
		b, err = w.builds().HaltBuild(t.Context(), &meshv1.HaltBuildRequest{Name: "builds/1.0", By: "ann", Reason: "old"})
		if err != nil || b.GetStage() != meshv1.Build_HALTED || b.GetReason() != "old" {
			t.Fatalf("%v, %v", b, err)
		}
		if _, err := w.builds().GetBuild(t.Context(), &meshv1.GetBuildRequest{Name: "builds/3.0"}); !fault.IsReason(err, meshv1.ErrorReason_RESOURCE_NOT_FOUND) {
			t.Fatal(err)
		}
		if _, err := w.builds().HaltBuild(t.Context(), &meshv1.HaltBuildRequest{Name: "builds/1.0", By: strings.Repeat("x", 101)}); !fault.IsReason(err, meshv1.ErrorReason_INVALID_FIELD) {
			t.Fatal(err)
		}
	})
}

func TestPolicyOfBuildsHasDefaultsAndBounds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		p, err := w.builds().GetBuildPolicy(t.Context(), &meshv1.GetBuildPolicyRequest{})
		if err != nil || p.GetShadowTime().AsDuration() != 10*time.Minute || p.GetCanaryPercent() != 20 || p.GetEtag() != "" {
			t.Fatalf("%v, %v", p, err)
		}
		_, err = w.builds().UpdateBuildPolicy(t.Context(), &meshv1.UpdateBuildPolicyRequest{Policy: &meshv1.BuildPolicy{CanaryPercent: 51, ShadowTime: durationpb.New(-time.Second)}})
		if e, ok := fault.From(err); !ok || len(e.Violations) != 2 {
			t.Fatalf("%v", err)
		}
		set, err := w.builds().UpdateBuildPolicy(t.Context(), &meshv1.UpdateBuildPolicyRequest{Policy: &meshv1.BuildPolicy{Manual: true}})
		if err != nil || !set.GetManual() || set.GetEtag() == "" {
			t.Fatalf("%v, %v", set, err)
		}
		read, err := w.builds().GetBuildPolicy(t.Context(), &meshv1.GetBuildPolicyRequest{})
		if err != nil || !read.GetManual() || read.GetEtag() != set.GetEtag() || read.GetCanaryComparisons() != 100 {
			t.Fatalf("%v, %v", read, err)
		}
		if _, err := w.builds().UpdateBuildPolicy(t.Context(), &meshv1.UpdateBuildPolicyRequest{Policy: &meshv1.BuildPolicy{Etag: "1"}}); !fault.IsReason(err, meshv1.ErrorReason_ETAG_MISMATCH) {
			t.Fatal(err)
		}
	})
}
