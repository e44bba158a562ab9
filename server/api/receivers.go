package api

import (
	"context"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api/filter"
)

// usersNamed is how many of the checks that need a receiver are named when it cannot be deleted.
const usersNamed = 5

func receiverCollection(a *API) collection[*meshv1.Receiver] {
	return collection[*meshv1.Receiver]{
		api: a, collection: spec.Receivers, noun: "receiver",
		get: a.store.GetReceiver, create: a.store.CreateReceiver, update: a.store.UpdateReceiver, remove: a.store.DeleteReceiver,
		normalize: spec.NormalizeReceiver, validate: spec.ValidateReceiver,
		rename:  func(r *meshv1.Receiver, name string) { r.Name = name },
		unstamp: func(r *meshv1.Receiver) { r.Etag = "" },
		related: func(context.Context, *meshv1.Receiver, string) ([]fault.Violation, error) { return nil, nil },
	}
}

type receiverService struct {
	meshv1.UnimplementedReceiverServiceServer
	api *API
}

// shown fills in what is owed to receivers that are about to be returned.
func (s receiverService) shown(ctx context.Context, receivers ...*meshv1.Receiver) error {
	unknown := false
	d, err := recalled(s.api.recall(ctx), s.api.deliveries, func() (*deliveries, bool) {
		unknown = true
		return nil, true
	})
	if err != nil {
		return err
	}
	if unknown {
		for _, r := range receivers {
			r.DeliveryUnknown = true
			r.LastError = "not known: what is owed and what was sent is recorded in etcd, which does not answer"
		}
		return nil
	}
	for _, r := range receivers {
		d.fill(r)
	}
	return nil
}

func (s receiverService) one(ctx context.Context, r *meshv1.Receiver, err error) (*meshv1.Receiver, error) {
	if err != nil {
		return nil, err
	}
	return r, s.shown(ctx, r)
}

// GetReceiver returns one receiver.
func (s receiverService) GetReceiver(ctx context.Context, req *meshv1.GetReceiverRequest) (*meshv1.Receiver, error) {
	name, err := named(spec.Receivers, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	r, err := recalled(s.api.recall(ctx), func(ctx context.Context) (*meshv1.Receiver, error) { return s.api.store.GetReceiver(ctx, name) },
		func() (*meshv1.Receiver, bool) { return s.api.receiver(name) })
	return s.one(ctx, r, err)
}

// ListReceivers returns a page of receivers.
func (s receiverService) ListReceivers(ctx context.Context, req *meshv1.ListReceiversRequest) (*meshv1.ListReceiversResponse, error) {
	keys := []filter.Key{{Name: "name", Collection: spec.Receivers}}
	f, cursor, err := listing{"ListReceivers", req.GetFilter(), keys, req.GetPageToken(), req.GetPageSize()}.read()
	if err != nil {
		return nil, err
	}
	memory := s.api.recall(ctx)
	from := func(after string, limit int) ([]*meshv1.Receiver, string, error) {
		batch, err := recalled(memory, func(ctx context.Context) ([]*meshv1.Receiver, error) {
			batch, _, err := s.api.store.ListReceivers(ctx, after, limit)
			return batch, err
		}, func() ([]*meshv1.Receiver, bool) { return s.api.receiversAfter(after, limit), true })
		return batch, nextAfter(batch, len(batch) == limit), err
	}
	keep := func(r *meshv1.Receiver) bool { return f.Match(func(string) []string { return []string{r.GetName()} }) }
	found, next, err := collect(cursor, !f.Empty(), from, keep)
	if err != nil {
		return nil, err
	}
	return &meshv1.ListReceiversResponse{Receivers: found, NextPageToken: next}, s.shown(ctx, found...)
}

// CreateReceiver creates a receiver.
func (s receiverService) CreateReceiver(ctx context.Context, req *meshv1.CreateReceiverRequest) (*meshv1.Receiver, error) {
	r, err := s.api.receivers.created(ctx, write[*meshv1.Receiver]{
		given: req.GetReceiver(), missing: req.GetReceiver() == nil, id: req.GetReceiverId(),
		requestID: req.GetRequestId(), validateOnly: req.GetValidateOnly(), digest: digestOf(req),
	})
	return s.one(ctx, r, err)
}

// UpdateReceiver changes a receiver.
func (s receiverService) UpdateReceiver(ctx context.Context, req *meshv1.UpdateReceiverRequest) (*meshv1.Receiver, error) {
	r, err := s.api.receivers.updated(ctx, write[*meshv1.Receiver]{
		given: req.GetReceiver(), missing: req.GetReceiver() == nil, mask: req.GetUpdateMask(), allowMissing: req.GetAllowMissing(),
		requestID: req.GetRequestId(), validateOnly: req.GetValidateOnly(), digest: digestOf(req),
	})
	return s.one(ctx, r, err)
}

// DeleteReceiver deletes a receiver that no check names. A check that comes to name it in the same moment keeps the name; what would be sent to it
// is then dropped and recorded in the incident.
func (s receiverService) DeleteReceiver(ctx context.Context, req *meshv1.DeleteReceiverRequest) (*emptypb.Empty, error) {
	unused := func(name string) error { return s.api.unused(ctx, name) }
	if err := s.api.receivers.deleted(ctx, req.GetName(), req.GetEtag(), req.GetAllowMissing(), false, unused); err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

// unused is nil when no check names the receiver; else the error names the first of them.
func (a *API) unused(ctx context.Context, receiver string) error {
	var users []string
	for after := ""; len(users) <= usersNamed; {
		batch, _, err := a.store.ListChecks(ctx, after, scanBatch)
		if err != nil {
			return err
		}
		for _, c := range batch {
			for _, r := range c.GetReceivers() {
				if r == receiver {
					users = append(users, c.GetName())
				}
			}
		}
		if after = nextAfter(batch, len(batch) == scanBatch); after == "" {
			break
		}
	}
	if len(users) == 0 {
		return nil
	}
	list, theirs := strings.Join(users[:min(len(users), usersNamed)], ", "), "their"
	if len(users) == 1 {
		theirs = "its"
	}
	if len(users) > usersNamed {
		list += " and more"
	}
	return fault.New(codes.FailedPrecondition, meshv1.ErrorReason_RESOURCE_IN_USE, receiver,
		"%s is named by %s; take it out of %s receivers first", receiver, list, theirs).With("used_by", list)
}

// TestReceiver sends one test notification.
func (s receiverService) TestReceiver(ctx context.Context, req *meshv1.TestReceiverRequest) (*meshv1.TestReceiverResponse, error) {
	name, err := named(spec.Receivers, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	r, err := s.api.store.GetReceiver(ctx, name)
	if err != nil {
		return nil, err
	}
	return s.api.test(ctx, r), nil
}
