package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

const (
	// applyRounds is how often a plan is made: once, and three times again when others change what it rests on.
	applyRounds = 4
	// readAllAbove is how many wished checks make reading all stored ones cheaper than reading each.
	readAllAbove = 50
)

// Apply makes checks and receivers be as wished. The plan that is returned compares with what was stored before the call.
func (s checkService) Apply(ctx context.Context, req *meshv1.ApplyRequest) (*meshv1.ApplyResponse, error) {
	w, faults := wishOf(req)
	if len(faults) > 0 {
		return nil, listed(append(faults, s.api.danglingToo(ctx, w)...))
	}
	digest := ""
	if req.GetRequestId() != "" && !req.GetValidateOnly() {
		digest = digestOf(req)
		switch _, found, err := s.api.store.LookupRequest(ctx, req.GetRequestId(), digest); {
		case err != nil:
			return nil, err
		case found:
			return &meshv1.ApplyResponse{Changes: unchanged(w), Warnings: s.api.doubts(w)}, nil
		}
	}
	changes, err := s.api.apply(ctx, w, req.GetValidateOnly())
	if err != nil {
		return nil, err
	}
	if digest != "" {
		s.api.remember(ctx, req.GetRequestId(), digest, "")
	}
	return &meshv1.ApplyResponse{Changes: changes, Warnings: s.api.doubts(w)}, nil
}

// danglingToo gives the faults of a request that has others, so that all of them come at once; none when the store cannot be asked.
func (a *API) danglingToo(ctx context.Context, w wish) []fault.Violation {
	ctx, cancel := context.WithTimeout(ctx, storeMoment)
	defer cancel()
	receivers, err := a.heldReceivers(ctx)
	if err != nil {
		return nil
	}
	return dangling(w, held{receivers: receivers})
}

// doubts are what is valid in a wish and most likely not meant so; none before this server knows who is enrolled.
func (a *API) doubts(w wish) []*meshv1.ApplyWarning {
	if !slices.ContainsFunc(w.checks, func(c *meshv1.Check) bool { return len(c.GetDatacenters()) > 0 }) {
		return nil
	}
	enrolled, known := a.inhabited()
	if !known {
		return nil
	}
	var list []*meshv1.ApplyWarning
	for i, c := range w.checks {
		for _, v := range spec.EmptyDatacenters(c, fmt.Sprintf("checks[%d]", i), enrolled) {
			if len(list) < faultsMax {
				list = append(list, &meshv1.ApplyWarning{Field: v.Field, Problem: v.Problem})
			}
		}
	}
	return list
}

// inhabited are the datacenters in which probers are enrolled, sorted; false before this server has read etcd.
func (a *API) inhabited() ([]string, bool) {
	if a.mesh.Server().Revision == 0 {
		return nil, false
	}
	var list []string
	for _, p := range a.mesh.Probers() {
		list = append(list, p.GetDatacenter())
	}
	slices.Sort(list)
	return slices.Compact(list), true
}

// heldReceivers are all receivers that the store has, by name.
func (a *API) heldReceivers(ctx context.Context) (map[string]*meshv1.Receiver, error) {
	list, _, err := a.store.ListReceivers(ctx, "", 0)
	if err != nil {
		return nil, err
	}
	receivers := make(map[string]*meshv1.Receiver, len(list))
	for _, r := range list {
		receivers[r.GetName()] = r
	}
	return receivers, nil
}

// apply plans and writes, and plans again when others were faster.
func (a *API) apply(ctx context.Context, w wish, planOnly bool) ([]*meshv1.Change, error) {
	var first []*meshv1.Change
	written := 0
	for range applyRounds {
		h, err := a.held(ctx, w)
		if err != nil {
			return nil, partly(written, err)
		}
		if err := listed(dangling(w, h)); err != nil {
			return nil, partly(written, err)
		}
		if faults := outdated(w, h, written > 0); len(faults) > 0 {
			return nil, partly(written, staleEtags(faults))
		}
		changes, p := plan(w, h)
		changes = sinceFirst(first, changes)
		if planOnly {
			return changes, nil
		}
		chunks, _, err := a.store.ApplyBatch(ctx, p)
		written += chunks
		if err == nil {
			return changes, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, partly(written, err)
		}
		if written > 0 {
			first = changes
		}
	}
	return nil, partly(written, fault.New(codes.Aborted, reasonEtag, "",
		"others kept changing the same checks or receivers while the request was applied (%d attempts); apply again", applyRounds))
}

// sinceFirst gives the changes of a later round as changes since the first: what an earlier round wrote is no longer different.
func sinceFirst(first, now []*meshv1.Change) []*meshv1.Change {
	earlier := make(map[string]*meshv1.Change, len(first))
	for _, c := range first {
		earlier[c.GetName()] = c
	}
	for i, c := range now {
		if before, ok := earlier[c.GetName()]; ok && c.GetAction() == meshv1.Change_UNCHANGED {
			now[i] = before
		}
	}
	return now
}

// held reads what a plan needs.
func (a *API) held(ctx context.Context, w wish) (held, error) {
	h := held{checks: map[string]*meshv1.Check{}}
	var err error
	if h.receivers, err = a.heldReceivers(ctx); err != nil {
		return h, err
	}
	if !w.prune && len(w.checks) <= readAllAbove {
		for _, wished := range w.checks {
			c, err := a.store.GetCheck(ctx, wished.GetName())
			if isNotFound(err) {
				continue
			}
			if err != nil {
				return h, err
			}
			h.checks[c.GetName()] = c
		}
		return h, nil
	}
	checks, _, err := a.store.ListChecks(ctx, "", 0)
	for _, c := range checks {
		h.checks[c.GetName()] = c
	}
	return h, err
}

// unchanged is the answer to a request that was carried out before: this time nothing changes.
func unchanged(w wish) []*meshv1.Change {
	h := held{checks: map[string]*meshv1.Check{}, receivers: map[string]*meshv1.Receiver{}}
	for _, c := range w.checks {
		h.checks[c.GetName()] = c
	}
	for _, r := range w.receivers {
		h.receivers[r.GetName()] = r
	}
	changes, _ := plan(w, h)
	return changes
}

// listed is the error for the faults of a request, or nil without any. Very many are counted instead of listed.
func listed(faults []fault.Violation) error {
	if surplus := len(faults) - faultsMax; surplus > 0 {
		faults = append(faults[:faultsMax:faultsMax], fault.Violation{Problem: fmt.Sprintf("there are %d more faults, which are not listed", surplus)})
	}
	return invalidIfAny(faults)
}

func staleEtags(faults []fault.Violation) error {
	e := fault.New(codes.Aborted, reasonEtag, "", "the request was made from an older state:")
	e.Violations = faults
	return e
}

// partly says that some of the changes were written before the error, if any were.
func partly(chunks int, err error) error {
	e, ok := fault.From(err)
	if chunks == 0 || !ok {
		return err
	}
	c := *e
	c.Message = fmt.Sprintf("the first %d transactions, of up to 100 changes each, were written; apply again to complete them. What ended it: %s", chunks, e.Message)
	return c.Because(err)
}

// revisionOf is the etcd revision that an etag of the store stands for; 0 for none.
func revisionOf(etag string) int64 {
	revision, err := strconv.ParseInt(etag, 10, 64)
	if err != nil {
		return 0
	}
	return revision
}
