package gateway

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TurnedAway is a process that says it is a prober and is refused again and again.
type TurnedAway struct {
	// Prober is who it says it is, for example "probers/fra-1".
	Prober string
	// BootID is its own.
	BootID string
	// Datacenter and Build are what it says of itself.
	Datacenter, Build string
	// Address is where it calls from; the zero Addr when the transport does not tell.
	Address netip.Addr
	// Reason is PROBER_NAME_TAKEN or PROTOCOL_UNSUPPORTED.
	Reason meshv1.ErrorReason
	// Why is what it was told.
	Why string
	// First and Last are when it was turned away first and last.
	First, Last time.Time
}

const (
	// turnedKept is how many are remembered; the one that was turned away longest ago is forgotten for another.
	turnedKept = 64
	// turnedFor is how long: a prober goes round the servers and tries one every ten seconds at the latest, so with six servers each sees it within a minute.
	turnedFor = 90 * time.Second
)

// turned are the processes that were turned away lately. A prober that is started anew is so while its former process is missed, for three seconds: what
// is shown must last longer, which whoever shows it sees to.
type turned struct {
	mu   sync.Mutex // guards list
	list []TurnedAway
}

// note takes down that a process was refused, if the reason is one that does not go away by itself.
func (t *turned) note(h *meshv1.Hello, from netip.Addr, err error, now time.Time) {
	f, ok := fault.From(err)
	if !ok || (f.Reason != meshv1.ErrorReason_PROBER_NAME_TAKEN && f.Reason != meshv1.ErrorReason_PROTOCOL_UNSUPPORTED) {
		return
	}
	name := spec.Name(spec.Probers, clip(h.GetProber()))
	t.mu.Lock()
	defer t.mu.Unlock()
	x := TurnedAway{Prober: name, BootID: clip(h.GetBootId()), First: now}
	if i := t.at(x.Prober, x.BootID); i >= 0 {
		x.First = t.list[i].First
		t.list = slices.Delete(t.list, i, i+1)
	}
	x.Datacenter, x.Build, x.Address, x.Reason, x.Why, x.Last = clip(h.GetDatacenter()), clip(h.GetBuild()), from, f.Reason, f.Message, now
	if len(t.list) >= turnedKept {
		t.list = slices.Delete(t.list, 0, 1)
	}
	t.list = append(t.list, x)
}

// forget takes out a process that has been let in.
func (t *turned) forget(h *meshv1.Hello) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.at(spec.Name(spec.Probers, h.GetProber()), h.GetBootId()); i >= 0 {
		t.list = slices.Delete(t.list, i, i+1)
	}
}

func (t *turned) at(prober, boot string) int {
	return slices.IndexFunc(t.list, func(x TurnedAway) bool { return x.Prober == prober && x.BootID == boot })
}

// TurnedAway gives the processes that this server has refused within the last 90 s and not let in since, for a reason that does not go away by itself; sorted by
// the name that they claim, at most 64. It may be called concurrently.
func (g *Gateway) TurnedAway(now time.Time) []TurnedAway {
	g.turned.mu.Lock()
	defer g.turned.mu.Unlock()
	g.turned.list = slices.DeleteFunc(g.turned.list, func(x TurnedAway) bool { return now.Sub(x.Last) > turnedFor })
	all := slices.Clone(g.turned.list)
	slices.SortStableFunc(all, func(a, b TurnedAway) int { return strings.Compare(a.Prober, b.Prober) })
	return all
}
