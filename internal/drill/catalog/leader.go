package catalog

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// What is promised of a leader's loss.
const (
	killP50     = 800 * time.Millisecond
	killMax     = 2 * time.Second
	killMaxEtcd = 3 * time.Second
	gracefulMax = 300 * time.Millisecond
	whyKill     = "assisted eviction: a process that dies breaks its connections, a silent one is missed after 600 ms; then an election, and what is due at once"
	whyKillEtcd = "etcd elects first, after an election timeout of 1 to 2 s"
	whyGraceful = "a leader that stops resigns first: an election, and what is due at once"
)

func leaderKill() drill.Scenario {
	return drill.Scenario{
		Name:    "leader-kill",
		Summary: "kill -9 the leader, again and again, while outages begin and end",
		Proves:  "The loss of the leader delays a verdict by at most seconds; every outage is announced once, by whoever leads then.",
		Promise: "unbroken: kill to the next decision within 2 s, 3 s when etcd's leader died with it",
		Times:   10, ShortTimes: 2, About: 5 * time.Minute, ShortAbout: 70 * time.Second,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runLeaderKill,
	}
}

func leaderGraceful() drill.Scenario {
	return drill.Scenario{
		Name:    "leader-graceful",
		Summary: "stop the leader with SIGTERM, again and again, while outages begin and end",
		Proves:  "A leader that is stopped hands over so fast that nobody notices: upgrades need no quiet hour.",
		Promise: "unbroken: from the signal to the next decision within 0.3 s",
		Times:   10, ShortTimes: 2, About: 4 * time.Minute, ShortAbout: time.Minute,
		Requires: []drill.Requirement{drill.Unix()},
		Run:      runLeaderGraceful,
	}
}

// leaderRounds breaks the leader so many times and gives the times of the rounds in which etcd's leader was elsewhere, and of those in which it went too.
func leaderRounds(ctx context.Context, r *drill.Run, m *drill.Mesh, targets []*drill.Target, times int, strike func(*localmesh.Member) error) (elsewhere, together []handover, err error) {
	for i := range times {
		leader, _, err := m.Leader(ctx)
		if err != nil {
			return nil, nil, err
		}
		with, where, extra := i%2 == 1, "elsewhere", killMax
		to := m.Others(leader)[r.Rand.IntN(2)]
		if with {
			to, where, extra = leader, "with it", killMaxEtcd
		}
		if err := m.MoveEtcdLeader(ctx, to); err != nil {
			return nil, nil, err
		}
		if err := m.Settle(ctx); err != nil {
			return nil, nil, err
		}
		r.Say("round %d of %d: %s leads, etcd's leader is %s", i+1, times, leader, where)
		h, gone, err := breakLeader(ctx, r, m, targets, extra, strike)
		if err != nil {
			return nil, nil, err
		}
		if with {
			together = append(together, h)
		} else {
			elsewhere = append(elsewhere, h)
		}
		if _, err := revive(ctx, r, m, gone); err != nil {
			return nil, nil, err
		}
	}
	return elsewhere, together, nil
}

func decisions(list []handover) (out []time.Duration) {
	for _, h := range list {
		out = append(out, h.decision)
	}
	return out
}

// made leaves out the rounds in which nothing was decided at all.
func made(times []time.Duration) (out []time.Duration) {
	for _, t := range times {
		if t > 0 {
			out = append(out, t)
		}
	}
	return out
}

// countSilent counts the rounds in which nothing was decided at all.
func countSilent(r *drill.Run, times []time.Duration) {
	r.AtMost("rounds_without_decision", "rounds", float64(len(times)-len(made(times))), 0, "in every round decisions are due")
}

func leaders(list []handover) (out []time.Duration) {
	for _, h := range list {
		out = append(out, h.leader)
	}
	return out
}

