package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHelloIsCheckedBeforeAnybodyIsAttached(t *testing.T) {
	for what, c := range map[string]struct {
		spoil  func(*meshv1.Hello)
		reason meshv1.ErrorReason
		says   string
	}{
		"an older protocol":          {func(h *meshv1.Hello) { h.Protocol = 0 }, meshv1.ErrorReason_PROTOCOL_UNSUPPORTED, "upgrade the prober"},
		"a newer protocol":           {func(h *meshv1.Hello) { h.Protocol = 99 }, meshv1.ErrorReason_PROTOCOL_UNSUPPORTED, "upgrade the servers first"},
		"a bad name":                 {func(h *meshv1.Hello) { h.Prober = "Fra 1" }, meshv1.ErrorReason_SESSION_BROKEN, "names the prober"},
		"a resource name":            {func(h *meshv1.Hello) { h.Prober = "probers/fra-1" }, meshv1.ErrorReason_SESSION_BROKEN, "without `probers/`"},
		"no name":                    {func(h *meshv1.Hello) { h.Prober = "" }, meshv1.ErrorReason_SESSION_BROKEN, "names the prober"},
		"no datacenter":              {func(h *meshv1.Hello) { h.Datacenter = "" }, meshv1.ErrorReason_SESSION_BROKEN, "--datacenter"},
		"a datacenter that is a key": {func(h *meshv1.Hello) { h.Datacenter = "fra/../x" }, meshv1.ErrorReason_SESSION_BROKEN, "--datacenter"},
		"no boot id":                 {func(h *meshv1.Hello) { h.BootId = "" }, meshv1.ErrorReason_SESSION_BROKEN, "boot id"},
		"too many labels": {func(h *meshv1.Hello) {
			h.Labels = map[string]string{}
			for i := range 33 {
				h.Labels[fmt.Sprint("k", i)] = "v"
			}
		}, meshv1.ErrorReason_SESSION_BROKEN, "33 labels"},
		"a label of half a megabyte": {func(h *meshv1.Hello) { h.Labels = map[string]string{"k": strings.Repeat("v", 1<<19)} }, meshv1.ErrorReason_SESSION_BROKEN, "values at most"},
	} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(w *world) {
				h := hello("fra-1")
				c.spoil(h)
				cl := w.open(h, true, nil)
				f := cl.ended()
				if f.Reason != c.reason || !strings.Contains(f.Error(), c.says) {
					t.Errorf("refused with %v %q; want %v saying %q", f.Reason, f.Error(), c.reason, c.says)
				}
				if len(w.mesh.sessions) != 0 || len(w.mesh.gone()) != 0 {
					t.Error("it was attached all the same")
				}
			})
		})
	}
}

func TestAStreamWithoutHelloEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		begun := time.Now()
		silent := w.open(nil, true, nil)
		if f := silent.ended(); f.Reason != meshv1.ErrorReason_SESSION_BROKEN || time.Since(begun) != helloTimeout {
			t.Errorf("%v after %v; want SESSION_BROKEN after %v", f, time.Since(begun), helloTimeout)
		}
		other := w.open(nil, true, nil)
		other.results(meshv1.ResultBatch_LIVE, 1)
		if f := other.ended(); !strings.Contains(f.Error(), "first message must be Hello") {
			t.Errorf("%v", f)
		}
		closed := w.open(nil, true, nil)
		if err := closed.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if f := closed.ended(); f.Reason != meshv1.ErrorReason_SESSION_BROKEN || f.Code != codes.InvalidArgument {
			t.Errorf("%v; want it to be the prober's fault, not the server's", f)
		}
	})
}

