package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/probemesh/probemesh/internal/drill"
	"github.com/probemesh/probemesh/internal/drill/netns"
)

func datacenterCut() drill.Scenario {
	return drill.Scenario{
		Name:    "datacenter-cut",
		Summary: "cut the leader's datacenter off (server, etcd member, prober and targets), in both directions, in one, and make it slow, while targets inside and outside go down and up",
		Proves:  "The loss of a main datacenter is an outage of what is inside of it, and of nothing else: others decide, are reachable throughout, and learn afterwards what it saw meanwhile.",
		Promise: "every real outage is announced once within its bound, no gap in any history after the return, totals as without the cut",
		Times:   1, ShortTimes: 1, About: 6 * time.Minute, ShortAbout: 3 * time.Minute,
		Requires: []drill.Requirement{drill.OwnNetworks()},
		Run:      runDatacenterCut,
	}
}

// cutCase is a way in which a datacenter is cut off.
type cutCase struct {
	what  string
	fault netns.Fault
	// silent: nothing gets out of it, so nobody hears what its probers see, or think to see.
	silent bool
	// extra is what it may delay an alert by until another server leads, or for as long as it lasts.
	extra   time.Duration
	lasting bool
	// inside is what becomes of the targets inside: announced by then (from the cut), or perhaps.
	insideOptional bool
}

// How slow a slow datacenter is: as one on the other side of the world, behind a bad line. Probes of it take two round trips of 300 ms, less than their timeout.
const (
	slowDelay = 150 * time.Millisecond
	slowLoss  = 0.01
	slowExtra = 3 * time.Second
	// cutTakeover is how long the others may take until one of them decides, when the leader and etcd's leader are cut off together: both elections, found out by silence.
	cutTakeover = 5 * time.Second
)

// cutCases begin with none, whose totals the others' are compared with.
func cutCases(short bool) []cutCase {
	all := []cutCase{
		{what: "no cut, for comparison"},
		{what: "a cut in both directions", fault: netns.Cut(), silent: true, extra: cutTakeover},
		{what: "a cut of the way out", fault: netns.Fault{Out: netns.Path{Drop: true}}, silent: true, extra: cutTakeover},
		{what: "a cut of the way in", fault: netns.Fault{In: netns.Path{Drop: true}}, extra: cutTakeover},
		{what: "a slow connection", fault: netns.Slow(slowDelay, slowLoss), extra: slowExtra, lasting: true, insideOptional: true},
	}
	if short {
		return append(all[:3:3], all[4])
	}
	return all
}

// cutLength is how long a cut lasts.
func cutLength(short bool) time.Duration {
	if short {
		return 12 * time.Second
	}
	return 30 * time.Second
}

// cutOutside are the targets outside of every datacenter, cutInside those inside of each.
const (
	cutOutside = 10
	cutInside  = 2
)

// cutDrill is the state of a run of datacenter-cut.
type cutDrill struct {
	r       *drill.Run
	m       *drill.Mesh
	n       *netns.Network
	outside []*drill.Target
	inside  map[string][]*drill.Target // by datacenter
	length  time.Duration
	rounds  []*cutRound
}

func runDatacenterCut(ctx context.Context, r *drill.Run) error {
	m, n, err := r.StartMeshOnNetwork(ctx, 3, nil)
	if err != nil {
		return err
	}
	d := &cutDrill{r: r, m: m, n: n, inside: map[string][]*drill.Target{}, length: cutLength(r.Short)}
	if err := d.watch(ctx); err != nil {
		return err
	}
	for range r.Times {
		for _, c := range cutCases(r.Short) {
			if err := d.round(ctx, c); err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
		}
	}
	if err := r.Conclude(ctx, m); err != nil {
		return err
	}
	return d.conclude(ctx)
}

// watch makes the targets and has them watched.
func (d *cutDrill) watch(ctx context.Context) error {
	url, err := d.r.Outside(d.n)
	if err != nil {
		return err
	}
	d.outside, err = d.r.WatchMore(ctx, d.m, drill.Watched{Targets: cutOutside, TCP: cutOutside / 4, Host: d.n.Outside(), ReceiverURL: url, Prefix: "out"})
	if err != nil {
		return err
	}
	for _, s := range d.m.Servers() {
		d.inside[s.Datacenter], err = d.r.WatchMore(ctx, d.m, drill.Watched{Targets: cutInside, Host: d.n.Host(s.Datacenter), ReceiverURL: url, Prefix: "in-" + s.Datacenter,
			Listen: listenIn(d.n, s.Datacenter)})
		if err != nil {
			return err
		}
	}
	return nil
}

