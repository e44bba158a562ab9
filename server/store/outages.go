package store

import (
	"context"
	"slices"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// recentIncidents is how many closed incidents are looked through for outages: more than a loss of etcd leaves behind.
const recentIncidents = 2000

// ClosedOutages gives those among the newest 2,000 closed incidents that have taken in outages without etcd, oldest first. They are the caller's. Nothing is left to
// be written of those outages; of one whose incident is open, the end may be.
func (s *Store) ClosedOutages(ctx context.Context) ([]*meshv1.Incident, error) {
	closed, _, err := s.ListClosedIncidents(ctx, "", recentIncidents)
	if err != nil {
		return nil, err
	}
	var list []*meshv1.Incident
	for _, v := range slices.Backward(closed) {
		if i := v.Value.GetIncident(); i.GetBreakGlassKey() != "" {
			list = append(list, i)
		}
	}
	return list, nil
}
