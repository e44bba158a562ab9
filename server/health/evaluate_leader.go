package health

import (
	"fmt"

	"github.com/probemesh/probemesh/internal/spec"
)

// aboutLeader finds whether somebody leads, who all agree on, who hears the mesh and can act.
func (e *evaluation) aboutLeader() {
	if e.f.Leader == "" {
		e.add(noLeader, 0, nil, "No server leads: nothing is decided and nobody is alerted.")
	}
	var others []string
	first := ""
	most := Server{}
	for _, s := range e.f.Servers {
		if !s.heard() || !s.Beat {
			continue
		}
		if s.Leader != "" && e.f.Leader != "" && (s.Leader != e.f.Leader || s.Term != e.f.Term) {
			others = append(others, s.Name)
			first = fmt.Sprintf("%s in term %d, %s holds %s for it in term %d", spec.ID(e.f.Leader), e.f.Term, spec.ID(s.Name), spec.ID(s.Leader), s.Term)
		}
		if s.Hears > most.Hears {
			most = s
		}
	}
	if others != nil {
		e.add(leaderDisputed, 0, append(others, e.f.Server), "Servers differ about who leads: %s does for %s.", first, spec.ID(e.f.Server))
	}
	for _, s := range e.f.Servers {
		if s.Name != e.f.Leader || !s.heard() || !s.Beat {
			continue
		}
		if s.Hears*2 < most.Hears && most.Hears-s.Hears >= 2 {
			e.add(leaderBlind, 0, []string{s.Name}, "The leader, %s, hears %s; %s hears %d.", spec.ID(s.Name), count(s.Hears, "prober"), spec.ID(most.Name), most.Hears)
		}
		if s.Uncommitted >= StuckLimit {
			e.add(leaderStuck, 0, []string{s.Name}, "The leader, %s, has been waiting for etcd to take a decision for %s.", spec.ID(s.Name), span(s.Uncommitted))
		}
	}
}

// aboutDisks finds disks that are full, will be, or hang.
func (e *evaluation) aboutDisks() {
	d, self := e.f.Disk, spec.ID(e.f.Server)
	switch {
	case d.Full:
		e.add(diskFull, 0, []string{e.f.Server}, "The disk of %s is full and its etcd member has stopped: nothing is opened, resolved or sent from there until there is room.", self)
	case d.Known && d.Free < FullBytes:
		e.add(diskFull, 0, []string{e.f.Server}, "The disk of %s is full: %d MiB are left.", self, d.Free>>20)
	case d.Known && d.Free < LowBytes:
		e.add(diskLow, 0, []string{e.f.Server}, "The disk of %s will be full soon: %d MiB are left.", self, d.Free>>20)
	}
	var stalled []string
	longest := d.Stall
	if d.Stall > 0 {
		stalled = append(stalled, e.f.Server)
	}
	for _, s := range e.f.Servers {
		if s.heard() && !s.Self && s.DiskStall > 0 {
			stalled, longest = append(stalled, s.Name), max(longest, s.DiskStall)
		}
	}
	if stalled != nil {
		e.add(diskStalled, 0, stalled, "A write to the disk of %s has been waiting for %s.", names(stalled), span(longest))
	}
	if e.f.HistoryFailed {
		e.add(historyUnavailable, 0, []string{e.f.Server}, "The history of %s cannot be written.", self)
	}
	e.clocks()
}

// clocks finds those that are off, of servers and of probers.
func (e *evaluation) clocks() {
	var off []string
	worst, of := SkewLimit, ""
	see := func(name string, offset int64) {
		if d := abs(offset); d > int64(SkewLimit) {
			off = append(off, name)
			if of == "" || d > abs(int64(worst)) {
				worst, of = durationOf(offset), name
			}
		}
	}
	for _, s := range e.f.Servers {
		if s.heard() && s.Beat && !s.Self {
			see(s.Name, int64(s.ClockOffset))
		}
	}
	for _, p := range e.f.Probers {
		if online(p) && e.f.SeesProbers {
			see(p.GetName(), int64(p.GetClockOffset().AsDuration()))
		}
	}
	switch {
	case len(off) == 1:
		e.add(clockSkew, 0, off, "The clock of %s is off by %s.", of, span(worst))
	case len(off) > 1:
		e.add(clockSkew, 0, off, "%d clocks are off, that of %s by %s.", len(off), of, span(worst))
	}
}
