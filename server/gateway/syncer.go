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
//	  |                        ^                 |  ^          |  |
//	  |                        |                 |  |          |  +--shrink refused--> waiting for the second read of the store
//	  |                        +----refused------+--+---------------------------------------+ confirmed: sent again, as intended
//	  +--differs--> waiting for the inventory ---+  +---- differs: waiting for the inventory
//
// Every 30 s a round goes: see [syncer.round].
type syncer struct {
	s      *session
	stream sender
	// held is what the prober holds, by check; nil while that is not known.
	held map[string]uint64
	// target is what an update under way leads to; nil when none is.
	target map[string]uint64
	// digest is that of the newest difference: of target, or of held when nothing is under way.
	digest uint64
	// listing gathers an inventory.
	listing map[string]uint64
	// asked: an inventory was asked for and has not come.
	asked bool
	// since is when the present wait began.
	since time.Time
	// verifying: the store is being read a second time.
	verifying bool
	// dirty: something changed while an update was under way.
	dirty bool
	// removals are those of the update under way, for the shrink guard's second read.
	removals []string
	// refusals gathers those of an acknowledgement that comes in several messages.
	refusals []*meshv1.AssignmentRefusal
	// refused is how many removals the second read last refused to confirm, so that it is logged once.
	refused int
}

// shrinkAnswer is what the second read of the store said.
type shrinkAnswer struct {
	removals []string
	err      error
}

func newSyncer(s *session, stream sender) *syncer { return &syncer{s: s, stream: stream} }

// difference is what takes the prober from what it holds to what it should run.
func (y *syncer) difference(held map[string]uint64) (d controller.Difference) {
	y.s.g.inTurn(func() { d = y.s.g.mesh.Difference(y.s.id, held) })
	return d
}

// begin compares the digest of Hello.
func (y *syncer) begin() error {
	d := y.difference(nil)
	if d.Digest == y.s.hello.GetDigest() {
		y.held, y.digest = applied(nil, d), d.Digest
		y.settle(d.Revision)
		return nil
	}
	return y.ask()
}

// ask asks for the inventory.
func (y *syncer) ask() error {
	y.held, y.target = nil, nil
	y.setInSync(false)
	y.asked, y.listing, y.since = true, map[string]uint64{}, time.Now()
	return y.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_InventoryRequest{InventoryRequest: &meshv1.InventoryRequest{}}})
}

// inventory takes a part of what the prober holds.
func (y *syncer) inventory(i *meshv1.Inventory) error {
	if !y.asked {
		return nil
	}
	if len(y.listing)+len(i.GetItems()) > inventoryMax {
		return broken("an inventory has more than %d assignments", inventoryMax)
	}
	for _, it := range i.GetItems() {
		y.listing[it.GetCheck()] = it.GetFingerprint()
	}
	if !i.GetLast() {
		return nil
	}
	y.asked, y.held, y.listing = false, y.listing, nil
	return y.push(nil)
}

// round is called every 30 s. It sends what a wake-up may have missed, asks again where no answer came, and gives the digest that the prober should
// have by now; nil while that is about to change. The digest goes through the same stream as the updates, so a prober that holds another has diverged.
func (y *syncer) round() (*uint64, error) {
	if y.verifying {
		return nil, nil
	}
	if y.asked || y.target != nil {
		if time.Since(y.since) < digestEvery {
			return nil, nil
		}
		y.s.g.log.Warn("a prober did not answer an update of its assignments; its inventory is asked for", "prober", y.s.name)
		return nil, y.ask()
	}
	if err := y.push(nil); err != nil || y.target != nil {
		return nil, err
	}
	d := y.digest
	return &d, nil
}

