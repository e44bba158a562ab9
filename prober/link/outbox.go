package link

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Priority orders results; see the package doc.
type Priority int

// Priorities of results.
const (
	// Run: somebody asked for it and waits.
	Run Priority = iota
	// Changed: the outcome differs from the one before, or is SLOW.
	Changed
	// Routine: nothing new.
	Routine
	priorities
)

const (
	frameBytes   = 32 << 10 // a message stays below
	frameRoom    = 64       // for what a batch has besides its items
	batchResults = 500
	routineAge   = 900 * time.Millisecond // unchanged results leave within a second
	routineFull  = 250                    // or when there are so many
	controlMax   = 1024
)

// queueMax bounds the queues of results.
var queueMax = [priorities]int{Run: 1024, Changed: 4096, Routine: 16384}

// outbox has everything that waits to be sent, except for the backlog, which waits in the spool. Safe for concurrent use.
type outbox struct {
	wake chan struct{} // has an element when there may be something to send

	mu            sync.Mutex // guards everything below
	control       []*meshv1.ProberMessage
	results       [priorities][]*meshv1.Result
	routine       routine
	routineSince  time.Time // when the oldest unchanged result came
	inventory     []*meshv1.InventoryItem
	inventoryRev  int64
	inventoryDue  bool
	state         []*meshv1.Result
	frame         int // bytes that a message may have
	sendAllAtOnce bool
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), frame: frameBytes - frameRoom}
}

func (o *outbox) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// push adds a result; false when the queue is full.
func (o *outbox) push(r *meshv1.Result, p Priority) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.results[p])
	if p == Routine {
		n += o.routine.len()
	}
	if n >= queueMax[p] {
		return false
	}
	o.results[p] = append(o.results[p], r)
	if p == Routine {
		o.routineLocked()
	} else {
		o.nudge()
	}
	return true
}

// add adds an unchanged result as it was encoded; false when the queue is full, or when the result does not fit into a frame and so has to go as push takes it.
func (o *outbox) add(encoded []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.routine.len()+len(o.results[Routine]) >= queueMax[Routine] || len(encoded) > o.frame-frameRoom {
		return false
	}
	o.routine.add(encoded)
	o.routineLocked()
	return true
}

// routineLocked notes that an unchanged result has come.
func (o *outbox) routineLocked() {
	n := o.routine.len() + len(o.results[Routine])
	if n == 1 {
		o.routineSince = time.Now()
	}
	if n == 1 || n == routineFull {
		o.nudge()
	}
}

// say adds a control message; false when there are too many: the server does not read.
func (o *outbox) say(m *meshv1.ProberMessage) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.control) >= controlMax {
		return false
	}
	o.control = append(o.control, m)
	o.nudge()
	return true
}

// list starts the inventory, anew when one is under way.
func (o *outbox) list(items []*meshv1.InventoryItem, revision int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.inventory, o.inventoryRev, o.inventoryDue = items, revision, true
	o.nudge()
}

// open starts with the state, once Welcome has come.
func (o *outbox) open(state []*meshv1.Result, frame int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state, o.frame = state, frame
}

// retire lets go of what another session sends by now: the state, the inventory, and unchanged results, which are backlog there.
func (o *outbox) retire() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state, o.inventory, o.inventoryDue, o.results[Routine] = nil, nil, false, nil
	o.routine = routine{}
}

// frameSize is how many bytes of items a message may have.
func (o *outbox) frameSize() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.frame
}

// flush makes unchanged results leave at once from now on: the prober stops.
func (o *outbox) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sendAllAtOnce = true
}

// depth is how many results wait.
func (o *outbox) depth() (d [priorities]int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p := range d {
		d[p] = len(o.results[p])
	}
	d[Routine] += o.routine.len()
	return d
}

// nextControl returns the next control message, nil when there is none. local stamps a pong.
func (o *outbox) nextControl(local time.Time) *meshv1.ProberMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.control) == 0 {
		return nil
	}
	m := o.control[0]
	o.control = o.control[1:]
	if p := m.GetPong(); p != nil {
		p.TransmitTime = timestamppb.New(local)
	}
	return m
}

// next returns the next message by priority, nil when there is none that is ripe; then wait is when an unchanged result will be, 0 for none.
func (o *outbox) next(now time.Time) (m *meshv1.ProberMessage, wait time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range []Priority{Run, Changed} {
		if len(o.results[p]) > 0 {
			return batch(meshv1.ResultBatch_LIVE, o.take(&o.results[p])), 0
		}
	}
	if o.inventoryDue {
		return o.nextInventory(), 0
	}
	if len(o.state) > 0 {
		return batch(meshv1.ResultBatch_STATE, o.take(&o.state)), 0
	}
	n := o.routine.len() + len(o.results[Routine])
	if n == 0 {
		return nil, 0
	}
	if wait = routineAge - now.Sub(o.routineSince); wait > 0 && n < routineFull && !o.sendAllAtOnce {
		return nil, wait
	}
	if len(o.results[Routine]) > 0 {
		return batch(meshv1.ResultBatch_LIVE, o.take(&o.results[Routine])), 0
	}
	return o.routine.next(o.frame), 0
}

func (o *outbox) nextInventory() *meshv1.ProberMessage {
	n, bytes := 0, 0
	for n < len(o.inventory) {
		bytes += proto.Size(o.inventory[n]) + 4
		if n > 0 && bytes > o.frame {
			break
		}
		n++
	}
	inv := &meshv1.Inventory{Items: o.inventory[:n], Revision: o.inventoryRev, Last: n == len(o.inventory)}
	o.inventory, o.inventoryDue = o.inventory[n:], !inv.Last
	return &meshv1.ProberMessage{Message: &meshv1.ProberMessage_Inventory{Inventory: inv}}
}

// take cuts as many results off the queue as fit into a message.
func (o *outbox) take(queue *[]*meshv1.Result) []*meshv1.Result {
	n := fit(*queue, o.frame)
	out := (*queue)[:n:n]
	*queue = (*queue)[n:]
	if len(*queue) == 0 {
		*queue = nil
	}
	return out
}

// fit is how many of the results fit into a frame; at least one.
func fit(results []*meshv1.Result, frame int) int {
	n, bytes := 0, 0
	for n < len(results) && n < batchResults {
		bytes += proto.Size(results[n]) + 4
		if n > 0 && bytes > frame {
			break
		}
		n++
	}
	return n
}

func batch(kind meshv1.ResultBatch_Kind, results []*meshv1.Result) *meshv1.ProberMessage {
	return &meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: &meshv1.ResultBatch{Kind: kind, Results: results}}}
}
