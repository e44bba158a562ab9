package peer

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
)

// other is what this server knows of another one. Everything is guarded by Peers.mu, but for the channels and the intake.
type other struct {
	name       string // resource name
	datacenter string
	address    string
	boot       string

	listed bool      // the store's list has it
	wanted bool      // it follows this server, and so is worth following although it is not listed
	seen   time.Time // when it was listed, heard or followed last, for RememberFor

	end     context.CancelFunc // ends the goroutines that follow it; nil: it is not followed
	renew   context.CancelFunc // ends the stream, if there is one
	kick    chan struct{}      // try again at once
	heard   time.Time
	since   time.Time
	refused bool
	missed  bool // it has been silent for MissedAfter, and that was said
	silent  bool // likewise for SilentAfter
	beat    *peerv1.Beat
	skew    skew             // of its clock, since its stream began
	asks    chan *peerv1.Run // of the stream; nil: there is none

	journal  string // its journal, as its last stream said
	position uint64 // everything up to here is in this server's history
	acked    uint64 // everything of this server's journal up to here is in its history
	older    int64  // entries above acked that are of an earlier boot of this server, as of the last look
	feed     *feed  // its stream that follows this server; nil: there is none
}

// silence is how long it has not been heard, since it has been followed.
func (o *other) silence(now time.Time) time.Duration {
	return View{Heard: o.heard, Since: o.since}.Silence(now)
}

func (p *Peers) viewsLocked() []View {
	position := p.journal.last()
	var all []View
	for _, o := range p.others {
		if o.end != nil {
			all = append(all, View{Server: o.name, Datacenter: o.datacenter, BootID: o.boot, Heard: o.heard, Since: o.since, Refused: o.refused, Beat: o.beat,
				Position: position, Acknowledged: position - p.journal.lack(o.acked, o.older)})
		}
	}
	slices.SortFunc(all, func(a, b View) int { return strings.Compare(a.Server, b.Server) })
	return all
}

// survey follows whom the store lists, until ctx ends; goroutines are added to the group.
func (p *Peers) survey(ctx context.Context, group *sync.WaitGroup) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		list, changed := p.mesh.Servers()
		p.reconcile(ctx, group, list)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-p.review:
		case <-tick.C:
		}
	}
}

// reconcile takes the store's list. A server that is not on it any more is followed as long as it answers: its lease may have expired, or etcd may be coming back from
// the loss of its quorum. While this server itself is not on the list, the list says nothing of others.
func (p *Peers) reconcile(ctx context.Context, group *sync.WaitGroup, list []*statev1.ServerRecord) {
	now := time.Now()
	var gone []string
	p.mu.Lock()
	p.awakeLocked(now)
	published := false
	for _, o := range p.others {
		o.listed = false
	}
	for _, r := range list {
		if r.GetName() == p.name {
			published = true
			continue
		}
		p.listLocked(r)
	}
	p.surveyed = p.surveyed || published
	for name, o := range p.others {
		silence := o.silence(now)
		if o.listed || o.feed != nil || (o.end != nil && silence < SilentAfter && !o.heard.IsZero()) {
			o.seen = now
		}
		switch worth := o.listed || o.wanted || !published; {
		case o.end == nil && worth && o.address != "":
			p.followLocked(ctx, group, o, now)
		case o.end != nil && !o.listed && o.feed == nil && published && silence >= SilentAfter:
			p.log.Info("server is gone from the store and silent: it is followed no more", "server", name)
			o.end()
			o.end, o.wanted, o.beat = nil, false, nil
			gone = append(gone, name)
			p.changedLocked()
		case o.end == nil && now.Sub(o.seen) > RememberFor:
			p.log.Info("server has been away for a day: nothing is kept for it any more", "server", name)
			delete(p.others, name)
		}
	}
	p.mu.Unlock()
	for _, name := range gone {
		p.mesh.PeerSilent(name)
	}
}

// listLocked takes what the store has of one server.
func (p *Peers) listLocked(r *statev1.ServerRecord) {
	o := p.others[r.GetName()]
	if o == nil {
		o = &other{name: r.GetName(), kick: make(chan struct{}, 1)}
		p.others[o.name] = o
	}
	o.listed = true
	if o.address != r.GetGrpcAddress() || (o.boot != r.GetBootId() && o.asks == nil) {
		if o.address != r.GetGrpcAddress() && o.renew != nil {
			o.renew()
		}
		signal(o.kick)
		o.boot = r.GetBootId()
	}
	o.address, o.datacenter = r.GetGrpcAddress(), r.GetDatacenter()
}

