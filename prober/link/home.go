package link

import (
	"cmp"
	"hash/fnv"
	"slices"
)

// place is a server and where it is.
type place struct {
	// Server is its name, `servers/{server}`.
	Server string `json:"server"`
	// Datacenter is its datacenter.
	Datacenter string `json:"datacenter"`
	// Address is its gRPC address.
	Address string `json:"address"`
}

// rank orders servers for a prober, its home first; see the package doc. It depends on nothing else than its arguments, whatever their order, so it is the same after
// every restart, and a server that comes or goes moves only the probers whose home it becomes or was.
func rank(prober, datacenter string, servers []place) []place {
	out := slices.Clone(servers)
	slices.SortFunc(out, func(a, b place) int {
		return cmp.Or(cmp.Compare(weight(prober, b.Server), weight(prober, a.Server)), cmp.Compare(a.Server, b.Server))
	})
	home := max(0, slices.IndexFunc(out, func(p place) bool { return p.Datacenter == datacenter }))
	if home > 0 {
		p := out[home]
		out = slices.Insert(slices.Delete(out, home, home+1), 0, p)
	}
	return out
}

// weight is how much a server draws a prober: rendezvous hashing (Thaler and Ravishankar, 1996). FNV-1a alone hardly changes its high bits with the last
// characters, in which names differ; the finalizer of SplitMix64 spreads them.
func weight(prober, server string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(prober))
	h.Write([]byte{0})
	h.Write([]byte(server))
	x := h.Sum64()
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// standbys are the servers of a ranking to keep a connection warm to, best first, while the session is with another: those of other datacenters before
// those of the session's, which may go down with it. A home that the prober is not at comes last, because it has just been away.
func standbys(ranked []place, current string) []place {
	datacenter := ""
	for _, p := range ranked {
		if p.Server == current {
			datacenter = p.Datacenter
		}
	}
	var elsewhere, near, home []place
	for i, p := range ranked {
		switch {
		case p.Server == current:
		case i == 0:
			home = append(home, p)
		case p.Datacenter != datacenter:
			elsewhere = append(elsewhere, p)
		default:
			near = append(near, p)
		}
	}
	return slices.Concat(elsewhere, near, home)
}
