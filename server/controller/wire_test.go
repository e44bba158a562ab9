package controller

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/etcdfake"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// trio is three servers on one etcd that follow each other. Between two of them is a wire each way, which takes 5 ms.
type trio struct {
	t       *testing.T
	etcd    *etcdfake.Server
	servers map[string]*world
	wires   map[string]*wire // "a>b": what b hears of a
	group   sync.WaitGroup
	// down and sessions are shared by all servers: a prober meets the same target wherever its session is.
	probers map[string]*roamer
}

// roamer is a prober that has a session somewhere.
type roamer struct {
	at      string
	session *fakeSession
}

// wire carries what a server tells another one, in order.
type wire struct {
	from, to string
	calls    chan func()

	mu   sync.Mutex
	cut  bool
	dead bool
}

// post passes a call on, unless the wire is cut.
func (x *wire) post(f func()) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cut || x.dead {
		return false
	}
	x.calls <- f
	return true
}

// mouth is what one server tells the others: it is its Peers.
type mouth struct {
	trio *trio
	name string
	mu   sync.Mutex
	runs map[string]string // who asked for a run
}

func (m *mouth) each(f func(to *world)) {
	for name, w := range m.trio.servers {
		if name != m.name {
			m.trio.wires[m.name+">"+name].post(func() { f(w) })
		}
	}
}

func (m *mouth) Presence(p *peerv1.Presence) {
	m.each(func(w *world) { w.c.PeerPresences("servers/"+m.name, false, []*peerv1.Presence{proto.CloneOf(p)}) })
}

func (m *mouth) Votes(results []*meshv1.Result) {
	copies := make([]*meshv1.Result, len(results))
	for i, r := range results {
		copies[i] = proto.CloneOf(r)
	}
	m.each(func(w *world) { w.c.PeerVotes("servers/"+m.name, copies) })
}

func (m *mouth) Ask(server, prober string, run *meshv1.RunNow) bool {
	to := server[len("servers/"):]
	return m.trio.wires[m.name+">"+to].post(func() {
		their := m.trio.servers[to].c.deps.Peers.(*mouth)
		their.mu.Lock()
		their.runs[run.GetRunId()] = m.name
		their.mu.Unlock()
		if !m.trio.servers[to].c.RunHere(prober, proto.CloneOf(run)) {
			their.Refuse(prober, run.GetRunId(), "it has no session there")
		}
	})
}

func (m *mouth) Refuse(prober, runID, reason string) {
	m.mu.Lock()
	asker := m.runs[runID]
	m.mu.Unlock()
	if asker != "" {
		m.trio.wires[m.name+">"+asker].post(func() { m.trio.servers[asker].c.PeerRefusal(prober, runID, reason) })
	}
}

func inTrio(t *testing.T, f func(x *trio)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &trio{t: t, etcd: etcdfake.New(t), servers: map[string]*world{}, wires: map[string]*wire{}, probers: map[string]*roamer{}}
		names := []string{"a", "b", "c"}
		for _, from := range names {
			for _, to := range names {
				w := &wire{from: from, to: to, calls: make(chan func(), 100_000), cut: true}
				x.wires[from+">"+to] = w
				x.group.Go(func() {
					for f := range w.calls {
						time.Sleep(5 * time.Millisecond)
						f()
					}
				})
			}
		}
		for _, n := range names {
			x.servers[n] = newWorld(t, x.etcd, n, &mouth{trio: x, name: n, runs: map[string]string{}})
			x.publish(n)
			time.Sleep(100 * time.Millisecond) // a leads
		}
		for _, n := range names {
			x.join(n)
		}
		defer func() {
			for _, w := range x.wires {
				w.mu.Lock()
				w.dead = true
				close(w.calls)
				w.mu.Unlock()
			}
			for _, w := range x.servers {
				w.end()
			}
			x.group.Wait()
		}()
		f(x)
	})
}

func (x *trio) publish(name string) {
	lease, err := x.etcd.Client(x.t).Grant(x.t.Context(), 36000)
	if err != nil {
		x.t.Fatal(err)
	}
	if err := x.servers[name].store.PublishServer(x.t.Context(), lease.ID, &statev1.ServerRecord{Name: "servers/" + name, GrpcAddress: name + ":7700"}); err != nil {
		x.t.Fatal(err)
	}
}

// join connects a server with the others, both ways.
func (x *trio) join(name string) {
	for _, other := range []string{"a", "b", "c"} {
		if other != name {
			x.connect(name, other)
			x.connect(other, name)
		}
	}
}

