package meshtest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// plan is a schedule of faults, drawn from a seed. It is made before anything runs, and nothing in it depends on what happens.
type plan struct {
	seed    uint64
	servers []string // names; homes has their datacenters
	probers []string // "fra-1": the datacenter up to the dash
	checks  int
	lasts   time.Duration
	faults  []planned
}

// planned is a fault at a time.
type planned struct {
	at, lasts time.Duration // since the faults began; lasts is 0 for one that is over at once
	kind      string
	node      string // a server, a prober, a datacenter, "leader" or "follower"; of some kinds
	other     string
	n         int
}

func (f planned) String() string {
	words := []string{fmt.Sprintf("%6.1fs", f.at.Seconds()), f.kind}
	for _, w := range []string{f.node, f.other} {
		if w != "" {
			words = append(words, w)
		}
	}
	if f.n != 0 {
		words = append(words, fmt.Sprint("n=", f.n))
	}
	if f.lasts > 0 {
		words = append(words, "for "+f.lasts.String())
	}
	return strings.Join(words, " ")
}

func (p plan) String() string {
	out := fmt.Sprintf("seed %d: servers %v, probers %v, %d checks\n", p.seed, p.servers, p.probers, p.checks)
	for _, f := range p.faults {
		out += "  " + f.String() + "\n"
	}
	return out
}

// kinds are the faults, and how often each is drawn.
var kinds = []struct {
	kind   string
	weight int
}{
	{"kill", 10}, {"host dies", 4}, {"lose the disk of", 2}, {"quit", 5}, {"pause", 8}, {"history stalls at", 2},
	{"cut off datacenter", 5}, {"one way from datacenter", 2}, {"one way between servers", 5}, {"one way from", 4}, {"one way to", 4}, {"slow", 4},
	{"etcd is lost", 5}, {"etcd is slow", 2}, {"etcd answers late", 3}, {"etcd loses answers", 6}, {"etcd loses requests", 3}, {"etcd resets connections", 2},
	{"one way to etcd from", 3}, {"slow to etcd from", 2}, {"one way from etcd to", 3}, {"watch events are lost", 3}, {"watches are silent", 3}, {"watches break, compacted", 4},
	{"leader's lease is revoked", 4}, {"leases are not renewed", 2}, {"reads are stale", 4}, {"clock jumps at", 5},
	{"prober restarts", 4}, {"prober loses its disk", 1}, {"prober is cut off", 4}, {"one way from prober", 2}, {"one way to prober", 2},
	{"target is down", 14}, {"target is down from", 5}, {"all targets are down", 2}, {"edit", 4}, {"pause check", 2}, {"delete and make again", 2}, {"new check", 1},
	{"receiver fails", 3}, {"receiver loses answers", 4}, {"receiver is slow", 2},
}

// draw makes the schedule of a seed. lasts is how long faults begin.
func draw(seed uint64, lasts time.Duration) plan {
	r := rand.New(rand.NewPCG(seed, 1))
	p := plan{seed: seed, lasts: lasts, checks: 4 + r.IntN(3)}
	places, each := []string{"fra", "iad", "nrt"}, 1
	switch n := r.IntN(20); {
	case n < 11:
		p.servers = []string{"a", "b", "c"}
	case n < 14:
		p.servers, each = []string{"a", "b", "c"}, 2
	case n < 18: // two datacenters and a witness
		p.servers, places, each = []string{"a", "b", "w"}, []string{"fra", "iad"}, 2
	default:
		p.servers, places = []string{"a", "b", "c", "d", "e"}, []string{"fra", "iad", "nrt", "sfo", "syd"}
	}
	for _, d := range places {
		for i := range each {
			p.probers = append(p.probers, fmt.Sprint(d, "-", i+1))
		}
	}
	// Something is down while other things happen, in every schedule.
	p.faults = append(p.faults, planned{at: seconds(r, 0, 10), lasts: seconds(r, 20, 50), kind: "target is down", node: p.check(r)})
	for at := seconds(r, 1, 8); at < lasts; at += seconds(r, 1, 12) {
		for range 1 + max(0, r.IntN(5)-2) { // one, or two or three at once
			p.faults = append(p.faults, p.fault(r, at, places))
		}
	}
	p.inOrder()
	return p
}

