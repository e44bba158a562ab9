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

// freshFor is how long a server whose journal is new lets go of nothing: if it has lost its disk, it does not know of servers that were away at that time, and whose records
// have gone from the store.
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
