package netns

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Command is the hidden command of the probemesh binary that runs [Exec].
const Command = "enter-network"

// Path is what the wire does to the packets of one direction. The zero value carries all, at once.
type Path struct {
	// Drop loses every packet.
	Drop bool
	// Delay is how long each packet takes, 0 or more; order is kept.
	Delay time.Duration
	// Loss is the share of packets that are lost, 0 to 1.
	Loss float64
}

// Fault is what is wrong with a site's connection to all others. The zero value is a sound one.
type Fault struct {
	// In is the way into the site, Out the way out of it.
	In, Out Path
}

// Cut is the fault of a site that nothing gets into or out of.
func Cut() Fault { return Fault{In: Path{Drop: true}, Out: Path{Drop: true}} }

// Slow is the fault of a site whose connection takes delay more each way and loses a share of the packets each way.
func Slow(delay time.Duration, loss float64) Fault {
	p := Path{Delay: delay, Loss: loss}
	return Fault{In: p, Out: p}
}

// Validate says what is wrong with f.
func (f Fault) Validate() error {
	for way, p := range map[string]Path{"into": f.In, "out of": f.Out} {
		if p.Delay < 0 || p.Delay > time.Minute {
			return fmt.Errorf("delay %s on the way %s a site: choose 0 to 1m", p.Delay, way)
		}
		if !(p.Loss >= 0 && p.Loss <= 1) {
			return fmt.Errorf("loss %v on the way %s a site: choose a share from 0 to 1", p.Loss, way)
		}
	}
	return nil
}

// Stats counts the packets of one site's connection since it was made.
type Stats struct {
	// In and Out were carried into and out of the site.
	In, Out uint64
	// CutIn and CutOut were lost on the way, because a [Fault] said so.
	CutIn, CutOut uint64
	// Overflow were lost because more than 8192 were on the way in one direction.
	Overflow uint64
	// Stray were for no site, or not of IPv4.
	Stray uint64
}

// queueLimit bounds the packets on the way in one direction of a site: at 1500 bytes each 12 MB, or a second at 100 Mbit/s.
const queueLimit = 8192

// line is one direction of a site's connection. A packet goes through the line out of its site and the line into the other.
type line struct {
	path     atomic.Pointer[Path]
	queued   atomic.Int64 // packets in queue, and the one that its goroutine holds
	queue    chan packet
	carried  atomic.Uint64
	lost     atomic.Uint64
	overflow atomic.Uint64

	mu     sync.Mutex // guards chance
	chance *rand.Rand
}

type packet struct {
	due  time.Time
	data []byte
	next func([]byte)
}

func newLine(seed uint64) *line {
	l := &line{queue: make(chan packet, queueLimit), chance: rand.New(rand.NewPCG(seed, 0))}
	l.path.Store(&Path{})
	return l
}

// send gives a packet to next, now or later or never. The line owns data from now on.
func (l *line) send(data []byte, next func([]byte)) {
	p := l.path.Load()
	if p.Drop || p.Loss > 0 && l.unlucky(p.Loss) {
		l.lost.Add(1)
		return
	}
	if p.Delay == 0 && l.queued.Load() == 0 {
		l.carried.Add(1)
		next(data)
		return
	}
	l.queued.Add(1)
	select {
	case l.queue <- packet{time.Now().Add(p.Delay), data, next}:
	default:
		l.queued.Add(-1)
		l.overflow.Add(1)
	}
}

func (l *line) unlucky(share float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chance.Float64() < share
}

// run carries the packets that take time, until done is closed. A cut also loses those on the way.
func (l *line) run(done <-chan struct{}) {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case p := <-l.queue:
			if wait := time.Until(p.due); wait > 0 {
				t.Reset(wait)
				select {
				case <-done:
					return
				case <-t.C:
				}
			}
			if l.path.Load().Drop {
				l.lost.Add(1)
			} else {
				l.carried.Add(1)
				p.next(p.data)
			}
			l.queued.Add(-1)
		}
	}
}
