package api

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api/filter"
)

// lagMax is how long the mesh may take to hear of what the store has.
const lagMax = 2 * time.Second

// statusOf is the status of a check that the store has. Until the mesh has heard of it, nothing is known of it.
func (a *API) statusOf(c *meshv1.Check) *meshv1.CheckStatus {
	if s, ok := a.mesh.Status(c.GetName()); ok {
		if followed, ok := a.mesh.Check(c.GetName()); ok && !slices.Equal(followed.GetDatacenters(), c.GetDatacenters()) {
			s.Warnings = a.warningsOf(c) // the mesh has not heard of what was just written
		}
		return s
	}
	s := &meshv1.CheckStatus{Check: c.GetName(), Verdict: meshv1.CheckStatus_UNKNOWN, Reason: meshv1.CheckStatus_NO_VOTES,
		Summary: "UNKNOWN: no vote has arrived yet", Since: c.GetUpdateTime()}
	s.Warnings = a.warningsOf(c)
	if c.GetPaused() {
		s.Verdict, s.Reason, s.Summary = meshv1.CheckStatus_PAUSED, meshv1.CheckStatus_CHECK_PAUSED, "PAUSED: the check is paused"
	}
	return s
}

// warningsOf are the warnings of a check that the mesh does not follow as it is.
func (a *API) warningsOf(c *meshv1.Check) (list []string) {
	if len(c.GetDatacenters()) == 0 {
		return nil
	}
	enrolled, known := a.inhabited()
	if !known {
		return nil
	}
	for _, v := range spec.EmptyDatacenters(c, "", enrolled) {
		list = append(list, v.Field+" "+v.Problem)
	}
	return list
}

// withoutEvidence drops what the failing probes saw, which can be large.
func withoutEvidence(s *meshv1.CheckStatus) *meshv1.CheckStatus {
	for _, v := range s.GetVotes() {
		v.Evidence = nil
	}
	return s
}

type statusService struct {
	meshv1.UnimplementedStatusServiceServer
	api *API
}

// GetStatus returns the status of one check.
func (s statusService) GetStatus(ctx context.Context, req *meshv1.GetStatusRequest) (*meshv1.CheckStatus, error) {
	name, err := named(spec.Checks, "check", req.GetCheck())
	if err != nil {
		return nil, err
	}
	// The store decides whether it exists: the mesh may not have heard yet of a check that was just created or deleted.
	c, err := s.api.check(ctx, name)
	if err != nil {
		return nil, err
	}
	status := s.api.statusOf(c)
	if !req.GetWithEvidence() {
		withoutEvidence(status)
	}
	return status, nil
}

// checkStatus is a status that lists by the name of its check.
type checkStatus struct{ *meshv1.CheckStatus }

// GetName is the name of the check.
func (s checkStatus) GetName() string { return s.GetCheck() }

// ListStatuses returns a page of statuses, with votes.
func (s statusService) ListStatuses(_ context.Context, req *meshv1.ListStatusesRequest) (*meshv1.ListStatusesResponse, error) {
	f, cursor, err := listing{"ListStatuses", req.GetFilter(), checkKeys(), req.GetPageToken(), req.GetPageSize()}.read()
	if err != nil {
		return nil, err
	}
	from := func(after string, limit int) ([]checkStatus, string, error) {
		names := s.api.statusNames(after, limit)
		var batch []checkStatus
		for _, name := range names {
			if status, ok := s.api.fitting(name, f); ok {
				batch = append(batch, checkStatus{status})
			}
		}
		if len(names) < limit {
			return batch, "", nil
		}
		return batch, names[len(names)-1], nil
	}
	found, next, err := collect(cursor, !f.Empty(), from, func(checkStatus) bool { return true })
	if err != nil {
		return nil, err
	}
	response := &meshv1.ListStatusesResponse{NextPageToken: next}
	for _, status := range found {
		response.Statuses = append(response.Statuses, status.CheckStatus)
	}
	return response, nil
}

// statusNames are the names of up to limit checks (0: all) that the mesh follows, after one.
func (a *API) statusNames(after string, limit int) []string {
	var names []string
	a.mesh.EachStatus(after, func(status *meshv1.CheckStatus) bool {
		names = append(names, status.GetCheck())
		return limit == 0 || len(names) < limit
	})
	return names
}

// fitting gives the status of a check as the mesh holds it, without evidence; false when it does not pass the filter, or is gone.
func (a *API) fitting(name string, f filter.Filter) (*meshv1.CheckStatus, bool) {
	check, followed := a.mesh.Check(name)
	status, ok := a.mesh.Status(name)
	if !followed || !ok || !f.Match(checkValues(check, status.GetVerdict)) {
		return nil, false
	}
	return withoutEvidence(status), true
}

// WatchStatuses streams statuses.
func (s statusService) WatchStatuses(req *meshv1.WatchStatusesRequest, stream grpc.ServerStreamingServer[meshv1.WatchStatusesResponse]) error {
	f, err := filter.Parse(req.GetFilter(), checkKeys())
	if err != nil {
		return err
	}
	return serveWatch(s.api, stream, func(ctx context.Context, send func(*meshv1.WatchStatusesResponse) error) error {
		changes := s.api.mesh.SubscribeStatuses() // before the snapshot, so that what changes meanwhile is sent again
		defer changes.Close()
		view := &statusView{api: s.api, filter: f, shown: map[string]bool{}, send: send}
		if err := view.refresh(s.api.statusNames("", 0)); err != nil {
			return err
		}
		if err := send(&meshv1.WatchStatusesResponse{Synced: true}); err != nil {
			return err
		}
		for {
			names, err := changes.Next(ctx)
			if err != nil {
				return err
			}
			slices.Sort(names)
			if err := view.refresh(names); err != nil {
				return err
			}
		}
	})
}

// statusView is what a watcher has been shown.
type statusView struct {
	api    *API
	filter filter.Filter
	shown  map[string]bool
	send   func(*meshv1.WatchStatusesResponse) error
}

// refresh sends the present status of the named checks, or that they are gone from the view.
func (v *statusView) refresh(names []string) error {
	for _, name := range names {
		status, ok := v.api.fitting(name, v.filter)
		response := &meshv1.WatchStatusesResponse{Status: status}
		switch {
		case ok:
			v.shown[name] = true
		case v.shown[name]:
			delete(v.shown, name)
			response = &meshv1.WatchStatusesResponse{Status: &meshv1.CheckStatus{Check: name}, Removed: true}
		default:
			continue
		}
		if err := v.send(response); err != nil {
			return err
		}
	}
	return nil
}