// round cuts the leader's datacenter off, heals it, and waits until the mesh is whole.
func (d *cutDrill) round(ctx context.Context, c cutCase) error {
	leader, term, err := d.m.Leader(ctx)
	if err != nil {
		return err
	}
	if err := d.m.MoveEtcdLeader(ctx, leader); err != nil {
		return err
	}
	if err := d.m.Settle(ctx); err != nil {
		return err
	}
	k := &cutRound{cutDrill: d, c: c, away: leader, from: time.Now(), before: d.n.Stats(leader.Datacenter)}
	d.r.Say("%s of datacenter %s, where the leader of term %d and etcd's leader are, for %s", c.what, leader.Datacenter, term, d.length)
	events := k.plan(time.Now().Add(2 * d.r.Interval))
	asking, stop := context.WithCancel(ctx)
	asked := make(chan struct{})
	go func() { k.ask(asking); close(asked) }()
	err = play(ctx, events)
	if err == nil {
		err = d.r.AwaitAlerts(ctx)
	}
	if err == nil {
		if err = d.r.MendAll(); err == nil {
			err = d.r.AwaitResolved(ctx)
		}
	}
	stop()
	<-asked
	if err != nil {
		return err
	}
	k.to = time.Now()
	d.rounds = append(d.rounds, k)
	k.say()
	return d.m.Settle(ctx)
}

// plan is what happens in a round, from the time of the cut. Outages of the targets outside begin and end before, during and after it, those of the inside too.
func (k *cutRound) plan(cut time.Time) []event {
	k.cut, k.heal = cut, cut.Add(k.length)
	part := func(share float64) time.Time { return cut.Add(time.Duration(share * float64(k.length))) }
	var events []event
	at := func(t time.Time, do func() error) { events = append(events, event{t, do}) }
	outage := func(t *drill.Target, f drill.Fault, down, up time.Time) {
		at(down, func() error { t.Break(f, k.r.Bound(k.extra(down))); return nil })
		at(up, t.Mend)
	}
	early, late := cut.Add(-k.r.Interval*3/2), k.heal.Add(k.r.Interval)
	out := k.outside
	outage(out[0], drill.Refuse, early, part(0.5))     // begins before, ends within
	outage(out[1], drill.Status500, early, late)       // spans it
	outage(out[2], drill.Refuse, cut, part(0.6))       // begins with it
	outage(out[3], drill.Refuse, part(0.05), part(.7)) // just after, while nobody may lead
	outage(out[4], drill.Status500, part(0.1), late)
	outage(out[5], drill.Refuse, part(0.4), part(0.9)) // in its middle
	outage(out[6], drill.Refuse, part(0.55), late)     // ends after it
	outage(out[7], drill.Refuse, k.heal, k.heal.Add(k.r.Interval*3))
	outage(out[8], drill.Refuse, late, late.Add(k.r.Interval*2))
	at(cut, func() error { k.r.Say("cut"); return k.n.Set(k.away.Datacenter, k.c.fault) })
	at(k.heal, func() error { k.r.Say("healed"); return k.n.Set(k.away.Datacenter, netns.Fault{}) })
	in := k.inside[k.away.Datacenter]
	outage(in[1], drill.Refuse, early, late) // down throughout
	if k.c.fault == (netns.Fault{}) {
		return events
	}
	// To everybody else the other one is down for as long as the cut lasts, whatever becomes of it inside.
	bound := k.r.HangBound(k.extra(cut))
	if k.c.insideOptional {
		bound = drill.Optional
	}
	at(cut, func() error { in[0].Break(drill.Unreachable, bound); return nil })
	at(part(0.4), func() error { return in[0].Flip(false) })
	at(part(0.6), func() error { return in[0].Flip(true) })
	at(k.heal, in[0].Mend)
	return events
}

// extra is what an alert of an outage that begins at a time may take longer than usual.
func (k *cutRound) extra(down time.Time) time.Duration {
	switch {
	case k.c.extra == 0:
		return 0
	case down.Before(k.cut.Add(-k.r.Interval)) && !k.c.lasting:
		// Usually announced before the cut; where it was just not, the others announce it.
		return k.cut.Sub(down) + k.c.extra
	case down.Before(k.cut):
		return k.c.extra + k.r.Interval/3
	case k.c.lasting:
		return k.c.extra
	}
	// One prober of three is away: the next probe of the two others is an interval/3 farther off at most. After the takeover that is all.
	return k.r.Interval/3 + max(0, k.cut.Add(k.c.extra).Sub(down))
}

// say tells of a round.
func (k *cutRound) say() {
	s := k.n.Stats(k.away.Datacenter)
	k.r.Say("%d packets were lost on the way in and %d on the way out; the other servers answered %d of %d calls",
		s.CutIn-k.before.CutIn, s.CutOut-k.before.CutOut, k.answered, k.calls)
}
