package store

import (
	"context"
	"slices"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// recentIncidents is how many closed incidents are looked through for outages: more than a loss of etcd leaves behind.
const recentIncidents = 2000

// JoinedOutages gives those of the keys of outages without etcd that are part of an incident among the newest 2,000 that are closed: nothing is left to be written of them.
// Of one whose incident is open, the end may be.
func (s *Store) JoinedOutages(ctx context.Context, keys map[string]bool) (map[string]bool, error) {
	closed, _, err := s.ListClosedIncidents(ctx, "", recentIncidents)
	if err != nil {
		return nil, err
	}
	joined := map[string]bool{}
	for _, v := range closed {
		noteOutages(v.Value.GetIncident(), keys, joined)
	}
	return joined, nil
}

// ClosedOutages gives those among the newest 2,000 closed incidents that have taken in outages without etcd, oldest first. They are the caller's.
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

// noteOutages adds the keys that the incident has taken in: its own, and others that its timeline tells of.
func noteOutages(i *meshv1.Incident, keys, joined map[string]bool) {
	key := i.GetBreakGlassKey()
	if key == "" {
		return
	}
	if keys[key] {
		joined[key] = true
	}
	for _, e := range i.GetTimeline() {
		if e.GetEvent() != meshv1.TimelineEntry_BREAK_GLASS {
			continue
		}
		for k := range keys {
			if strings.Contains(e.GetText(), k) {
				joined[k] = true
			}
		}
	}
}
