package catalog

import (
	"context"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// rollingMax is what the orderly restart of one process may delay an alert by: a hand-over takes 0.3 s, and a prober that is away for a moment leaves the others,
// who are enough, a longer way to the next probe.
const rollingMax = time.Second

func rollingRestart() drill.Scenario {
	return drill.Scenario{
		Name:    "rolling-restart",
		Summary: "stop and start every process in turn, as an upgrade does, while outages begin and end",
		Proves:  "An upgrade of the whole mesh costs no alert, no history, and no more than a moment's delay.",
		Promise: "unbroken: a process that is stopped in order delays a verdict by at most 1 s",
		Times:   1, ShortTimes: 1, About: 90 * time.Second, ShortAbout: 50 * time.Second,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runRollingRestart,
	}
}

func runRollingRestart(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, manyTargets)
	if err != nil {
		return err
	}
	var first []time.Duration
	for range r.Times {
		members, err := inTurn(ctx, r, m)
		if err != nil {
			return err
		}
		for i, x := range members {
			r.Say("%d of %d: %s is stopped and started", i+1, len(members), x)
			fault, err := amid(ctx, r, targets, rollingMax, x.AskToStop)
			if err != nil {
				return err
			}
			first = append(first, firstDecision(r, fault))
			ready, err := revive(ctx, r, m, x)
			if err != nil {
				return err
			}
			if x.Kind == localmesh.KindProber {
				r.Absent(x.Name, fault, ready)
			}
		}
	}
	countSilent(r, first)
	r.Distribution("stop_to_decision", made(first), drill.Bounds{P99: rollingMax}, "who is left, or leads then, goes on")
	return r.Conclude(ctx, m)
}

// inTurn is the order of an upgrade: probers and servers in a random order; in a short drill one prober, one server, and the leader.
func inTurn(ctx context.Context, r *drill.Run, m *drill.Mesh) ([]*localmesh.Member, error) {
	members := m.Members()
	if r.Short {
		leader, _, err := m.Leader(ctx)
		if err != nil {
			return nil, err
		}
		members = []*localmesh.Member{m.Probers()[r.Rand.IntN(len(m.Probers()))], m.Others(leader)[0], leader}
	}
	r.Rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return members, nil
}
