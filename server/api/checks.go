package api

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api/filter"
)

// checkKeys are what checks and their statuses are filtered by.
func checkKeys() []filter.Key {
	return []filter.Key{
		{Name: "labels."},
		{Name: "verdict", Values: enumNames(meshv1.CheckStatus_Verdict_name)},
		{Name: "kind", Values: []string{string(spec.HTTP), string(spec.TCP), string(spec.TLS), string(spec.DNS), string(spec.ICMP), string(spec.GRPC), string(spec.UDP), string(spec.WEBSOCKET)}},
		{Name: "receiver", Collection: spec.Receivers},
		{Name: "name", Collection: spec.Checks},
	}
}

// checkValues is what a check has under the keys of checkKeys. verdict is asked for only when a filter needs it.
func checkValues(c *meshv1.Check, verdict func() meshv1.CheckStatus_Verdict) func(string) []string {
	return func(key string) []string {
		switch key {
		case "verdict":
			return []string{verdict().String()}
		case "kind":
			if kind, err := spec.KindOf(c.GetUri()); err == nil {
				return []string{string(kind)}
			}
			return nil
		case "receiver":
			return c.GetReceivers()
		case "name":
			return []string{c.GetName()}
		}
		return labelValue(c.GetLabels(), key)
	}
}

// labelValue is what is there under a key `labels.<key>`.
func labelValue(labels map[string]string, key string) []string {
	if value, ok := labels[key[len("labels."):]]; ok {
		return []string{value}
	}
	return nil
}

func checkCollection(a *API) collection[*meshv1.Check] {
	return collection[*meshv1.Check]{
		api: a, collection: spec.Checks, noun: "check",
		get: a.store.GetCheck, create: a.store.CreateCheck, update: a.store.UpdateCheck, remove: a.store.DeleteCheck,
		normalize: spec.Normalize, validate: spec.ValidateCheck, related: a.receiversExist,
		rename:  func(c *meshv1.Check, name string) { c.Name = name },
		unstamp: func(c *meshv1.Check) { c.Etag = "" },
	}
}

// receiversExist gives a fault for each receiver that a check names and that does not exist. Malformed names are found by validation.
func (a *API) receiversExist(ctx context.Context, c *meshv1.Check, path string) ([]fault.Violation, error) {
	var faults []fault.Violation
	for i, name := range c.GetReceivers() {
		if _, err := spec.ParseName(spec.Receivers, name); err != nil {
			continue
		}
		switch _, err := a.store.GetReceiver(ctx, name); {
		case isNotFound(err):
			faults = append(faults, fault.Violation{Field: fmt.Sprintf("%s.receivers[%d]", path, i), Problem: name + " does not exist" + meant(name, nil, a.followedReceivers()) + "; create it first"})
		case err != nil:
			return nil, err
		}
	}
	return faults, nil
}

// followedReceivers are the receivers that the mesh follows, by name.
func (a *API) followedReceivers() map[string]*meshv1.Receiver {
	receivers := map[string]*meshv1.Receiver{}
	for _, r := range a.mesh.Receivers() {
		receivers[r.GetName()] = r
	}
	return receivers
}

// checkService serves CheckService; Apply is in apply.go.
type checkService struct {
	meshv1.UnimplementedCheckServiceServer
	api *API
}