// inOrder sorts the faults by their times.
func (p *plan) inOrder() {
	slices.SortStableFunc(p.faults, func(a, b planned) int { return cmp.Compare(a.at, b.at) })
}

func seconds(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from)*time.Second + time.Duration(r.Int64N(int64(to-from)*1000))*time.Millisecond
}

// check is one of those that may fail; the last one never does.
func (p plan) check(r *rand.Rand) string { return fmt.Sprint("checks/c", r.IntN(p.checks-1)) }

func (p plan) server(r *rand.Rand) string {
	if n := r.IntN(5); n < 2 {
		return "leader"
	} else if n == 2 {
		return "follower"
	}
	return p.servers[r.IntN(len(p.servers))]
}

func (p plan) fault(r *rand.Rand, at time.Duration, places []string) planned {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	f := planned{at: at, lasts: seconds(r, 1, 25)}
	n := r.IntN(total)
	for _, k := range kinds {
		f.kind = k.kind
		if n < k.weight {
			break
		}
		n -= k.weight
	}
	switch f.kind {
	case "pause":
		// Around the lease: well below, just below, just above, far above.
		f.node, f.lasts = p.server(r), []time.Duration{time.Second, leaseTTL - time.Second, leaseTTL + time.Second, 20 * time.Second}[r.IntN(4)]
	case "kill", "host dies", "quit", "lose the disk of", "history stalls at", "one way from", "one way to", "one way to etcd from", "one way from etcd to":
		f.node = p.server(r)
	case "cut off datacenter", "one way from datacenter":
		f.node = places[r.IntN(len(places))]
	case "one way between servers":
		f.node, f.other = p.server(r), p.server(r)
	case "slow to etcd from":
		f.node, f.n = p.server(r), 200+r.IntN(3000)
	case "slow":
		f.node, f.n = p.server(r), 20+r.IntN(1200)
	case "etcd is slow", "etcd answers late":
		f.n = 50 + r.IntN(2500)
	case "etcd loses answers", "etcd loses requests":
		f.n, f.lasts = 1+r.IntN(4), 0
	case "watch events are lost":
		f.n = 1 + r.IntN(6)
	case "reads are stale":
		f.n = 1 + r.IntN(15)
	case "watches break, compacted", "leader's lease is revoked", "etcd resets connections":
		f.lasts = 0
	case "clock jumps at":
		// Milliseconds, forth or back. Servers are to keep theirs within a second of each other; probers may be set to anything.
		f.node, f.lasts, f.n = p.server(r), 0, []int{100, 250, 500}[r.IntN(3)]
		if r.IntN(2) == 0 {
			f.node, f.n = p.probers[r.IntN(len(p.probers))], []int{500, 3000, 60_000, 600_000}[r.IntN(4)]
		}
		f.n *= 1 - 2*r.IntN(2)
	case "prober restarts", "prober is cut off", "one way from prober", "one way to prober":
		f.node = p.probers[r.IntN(len(p.probers))]
	case "prober loses its disk":
		f.node, f.lasts = p.probers[r.IntN(len(p.probers))], 0
	case "target is down":
		f.node, f.lasts = p.check(r), seconds(r, 5, 40)
	case "target is down from":
		f.node, f.other = p.check(r), places[r.IntN(len(places))]
	case "edit", "delete and make again", "new check":
		f.node, f.lasts = p.check(r), 0
	case "pause check":
		f.node = p.check(r)
	case "receiver is slow":
		f.n = 200 + r.IntN(8000)
	}
	return f
}

// has tells whether one of these kinds is in the plan.
func (p plan) has(kinds ...string) bool {
	return slices.ContainsFunc(p.faults, func(f planned) bool { return slices.Contains(kinds, f.kind) })
}
