package link

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	backoffMin   = time.Second
	backoffMax   = 10 * time.Second
	livedFor     = 10 * time.Second
	redirectMax  = time.Minute
	addressesMax = 64
	// redirectFailures is the most failures that a redirect and its target count as: backoff is to spare servers that do not answer, and here one does.
	redirectFailures = 2
)

// book knows where servers are. Safe for concurrent use.
type book struct {
	path               string
	log                *slog.Logger
	prober, datacenter string
	configured         []string

	mu        sync.Mutex // guards everything below
	known     []string   // addresses from the last Welcome, for servers that do not tell more
	places    []place    // from the last Welcome or Servers, ranked
	preferred []string   // from a Redirect; each is tried once
	lost      string     // the address whose session ended last; tried after the others
	turn      int
}

// page is the book on disk. An older build wrote the addresses alone, as a list.
type page struct {
	Servers   []place  `json:"servers"`
	Addresses []string `json:"addresses"`
}

// openBook reads the servers of an earlier run. A file that is not one is no fault: the configured addresses are enough.
func openBook(cfg Config, log *slog.Logger) *book {
	b := &book{path: cfg.Book, prober: cfg.Prober, datacenter: cfg.Datacenter, configured: cfg.Servers, log: log}
	raw, err := os.ReadFile(b.path)
	if err == nil {
		var p page
		if json.Unmarshal(raw, &p.Addresses) != nil {
			p.Addresses = nil
			err = json.Unmarshal(raw, &p)
		}
		b.known, b.places = p.Addresses, rank(b.prober, b.datacenter, p.Servers)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("remembered server addresses cannot be read; the configured ones are used", "file", b.path, "err", err)
		b.known, b.places = nil, nil
	}
	return b
}

// nowhere tells whether an address leads to no server in particular: a server that listens on every address of its machine and was not told under which others reach
// it says 0.0.0.0 or [::], which here would be this machine, and perhaps another mesh.
func nowhere(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address == ""
	}
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// remember keeps what a server said of itself and of the others. It was reached at an address, which is believed when its own leads nowhere.
func (b *book) remember(server, reached string, addresses []string, servers []*meshv1.ServerAddress) {
	var places []place
	for _, s := range servers[:min(len(servers), addressesMax)] {
		p := place{Server: s.GetServer(), Datacenter: s.GetDatacenter(), Address: s.GetAddress()}
		if nowhere(p.Address) && p.Server == server {
			p.Address = reached
		}
		if !nowhere(p.Address) && p.Server != "" {
			places = append(places, p)
		}
	}
	addresses = slices.DeleteFunc(slices.Clone(addresses), nowhere)
	addresses = addresses[:min(len(addresses), addressesMax)]
	slices.Sort(addresses) // which server comes first says only who was asked
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(addresses) == 0 {
		addresses = b.known
	}
	places = rank(b.prober, b.datacenter, places)
	if len(places) == 0 {
		places = b.places
	}
	if slices.Equal(addresses, b.known) && slices.Equal(places, b.places) {
		return
	}
	b.known, b.places = addresses, places
	raw, err := json.Marshal(page{Servers: places, Addresses: addresses})
	if err == nil {
		if err = os.WriteFile(b.path+".tmp", raw, 0o600); err == nil {
			err = os.Rename(b.path+".tmp", b.path)
		}
	}
	if err != nil {
		b.log.Warn("server addresses cannot be remembered", "file", b.path, "err", err)
	}
}

// ranked gives the servers that are known, the prober's home first; empty before the first Welcome. It must not be changed.
func (b *book) ranked() []place {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.places
}

// Places gives addresses of servers, `host:port`: that of the prober's home, then one of each other datacenter, then the rest; the configured ones before the first Welcome.
func (l *Link) Places() []string {
	all := l.book.ranked()
	if len(all) == 0 {
		return slices.Clone(l.book.configured)
	}
	var first, rest []string
	seen := map[string]bool{}
	for _, p := range all {
		if seen[p.Datacenter] {
			rest = append(rest, p.Address)
		} else {
			seen[p.Datacenter] = true
			first = append(first, p.Address)
		}
	}
	return append(first, rest...)
}

// prefer makes the next attempts go to the addresses; when there are none, to any but the present one.
func (b *book) prefer(addresses []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.preferred = slices.DeleteFunc(slices.Clone(addresses[:min(len(addresses), addressesMax)]), nowhere)
}

// hasPreferred tells whether an address of a Redirect has not been tried yet.
func (b *book) hasPreferred() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.preferred) > 0
}

// leave notes that the session at an address has ended: attempts begin anew, with that address last.
func (b *book) leave(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost, b.turn = address, 0
}

// next is the address to try.
func (b *book) next() (address string, preferred bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.preferred) > 0 {
		address, b.preferred = b.preferred[0], b.preferred[1:]
		return address, true
	}
	all := b.allLocked()
	address = all[b.turn%len(all)]
	b.turn++
	return address, false
}

// size is how many addresses a round has.
func (b *book) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.allLocked())
}

// allLocked gives every address: those of known servers by their rank, the configured ones, those named without a server; the lost one last.
func (b *book) allLocked() []string {
	var all []string
	add := func(a string) {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for _, p := range b.places {
		add(p.Address)
	}
	for _, a := range slices.Concat(b.configured, b.known) {
		add(a)
	}
	slices.SortStableFunc(all, func(x, y string) int { return cmp.Compare(last(x == b.lost), last(y == b.lost)) })
	return all
}

func last(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// backoff is the pause before the attempt after so many failures: full jitter, chance is in [0, 1).
func backoff(failures int, chance float64) time.Duration {
	if failures <= 0 {
		return 0
	}
	limit := backoffMax
	if failures <= 5 {
		limit = min(backoffMax, backoffMin<<(failures-1))
	}
	return time.Duration(chance * float64(limit))
}
