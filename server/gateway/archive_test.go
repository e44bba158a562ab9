package gateway

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestVotesNeverWaitForTheHistory(t *testing.T) {
	inWorld(t, func(w *world) {
		w.archive.stall()
		c := w.attach(hello("fra-1"))
		n := uint64(0)
		for range 60 {
			var batch []uint64
			for range 200 {
				n++
				batch = append(batch, n)
			}
			c.results(meshv1.ResultBatch_LIVE, batch...)
			time.Sleep(time.Second)
		}
		s := w.mesh.session("fra-1").(*session)
		if w.mesh.votes() != 12_000 || c.acked() != 0 || s.waiting.length() > archiveQueue || len(w.mesh.gone()) != 0 {
			t.Errorf("%d votes, acknowledged %d, %d wait, detached %q", w.mesh.votes(), c.acked(), s.waiting.length(), w.mesh.gone())
		}
		w.archive.release()
		synctest.Wait()
		resends := seen(c, func(m *meshv1.ServerMessage) (uint64, bool) {
			return m.GetResend().GetFromSequence(), m.GetResend() != nil
		})
		if len(resends) != 1 || resends[0] != c.acked()+1 || w.archive.lacks(c.acked()) != 0 {
			t.Errorf("asked again from %v, acknowledged %d, missing %d", resends, c.acked(), w.archive.lacks(c.acked()))
		}
	})
}

func TestAFailingHistoryIsTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.archive.fail(true)
		c := w.attach(hello("fra-1"))
		c.results(meshv1.ResultBatch_LIVE, 1, 2, 3)
		time.Sleep(time.Minute)
		if c.acked() != 0 {
			t.Errorf("acknowledged %d although nothing is in the history", c.acked())
		}
		w.archive.fail(false)
		time.Sleep(6 * time.Second)
		if c.acked() != 3 || w.archive.lacks(3) != 0 {
			t.Errorf("acknowledged %d", c.acked())
		}
	})
}

func TestKindsOfBatches(t *testing.T) {
	inWorld(t, func(w *world) {
		h := hello("fra-1")
		h.FirstSequence, h.LastSequence = 3, 6
		c := w.attach(h)
		c.results(meshv1.ResultBatch_STATE, 6)
		c.results(meshv1.ResultBatch_LIVE, 8, 7) // a run overtook
		if c.acked() != 2 {
			t.Errorf("acknowledged %d with 3 to 6 missing", c.acked())
		}
		if w.mesh.votes() != 3 {
			t.Errorf("%d votes; want LIVE and STATE", w.mesh.votes())
		}
		c.results(meshv1.ResultBatch_BACKLOG, 3, 4)
		if c.acked() != 4 {
			t.Errorf("acknowledged %d; want 4", c.acked())
		}
		c.results(meshv1.ResultBatch_BACKLOG, 6) // the spool has dropped 5
		if c.acked() != 8 || w.mesh.votes() != 3 {
			t.Errorf("acknowledged %d, votes %d; want 8 and 3: BACKLOG never votes", c.acked(), w.mesh.votes())
		}
		if w.archive.taken[5] != 0 || w.archive.taken[6] != 1 {
			t.Errorf("in the history: %v", w.archive.taken)
		}
		slow := &meshv1.ResultBatch{Kind: meshv1.ResultBatch_LIVE, Results: []*meshv1.Result{{Check: "checks/c", StartTime: result(1).StartTime, Outcome: meshv1.Result_SLOW}}}
		c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Results{Results: slow}})
		synctest.Wait()
		if w.mesh.votes() != 4 || w.archive.taken[0] != 0 {
			t.Errorf("%d votes, in the history %v: SLOW is a vote and no history", w.mesh.votes(), w.archive.taken)
		}
	})
}

func TestANumberThatNeverComesIsAskedForAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		c := w.attach(hello("fra-1"))
		c.results(meshv1.ResultBatch_LIVE, 1, 2, 4, 5)
		time.Sleep(90 * time.Second)
		resends := seen(c, func(m *meshv1.ServerMessage) (uint64, bool) {
			return m.GetResend().GetFromSequence(), m.GetResend() != nil
		})
		if len(resends) == 0 || resends[0] != 3 {
			t.Fatalf("asked again from %v; want 3", resends)
		}
		pings := seen(c, func(m *meshv1.ServerMessage) (uint64, bool) { return m.GetPing().GetId(), m.GetPing() != nil })
		c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Pong{Pong: &meshv1.Pong{Id: slices.Max(pings)}}})
		c.results(meshv1.ResultBatch_BACKLOG, 4, 5) // 3 is nowhere
		if c.acked() != 5 {
			t.Errorf("acknowledged %d; want 5, since 3 will not come", c.acked())
		}
	})
}

