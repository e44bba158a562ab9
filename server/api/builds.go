package api

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/rollout"
	"github.com/probemesh/probemesh/server/api/filter"
	"github.com/probemesh/probemesh/server/store"
)

func buildKeys() []filter.Key {
	return []filter.Key{{Name: "name", Collection: spec.Builds}, {Name: "build"}, {Name: "stage", Values: enumNames(meshv1.Build_Stage_name)}}
}

func buildValues(b *meshv1.Build) func(string) []string {
	return func(key string) []string {
		switch key {
		case "name":
			return []string{b.GetName()}
		case "build":
			return []string{b.GetBuild()}
		}
		return []string{b.GetStage().String()}
	}
}

type buildService struct {
	meshv1.UnimplementedBuildServiceServer
	api *API
}

// GetBuild returns one build.
func (s buildService) GetBuild(ctx context.Context, req *meshv1.GetBuildRequest) (*meshv1.Build, error) {
	name, err := named(spec.Builds, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	return recalled(s.api.recall(ctx), func(ctx context.Context) (*meshv1.Build, error) {
		v, err := s.api.store.GetBuild(ctx, name)
		if err != nil {
			return nil, err
		}
		return s.shown(v), nil
	}, func() (*meshv1.Build, bool) { return s.api.mesh.Build(name) })
}

// ListBuilds returns a page of builds.
func (s buildService) ListBuilds(ctx context.Context, req *meshv1.ListBuildsRequest) (*meshv1.ListBuildsResponse, error) {
	f, cursor, err := listing{"ListBuilds", req.GetFilter(), buildKeys(), req.GetPageToken(), req.GetPageSize()}.read()
	if err != nil {
		return nil, err
	}
	all, err := recalled(s.api.recall(ctx), s.stored, func() ([]*meshv1.Build, bool) { return s.api.mesh.Builds(), true })
	if err != nil {
		return nil, err
	}
	found, next, err := collect(cursor, !f.Empty(), inMemory(all), func(b *meshv1.Build) bool { return f.Match(buildValues(b)) })
	if err != nil {
		return nil, err
	}
	return &meshv1.ListBuildsResponse{Builds: found, NextPageToken: next}, nil
}

func (s buildService) stored(ctx context.Context) ([]*meshv1.Build, error) {
	list, _, err := s.api.store.ListBuilds(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]*meshv1.Build, len(list))
	for i, v := range list {
		all[i] = s.shown(v)
	}
	return all, nil
}

// shown is a build as it is stored, with what the mesh knows of it: who runs it, and what it has seen in the present stage.
func (s buildService) shown(v store.Versioned[*meshv1.Build]) *meshv1.Build {
	b := v.Value
	m, ok := s.api.mesh.Build(b.GetName())
	if !ok {
		return b
	}
	b.Probers, b.Incident = m.GetProbers(), m.GetIncident()
	if m.GetStage() == b.GetStage() {
		b.Canaries, b.WaitsFor, b.Comparisons, b.Dissents, b.DissentsByKind = m.GetCanaries(), m.GetWaitsFor(), m.GetComparisons(), m.GetDissents(), m.GetDissentsByKind()
	}
	return b
}

// ApproveBuild settles a build.
func (s buildService) ApproveBuild(ctx context.Context, req *meshv1.ApproveBuildRequest) (*meshv1.Build, error) {
	return s.decide(ctx, req, meshv1.Build_SETTLED, "approved")
}

// HaltBuild halts a build.
func (s buildService) HaltBuild(ctx context.Context, req *meshv1.HaltBuildRequest) (*meshv1.Build, error) {
	return s.decide(ctx, req, meshv1.Build_HALTED, "halted")
}

// decision is what somebody decides about a build.
type decision interface {
	GetName() string
	GetBy() string
	GetReason() string
	GetEtag() string
}