func (p *Peers) followLocked(ctx context.Context, group *sync.WaitGroup, o *other, now time.Time) {
	ctx, o.end = context.WithCancel(ctx)
	o.since, o.heard, o.refused, o.missed, o.silent = now, time.Time{}, false, false, false
	in := newIntake()
	group.Go(func() { p.follow(ctx, o, in) })
	group.Go(func() { p.watch(ctx, o) })
	group.Go(func() { p.patiently(ctx, func() { p.take(ctx, o, in) }) })
	p.changedLocked()
}

// patience is how long the end of a server waits for a disk that hangs.
const patience = 2 * time.Second

// patiently runs f and waits for it, but not for long after ctx has ended: a disk that hangs must not keep a server from stopping.
func (p *Peers) patiently(ctx context.Context, f func()) {
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		p.log.Warn("a disk hangs: what was to be written of other servers is not waited for, and comes again")
	}
}

// watch notices that a server is silent, until ctx ends.
func (p *Peers) watch(ctx context.Context, o *other) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(p.look(o))
	}
}

// look compares a server's silence with what was said of it, and says when to look again: never later than a whole silence after it was last heard.
func (p *Peers) look(o *other) time.Duration {
	now := time.Now()
	p.mu.Lock()
	p.awakeLocked(now)
	silence := o.silence(now)
	missed, silent := silence >= MissedAfter, silence >= SilentAfter
	newlyMissed, newlySilent := missed && !o.missed, silent && !o.silent
	if newlyMissed || newlySilent {
		p.changedLocked()
	}
	o.missed, o.silent = missed, silent
	if newlySilent && o.renew != nil {
		o.renew()
	}
	p.mu.Unlock()
	if newlyMissed {
		p.log.Warn("server is missed", "server", o.name, "silence", silence)
		p.Beat()
	}
	if newlySilent {
		p.log.Warn("server is silent: its sessions do not count any more", "server", o.name, "silence", silence)
		p.mesh.PeerSilent(o.name)
	}
	next := MissedAfter
	for _, at := range []time.Duration{MissedAfter, SilentAfter} {
		if silence < at {
			next = min(next, at-silence)
		}
	}
	return next
}

// hear notes a sign of life. It returns false when the stream that it came on is not the server's any more.
func (p *Peers) hear(o *other, asks chan *peerv1.Run, beat *peerv1.Beat) bool {
	now := time.Now()
	p.mu.Lock()
	if o.asks != asks {
		p.mu.Unlock()
		return false
	}
	o.heard = now
	back := o.missed
	o.missed, o.silent = false, false
	turned := false
	if beat != nil {
		o.beat = beat
		if beat.GetTime().IsValid() {
			turned = o.skew.note(beat.GetTime().AsTime(), now)
		}
	}
	ahead := o.skew.offset()
	if back || beat != nil {
		p.changedLocked()
	}
	p.mu.Unlock()
	switch {
	case turned && ahead != 0:
		p.log.Warn("the clocks of two servers differ; votes that come from it are taken on this server's clock", "server", o.name, "ahead", ahead.Round(time.Millisecond))
	case turned:
		p.log.Info("the clocks of two servers agree again", "server", o.name)
	}
	if back {
		p.log.Info("server is heard again", "server", o.name)
		p.Beat()
	}
	return true
}

// awakeLocked notices that this process itself stood still (it was stopped, its machine slept, or it got no CPU): that the others were not heard meanwhile says nothing
// of them, and they are missed from now on at the earliest.
func (p *Peers) awakeLocked(now time.Time) {
	still := now.Sub(p.ticked)
	if p.ticked.IsZero() {
		return // it does not run yet
	}
	if p.ticked = now; still < MissedAfter {
		return
	}
	for _, o := range p.others {
		o.since = now
	}
	p.m.stood(still)
	p.log.Warn("this process stood still; that others were not heard meanwhile does not count", "duration", still)
}

// lone tells whether there is nobody to keep a journal for: no other server is known, or was within a day.
func (p *Peers) lone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.surveyed && len(p.others) == 0 && time.Since(p.fresh) >= freshFor
}
