package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestAnEqualDigestNeedsNoInventory(t *testing.T) {
	inWorld(t, func(w *world) {
		all := assigned("x", "y")
		w.mesh.want(all...)
		h := hello("fra-1")
		h.Digest = digestOf(all...)
		c := w.attach(h)
		if c.inventoriesAsked() != 0 || len(c.updates()) != 0 || !w.mesh.session("fra-1").Facts().InSync {
			t.Error("a prober that holds what it should was asked or told something")
		}
	})
}

func TestTheDifferenceIsSentAndAcknowledged(t *testing.T) {
	inWorld(t, func(w *world) {
		all := assigned("x", "y", "z")
		w.mesh.want(all[0], all[1])
		h := hello("fra-1")
		h.Digest = digestOf(all[1], all[2])
		c := w.attach(h)
		if c.inventoriesAsked() != 1 {
			t.Fatalf("asked for %d inventories", c.inventoriesAsked())
		}
		c.inventory(holding(all[1], all[2]))
		u := c.updates()
		if len(u) != 1 || len(u[0].GetUpserts()) != 1 || u[0].GetUpserts()[0].GetCheck().GetName() != "checks/x" ||
			!slices.Equal(u[0].GetRemovals(), []string{"checks/z"}) || !u[0].GetLast() || u[0].GetIntendedShrink() {
			t.Fatalf("updates %v", u)
		}
		s := w.mesh.session("fra-1")
		if s.Facts().InSync {
			t.Error("in sync before the prober said so")
		}
		c.ack(digestOf(all[0], all[1]), false)
		if c.updates(); !s.Facts().InSync {
			t.Error("not in sync after the right digest")
		}
		// Ten wake-ups while an update is under way are one more update.
		w.mesh.want(all...)
		for range 10 {
			s.Wake()
		}
		c.updates()
		w.mesh.want(all[0])
		for range 10 {
			s.Wake()
		}
		if n := len(c.updates()); n != 2 {
			t.Fatalf("%d updates before the ack; want 2", n)
		}
		c.ack(digestOf(all...), false)
		if n := len(c.updates()); n != 3 {
			t.Fatalf("%d updates after the ack; want 3", n)
		}
		c.ack(digestOf(all[0]), false)
		if c.updates(); !s.Facts().InSync || c.inventoriesAsked() != 1 {
			t.Errorf("in sync %v, inventories %d", s.Facts().InSync, c.inventoriesAsked())
		}
	})
}

func TestAWrongDigestIsHealedByTheInventory(t *testing.T) {
	inWorld(t, func(w *world) {
		all := assigned("x", "y")
		w.mesh.want(all...)
		c := w.attach(hello("fra-1"))
		c.inventory(nil)
		c.updates()
		c.ack(12345, false)
		c.updates()
		if c.inventoriesAsked() != 2 {
			t.Fatalf("%d inventories asked for; want a second after a wrong digest", c.inventoriesAsked())
		}
		c.inventory(holding(all[0]))
		u := c.updates()
		if len(u) != 2 || len(u[1].GetUpserts()) != 1 || u[1].GetUpserts()[0].GetCheck().GetName() != "checks/y" {
			t.Fatalf("updates %v", u)
		}
		c.ack(digestOf(all...), false)
		// And unasked, when the digest that went round is another.
		c.updates()
		c.ack(99, false)
		c.updates()
		if c.inventoriesAsked() != 3 {
			t.Errorf("%d inventories asked for; want a third", c.inventoriesAsked())
		}
	})
}

// The digest that goes round is never ahead of the updates: one that was would be answered by a prober that has done nothing wrong.
func TestTheRoundSendsWhatAWakeUpMissed(t *testing.T) {
	inWorld(t, func(w *world) {
		all := assigned("x")
		c := w.attach(hello("fra-1"))
		time.Sleep(10 * time.Second)
		w.mesh.want(all...) // nobody wakes the session
		time.Sleep(21 * time.Second)
		if u := c.updates(); len(u) != 1 {
			t.Fatalf("%d updates; want one at the 30 s round", len(u))
		}
		for _, p := range seen(c, func(m *meshv1.ServerMessage) (*meshv1.Ping, bool) { return m.GetPing(), m.GetPing() != nil }) {
			if p.ExpectedDigest != nil {
				t.Error("a digest went with an update under way")
			}
		}
		c.ack(digestOf(all...), false)
		time.Sleep(30 * time.Second)
		digests := seen(c, func(m *meshv1.ServerMessage) (uint64, bool) {
			return m.GetPing().GetExpectedDigest(), m.GetPing().GetExpectedDigest() != 0
		})
		if !slices.Equal(digests, []uint64{digestOf(all...)}) {
			t.Errorf("digests %v", digests)
		}
	})
}

func TestAProberThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mesh.want(assigned("x")...)
		c := w.attach(hello("fra-1"))
		time.Sleep(61 * time.Second)
		if n := c.inventoriesAsked(); n < 2 {
			t.Errorf("%d inventories asked for in a minute without an answer", n)
		}
		c.inventory(nil)
		c.updates()
		before := c.inventoriesAsked()
		time.Sleep(61 * time.Second)
		if n := c.inventoriesAsked(); n == before {
			t.Error("an update that is not acknowledged for a minute is believed in")
		}
	})
}

func TestAShrinkIsIntendedOnlyWhenASecondReadConfirmsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		var names []string
		for i := range 40 {
			names = append(names, fmt.Sprint("c", i))
		}
		all := assigned(names...)
		h := hello("fra-1")
		h.Digest = digestOf(all...)
		w.mesh.want(all...)
		c := w.attach(h)
		s := w.mesh.session("fra-1")

		// The second read does not agree: the prober keeps what it has, and is asked about again in the next round.
		w.mesh.verify = func(context.Context, []string) error { return errors.New("checks/c1 exists and nobody else runs it") }
		w.mesh.want(all[0])
		s.Wake()
		u := c.updates()
		c.ack(h.Digest, true)
		time.Sleep(10 * time.Second)
		if len(c.updates()) != len(u) || s.Facts().InSync {
			t.Fatalf("%d updates, in sync %v: an unconfirmed shrink was pressed", len(c.updates()), s.Facts().InSync)
		}
		time.Sleep(25 * time.Second)
		if u = c.updates(); len(u) != 2 || u[1].GetIntendedShrink() {
			t.Fatalf("updates %d; want a second, not intended, in the next round", len(u))
		}

		// It agrees, but takes eight seconds, and meanwhile still more is to go.
		w.mesh.verify = func(ctx context.Context, _ []string) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(8 * time.Second):
				return nil
			}
		}
		begun := time.Now()
		c.ack(h.Digest, true)
		time.Sleep(time.Second)
		w.mesh.want()
		s.Wake()
		time.Sleep(6 * time.Second)
		pongs := seen(c, func(m *meshv1.ServerMessage) (bool, bool) {
			return true, m.GetPong() != nil && m.GetPong().GetReceiveTime().AsTime().After(begun)
		})
		if len(pongs) < 6 || len(c.updates()) != 2 {
			t.Fatalf("%d pongs and %d updates in seven seconds of reading; want the session to go on", len(pongs), len(c.updates()))
		}
		time.Sleep(2 * time.Second)
		u = c.updates()
		if len(u) != 3 || u[2].GetIntendedShrink() || len(u[2].GetRemovals()) != 40 {
			t.Fatalf("updates %d, the last %v: the removal that was not verified passes for intended", len(u), u[len(u)-1])
		}
		c.ack(h.Digest, true)
		time.Sleep(9 * time.Second)
		u = c.updates()
		if len(u) != 4 || !u[3].GetIntendedShrink() || len(u[3].GetRemovals()) != 40 {
			t.Fatalf("updates %d, the last %v; want it intended", len(u), u[len(u)-1])
		}
		c.ack(0, false)
		if c.updates(); !s.Facts().InSync || c.inventoriesAsked() != 0 {
			t.Errorf("in sync %v, %d inventories", s.Facts().InSync, c.inventoriesAsked())
		}
	})
}

func TestFramesStayBelow32KiB(t *testing.T) {
	inWorld(t, func(w *world) {
		var names []string
		for i := range 5000 {
			names = append(names, fmt.Sprintf("a-check-with-a-rather-long-name-%d", i))
		}
		all := assigned(names...)
		w.mesh.want(all...)
		c := w.attach(hello("fra-1"))
		c.inventory(nil)
		largest, upserts, last := 0, 0, 0
		for _, u := range c.updates() {
			largest, upserts = max(largest, size(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_AssignmentUpdate{AssignmentUpdate: u}})), upserts+len(u.GetUpserts())
			if u.GetLast() {
				last++
			}
		}
		if largest > frameBytes || largest < frameBytes/2 || upserts != 5000 || last != 1 {
			t.Errorf("%d assignments in frames of at most %d bytes, %d of them the last", upserts, largest, last)
		}
		c.ack(digestOf(all...), false)
		if c.updates(); !w.mesh.session("fra-1").Facts().InSync {
			t.Error("not in sync")
		}
	})
}
