package catalog

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/drill/netns"
	"github.com/probemesh/probemesh/internal/localmesh"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// cutRound is one cut and what was seen of it.
type cutRound struct {
	*cutDrill
	c         cutCase
	away      *localmesh.Member // the server of the datacenter that is cut off
	from, to  time.Time
	cut, heal time.Time
	before    netns.Stats

	mu              sync.Mutex // guards all below
	calls, answered int
	unanswered      []string
	slowest         time.Duration
	votes           int
	wrong           []string
}

// Each of the other servers is asked 5 times a second for the status of every check, and must answer within 2 s.
const (
	askEvery = 200 * time.Millisecond
	askLimit = 2 * time.Second
	// probeUnderWay is how far the clock of a prober may be from this one's.
	probeUnderWay = 100 * time.Millisecond
)

// ask asks the other servers throughout, until ctx ends.
func (k *cutRound) ask(ctx context.Context) {
	var all sync.WaitGroup
	t := time.NewTicker(askEvery)
	defer t.Stop()
	for ctx.Err() == nil {
		for _, s := range k.m.Others(k.away) {
			all.Go(func() { k.askOne(ctx, s) })
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	all.Wait()
}

func (k *cutRound) askOne(ctx context.Context, s *localmesh.Member) {
	ask, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	begin := time.Now()
	resp, err := k.m.Client(s).Statuses.ListStatuses(ask, &meshv1.ListStatusesRequest{PageSize: 1000})
	if ctx.Err() != nil {
		return // the round is over
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if err != nil {
		k.unanswered = append(k.unanswered, fmt.Sprintf("%s during %s, %s after the cut: %v", s, k.c.what, begin.Sub(k.cut).Round(time.Millisecond), err))
		return
	}
	k.answered++
	k.slowest = max(k.slowest, time.Since(begin))
	if k.c.silent && begin.Before(k.heal) {
		k.look(s, begin, resp.GetStatuses())
	}
}

// look holds the votes that one server counts of the probers that are cut off against what can be known of them: nothing since the cut. The caller holds mu.
func (k *cutRound) look(s *localmesh.Member, now time.Time, statuses []*meshv1.CheckStatus) {
	// A vote is fresh for the interval, the timeout and 2 s.
	stale := k.cut.Add(k.r.Interval + k.r.Timeout() + 3*time.Second)
	for _, x := range statuses {
		check := strings.TrimPrefix(x.GetCheck(), "checks/")
		for _, v := range x.GetVotes() {
			if prober := strings.TrimPrefix(v.GetProber(), "probers/"); !v.GetFresh() || k.datacenter(prober) != k.away.Datacenter {
				continue
			}
			k.votes++
			switch started := v.GetStartTime().AsTime(); {
			case now.After(stale):
				k.wrong = append(k.wrong, fmt.Sprintf("%s still counts the vote %s of %s for %s, %s after the cut", s, v.GetOutcome(), v.GetProber(), check, now.Sub(k.cut).Round(time.Millisecond)))
			case started.After(k.cut.Add(probeUnderWay)):
				k.wrong = append(k.wrong, fmt.Sprintf("%s counts the vote %s of %s for %s, which was cast %s after the cut", s, v.GetOutcome(), v.GetProber(), check, started.Sub(k.cut).Round(time.Millisecond)))
			}
		}
	}
}

func (k *cutRound) datacenter(prober string) string {
	for _, p := range k.m.Probers() {
		if p.Name == prober {
			return p.Datacenter
		}
	}
	return ""
}

// totals is what a report of a round would say of the targets outside.
type totals struct {
	opened, resolved int
	down             time.Duration // as announced
}

func (k *cutRound) totals() totals {
	var t totals
	outside := map[string]bool{}
	for _, x := range k.outside {
		outside["checks/"+x.Check] = true
	}
	seen := map[string]bool{}
	for _, d := range k.r.Receiver.All() {
		if d.Fault != "" || seen[d.Key] || !outside[d.Note.GetCheck()] {
			continue
		}
		start := d.Note.GetStartTime().AsTime()
		if start.Before(k.from) || start.After(k.to) {
			continue
		}
		seen[d.Key] = true
		switch d.Note.GetTransition() {
		case meshv1.Notification_OPENED:
			t.opened++
		case meshv1.Notification_RESOLVED:
			t.resolved++
			t.down += d.Note.GetEndTime().AsTime().Sub(start)
		}
	}
	return t
}

// conclude adds the figures of the cuts.
func (d *cutDrill) conclude(context.Context) error {
	calls, slowest, votes := 0, time.Duration(0), 0
	var unanswered, wrong, differ []string
	var worst time.Duration
	var reference totals
	var lost uint64
	for _, k := range d.rounds {
		calls, votes, slowest = calls+k.calls, votes+k.votes, max(slowest, k.slowest)
		unanswered, wrong = append(unanswered, k.unanswered...), append(wrong, k.wrong...)
		t := k.totals()
		if k.c.fault == (netns.Fault{}) {
			reference = t
			continue
		}
		if t.opened != reference.opened || t.resolved != reference.resolved {
			differ = append(differ, fmt.Sprintf("%s: %d opened and %d resolved, %d and %d without a cut", k.c.what, t.opened, t.resolved, reference.opened, reference.resolved))
		}
		if by := (t.down - reference.down).Abs(); by > worst {
			worst = by
		}
	}
	for _, s := range d.m.Servers() {
		x := d.n.Stats(s.Datacenter)
		lost += x.CutIn + x.CutOut
	}
	d.r.AtMost("api_unanswered", "calls", float64(len(unanswered)), 0, "the other servers are reachable throughout, asked 5 times a second each, and answer within 2 s", unanswered...)
	d.r.Inform("api_calls", "calls", float64(calls), "")
	d.r.Inform("api_slowest_seconds", "seconds", slowest.Seconds(), "the slowest answer")
	d.r.AtMost("votes_of_the_cut_off", "votes", float64(len(wrong)), 0, "what cannot be heard is absent: no failure, and after interval + timeout + 2 s no vote", wrong...)
	d.r.Inform("votes_looked_at", "votes", float64(votes), "fresh votes of probers that were cut off, from before the cut")
	d.r.AtLeast("packets_lost", "packets", float64(lost), 100, "a cut that loses nothing has cut nothing")
	d.r.AtMost("totals_differing", "rounds", float64(len(differ)), 0, "as many incidents of the targets outside as in the round without a cut", differ...)
	// Each of the nine outages may be seen up to an interval later or earlier at either end: by other probers, at other phases.
	d.r.AtMost("totals_downtime_difference_seconds", "seconds", worst.Seconds(), math.Round(9*d.r.Interval.Seconds()), "nine outages, each seen by other probers at other phases: an interval each")
	return nil
}

// listenIn listens inside of a datacenter.
func listenIn(n *netns.Network, datacenter string) func(network, address string) (net.Listener, error) {
	return func(network, address string) (net.Listener, error) { return n.Listen(datacenter, network, address) }
}
