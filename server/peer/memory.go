package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
)

// saveEvery is how often what has changed is written down. What is lost by a crash costs repetitions only, which the histories drop.
const saveEvery = time.Second

// remembered is one other server, as it is written down: so a server that starts while etcd has no quorum still finds the others, and goes on in their journals, and
// they in its.
type remembered struct {
	Server     string    `json:"server"`
	Datacenter string    `json:"datacenter"`
	Address    string    `json:"address"`
	BootID     string    `json:"boot_id"`
	Seen       time.Time `json:"seen"`
	Journal    string    `json:"journal"`
	Position   uint64    `json:"position"`
	// Acked is how far it is with the journal of the id Mine.
	Acked uint64 `json:"acked"`
	Mine  string `json:"mine"`
}

// memory is the file peers.json.
type memory struct {
	path string
	log  *slog.Logger
	list []remembered // as it was found

	mu      sync.Mutex // guards everything below
	before  []byte     // as it was written last
	failing bool
}

func openMemory(dir string, log *slog.Logger) (*memory, error) {
	m := &memory{path: filepath.Join(dir, "peers.json"), log: log}
	b, err := os.ReadFile(m.path)
	if errors.Is(err, os.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("what is remembered of other servers: %w", err)
	}
	if err := json.Unmarshal(b, &m.list); err != nil {
		log.Warn("what was remembered of other servers cannot be read; they are found in the store, and send their journals again", "file", m.path, "err", err)
	}
	return m, nil
}

// save writes the list if it has changed. It waits for the disk.
func (m *memory) save(list []remembered) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := json.MarshalIndent(list, "", "  ")
	if err == nil && bytes.Equal(b, m.before) {
		return
	}
	if err == nil {
		err = replaceFile(m.path, append(b, '\n'))
	}
	if err != nil && !m.failing {
		m.log.Warn("what is known of other servers cannot be written down; after a restart they are found in the store only", "file", m.path, "err", err)
	}
	if m.failing = err != nil; !m.failing {
		m.before = b
	}
}

// recall makes others of what is remembered. A clock that was wrong then or is now forgets nobody for an hour.
func (p *Peers) recall(now time.Time) {
	for _, r := range p.memory.list {
		if r.Server == "" || r.Server == p.name {
			continue
		}
		seen := r.Seen
		if soonest := now.Add(time.Hour - RememberFor); seen.Before(soonest) {
			seen = soonest
		}
		if seen.After(now) {
			seen = now
		}
		o := &other{name: r.Server, datacenter: r.Datacenter, address: r.Address, boot: r.BootID, seen: now.Add(seen.Sub(now)), journal: r.Journal, position: r.Position, kick: make(chan struct{}, 1)}
		if r.Mine == p.journal.id {
			o.acked = r.Acked
		}
		p.others[o.name] = o
	}
	p.memory.list = nil
}

// remembered are the others, as a server that follows is told of them: it may be on a new disk, and know of none that are away.
func (p *Peers) remembered(follower string, now time.Time) (list []*peerv1.RememberedServer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.others {
		if o.name != follower {
			list = append(list, &peerv1.RememberedServer{Server: o.name, Address: o.address, Datacenter: o.datacenter, Away: durationpb.New(max(now.Sub(o.seen), 0))})
		}
	}
	slices.SortFunc(list, func(a, b *peerv1.RememberedServer) int { return strings.Compare(a.GetServer(), b.GetServer()) })
	return list
}

// learnLocked takes over whom another server remembers. Nobody is remembered for longer by that than a day after one of them had a sign of its life.
func (p *Peers) learnLocked(from string, list []*peerv1.RememberedServer, now time.Time) {
	for _, r := range list {
		away := max(r.GetAway().AsDuration(), 0)
		name, err := spec.ParseName(spec.Servers, r.GetServer())
		if err != nil || name != r.GetServer() || name == p.name || away > RememberFor {
			continue
		}
		o, seen := p.others[name], now.Add(-away)
		if o == nil {
			o = &other{name: name, kick: make(chan struct{}, 1)}
			p.others[name] = o
			p.log.Info("a server is known from another: what it lacks is kept for it", "server", name, "from", from, "away", away.Round(time.Second))
		}
		if !seen.After(o.seen) {
			continue
		}
		o.seen = seen
		if o.end == nil && !o.listed {
			o.address, o.datacenter = r.GetAddress(), r.GetDatacenter()
		}
	}
}

// memories are what is to be written down.
func (p *Peers) memories() []remembered {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []remembered{}
	for _, o := range p.others {
		// To the minute: it need not be written each second for that.
		list = append(list, remembered{Server: o.name, Datacenter: o.datacenter, Address: o.address, BootID: o.boot, Seen: o.seen.Round(0).Truncate(time.Minute),
			Journal: o.journal, Position: o.position, Acked: o.acked, Mine: p.journal.id})
	}
	slices.SortFunc(list, func(a, b remembered) int { return strings.Compare(a.Server, b.Server) })
	return list
}

// remember writes down what is known of the others, and lets the journal go of what all of them have, until ctx ends. It waits for the disk, as nothing else does that
// others wait for.
func (p *Peers) remember(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		p.journal.release(p.lowest())
		p.measure()
		p.memory.save(p.memories())
		if err := p.journal.note(); err != nil {
			p.log.Debug("what the journal dropped cannot be written down", "err", err)
		}
	}
}

// measure counts what the others lack of earlier boots of this server.
func (p *Peers) measure() {
	acked := map[*other]uint64{}
	p.mu.Lock()
	for _, o := range p.others {
		acked[o] = o.acked
	}
	p.mu.Unlock()
	for o, position := range acked {
		n := p.journal.older(position)
		p.mu.Lock()
		if o.acked == position {
			o.older = n
		}
		p.mu.Unlock()
	}
}

// freshFor is how long a server whose journal is new lets go of nothing, over restarts: if it has lost its disk, it does not know of servers that were away at that time, and
// whose records have gone from the store, before it has heard of them from another that does.
const freshFor = 15 * time.Minute

// lowest is the position that everybody has who is remembered.
func (p *Peers) lowest() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.surveyed && len(p.others) == 0 || time.Since(p.fresh) < freshFor {
		return 0
	}
	lowest := p.journal.last()
	for _, o := range p.others {
		lowest = min(lowest, o.acked)
	}
	return lowest
}
