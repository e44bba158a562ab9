package catalog

import (
	"context"
	"path/filepath"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/localmesh"
)

// hungMax is how long after its disk has begun to hang another server must have decided.
const (
	hungMax = 5 * time.Second
	whyHung = "a leader that cannot commit gives up by its own clock, before its lease runs out; then an election"
)

func hungDisk() drill.Scenario {
	return drill.Scenario{
		Name:    "hung-disk",
		Summary: "let fsync hang under the leader's etcd member, under all of the leader's files, and under a standby's, while outages begin and end",
		Proves:  "A server whose storage hangs, and which lives on, keeps its connections and would keep its lease, delays nobody: another one decides, and it comes back as a standby.",
		Promise: "another server decides within 5 s, without the hung process being killed",
		Times:   3, ShortTimes: 1, About: 4 * time.Minute, ShortAbout: 90 * time.Second,
		Requires: []drill.Requirement{drill.HeldFlushes()},
		Run:      runHungDisk,
	}
}

// hungCase is one way in which a disk hangs.
type hungCase struct {
	what   string
	leader bool // the leader's disk, else a standby's
	under  string
}

// hungCases are played in turn, etcd's leader being with the disk that hangs in every other turn.
func hungCases() []hungCase {
	return []hungCase{
		{"the leader's etcd member", true, "etcd"},
		{"all files of the leader", true, ""},
		{"all files of a standby", false, ""},
	}
}

func runHungDisk(ctx context.Context, r *drill.Run) error {
	m, disks, err := r.StartMeshOnDisks(ctx, false, nil)
	if err != nil {
		return err
	}
	targets, err := r.Watch(ctx, m, manyTargets)
	if err != nil {
		return err
	}
	pids := map[*localmesh.Member]int{}
	for _, s := range m.Servers() {
		pids[s] = s.PID()
	}
	var hung []handover
	for i := range r.Times {
		for k, c := range hungCases() {
			h, err := hangOnce(ctx, r, m, disks, targets, c, (i+k)%2 == 1)
			if err != nil {
				return err
			}
			if c.leader {
				hung = append(hung, h)
			}
		}
	}
	r.Distribution("hang_to_decision", made(decisions(hung)), drill.Bounds{Max: hungMax}, whyHung)
	r.Distribution("hang_to_leader", leaders(hung), drill.Bounds{}, "")
	countSilent(r, decisions(hung))
	var held uint64
	died := 0
	for _, s := range m.Servers() {
		held += disks.Of(s).Stats().Held
		if !s.Alive() || s.PID() != pids[s] {
			died++
		}
	}
	r.AtLeast("flushes_held", "flushes", float64(held), float64(len(hungCases())*r.Times), "a disk that nobody flushes to has not hung")
	r.AtMost("servers_ended", "servers", float64(died), 0, "the hung process is not killed, and does not end by itself")
	return r.Conclude(ctx, m)
}

// hangOnce lets a disk hang while outages begin and end, and releases it.
func hangOnce(ctx context.Context, r *drill.Run, m *drill.Mesh, disks *drill.Disks, targets []*drill.Target, c hungCase, withEtcd bool) (h handover, err error) {
	leader, term, err := m.Leader(ctx)
	if err != nil {
		return h, err
	}
	struck, extra := leader, hungMax
	if !c.leader {
		struck, extra = m.Others(leader)[r.Rand.IntN(2)], killMax
	}
	etcd, where := struck, "leads etcd too"
	if !withEtcd {
		etcd, where = m.Others(struck)[r.Rand.IntN(2)], "follows in etcd"
	}
	if err := m.MoveEtcdLeader(ctx, etcd); err != nil {
		return h, err
	}
	if err := m.Settle(ctx); err != nil {
		return h, err
	}
	r.Say("the disk under %s (%s, which %s) is going to hang; %s leads term %d", c.what, struck, where, leader, term)
	before := disks.Of(struck).Stats().Held
	var fault time.Time
	hang := func(*localmesh.Member) error {
		fault = time.Now()
		return disks.Of(struck).Hold(filepath.Join(struck.Data, c.under))
	}
	if c.leader {
		h, _, err = breakLeader(ctx, r, m, targets, extra, hang)
		h.decision = byAnother(r, fault, h)
	} else {
		_, err = amid(ctx, r, targets, extra, func() error { return hang(struck) })
	}
	if err != nil {
		return h, err
	}
	s := disks.Of(struck).Stats()
	r.Say("%d flushes of %s hang, %d came to hang in all; they are released", s.Waiting, struck, s.Held-before)
	if s.Held == before {
		r.Remark("nothing was flushed under %s of %s while its disk hung", c.what, struck)
	}
	disks.Release()
	return h, calm(ctx, r, m)
}

// lastWrite is how long after its disk began to hang a leader may still finish what was on its way.
const lastWrite = 500 * time.Millisecond

// byAnother is how long after the fault another server led and a decision that cannot be the old leader's was at the receiver; 0 when there was none.
func byAnother(r *drill.Run, fault time.Time, h handover) time.Duration {
	d := firstDecision(r, fault.Add(lastWrite))
	if d == 0 {
		return 0
	}
	return max(d+lastWrite, h.leader)
}
