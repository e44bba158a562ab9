package peer

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// beatApart is the shortest time between two beats.
const beatApart = 20 * time.Millisecond

// pulse makes a beat every 200 ms, and whenever one is wanted at once, until ctx ends.
func (p *Peers) pulse(ctx context.Context) {
	tick := time.NewTicker(BeatEvery)
	defer tick.Stop()
	last := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.urge:
			if sleep(ctx, beatApart-time.Since(last)) != nil {
				return
			}
		}
		last = time.Now()
		p.broadcast(p.makeBeat(last))
	}
}

func (p *Peers) makeBeat(now time.Time) *peerv1.Beat {
	b := &peerv1.Beat{Time: timestamppb.New(now)}
	p.mu.Lock()
	p.awakeLocked(now)
	for _, o := range p.others {
		if o.end == nil {
			continue
		}
		if silence := o.silence(now); silence >= MissedAfter || o.refused {
			b.Missed = append(b.Missed, &peerv1.Missed{Server: o.name, BootId: o.boot, Silence: durationpb.New(silence), Refused: o.refused})
		}
	}
	p.mu.Unlock()
	slices.SortFunc(b.Missed, func(x, y *peerv1.Missed) int { return strings.Compare(x.GetServer(), y.GetServer()) })
	for _, fill := range p.deps.Fill {
		fill(b)
	}
	return b
}

func (p *Peers) broadcast(b *peerv1.Beat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beat = b
	for f := range p.feeds {
		f.pulse(b)
	}
}

// local is a snapshot for a follower.
func (p *Peers) local() ([]*peerv1.Presence, []*meshv1.Result) {
	p.m.snapshots.Add(context.Background(), 1)
	return p.mesh.Local()
}
