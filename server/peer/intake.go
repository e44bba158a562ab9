package peer

import (
	"context"
	"sync"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	"github.com/probemesh/probemesh/server/history"
)

const (
	// windowFrames is how many History messages may be on their way without an acknowledgement; the follower has room for them.
	windowFrames = 64
	// appendMax is how many entries are appended at once, unless one message has more.
	appendMax = 1000
)

// intake is another server's history on its way into this one's. What is in it when a stream ends is forgotten: it was not acknowledged and comes again.
type intake struct {
	wake    chan struct{} // there is something
	settled chan struct{} // something is in the history

	mu     sync.Mutex // guards everything below
	queue  []*peerv1.History
	inHand int
	stream int // counts the streams
}

func newIntake() *intake {
	return &intake{wake: make(chan struct{}, 1), settled: make(chan struct{}, 1)}
}

// clear begins a new stream.
func (in *intake) clear() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.queue, in.inHand = nil, 0
	in.stream++
}

// put queues a message without waiting; false when the other server has not kept to the window.
func (in *intake) put(h *peerv1.History) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue)+in.inHand >= windowFrames {
		return false
	}
	in.queue = append(in.queue, h)
	signal(in.wake)
	return true
}

// next takes as many messages as are worth one append.
func (in *intake) next() (list []*peerv1.History, stream int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	n, entries := 0, 0
	for n < len(in.queue) && (n == 0 || entries+len(in.queue[n].GetEntries()) <= appendMax) {
		entries += len(in.queue[n].GetEntries())
		n++
	}
	list = in.queue[:n:n]
	in.queue, in.inHand = in.queue[n:], n
	return list, in.stream
}

// done tells whether what was taken is still of the current stream.
func (in *intake) done(stream int) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stream != stream {
		return false
	}
	in.inHand = 0
	return true
}

// take appends what comes to this server's history until ctx ends. A history that fails is tried again, and one that hangs is waited for: meanwhile nothing is
// acknowledged, and the other server's journal grows.
func (p *Peers) take(ctx context.Context, o *other, in *intake) {
	for {
		list, stream := in.next()
		if len(list) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-in.wake:
				continue
			}
		}
		entries := entriesOf(list)
		if !p.store(ctx, o, in, stream, entries) {
			if ctx.Err() != nil {
				return
			}
			continue
		}
		p.m.took(len(entries))
		p.settle(o, in, stream, list[len(list)-1])
	}
}

// store appends entries, again and again until the history takes them; false when the stream has ended meanwhile.
func (p *Peers) store(ctx context.Context, o *other, in *intake, stream int, entries []history.Entry) bool {
	failing := false
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := p.deps.History.Append(ctx, entries)
		if err == nil {
			if failing {
				p.log.Info("the history takes results of another server again", "server", o.name)
			}
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if !failing {
			failing = true
			p.log.Error("the history does not take results of another server; they wait in its journal", "server", o.name, "err", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		in.mu.Lock()
		over := in.stream != stream
		in.mu.Unlock()
		if over {
			return false
		}
	}
}

// settle notes what is in the history, and has it acknowledged.
func (p *Peers) settle(o *other, in *intake, stream int, last *peerv1.History) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !in.done(stream) {
		return
	}
	o.position = max(o.position, last.GetPosition())
	p.m.dropsElsewhere(o.name, last.GetDropped())
	signal(in.settled)
}

func entriesOf(list []*peerv1.History) []history.Entry {
	n := 0
	for _, h := range list {
		n += len(h.GetEntries())
	}
	entries := make([]history.Entry, 0, n)
	for _, h := range list {
		for _, e := range h.GetEntries() {
			entries = append(entries, history.Entry{Result: e.GetResult(), Prober: spec.ID(e.GetResult().GetProber()), Datacenter: e.GetDatacenter(), URI: e.GetUri()})
		}
	}
	return entries
}