func TestASessionLivesAsLongAsItsPings(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.attach(hello("fra-1"))
		time.Sleep(time.Hour)
		if len(w.mesh.gone()) != 0 {
			t.Fatal("it ended")
		}
		pings := seen(c, func(m *meshv1.ServerMessage) (*meshv1.Ping, bool) { return m.GetPing(), m.GetPing() != nil })
		pongs := seen(c, func(m *meshv1.ServerMessage) (*meshv1.Pong, bool) { return m.GetPong(), m.GetPong() != nil })
		if len(pings) < 3599 || len(pongs) < 3599 {
			t.Errorf("%d pings and %d pongs in an hour", len(pings), len(pongs))
		}
		digests := 0
		for _, p := range pings {
			if p.ExpectedDigest != nil {
				digests++
			}
		}
		if digests < 119 || digests > 121 {
			t.Errorf("%d digests in an hour; want one each 30 s", digests)
		}
		if f := w.mesh.session("fra-1").Facts(); !f.InSync || f.Spooled != 5 || f.ClockOffset != time.Millisecond {
			t.Errorf("facts %+v", f)
		}
	})
}

func TestASilentProberIsDetachedAfterThreeSeconds(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.open(hello("fra-1"), true, nil)
		begun := time.Now()
		f := c.ended()
		if d := time.Since(begun); f.Reason != meshv1.ErrorReason_SESSION_BROKEN || d < silence || d > silence+pingEvery/2 {
			t.Errorf("%v after %v", f, d)
		}
		if !slices.Equal(w.mesh.gone(), []string{"fra-1"}) {
			t.Errorf("detached: %q", w.mesh.gone())
		}
	})
}

func TestAServerThatIsAlwaysLateStillEndsASilentSession(t *testing.T) {
	const much = deaf + time.Millisecond
	for what, c := range map[string]struct {
		late []time.Duration // by which it looks, again and again; the last one for ever
		ends int             // at which look the silent session ends
	}{
		"punctual":                         {[]time.Duration{0}, 1},
		"as late as is usual":              {[]time.Duration{deaf}, 1},
		"late once":                        {[]time.Duration{much, 0}, 2},
		"late as often as keeps a session": {append(slices.Repeat([]time.Duration{much}, lateMax), 0), lateMax + 1},
		"always late":                      {[]time.Duration{much}, lateMax + 1},
		"always very late":                 {[]time.Duration{time.Hour}, lateMax + 1},
	} {
		t.Run(what, func(t *testing.T) {
			var w watch
			for n := 1; n <= 100; n++ {
				after := w.look(c.late[min(n, len(c.late))-1], silence+time.Duration(n)*time.Second)
				if over := after == 0; over != (n == c.ends) {
					t.Fatalf("at look %d it ends: %t; want it to end at look %d", n, over, c.ends)
				} else if over {
					return
				}
				if after != pingEvery {
					t.Errorf("it looks again after %s; want %s, when the prober has said something once more", after, pingEvery)
				}
			}
			t.Error("it never ends")
		})
	}
}

func TestALateServerKeepsSessionsThatAreHeard(t *testing.T) {
	var w watch
	for n := range 100 {
		if after := w.look(time.Hour, time.Second); after < pingEvery || after > silence {
			t.Fatalf("at look %d: again after %s", n, after)
		}
	}
}

// openStuck attaches the prober "stuck", which reads nothing, with more assignments than its stream takes.
func (w *world) openStuck() {
	var names []string
	for i := range 5000 {
		names = append(names, fmt.Sprint("c", i))
	}
	w.mesh.want(assigned(names...)...)
	w.open(hello("stuck"), false, nil).inventory(nil)
}

// A prober that reads nothing fills the stream's window; what is sent to it blocks for ever. That must cost nobody else anything, and its name must be free
// again after three seconds of silence.
func TestAProberThatStopsReadingBlocksNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		w.openStuck()
		other := w.attach(hello("other"))
		for range 2 {
			time.Sleep(time.Second)
			other.results(meshv1.ResultBatch_LIVE, 1)
			synctest.Wait()
			for range 10 {
				w.mesh.session("stuck").Wake()
			}
			w.mesh.session("stuck").RunNow(&meshv1.RunNow{RunId: "r"})
		}
		if w.mesh.votes() != 2 {
			t.Errorf("%d votes of the other prober were counted; want 2", w.mesh.votes())
		}
		time.Sleep(2 * time.Second)
		if !slices.Equal(w.mesh.gone(), []string{"stuck"}) {
			t.Errorf("after four seconds of silence these are detached: %q", w.mesh.gone())
		}
	})
}

