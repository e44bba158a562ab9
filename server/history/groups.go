package history

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

const (
	job = "probemesh"
	// remembered is how many starts of results a group remembers, to tell repeats from news. After a reconnect a prober repeats what was not acknowledged,
	// the last second or so; older repeats reach the store, which knows them too.
	remembered = 16
)

// groupKey is a check as one prober runs it. Another revision may have another URI.
type groupKey struct {
	check, prober string
	revision      int64
}

// group is where the series of one pair of check and prober are in the store.
type group struct {
	check, prober, datacenter, uri string

	used atomic.Int64 // the generation of the groups in which it was used last

	mu       sync.Mutex
	refs     [slotCount]storage.SeriesRef // 0: not known
	version  string                       // label value that refs[slotTLSVersion] has
	cipher   string                       // the same for refs[slotTLSCipher]
	errored  bool                         // the newest result written was an ERROR
	degraded bool                         // the newest result written that says something of the target was degraded
	newest   int64                        // start of the newest result written, Unix milliseconds
	starts   [remembered]int64            // starts of results written, a ring
	next     int
}

// labelsOf are the labels of one slot; text is the label's value where it varies.
func (g *group) labelsOf(s slot, text string) labels.Labels {
	sh := shapes[s]
	b := labels.NewScratchBuilder(8)
	b.Add(model.MetricNameLabel, sh.metric)
	b.Add("check", g.check)
	b.Add("datacenter", g.datacenter)
	b.Add("instance", g.uri)
	b.Add("job", job)
	b.Add("prober", g.prober)
	if sh.label != "" {
		if sh.value != "" {
			text = sh.value
		} else if s == slotTLSVersion {
			text = "TLS " + text
		}
		b.Add(sh.label, text)
	}
	b.Sort()
	return b.Labels()
}

// has tells whether a result that began at t was written lately. The caller holds g.mu.
func (g *group) has(t int64) bool {
	for _, s := range g.starts {
		if s == t {
			return true
		}
	}
	return false
}

// wrote takes note of a result that the store has.
func (g *group) wrote(t int64, errored, degraded bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.starts[g.next] = t
	g.next = (g.next + 1) % remembered
	if t >= g.newest {
		g.newest, g.errored, g.degraded = t, errored, degraded
	}
}

// groups is a bounded cache: when it is full, those go that have not been used since it was full last.
type groups struct {
	limit int

	mu         sync.RWMutex
	byKey      map[groupKey]*group
	generation int64
}

func newGroups(limit int) *groups {
	return &groups{limit: limit, byKey: make(map[groupKey]*group), generation: 1}
}

// of gives the group of an entry; check and prober are ids.
func (gs *groups) of(check, prober string, revision int64, datacenter, uri string) *group {
	key := groupKey{check, prober, revision}
	gs.mu.RLock()
	g, generation := gs.byKey[key], gs.generation
	gs.mu.RUnlock()
	if g != nil && g.uri == uri && g.datacenter == datacenter {
		if g.used.Load() != generation {
			g.used.Store(generation)
		}
		return g
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if g = gs.byKey[key]; g != nil && g.uri == uri && g.datacenter == datacenter {
		return g
	}
	if len(gs.byKey) >= gs.limit {
		gs.evict()
	}
	g = &group{check: check, prober: prober, datacenter: datacenter, uri: uri}
	g.used.Store(gs.generation)
	gs.byKey[key] = g
	return g
}

// evict makes room for an eighth of the limit. The caller holds gs.mu.
func (gs *groups) evict() {
	for k, g := range gs.byKey {
		if g.used.Load() < gs.generation {
			delete(gs.byKey, k)
		}
	}
	for k := range gs.byKey {
		if len(gs.byKey) <= gs.limit-gs.limit/8-1 {
			break
		}
		delete(gs.byKey, k)
	}
	gs.generation++
}

// forget empties the cache: the store has been opened anew and its places have changed.
func (gs *groups) forget() {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	clear(gs.byKey)
}

func (gs *groups) size() int {
	gs.mu.RLock()
	defer gs.mu.RUnlock()
	return len(gs.byKey)
}
