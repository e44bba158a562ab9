package gateway

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// told gives the servers that a prober was told of, by Welcome and since.
func (c *client) told() [][]string {
	return seen(c, func(m *meshv1.ServerMessage) ([]string, bool) {
		list, ok := m.GetWelcome().GetServers(), m.GetWelcome() != nil
		if m.GetServers() != nil {
			list, ok = m.GetServers().GetServers(), true
		}
		var names []string
		for _, s := range list {
			names = append(names, s.GetServer()+" "+s.GetDatacenter()+" "+s.GetAddress())
		}
		return names, ok
	})
}

func TestProbersAreToldOfServersAndOfChanges(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.attach(hello("fra-1"))
		time.Sleep(time.Second)
		w.mesh.place("a", "b") // written anew, and the same
		synctest.Wait()
		w.mesh.place() // the store is being read again
		synctest.Wait()
		w.mesh.place("a", "c")
		got := fmt.Sprint(c.told())
		want := "[[servers/a dc-a a:1 servers/b dc-b b:1] [servers/a dc-a a:1 servers/c dc-c c:1]]"
		if got != want {
			t.Errorf("told %s; want %s", got, want)
		}
	})
}

func TestAMessageAboveTheLimitOfWelcomeBreaksTheSession(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.attach(hello("fra-1"))
		large := func(bytes int) {
			r := result(1)
			r.Evidence = &meshv1.Evidence{Body: make([]byte, bytes)}
			c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: &meshv1.ResultBatch{Kind: meshv1.ResultBatch_LIVE, Results: []*meshv1.Result{r}}}})
		}
		large(messageBytes - 1<<10)
		synctest.Wait()
		if len(w.mesh.gone()) != 0 || w.mesh.votes() != 1 {
			t.Fatalf("a message just below the limit: %d votes, detached %v", w.mesh.votes(), w.mesh.gone())
		}
		large(messageBytes)
		if f := c.ended(); f.Reason != meshv1.ErrorReason_SESSION_BROKEN || !strings.Contains(f.Error(), "at most 1048576") || w.mesh.votes() != 1 {
			t.Errorf("%v, %d votes; want a sentence with the limit, and no vote", f, w.mesh.votes())
		}
		h := hello("fra-2")
		h.Build = strings.Repeat("b", messageBytes)
		if f := w.open(h, true, nil).ended(); !strings.Contains(f.Error(), "message_limit") {
			t.Errorf("%v", f)
		}
	})
}

func TestRefusalsInPiecesAreOneList(t *testing.T) {
	inWorld(t, func(w *world) {
		all := assigned("c1", "c2", "c3")
		w.mesh.want(all...)
		c := w.attach(hello("fra-1"))
		c.inventory(nil)
		synctest.Wait()
		for round := range 2 {
			for i := range 3 {
				c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_AssignmentAck{AssignmentAck: &meshv1.AssignmentAck{Digest: digestOf(all...), Revision: 7, More: i < 2,
					Refusals: []*meshv1.AssignmentRefusal{{Check: fmt.Sprint("checks/c", i)}}}}})
				synctest.Wait()
				if f := w.mesh.session("fra-1").Facts(); round == 0 && i < 2 && (f.InSync || len(f.Refusals) != 0) {
					t.Errorf("after piece %d: %+v; only the last one acknowledges", i+1, f)
				}
			}
			if f := w.mesh.session("fra-1").Facts(); !f.InSync || len(f.Refusals) != 3 {
				t.Errorf("round %d: %+v", round+1, f)
			}
		}
	})
}

// The probers of a dead server come at once. Those for whom there is no room within three seconds are told to go elsewhere, and nobody waits for ever.
func TestProbersThatCannotBeTakenInAreToldSo(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mesh.slow = 5 * time.Second
		var all []*client
		for i := range admittedAtOnce + 10 {
			all = append(all, w.open(hello(fmt.Sprint("p-", i)), true, nil))
		}
		refused := 0
		time.Sleep(admissionMax + time.Millisecond)
		synctest.Wait()
		for _, c := range all {
			select {
			case <-c.end:
				if f := c.ended(); f.Reason == meshv1.ErrorReason_LIMIT_EXCEEDED && f.RetryAfter > 0 {
					refused++
				}
			default:
			}
		}
		if refused != 10 {
			t.Errorf("%d were told to go elsewhere; want 10", refused)
		}
		for _, c := range all {
			c.cancel()
		}
		time.Sleep(w.mesh.slow)
		w.mesh.slow = 0
		late := w.attach(hello("late"))
		time.Sleep(time.Second)
		if len(late.told()) != 1 {
			t.Error("there is no room although all have gone")
		}
	})
}