func TestASessionThatIsReplacedEndsAtOnceAlthoughItsProberReadsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.openStuck()
		synctest.Wait()
		for range 10 {
			w.mesh.session("stuck").Wake()
		}
		w.mesh.session("stuck").RunNow(&meshv1.RunNow{RunId: "r"})
		synctest.Wait()
		w.mesh.session("stuck").End("another process has its name")
		synctest.Wait()
		if !slices.Equal(w.mesh.gone(), []string{"stuck"}) {
			t.Errorf("what is being sent keeps the session: detached are %q", w.mesh.gone())
		}
	})
}

func TestRunsOfAProberThatDoesNotReadAreBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		stuck := w.open(hello("stuck"), false, nil)
		refused := 0
		for range 10_000 {
			if !w.mesh.session("stuck").RunNow(&meshv1.RunNow{RunId: strings.Repeat("r", 1000)}) {
				refused++
			}
		}
		// The queue takes so many, the goroutine that sends has taken as many from it, and before it was blocked the stream had room for some hundreds.
		if refused < 10_000-3*runQueue {
			t.Errorf("%d of 10000 runs were refused; want all that the queue has no room for", refused)
		}
		stuck.cancel()
	})
}

func TestGoodbyeLeavesAndBadMessagesBreak(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.attach(hello("polite"))
		c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Goodbye{Goodbye: &meshv1.Goodbye{Reason: "bye"}}})
		<-c.end
		if c.err.Error() != "EOF" || !slices.Equal(w.mesh.gone(), []string{"polite leaving"}) {
			t.Errorf("ended with %v, detached %q", c.err, w.mesh.gone())
		}
		many := make([]uint64, batchMax+1)
		for what, spoil := range map[string]func(*client){
			"two Hellos":       func(c *client) { c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Hello{Hello: hello("x")}}) },
			"a batch too long": func(c *client) { c.results(meshv1.ResultBatch_LIVE, many...) },
			"no kind":          func(c *client) { c.results(meshv1.ResultBatch_KIND_UNSPECIFIED, 1) },
			"no start time": func(c *client) {
				r := result(1)
				r.StartTime = nil
				c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: &meshv1.ResultBatch{Kind: meshv1.ResultBatch_LIVE, Results: []*meshv1.Result{r}}}})
			},
		} {
			c := w.attach(hello("rude"))
			spoil(c)
			if f := c.ended(); f.Reason != meshv1.ErrorReason_SESSION_BROKEN {
				t.Errorf("%s: %v", what, f)
			}
		}
		if w.mesh.votes() != 0 {
			t.Errorf("%d votes came of broken batches", w.mesh.votes())
		}
	})
}

func TestSessionsEndWithTheServer(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.attach(hello("fra-1"))
		welcome := c.got[0].GetWelcome()
		if welcome.GetServer() != "servers/a" || len(welcome.GetAddresses()) != 2 || welcome.GetResultWindow() >= archiveQueue {
			t.Errorf("welcome %v", welcome)
		}
		w.stop()
		if f := c.ended(); f.Reason != meshv1.ErrorReason_SHUTTING_DOWN {
			t.Errorf("%v", f)
		}
	})
}

func TestASlowEnrolmentDoesNotSkewTheProbersClock(t *testing.T) {
	inWorld(t, func(w *world) {
		w.mesh.slow = 4 * time.Second
		sent := time.Now()
		c := w.open(hello("fra-1"), true, nil)
		time.Sleep(w.mesh.slow)
		times := seen(c, func(m *meshv1.ServerMessage) (time.Time, bool) {
			return m.GetWelcome().GetTime().AsTime(), m.GetWelcome() != nil
		})
		if len(times) != 1 || !times[0].Equal(sent.Add(2*time.Second)) {
			t.Errorf("Welcome says %v to a Hello of %v that was answered four seconds later; want the middle", times, sent)
		}
		c.cancel()
	})
}

func TestAReplacedSessionEnds(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.attach(hello("fra-1"))
		w.mesh.session("fra-1").End("the same process has attached again")
		if f := c.ended(); f.Reason != meshv1.ErrorReason_PROBER_NAME_TAKEN || f.Code != codes.Aborted {
			t.Errorf("%v", f)
		}
	})
}