// push sends the difference, unless an update or an inventory is under way: then it is sent when that has ended. The confirmed removals were verified by
// a second read of the store: an update that removes nothing else is marked as intended.
func (y *syncer) push(confirmed []string) error {
	if y.held == nil || y.target != nil || y.verifying {
		y.dirty = true
		return nil
	}
	y.dirty = false
	d := y.difference(y.held)
	y.digest = d.Digest
	if len(d.Upserts) == 0 && len(d.Removals) == 0 {
		y.settle(d.Revision)
		return nil
	}
	y.target, y.removals, y.since = applied(y.held, d), d.Removals, time.Now()
	y.setInSync(false)
	for _, u := range frames(d, len(confirmed) > 0 && within(d.Removals, confirmed)) {
		if err := y.stream.Send(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_AssignmentUpdate{AssignmentUpdate: u}}); err != nil {
			return err
		}
	}
	return nil
}

// within tells whether all names are among those allowed.
func within(names, allowed []string) bool {
	ok := make(map[string]bool, len(allowed))
	for _, n := range allowed {
		ok[n] = true
	}
	for _, n := range names {
		if !ok[n] {
			return false
		}
	}
	return true
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
		n += 8 // tag and length
		if size > 0 && size+n > frameBytes-frameRoom {
			list = append(list, u)
			u, size = &meshv1.AssignmentUpdate{}, 0
		}
		size += n
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
	if y.refusals = append(y.refusals, a.GetRefusals()...); len(y.refusals) > inventoryMax {
		return broken("it refuses more than %d assignments", inventoryMax)
	}
	if a.GetMore() {
		return nil
	}
	controller.SortRefusals(y.refusals)
	y.s.mu.Lock()
	y.s.facts.Refusals = y.refusals
	y.s.mu.Unlock()
	y.refusals = nil
	switch {
	case y.held == nil || y.verifying:
		return nil // the inventory, or the second read, will tell
	case y.target != nil && a.GetShrinkRefused():
		return y.shrink(ctx, a)
	case a.GetDigest() != y.digest:
		y.s.g.log.Warn("a prober runs something else than it should; its inventory is compared", "prober", y.s.name, "revision", a.GetRevision(), "held", a.GetHeld())
		y.s.g.m.diverged(context.Background())
		return y.ask()
	case y.target == nil:
		return nil
	}
	y.held, y.target, y.refused = y.target, nil, 0
	y.settle(a.GetRevision())
	if y.dirty {
		return y.push(nil)
	}
	return nil
}

// shrink answers the prober's shrink guard by having the store read once more. Only when that confirms every removal, the update is sent again, marked as
// intended.
func (y *syncer) shrink(ctx context.Context, a *meshv1.AssignmentAck) error {
	y.target, y.verifying = nil, true
	y.s.g.log.Info("a prober asks whether a large shrink of its assignments is intended", "prober", y.s.name, "removals", a.GetShrinkCount(), "held", a.GetHeld())
	go y.s.verifyShrink(ctx, y.removals)
	return nil
}

// answered takes what the second read said.
func (y *syncer) answered(ctx context.Context, v shrinkAnswer) error {
	y.verifying = false
	if y.held == nil {
		return nil
	}
	if v.err == nil {
		y.s.g.log.Info("a large shrink of assignments is intended: a second read of etcd confirms it", "prober", y.s.name, "removals", len(v.removals))
		y.s.g.m.shrink(ctx, "confirmed")
		return y.push(v.removals)
	}
	y.s.g.m.shrink(ctx, "refused")
	if y.refused != len(v.removals) {
		y.refused = len(v.removals)
		y.s.g.log.Error("a large shrink of assignments was not confirmed by a second read of etcd; the prober keeps them", "prober", y.s.name,
			"removals", len(v.removals), "err", v.err)
	}
	// The next round brings it up again.
	return nil
}

// verifyShrink reads the store for the sending goroutine, which has to go on answering pings. It is not waited for at the end of the session: etcd may be away.
func (s *session) verifyShrink(ctx context.Context, removals []string) {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	s.verified <- shrinkAnswer{removals, s.g.mesh.VerifyShrink(ctx, removals)} // has room: one at a time is verified
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