// GetCheck returns one check with its status.
func (s checkService) GetCheck(ctx context.Context, req *meshv1.GetCheckRequest) (*meshv1.Check, error) {
	name, err := named(spec.Checks, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	return s.shown(s.api.check(ctx, name))
}

// check gives a check as the store has it; as the mesh follows it, while etcd does not answer.
func (a *API) check(ctx context.Context, name string) (*meshv1.Check, error) {
	return recalled(a.recall(ctx), func(ctx context.Context) (*meshv1.Check, error) { return a.store.GetCheck(ctx, name) },
		func() (*meshv1.Check, bool) { return a.mesh.Check(name) })
}

// shown fills in the status of a check that is about to be returned.
func (s checkService) shown(c *meshv1.Check, err error) (*meshv1.Check, error) {
	if err != nil {
		return nil, err
	}
	c.Status = s.api.statusOf(c)
	c.Status.Votes = nil
	return c, nil
}

// ListChecks returns a page of checks.
func (s checkService) ListChecks(ctx context.Context, req *meshv1.ListChecksRequest) (*meshv1.ListChecksResponse, error) {
	f, cursor, err := listing{"ListChecks", req.GetFilter(), checkKeys(), req.GetPageToken(), req.GetPageSize()}.read()
	if err != nil {
		return nil, err
	}
	memory := s.api.recall(ctx)
	from := func(after string, limit int) ([]*meshv1.Check, string, error) {
		batch, err := recalled(memory, func(ctx context.Context) ([]*meshv1.Check, error) {
			batch, _, err := s.api.store.ListChecks(ctx, after, limit)
			return batch, err
		}, func() ([]*meshv1.Check, bool) { return s.api.checksAfter(after, limit), true })
		return batch, nextAfter(batch, len(batch) == limit), err
	}
	keep := func(c *meshv1.Check) bool {
		return f.Match(checkValues(c, func() meshv1.CheckStatus_Verdict { return s.api.statusOf(c).GetVerdict() }))
	}
	found, next, err := collect(cursor, !f.Empty(), from, keep)
	if err != nil {
		return nil, err
	}
	for _, c := range found {
		if _, err := s.shown(c, nil); err != nil {
			return nil, err
		}
	}
	return &meshv1.ListChecksResponse{Checks: found, NextPageToken: next}, nil
}

// CreateCheck creates a check.
func (s checkService) CreateCheck(ctx context.Context, req *meshv1.CreateCheckRequest) (*meshv1.Check, error) {
	return s.shown(s.api.checks.created(ctx, write[*meshv1.Check]{
		given: req.GetCheck(), missing: req.GetCheck() == nil, id: req.GetCheckId(),
		requestID: req.GetRequestId(), validateOnly: req.GetValidateOnly(), digest: digestOf(req),
	}))
}

// UpdateCheck changes a check. What is already as wished is not written again, so that nothing is probed anew without need.
func (s checkService) UpdateCheck(ctx context.Context, req *meshv1.UpdateCheckRequest) (*meshv1.Check, error) {
	return s.shown(s.api.checks.updated(ctx, write[*meshv1.Check]{
		given: req.GetCheck(), missing: req.GetCheck() == nil, mask: req.GetUpdateMask(), allowMissing: req.GetAllowMissing(),
		requestID: req.GetRequestId(), validateOnly: req.GetValidateOnly(), digest: digestOf(req),
	}))
}

// DeleteCheck deletes a check.
func (s checkService) DeleteCheck(ctx context.Context, req *meshv1.DeleteCheckRequest) (*emptypb.Empty, error) {
	err := s.api.checks.deleted(ctx, req.GetName(), req.GetEtag(), req.GetAllowMissing(), req.GetValidateOnly(), nil)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// RunCheck runs a check at once and streams the results.
func (s checkService) RunCheck(req *meshv1.RunCheckRequest, stream grpc.ServerStreamingServer[meshv1.RunCheckResponse]) error {
	name, err := named(spec.Checks, "name", req.GetName())
	if err != nil {
		return err
	}
	probers := make([]string, len(req.GetProbers()))
	for i, p := range req.GetProbers() {
		if probers[i], err = named(spec.Probers, fmt.Sprintf("probers[%d]", i), p); err != nil {
			return err
		}
		if _, ok := s.api.mesh.Prober(probers[i]); !ok {
			return fault.NotFound(probers[i])
		}
	}
	if err := s.api.known(stream.Context(), name); err != nil {
		return err
	}
	return s.api.mesh.Run(stream.Context(), name, probers, stream.Send)
}

// ExplainCheck explains a verdict.
func (s checkService) ExplainCheck(ctx context.Context, req *meshv1.ExplainCheckRequest) (*meshv1.ExplainCheckResponse, error) {
	name, err := named(spec.Checks, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	if err := s.api.known(ctx, name); err != nil {
		return nil, err
	}
	if e, ok := s.api.mesh.Explain(name); ok {
		return e, nil
	}
	return nil, fault.NotFound(name) // deleted since
}

// known waits, for as long as a watch of the store may lag, until the mesh follows a check that the store has. It fails with NOT_FOUND when the
// store does not have it.
func (a *API) known(ctx context.Context, name string) error {
	if _, ok := a.mesh.Check(name); ok {
		return nil
	}
	if _, err := a.store.GetCheck(ctx, name); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, lagMax)
	defer cancel()
	changes := a.mesh.SubscribeStatuses()
	defer changes.Close()
	for {
		if _, ok := a.mesh.Check(name); ok {
			return nil
		}
		if _, err := changes.Next(wait); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.New(codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, name,
		"%s exists, but this server has not heard of it within %s: its watch of etcd lags; ask again, or ask another server", name, lagMax).Retry(lagMax)
}