func runLeaderKill(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, manyTargets)
	if err != nil {
		return err
	}
	elsewhere, together, err := leaderRounds(ctx, r, m, targets, r.Times, (*localmesh.Member).Kill)
	if err != nil {
		return err
	}
	countSilent(r, decisions(append(slices.Clone(elsewhere), together...)))
	r.Distribution("kill_to_decision", made(decisions(elsewhere)), drill.Bounds{P50: killP50, P99: killMax}, whyKill)
	r.Distribution("kill_to_leader", leaders(elsewhere), drill.Bounds{}, "")
	if len(together) > 0 {
		r.Distribution("kill_to_decision_etcd_too", made(decisions(together)), drill.Bounds{P99: killMaxEtcd}, whyKillEtcd)
		r.Distribution("kill_to_leader_etcd_too", leaders(together), drill.Bounds{}, "")
	}
	if err := r.Conclude(ctx, m); err != nil {
		return err
	}
	m.Stop()
	return leaseExpiry(ctx, r, made(decisions(elsewhere)))
}

// leaseExpiry measures the same without assisted eviction, for the ratio.
func leaseExpiry(ctx context.Context, r *drill.Run, assisted []time.Duration) error {
	const flag = "--assisted-eviction"
	help, err := exec.CommandContext(ctx, r.Program, "server", "--help").CombinedOutput()
	if err != nil || !strings.Contains(string(help), flag) {
		r.Remark("this program has no %s: plain lease expiry was not measured", flag)
		return nil
	}
	times := max(1, r.Times/5)
	r.Say("the same without assisted eviction, %d times, for the ratio", times)
	m, err := r.StartMesh(ctx, func(o *localmesh.Options) {
		o.Data = filepath.Join(r.Data, "mesh-unassisted")
		o.Args = func(x *localmesh.Member) []string {
			if x.Kind == localmesh.KindServer {
				return []string{flag + "=false"}
			}
			return nil
		}
	})
	if err != nil {
		return err
	}
	targets, err := r.WatchMore(ctx, m, drill.Watched{Targets: manyTargets, Prefix: "u"})
	if err != nil {
		return err
	}
	var plain []time.Duration
	for range times {
		leader, _, err := m.Leader(ctx)
		if err != nil {
			return err
		}
		if err := m.MoveEtcdLeader(ctx, m.Others(leader)[0]); err != nil {
			return err
		}
		h, gone, err := breakLeader(ctx, r, m, targets, r.LeaseTTL+2*time.Second, (*localmesh.Member).Kill)
		if err != nil {
			return err
		}
		plain = append(plain, made(decisions([]handover{h}))...)
		if _, err := revive(ctx, r, m, gone); err != nil {
			return err
		}
	}
	r.Distribution("lease_expiry_to_decision", plain, drill.Bounds{}, "")
	if len(plain) > 0 && len(assisted) > 0 {
		ratio := drill.Quantile(slices.Sorted(slices.Values(plain)), 0.5).Seconds() / drill.Quantile(slices.Sorted(slices.Values(assisted)), 0.5).Seconds()
		r.AtLeast("lease_expiry_ratio", "ratio", ratio, 1, fmt.Sprintf("how many times longer it takes with a lease of %s and nobody who evicts; median by median", r.LeaseTTL))
	}
	return nil
}

func runLeaderGraceful(ctx context.Context, r *drill.Run) error {
	m, targets, err := begin(ctx, r, manyTargets)
	if err != nil {
		return err
	}
	elsewhere, together, err := leaderRounds(ctx, r, m, targets, r.Times, (*localmesh.Member).AskToStop)
	if err != nil {
		return err
	}
	all := append(slices.Clone(elsewhere), together...)
	countSilent(r, decisions(all))
	r.Distribution("stop_to_decision", made(decisions(all)), drill.Bounds{P99: gracefulMax}, whyGraceful)
	r.Distribution("stop_to_leader", leaders(all), drill.Bounds{}, "")
	return r.Conclude(ctx, m)
}
