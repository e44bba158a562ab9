package gateway

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/controller"
)

// syncer brings a prober's assignments to what they should be. It knows what the prober holds only by what the prober says: by its inventory, or by a
// digest that equals the expected one. The sending goroutine of the session owns it.
//
//	begin --digest equal--> settled --woken--> waiting for the ack --digest equal--> settled
//	  |                                          |  ^                |
//	  +--differs--> waiting for the inventory ---+  +---- differs: waiting for the inventory
type syncer struct {
	s      *session
	stream sender
	// held is what the prober holds, by check; nil while that is not known.
	held map[string]uint64
	// target is what an update under way leads to; nil when none is.
	target map[string]uint64
	digest uint64
	// listing gathers an inventory.
	listing map[string]uint64
	// asked: an inventory was asked for and has not come.
	asked bool
	// dirty: something changed while an update was under way.
	dirty bool
	// removals are those of the update under way, for the shrink guard's second read.
	removals []string
}

func newSyncer(s *session, stream sender) *syncer { return &syncer{s: s, stream: stream} }

// begin compares the digest of Hello.
func (y *syncer) begin() error {
	d := y.s.g.mesh.Difference(y.s.id, nil)
	if d.Digest == y.s.hello.GetDigest() {
		y.held = applied(nil, d)
		y.settle(d.Revision)
		return nil
	}
	return y.ask()
}

// ask asks for the inventory, once.
func (y *syncer) ask() error {
	y.held, y.target = nil, nil
	y.setInSync(false)
	if y.asked {
		return nil
	}
	y.asked, y.listing = true, map[string]uint64{}
	return y.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_InventoryRequest{InventoryRequest: &meshv1.InventoryRequest{}}})
}

// inventory takes a part of what the prober holds.
func (y *syncer) inventory(i *meshv1.Inventory) error {
	if !y.asked {
		return nil
	}
	for _, it := range i.GetItems() {
		y.listing[it.GetCheck()] = it.GetFingerprint()
	}
	if !i.GetLast() {
		return nil
	}
	y.asked, y.held, y.listing = false, y.listing, nil
	return y.push(false)
}

// expected is the digest that the prober should have now; false while an update or inventory is under way.
func (y *syncer) expected() (uint64, bool) {
	if y.held == nil || y.target != nil {
		return 0, false
	}
	d, _ := y.s.g.mesh.Expected(y.s.id)
	return d, true
}

// push sends the difference, unless an update or an inventory is under way: then it is sent when that has ended.
func (y *syncer) push(intended bool) error {
	if y.held == nil || y.target != nil {
		y.dirty = true
		return nil
	}
	y.dirty = false
	d := y.s.g.mesh.Difference(y.s.id, y.held)
	if len(d.Upserts) == 0 && len(d.Removals) == 0 {
		y.settle(d.Revision)
		return nil
	}
	y.target, y.digest, y.removals = applied(y.held, d), d.Digest, d.Removals
	y.setInSync(false)
	for _, u := range frames(d, intended) {
		if err := y.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_AssignmentUpdate{AssignmentUpdate: u}}); err != nil {
			return err
		}
	}
	return nil
}

// applied gives what is held after a difference.
func applied(held map[string]uint64, d controller.Difference) map[string]uint64 {
	next := make(map[string]uint64, len(held)+len(d.Upserts))
	for k, v := range held {
		next[k] = v
	}
	for _, r := range d.Removals {
		delete(next, r)
	}
	for _, a := range d.Upserts {
		next[a.GetCheck().GetName()] = a.GetFingerprint()
	}
	return next
}

// frames cuts a difference into messages under the frame's size.
func frames(d controller.Difference, intended bool) []*meshv1.AssignmentUpdate {
	var list []*meshv1.AssignmentUpdate
	u := &meshv1.AssignmentUpdate{}
	size := 0
	room := func(n int) {
		if size > 0 && size+n > frameBytes {
			list = append(list, u)
			u, size = &meshv1.AssignmentUpdate{}, 0
		}
		size += n + 8
	}
	for _, r := range d.Removals {
		room(len(r))
		u.Removals = append(u.Removals, r)
	}
	for _, a := range d.Upserts {
		room(proto.Size(a))
		u.Upserts = append(u.Upserts, a)
	}
	list = append(list, u)
	for _, m := range list {
		m.Revision, m.IntendedShrink = d.Revision, intended
	}
	u.Last = true
	return list
}

// ack takes the prober's word for what it runs now.
func (y *syncer) ack(ctx context.Context, a *meshv1.AssignmentAck) error {
	y.s.mu.Lock()
	y.s.facts.Refusals = a.GetRefusals()
	y.s.mu.Unlock()
	if y.target == nil {
		// Unasked: the prober holds something else than the digest that went with a ping.
		if d, _ := y.s.g.mesh.Expected(y.s.id); y.held != nil && a.GetDigest() != d {
			return y.ask()
		}
		return nil
	}
	if a.GetShrinkRefused() {
		return y.shrink(ctx, a)
	}
	if a.GetDigest() != y.digest {
		y.s.g.log.Warn("a prober runs something else than it was sent; its inventory is compared", "prober", y.s.name, "revision", a.GetRevision())
		y.s.g.m.diverged(ctx)
		return y.ask()
	}
	y.held, y.target = y.target, nil
	y.settle(a.GetRevision())
	if y.dirty {
		return y.push(false)
	}
	return nil
}

// shrink answers the prober's shrink guard by reading the store once more. Only when that confirms every removal, the update is sent again, marked as intended.
func (y *syncer) shrink(ctx context.Context, a *meshv1.AssignmentAck) error {
	y.target = nil
	log := y.s.g.log.With("prober", y.s.name, "removals", a.GetShrinkCount(), "held", a.GetHeld())
	verify, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := y.s.g.mesh.VerifyShrink(verify, y.removals); err != nil {
		log.Error("a large shrink of assignments was not confirmed by a second read of etcd; the prober keeps them", "err", err)
		y.s.g.m.shrink(ctx, "refused")
		// The digest that goes with a ping brings it up again.
		return nil
	}
	log.Info("a large shrink of assignments is intended: a second read of etcd confirms it")
	y.s.g.m.shrink(ctx, "confirmed")
	return y.push(true)
}

func (y *syncer) settle(revision int64) {
	y.s.mu.Lock()
	y.s.facts.Revision, y.s.facts.InSync = revision, true
	y.s.mu.Unlock()
}

func (y *syncer) setInSync(v bool) {
	y.s.mu.Lock()
	y.s.facts.InSync = v
	y.s.mu.Unlock()
}
