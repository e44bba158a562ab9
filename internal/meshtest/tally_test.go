package meshtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// tally counts what schedules came to, so that it can be seen what was played, and not only that nothing failed. Its methods may be called concurrently.
type tally struct {
	mu         sync.Mutex
	schedules  int
	failed     []uint64 // seeds with violations
	violations int
	faults     map[string]int // by kind, those that began
	incidents  int
	delivered  int           // notifications that the receiver took, each once
	posts      int           // how often it was called for them
	refused    int           // writes of an old term that etcd refused
	held       int           // outages that a quorum saw and whose incident was open while the mesh was held to the bound
	worst      time.Duration // the longest that one was seen without an incident meanwhile
	mesh       time.Duration // how long all of it took in the time of the meshes
}

func newTally() *tally { return &tally{faults: map[string]int{}} }

// add counts a schedule that has been played.
func (y *tally) add(w *world, violations int) {
	w.audit.mu.Lock()
	opened, refused := len(w.audit.opened), w.audit.refused
	w.audit.mu.Unlock()
	w.box.mu.Lock()
	delivered, posts := len(w.box.seen), w.box.posts
	w.box.mu.Unlock()
	y.mu.Lock()
	defer y.mu.Unlock()
	y.schedules++
	if violations > 0 {
		y.failed = append(y.failed, w.plan.seed)
	}
	for kind, n := range w.met {
		y.faults[kind] += n
	}
	y.violations += violations
	y.incidents += opened
	y.delivered += delivered
	y.posts += posts
	y.refused += refused
	y.held += w.w.held
	y.worst = max(y.worst, w.w.worst)
	y.mesh += time.Since(w.made)
}

// String is the figures, on a line each, and every kind of fault with how often it was met.
func (y *tally) String() string {
	y.mu.Lock()
	defer y.mu.Unlock()
	total, kinds := 0, make([]string, 0, len(y.faults))
	for _, kind := range slices.Sorted(maps.Keys(y.faults)) {
		total += y.faults[kind]
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, y.faults[kind]))
	}
	slices.Sort(y.failed)
	return fmt.Sprintf("schedules=%d faults=%d incidents=%d notifications=%d posts=%d refused_writes=%d outages_held_to_bound=%d worst=%s mesh_time=%s violations=%d failed_seeds=%v\nfaults: %s",
		y.schedules, total, y.incidents, y.delivered, y.posts, y.refused, y.held, y.worst.Round(time.Millisecond), y.mesh.Round(time.Second), y.violations, y.failed,
		strings.Join(kinds, ", "))
}