func TestADiskThatHangsDoesNotKeepTheName(t *testing.T) {
	inWorld(t, func(w *world) {
		w.archive.stall()
		c := w.attach(hello("fra-1"))
		c.results(meshv1.ResultBatch_LIVE, 1)
		synctest.Wait()
		c.cancel()
		synctest.Wait()
		if !slices.Equal(w.mesh.gone(), []string{"fra-1"}) {
			t.Errorf("detached %q while an append hangs", w.mesh.gone())
		}
	})
}

// modelProber does with its results what a prober does: they stay in its spool until they are acknowledged; Resend makes it go back. Its messages and the
// server's take time, so that both act on old news.
type modelProber struct {
	c    *client
	w    *world
	rand *rand.Rand

	mu      sync.Mutex
	last    uint64          // given out
	spool   map[uint64]bool // held
	backlog uint64          // next to send as backlog, 0: none
	until   uint64
	faults  []string
}

// react handles a message of the server, in order.
func (p *modelProber) react(m *meshv1.ServerMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch x := m.GetMessage().(type) {
	case *meshv1.ServerMessage_ResultAck:
		if missing := p.w.archive.lacks(x.ResultAck.GetSequence()); missing != 0 {
			p.faults = append(p.faults, fmt.Sprintf("%d is acknowledged and %d is not in the history", x.ResultAck.GetSequence(), missing))
		}
		for n := range p.spool {
			if n <= x.ResultAck.GetSequence() {
				delete(p.spool, n)
			}
		}
	case *meshv1.ServerMessage_Resend:
		p.backlog, p.until = max(1, x.Resend.GetFromSequence()), p.last
	case *meshv1.ServerMessage_Ping:
		p.c.say(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Pong{Pong: &meshv1.Pong{Id: x.Ping.GetId(), OriginateTime: x.Ping.GetOriginateTime()}}})
	}
}

// step makes results, sends most of them at once, and some backlog.
func (p *modelProber) step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var live []uint64
	for range p.rand.IntN(300) {
		p.last++
		p.spool[p.last] = true
		live = append(live, p.last)
	}
	if p.rand.IntN(4) == 0 {
		slices.Reverse(live) // what changed overtakes
	}
	p.c.results(meshv1.ResultBatch_LIVE, live...)
	if p.rand.IntN(50) == 0 && len(p.spool) > 1000 {
		p.dropOldest(500)
	}
	for range p.rand.IntN(4) {
		var batch []uint64
		for ; p.backlog != 0 && len(batch) < 200; p.backlog++ {
			if p.backlog > p.until {
				p.backlog = 0
				break
			}
			if p.spool[p.backlog] {
				batch = append(batch, p.backlog)
			}
		}
		p.c.results(meshv1.ResultBatch_BACKLOG, batch...)
	}
}

// dropOldest is a spool that is full: those results will not come, and nobody waits for them.
func (p *modelProber) dropOldest(n int) {
	held := slices.Sorted(maps.Keys(p.spool))
	p.w.archive.mu.Lock()
	defer p.w.archive.mu.Unlock()
	for _, x := range held[:n] {
		delete(p.spool, x)
		p.w.archive.taken[x]++
	}
}

func TestNothingAcknowledgedIsEverMissing(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				p := &modelProber{w: w, rand: rand.New(rand.NewPCG(seed, 1)), spool: map[uint64]bool{}}
				// It comes back with 20,000 results from an hour without a server.
				for p.last = 1; p.last <= 20_000; p.last++ {
					p.spool[p.last] = true
				}
				p.last--
				p.backlog, p.until = 1, p.last
				h := hello("fra-1")
				h.LastSequence = p.last
				news := make(chan *meshv1.ServerMessage, 10_000)
				p.c = w.open(h, true, func(m *meshv1.ServerMessage) { news <- m })
				go p.c.pingAll()
				late := make(chan struct{})
				lags := rand.New(rand.NewPCG(seed, 2))
				go func() {
					defer close(late)
					for {
						select {
						case m := <-news:
							time.Sleep(time.Duration(lags.IntN(30)) * time.Millisecond)
							p.react(m)
						case <-p.c.end:
							return
						}
					}
				}()
				for range 600 {
					switch p.rand.IntN(30) {
					case 0:
						w.archive.stall()
					case 1, 2:
						w.archive.release()
					}
					p.step()
					time.Sleep(100 * time.Millisecond)
				}
				w.archive.release()
				for range 600 {
					p.step()
					time.Sleep(100 * time.Millisecond)
				}
				time.Sleep(5 * time.Second)
				p.c.cancel()
				<-late
				if len(p.faults) > 0 {
					t.Fatalf("%d times, first: %s", len(p.faults), p.faults[0])
				}
				if missing := w.archive.lacks(p.last); missing != 0 || len(p.spool) != 0 {
					t.Errorf("%d of %d is missing at the end, %d are in the spool", missing, p.last, len(p.spool))
				}
			})
		})
	}
}

func (w *waiting) length() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}
