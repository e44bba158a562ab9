package link

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"
)

const (
	backoffMin   = time.Second
	backoffMax   = 10 * time.Second
	livedFor     = 10 * time.Second
	redirectMax  = time.Minute
	addressesMax = 64
	// redirectFailures is the most failures that a redirect and its target count as: backoff is to spare servers that do not answer, and here one does.
	// When a leader has died, the others go on sending probers to it until they have elected another; after that each second counts.
	redirectFailures = 2
)

// book knows where servers are. Used by one goroutine.
type book struct {
	path       string
	log        *slog.Logger
	configured []string
	known      []string // from the last Welcome
	preferred  []string // from a Redirect; each is tried once
	turn       int
}

// openBook reads the addresses of an earlier run. A file that is not one is no fault: the configured addresses are enough.
func openBook(path string, configured []string, log *slog.Logger) *book {
	b := &book{path: path, configured: configured, log: log}
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &b.known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("remembered server addresses cannot be read; the configured ones are used", "file", path, "err", err)
		b.known = nil
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

// remember keeps the addresses of a Welcome.
func (b *book) remember(addresses []string) {
	addresses = slices.DeleteFunc(slices.Clone(addresses), nowhere)
	addresses = addresses[:min(len(addresses), addressesMax)]
	if len(addresses) == 0 {
		return
	}
	// Which server comes first says only who was asked.
	if slices.Equal(slices.Sorted(slices.Values(addresses)), slices.Sorted(slices.Values(b.known))) {
		return
	}
	b.known = addresses
	raw, err := json.Marshal(addresses)
	if err == nil {
		if err = os.WriteFile(b.path+".tmp", raw, 0o600); err == nil {
			err = os.Rename(b.path+".tmp", b.path)
		}
	}
	if err != nil {
		b.log.Warn("server addresses cannot be remembered", "file", b.path, "err", err)
	}
}

// prefer makes the next attempts go to the addresses; when there are none, to any but the present one.
func (b *book) prefer(addresses []string) {
	b.preferred = slices.DeleteFunc(slices.Clone(addresses[:min(len(addresses), addressesMax)]), nowhere)
}

// next is the address to try.
func (b *book) next() (address string, preferred bool) {
	if len(b.preferred) > 0 {
		address, b.preferred = b.preferred[0], b.preferred[1:]
		return address, true
	}
	all := slices.Clone(b.configured)
	for _, a := range b.known {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	address = all[b.turn%len(all)]
	b.turn++
	return address, false
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
