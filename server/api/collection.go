package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api/fields"
)

const (
	reasonNotFound = meshv1.ErrorReason_RESOURCE_NOT_FOUND
	reasonExists   = meshv1.ErrorReason_RESOURCE_EXISTS
	reasonEtag     = meshv1.ErrorReason_ETAG_MISMATCH
)

// updateRounds is how often an update without an etag begins anew when others change the resource at the same time.
const updateRounds = 16

// resource is what users write.
type resource interface {
	proto.Message
	GetName() string
	GetEtag() string
}

// collection is what creating, changing and deleting have in common for checks and receivers.
type collection[T resource] struct {
	api        *API
	collection string // "checks"
	noun       string // "check": the field of requests that has it
	get        func(ctx context.Context, name string) (T, error)
	create     func(ctx context.Context, r T) (T, error)
	update     func(ctx context.Context, r T, etag string) (T, error)
	remove     func(ctx context.Context, name, etag string) error
	normalize  func(r T)
	rename     func(r T, name string)
	unstamp    func(r T) // clears the etag
	validate   func(r T, path string) []fault.Violation
	// related gives the faults that only the store can tell: things that the resource names and that do not exist.
	related func(ctx context.Context, r T, path string) ([]fault.Violation, error)
}

// write is a create or update as its request has it.
type write[T resource] struct {
	given        T
	missing      bool // the request has no resource
	id           string
	mask         *fieldmaskpb.FieldMask
	allowMissing bool
	requestID    string
	validateOnly bool
	digest       string
}

// prepared is the request's resource as it would be stored, a copy, and what is wrong with the request besides the fields of the resource.
func (c collection[T]) prepared(w write[T]) (T, []fault.Violation) {
	faults := requestIDFaults(w.requestID)
	if w.missing {
		var none T
		return none, append(faults, fault.Violation{Field: c.noun, Problem: fmt.Sprintf("is missing; give the %s to write", c.noun)})
	}
	r := proto.Clone(w.given).(T)
	name, more := chosenName(c.collection, c.noun, w.id, r.GetName())
	c.rename(r, name)
	c.normalize(r)
	return r, append(faults, more...)
}

// valid is nil, or an error with all the given faults and those of the resource.
func (c collection[T]) valid(ctx context.Context, r T, faults []fault.Violation) error {
	faults = append(faults, c.validate(r, c.noun)...)
	more, err := c.related(ctx, r, c.noun)
	if err != nil {
		return err
	}
	return invalidIfAny(append(faults, more...))
}

// created carries out a create.
func (c collection[T]) created(ctx context.Context, w write[T]) (T, error) {
	var none T
	r, faults := c.prepared(w)
	if w.missing {
		return none, invalidIfAny(faults)
	}
	if err := c.valid(ctx, r, faults); err != nil {
		return none, err
	}
	if done, again, err := c.answered(ctx, w); again || err != nil {
		return done, err
	}
	return c.createValid(ctx, w, r)
}

func (c collection[T]) createValid(ctx context.Context, w write[T], r T) (T, error) {
	var none T
	if w.validateOnly {
		if _, err := c.get(ctx, r.GetName()); !isNotFound(err) {
			if err == nil {
				err = fault.Exists(r.GetName())
			}
			return none, err
		}
		c.unstamp(r)
		return r, nil
	}
	stored, err := c.create(ctx, r)
	if w.requestID != "" && fault.IsReason(err, reasonExists) {
		// This may be the repetition of a call that wrote and could not say so any more. Then what is stored is what is wished.
		if held, getErr := c.get(ctx, r.GetName()); getErr == nil && len(fields.Diff(held, r)) == 0 {
			stored, err = held, nil
		}
	}
	if err != nil {
		return none, err
	}
	c.remember(ctx, w, r.GetName())
	return stored, nil
}

// updated carries out an update.
func (c collection[T]) updated(ctx context.Context, w write[T]) (T, error) {
	var none T
	r, faults := c.prepared(w)
	if w.missing {
		return none, invalidIfAny(faults)
	}
	name := r.GetName()
	if _, err := named(c.collection, c.noun+".name", name); err != nil {
		invalid, _ := fault.From(err)
		faults = append(faults, invalid.Violations...)
	}
	if faults = append(faults, fields.Check(r, w.mask)...); len(faults) > 0 {
		return none, invalidIfAny(faults)
	}
	if done, again, err := c.answered(ctx, w); again || err != nil {
		return done, err
	}
	for range updateRounds {
		stored, err := c.updateOnce(ctx, w, name, r)
		if w.given.GetEtag() == "" && (fault.IsReason(err, reasonEtag) || (w.allowMissing && fault.IsReason(err, reasonExists))) {
			continue // somebody else was faster, and the caller has not asked for any particular state
		}
		return stored, err
	}
	return none, fault.New(codes.Aborted, reasonEtag, name, "%s is being changed by many at once; nothing was changed, try again", name)
}

// updateOnce reads the resource, merges, and writes it if nobody was faster.
func (c collection[T]) updateOnce(ctx context.Context, w write[T], name string, r T) (T, error) {
	var none T
	held, err := c.get(ctx, name)
	switch {
	case isNotFound(err) && w.allowMissing && w.given.GetEtag() == "":
		if err := c.valid(ctx, r, nil); err != nil {
			return none, err
		}
		return c.createValid(ctx, w, r)
	case err != nil:
		return none, err
	}
	merged := fields.Merge(held, r, w.mask)
	if err := c.valid(ctx, merged, nil); err != nil {
		if e, ok := fault.From(err); ok && len(e.Violations) > 0 {
			return none, invalidIfAny(storedBefore(c.validate(held, c.noun), e.Violations, name))
		}
		return none, err
	}
	same := len(fields.Diff(held, merged)) == 0
	if etag := w.given.GetEtag(); etag != "" && etag != held.GetEtag() && !(same && w.requestID != "") {
		return none, fault.EtagMismatch(name, held.GetEtag())
	}
	if w.validateOnly {
		return merged, nil
	}
	stored := held
	if !same {
		if stored, err = c.update(ctx, merged, held.GetEtag()); err != nil {
			return none, err
		}
	}
	c.remember(ctx, w, name)
	return stored, nil
}

// storedBefore has those of the faults of a resource that it had when it was stored, by a version with fewer rules, say so, and how they are mended although the request is about something
// else.
func storedBefore(held, faults []fault.Violation, name string) []fault.Violation {
	for i, v := range faults {
		if slices.Contains(held, v) {
			_, path, _ := strings.Cut(v.Field, ".")
			field, _, _ := strings.Cut(path, "[")
			faults[i].Problem += fmt.Sprintf(" (%s was stored with it by an earlier version, and is run; any update must mend it: give %s as it should be in the same request, with %q in update_mask if there is one)", name, field, field)
		}
	}
	return faults
}

// deleted carries out a delete. use, if not nil, says why the resource cannot go.
func (c collection[T]) deleted(ctx context.Context, given, etag string, allowMissing, validateOnly bool, use func(name string) error) error {
	name, err := named(c.collection, "name", given)
	if err != nil {
		return err
	}
	held, err := c.get(ctx, name)
	if isNotFound(err) && allowMissing {
		return nil
	}
	if err != nil {
		return err
	}
	if etag != "" && etag != held.GetEtag() {
		return fault.EtagMismatch(name, held.GetEtag())
	}
	if use != nil {
		if err := use(name); err != nil {
			return err
		}
	}
	if validateOnly {
		return nil
	}
	err = c.remove(ctx, name, etag)
	if isNotFound(err) && allowMissing {
		return nil
	}
	return err
}
