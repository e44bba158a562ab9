package catalog

import (
	"context"
	"path/filepath"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
)

func historyStall() drill.Scenario {
	return drill.Scenario{
		Name:    "history-stall",
		Summary: "let every write to the history of every server hang, while outages begin and end",
		Proves:  "Verdicts and alerts come from votes, never from the store of the results: nobody notices, and what could not be written comes later.",
		Promise: "verdicts and alerts are not delayed, and the backlog fills the histories",
		Times:   2, ShortTimes: 1, About: 90 * time.Second, ShortAbout: time.Minute,
		Requires: []drill.Requirement{drill.HeldFlushes()},
		Run:      runHistoryStall,
	}
}

// stallLength is how long no result is written after the outages, so that a queue that is too short for it shows.
const stallLength = 15 * time.Second

func runHistoryStall(ctx context.Context, r *drill.Run) error {
	m, disks, err := r.StartMeshOnDisks(ctx, true, nil)
	if err != nil {
		return err
	}
	targets, err := r.Watch(ctx, m, manyTargets)
	if err != nil {
		return err
	}
	var held uint64
	for i := range r.Times {
		r.Say("round %d of %d: the histories of all servers stall", i+1, r.Times)
		if _, err := amid(ctx, r, targets, 0, func() error {
			for _, s := range m.Servers() {
				if err := disks.Of(s).Hold(filepath.Join(s.Data, "history")); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			return err
		}
		// The ends of the outages too, while nothing can be written yet.
		if err := r.MendAll(); err != nil {
			return err
		}
		if err := r.AwaitResolved(ctx); err != nil {
			return err
		}
		if err := drill.Sleep(ctx, stallLength); err != nil {
			return err
		}
		for _, s := range m.Servers() {
			held += disks.Of(s).Stats().Held
		}
		r.Say("the histories can be written again")
		disks.Release()
		if err := m.Settle(ctx); err != nil {
			return err
		}
	}
	r.AtLeast("writes_held", "writes", float64(held), float64(len(m.Servers())), "a store that nobody writes to has not stalled")
	return r.Conclude(ctx, m)
}