func (s buildService) decide(ctx context.Context, req decision, stage meshv1.Build_Stage, verb string) (*meshv1.Build, error) {
	name, err := named(spec.Builds, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	if err := invalidIfAny(decisionFaults(req)); err != nil {
		return nil, err
	}
	for range updateRounds {
		v, err := s.api.store.GetBuild(ctx, name)
		if err != nil {
			return nil, err
		}
		if req.GetEtag() != "" && req.GetEtag() != v.Value.GetEtag() {
			return nil, fault.EtagMismatch(name, v.Value.GetEtag())
		}
		if v.Value.GetStage() == stage {
			return s.shown(v), nil
		}
		if stage == meshv1.Build_HALTED {
			if err := s.mayHalt(ctx, v.Value); err != nil {
				return nil, err
			}
		}
		shown := s.shown(store.Versioned[*meshv1.Build]{Value: proto.CloneOf(v.Value)})
		b := v.Value
		b.Stage, b.StageTime, b.By, b.Reason = stage, timestamppb.New(time.Now()), orWord(req.GetBy(), "somebody"), req.GetReason()
		b.Comparisons, b.Dissents, b.DissentsByKind = shown.GetComparisons(), shown.GetDissents(), shown.GetDissentsByKind()
		if b.Reason == "" {
			b.Reason = fmt.Sprintf("%s by %s", verb, b.By)
		}
		rev, err := s.api.store.PutBuild(ctx, b, v.ModRevision)
		if err == nil {
			b.Etag = fmt.Sprint(rev)
			s.api.log.Info("build decided by hand", "build", b.GetBuild(), "stage", stage.String(), "by", b.By, "reason", b.Reason, "revision", rev)
			return s.shown(store.Versioned[*meshv1.Build]{Value: b, ModRevision: rev}), nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
	}
	return nil, fault.New(codes.Aborted, reasonEtag, name, "%s is being changed by many at once; nothing was changed, try again", name)
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

func decisionFaults(d decision) (faults []fault.Violation) {
	for _, x := range []struct {
		field, value string
		most         int
	}{{"by", d.GetBy(), 100}, {"reason", d.GetReason(), 1000}} {
		if n := utf8.RuneCountInString(x.value); n > x.most {
			faults = append(faults, fault.Violation{Field: x.field, Problem: fmt.Sprintf("has %d characters; at most %d are allowed", n, x.most)})
		}
	}
	return faults
}

// mayHalt refuses to halt the only settled build that somebody runs: nothing would be known of any check.
func (s buildService) mayHalt(ctx context.Context, b *meshv1.Build) error {
	if b.GetStage() != meshv1.Build_SETTLED {
		return nil
	}
	all, err := s.stored(ctx)
	if err != nil {
		return err
	}
	for _, o := range all {
		if o.GetName() != b.GetName() && o.GetStage() == meshv1.Build_SETTLED && len(o.GetProbers()) > 0 {
			return nil
		}
	}
	return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_STATE_CONFLICT, b.GetName(),
		"%s is the only settled build that probers run: without its votes nothing would be known of any check; start probers with another settled build first", b.GetName())
}

// GetBuildPolicy returns how builds are tried.
func (s buildService) GetBuildPolicy(ctx context.Context, _ *meshv1.GetBuildPolicyRequest) (*meshv1.BuildPolicy, error) {
	v, err := s.api.store.GetBuildPolicy(ctx)
	if err != nil {
		return nil, err
	}
	return effectivePolicy(v.Value), nil
}

// effectivePolicy is the policy with its defaults filled in.
func effectivePolicy(p *meshv1.BuildPolicy) *meshv1.BuildPolicy {
	d, out := rollout.Policy{}.WithDefaults(), proto.CloneOf(p)
	out.Name = store.BuildPolicyName
	if out.ShadowTime == nil {
		out.ShadowTime = durationpb.New(d.ShadowTime)
	}
	if out.CanaryTime == nil {
		out.CanaryTime = durationpb.New(d.CanaryTime)
	}
	if out.ShadowComparisons == 0 {
		out.ShadowComparisons = int32(d.ShadowComparisons)
	}
	if out.CanaryComparisons == 0 {
		out.CanaryComparisons = int32(d.CanaryComparisons)
	}
	if out.CanaryPercent == 0 {
		out.CanaryPercent = int32(d.CanaryPercent)
	}
	return out
}

// UpdateBuildPolicy replaces how builds are tried.
func (s buildService) UpdateBuildPolicy(ctx context.Context, req *meshv1.UpdateBuildPolicyRequest) (*meshv1.BuildPolicy, error) {
	p := req.GetPolicy()
	if p == nil {
		return nil, fault.Invalid(fault.Violation{Field: "policy", Problem: "is missing; give a policy, an empty one for the defaults"})
	}
	if err := invalidIfAny(spec.BuildPolicyFaults("policy", p)); err != nil {
		return nil, err
	}
	for range updateRounds {
		v, err := s.api.store.GetBuildPolicy(ctx)
		if err != nil {
			return nil, err
		}
		if p.GetEtag() != "" && p.GetEtag() != v.Value.GetEtag() {
			return nil, fault.EtagMismatch(store.BuildPolicyName, v.Value.GetEtag())
		}
		rev, err := s.api.store.PutBuildPolicy(ctx, p, v.ModRevision)
		if err == nil {
			out := effectivePolicy(p)
			out.Etag = fmt.Sprint(rev)
			return out, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, err
		}
	}
	return nil, fault.New(codes.Aborted, reasonEtag, store.BuildPolicyName, "%s is being changed by many at once; nothing was changed, try again", store.BuildPolicyName)
}