func (x *trio) connect(from, to string) {
	w := x.wires[from+">"+to]
	w.mu.Lock()
	was := w.cut
	w.cut = false
	w.mu.Unlock()
	if !was {
		return
	}
	source, sink := x.servers[from], x.servers[to]
	presences, results := source.c.Local()
	w.post(func() {
		sink.c.PeerPresences("servers/"+from, true, presences)
		sink.c.PeerVotes("servers/"+from, results)
	})
}

// isolate cuts a server off from the others, who count it as silent three seconds later, as it does them.
func (x *trio) isolate(name string) {
	for _, w := range x.wires {
		if w.from != name && w.to != name || w.from == w.to {
			continue
		}
		w.mu.Lock()
		w.cut = true
		w.mu.Unlock()
		x.group.Go(func() {
			time.Sleep(3 * time.Second)
			w.mu.Lock()
			cut := w.cut && !w.dead
			w.mu.Unlock()
			if cut {
				x.servers[w.to].c.PeerSilent("servers/" + w.from)
			}
		})
	}
}

// attach gives a prober a session at a server; one that it has elsewhere stays, as if it were not missed yet.
func (x *trio) attach(prober, server string) *fakeSession {
	x.t.Helper()
	s, err := x.try(prober, server, "boot-"+prober)
	if err != nil {
		x.t.Fatal(err)
	}
	return s
}

func (x *trio) try(prober, server, boot string) (*fakeSession, error) {
	w := x.servers[server]
	s := &fakeSession{boot: boot, since: time.Now()}
	s.answer = func(r *meshv1.RunNow) { w.cast(prober, r.GetCheck(), r.GetRunId()) }
	h := w.hello(prober)
	if h.BootId = boot; boot == "another" {
		h.Datacenter = "elsewhere"
	}
	if err := w.c.Attach(x.t.Context(), h, s); err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.sessions[prober] = s
	w.mu.Unlock()
	x.probers[prober] = &roamer{server, s}
	return s, nil
}

// detach ends a prober's session at a server.
func (x *trio) detach(prober, server string, leaving bool) {
	w := x.servers[server]
	w.mu.Lock()
	s := w.sessions[prober]
	delete(w.sessions, prober)
	w.mu.Unlock()
	w.c.Detach(prober, s, leaving)
}

// down sets whether a check's target answers.
func (x *trio) down(check string, down bool) {
	for _, w := range x.servers {
		w.setDown(check, down)
	}
}

// spread makes one prober at each server and so many checks, and waits until all servers hold all of them for UP.
func (x *trio) spread(checks int) {
	x.t.Helper()
	for p, s := range map[string]string{"p1": "a", "p2": "b", "p3": "c"} {
		x.attach(p, s)
	}
	x.servers["a"].makeChecks(checks)
	time.Sleep(5 * time.Second)
	x.probe(30 * time.Second)
	for name, w := range x.servers {
		w.c.EachStatus("", func(s *meshv1.CheckStatus) bool {
			if s.GetVerdict() != meshv1.CheckStatus_UP {
				x.t.Fatalf("server %s: %s is %v at the beginning: %s", name, s.GetCheck(), s.GetVerdict(), s.GetSummary())
			}
			return true
		})
	}
}

// probe lets all probers probe all checks every ten seconds, where they have their sessions.
func (x *trio) probe(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Second) {
		for name, p := range x.probers {
			w := x.servers[p.at]
			for _, a := range w.c.Difference(name, nil).Upserts {
				w.cast(name, a.GetCheck().GetName(), "")
			}
		}
	}
}

// state is a prober as a server sees it.
func (x *trio) state(server, prober string) string {
	p, ok := x.servers[server].c.Prober("probers/" + prober)
	if !ok {
		return "unknown"
	}
	return fmt.Sprint(p.GetState(), " ", p.GetServer())
}

// text is a message for comparison; protobuf's own text varies in its spaces on purpose.
func text(m proto.Message) string {
	b, err := protojson.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(b)), " ")
}

func describeEvents(events []scheduler.Event) string {
	var list []string
	for _, e := range events {
		switch e := e.(type) {
		case scheduler.ProberOnline:
			list = append(list, "ProberOnline{"+e.Name+" "+e.Server+"}")
		case scheduler.ProberOffline:
			s := "ProberOffline{" + e.Name
			if e.Leaving {
				s += " leaving"
			}
			if e.Unheard {
				s += " unheard"
			}
			list = append(list, s+"}")
		}
	}
	return strings.Join(list, ", ")
}
