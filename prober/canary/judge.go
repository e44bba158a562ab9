package canary

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Heard notes that something that was probed at an address has answered.
func (c *Canary) Heard(from netip.Addr) {
	if c == nil || !from.IsValid() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.families[familyOf(from)]
	f.heard, f.from = time.Now(), from.Unmap()
}

// Excuse tells whether the failure of a probe that began then is the prober's own, and says why in a sentence. remote is the address that was probed, the zero Addr when none was
// known yet. It returns within 1.5 s, and earlier when ctx ends: then, as in any doubt, the failure is the target's.
func (c *Canary) Excuse(ctx context.Context, remote netip.Addr, began time.Time) (why string, own bool) {
	if c == nil {
		return "", false
	}
	remote = remote.Unmap()
	names := []string{IPv4, IPv6}
	if remote.IsValid() {
		names = []string{familyOf(remote)}
	}
	since := began.Add(-slack)
	var silent, over []string
	for _, name := range names {
		switch v, targets := c.wait(ctx, name, remote, since); v {
		case answers:
			return "", false
		case silence:
			silent, over = append(silent, targets...), append(over, map[string]string{IPv4: "IPv4", IPv6: "IPv6"}[name])
		}
	}
	if len(silent) == 0 {
		return "", false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		if slices.Contains(over, map[string]string{IPv4: "IPv4", IPv6: "IPv6"}[name]) {
			c.families[name].state.Excused++
		}
	}
	slices.Sort(silent)
	return fmt.Sprintf("own network: no canary answers over %s (%s)", strings.Join(over, " or "), strings.Join(slices.Compact(silent), ", ")), true
}

// view is what the canaries say.
type view int

const (
	nothing view = iota // there is none that may speak
	answers
	silence
)

// wait asks the canaries of a family, unless they have said enough since then.
func (c *Canary) wait(ctx context.Context, family string, remote netip.Addr, since time.Time) (view, []string) {
	var r *round
	for {
		c.mu.Lock()
		v, names := c.lookLocked(family, remote, since)
		var news chan struct{}
		if r != nil {
			news = r.news
		}
		c.mu.Unlock()
		if v != silence {
			return v, nil
		}
		if len(names) > 0 {
			return silence, names
		}
		if r == nil {
			if r = c.round(since); r == nil {
				return nothing, nil
			}
			continue // to take its channel before its answers come
		}
		select {
		case <-news:
		case <-r.done:
			c.mu.Lock()
			v, names := c.lookLocked(family, remote, since)
			c.mu.Unlock()
			if v == silence && len(names) == 0 {
				return c.over(r, family, remote, since)
			}
			return v, names
		case <-ctx.Done():
			return answers, nil
		}
	}
}

// over is what a round says that has ended without an answer of those that may speak, though one that may not has answered.
func (c *Canary) over(r *round, family string, remote netip.Addr, since time.Time) (view, []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base == nil || c.base.Err() != nil || r.began.Before(since) {
		return answers, nil // cut off, or of before the probe: doubt
	}
	return silence, namesOf(c.believed(family, remote))
}

// lookLocked is what is known already; silence without names means that somebody has to be asked.
func (c *Canary) lookLocked(family string, remote netip.Addr, since time.Time) (view, []string) {
	f := c.families[family]
	may := c.believed(family, remote)
	if len(may) == 0 {
		return nothing, nil
	}
	hosts := map[netip.Addr]bool{}
	for _, t := range may {
		if !t.last.Before(since) {
			return answers, nil
		}
		hosts[t.address.Addr()] = true
	}
	if len(hosts) == 1 && !f.heard.Before(since) && f.from != remote {
		return answers, nil
	}
	if !f.dead.Before(since) {
		return silence, namesOf(may)
	}
	return silence, nil
}

// believed are the canaries of a family that may speak about an address.
func (c *Canary) believed(family string, remote netip.Addr) (may []*target) {
	for _, t := range c.families[family].targets {
		if (t.ever || t.named) && t.address.Addr() != remote {
			may = append(may, t)
		}
	}
	return may
}

func namesOf(targets []*target) (names []string) {
	for _, t := range targets {
		names = append(names, t.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func familyOf(a netip.Addr) string {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}
