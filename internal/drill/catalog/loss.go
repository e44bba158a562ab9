package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// What the loss of a server that does not lead may delay an alert by.
const (
	// standbyMax: its probers' connections die with it; they dial another server at once, and again within a second if that fails.
	standbyMax = 2 * time.Second
	// etcdLeaderMax: etcd elects first, after an election timeout of 1 to 2 s; until then nothing can be written.
	etcdLeaderMax = 3 * time.Second
)

func serverKill() drill.Scenario {
	return drill.Scenario{
		Name:    "server-kill",
		Summary: "kill -9 a server that does not lead but holds probers' sessions, while outages begin and end",
		Proves:  "Probers move to another server at once, with their votes; the leader goes on.",
		Promise: "unbroken: losing a server delays a verdict by at most seconds, and loses no history",
		Times:   5, ShortTimes: 1, About: 90 * time.Second, ShortAbout: 30 * time.Second,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runServerKill,
	}
}

func etcdMemberKill() drill.Scenario {
	return drill.Scenario{
		Name:    "etcd-member-kill",
		Summary: "kill -9 the server whose etcd member leads etcd, then one whose member follows; neither leads the mesh",
		Proves:  "The mesh outlives the loss of etcd's leader: votes are counted meanwhile, and what is decided is written as soon as etcd has elected.",
		Promise: "unbroken: losing an etcd member delays a verdict by at most seconds",
		Times:   4, ShortTimes: 2, About: 90 * time.Second, ShortAbout: 45 * time.Second,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runEtcdMemberKill,
	}
}

// mostSessions is the server, other than the leader, with the most sessions, and how many it has.
func mostSessions(ctx context.Context, m *drill.Mesh, leader *localmesh.Member) (victim *localmesh.Member, sessions int, err error) {
	for _, s := range m.Others(leader) {
		n, err := m.Sessions(ctx, s)
		if err != nil {
			return nil, 0, err
		}
		if victim == nil || n > sessions {
			victim, sessions = s, n
		}
	}
	return victim, sessions, nil
}

func runServerKill(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, manyTargets)
	if err != nil {
		return err
	}
	var first, back []time.Duration
	held := 0
	for i := range r.Times {
		leader, term, err := m.Leader(ctx)
		if err != nil {
			return err
		}
		victim, sessions, err := mostSessions(ctx, m, leader)
		if err != nil {
			return err
		}
		held += sessions
		r.Say("round %d of %d: %s leads; %s holds %d sessions and is killed", i+1, r.Times, leader, victim, sessions)
		attached := make(chan error, 1)
		var took time.Duration
		fault, err := amid(ctx, r, targets, standbyMax, func() error {
			begin := time.Now()
			if err := victim.Kill(); err != nil {
				return err
			}
			go func() { err := m.AwaitProbers(ctx); took = time.Since(begin); attached <- err }()
			return nil
		})
		if err != nil {
			return err
		}
		if err := <-attached; err != nil {
			return err
		}
		first, back = append(first, firstDecision(r, fault)), append(back, took)
		if err := stays(ctx, r, m, leader, term); err != nil {
			return err
		}
		if _, err := revive(ctx, r, m, victim); err != nil {
			return err
		}
	}
	r.AtLeast("sessions_moved", "sessions", float64(held), 1, "a server without sessions would show nothing")
	countSilent(r, first)
	r.Distribution("kill_to_decision", made(first), drill.Bounds{P99: standbyMax}, "the leader goes on")
	r.Distribution("kill_to_sessions_back", back, drill.Bounds{}, "")
	return r.Conclude(ctx, m)
}

// stays says, and notes, when another leads although the leader was left alone.
func stays(ctx context.Context, r *drill.Run, m *drill.Mesh, leader *localmesh.Member, term int64) error {
	now, t, err := m.Leader(ctx)
	if err != nil {
		return err
	}
	if now != leader || t != term {
		r.Remark("%s led term %d before the kill of another server, %s leads term %d after it", leader, term, now, t)
	}
	return nil
}

func runEtcdMemberKill(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, manyTargets)
	if err != nil {
		return err
	}
	var leading, following []time.Duration
	changes := int64(0)
	for i := range r.Times {
		leader, term, err := m.Leader(ctx)
		if err != nil {
			return err
		}
		others := m.Others(leader)
		victim, bystander := others[0], others[1]
		of, extra, etcdLeader := "which leads etcd", etcdLeaderMax, victim
		if i%2 == 1 {
			// etcd's leader is the one that is left, or the mesh's leader itself: either goes on.
			of, extra, etcdLeader = "which follows in etcd", standbyMax, bystander
		}
		if err := m.MoveEtcdLeader(ctx, etcdLeader); err != nil {
			return err
		}
		if err := m.Settle(ctx); err != nil {
			return err
		}
		r.Say("round %d of %d: %s leads; %s, %s, is killed", i+1, r.Times, leader, victim, of)
		fault, err := amid(ctx, r, targets, extra, victim.Kill)
		if err != nil {
			return err
		}
		if took := firstDecision(r, fault); i%2 == 0 {
			leading = append(leading, took)
		} else {
			following = append(following, took)
		}
		if _, now, err := m.Leader(ctx); err != nil {
			return err
		} else {
			changes += now - term
		}
		if _, err := revive(ctx, r, m, victim); err != nil {
			return err
		}
	}
	countSilent(r, append(slices.Clone(leading), following...))
	r.Distribution("etcd_leader_kill_to_decision", made(leading), drill.Bounds{P99: etcdLeaderMax}, whyKillEtcd)
	if len(following) > 0 {
		r.Distribution("etcd_follower_kill_to_decision", made(following), drill.Bounds{P99: standbyMax}, "etcd and the leader go on")
	}
	r.Inform("leader_changes", "leaders", float64(changes), "the mesh's leader may keep its lease through an election of etcd")
	return r.Conclude(ctx, m)
}
