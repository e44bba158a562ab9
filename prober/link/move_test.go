package link

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/prober/assignments"
	"github.com/probemesh/probemesh/prober/clock"
	"github.com/probemesh/probemesh/prober/linktest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// The tests below have one prober in datacenter a and servers in datacenters a, b and c, in a bubble. The prober makes a result every 50 ms, in turn of ten checks.
// Its home is the server of datacenter a.

const pace = 50 * time.Millisecond

// maker is an agent that holds nothing and makes results.
type maker struct {
	link  *Link
	spool *spool.Spool
	clock *clock.Clock
	takes time.Duration // of a run

	mu     sync.Mutex
	made   []*meshv1.Result
	newest map[string]*meshv1.Result
	runs   sync.WaitGroup
}

func (m *maker) Apply(*assignments.Update) *meshv1.AssignmentAck { return m.Holding() }
func (m *maker) Holding() *meshv1.AssignmentAck                  { return &meshv1.AssignmentAck{} }
func (m *maker) Inventory() ([]*meshv1.InventoryItem, int64)     { return nil, 0 }

func (m *maker) Newest() (all []*meshv1.Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.newest {
		all = append(all, r)
	}
	return all
}

func (m *maker) Run(r *meshv1.RunNow) {
	m.runs.Go(func() {
		time.Sleep(m.takes)
		m.make(r.GetCheck(), r.GetRunId(), Run)
	})
}

func (m *maker) make(check, run string, p Priority) {
	r := &meshv1.Result{Check: check, RunId: run, StartTime: timestamppb.New(m.clock.Mesh()), Duration: durationpb.New(time.Millisecond), Outcome: meshv1.Result_OK}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.spool.Append(r, false, nil)
	m.made, m.newest[check] = append(m.made, r), r
	m.link.Send(r, p)
}

type mesh struct {
	t       *testing.T
	net     *linktest.Network
	a, b, c *linktest.Server
	maker   *maker
	link    *Link
	stop    func()
	// servers are the configured addresses; default: a's.
	servers []string
	log     *slog.Logger
}

func inMesh(t *testing.T, f func(m *mesh)) {
	t.Helper()
	inMeshFrom(t, quiet, []string{"a:1"}, f)
}

// inMeshFrom starts the prober with the addresses of some servers.
func inMeshFrom(t *testing.T, log *slog.Logger, servers []string, f func(m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, net: linktest.NewNetwork(), servers: servers, log: log}
		var all []*meshv1.ServerAddress
		for _, n := range []string{"a", "b", "c"} {
			all = append(all, &meshv1.ServerAddress{Server: "servers/" + n, Datacenter: n, Address: n + ":1"})
		}
		for i, s := range []**linktest.Server{&m.a, &m.b, &m.c} {
			*s = &linktest.Server{Address: all[i].Address, Name: all[i].Datacenter, Servers: all}
			(*s).Start(m.net)
		}
		m.start(t.TempDir())
		f(m)
		m.stop()
		for _, s := range []*linktest.Server{m.a, m.b, m.c} {
			s.Stop()
		}
	})
}

func (m *mesh) start(dir string) {
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "spool"), Boot: strings.Repeat("b", 32)}, quiet)
	if err != nil {
		m.t.Fatal(err)
	}
	c := clock.New()
	m.maker = &maker{spool: s, clock: c, newest: map[string]*meshv1.Result{}}
	m.link = New(Config{Prober: "p-1", Boot: strings.Repeat("b", 32), Datacenter: "a", Protocol: 1, Servers: m.servers, Book: filepath.Join(dir, "servers.json"),
		DialOptions: []grpc.DialOption{m.net.DialOption()}}, m.maker, c, s, m.log)
	m.maker.link = m.link
	ctx, cancel := context.WithCancel(context.Background())
	making, enough := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { _ = m.link.Run(ctx) }) // nil
	group.Go(func() {
		for i := 0; making.Err() == nil; i++ {
			time.Sleep(pace)
			m.maker.make(fmt.Sprint("checks/c", i%10), "", Routine)
		}
	})
	m.stop = sync.OnceFunc(func() {
		enough()
		m.maker.runs.Wait()
		time.Sleep(5 * time.Second) // what is queued leaves, and is acknowledged
		cancel()
		group.Wait()
		s.Close()
	})
}

// nothingLost stops the prober and looks for every result at some server.
func (m *mesh) nothingLost() {
	m.t.Helper()
	m.stop()
	found := map[uint64]bool{}
	for _, s := range []*linktest.Server{m.a, m.b, m.c} {
		for _, r := range s.Seen().Results(meshv1.ResultBatch_LIVE, meshv1.ResultBatch_BACKLOG) {
			found[r.GetSequence()] = true
		}
	}
	if len(found) != len(m.maker.made) {
		m.t.Errorf("%d results were made, %d are at a server", len(m.maker.made), len(found))
	}
	if held := m.maker.spool.Stats().Held; held != 0 {
		m.t.Errorf("%d results were never acknowledged", held)
	}
}

// warm waits until a connection to a second server is warm, and gives that server.
func (m *mesh) warm() *linktest.Server {
	m.t.Helper()
	time.Sleep(2 * checkEvery)
	synctest.Wait()
	for _, s := range []*linktest.Server{m.a, m.b, m.c} {
		if s.ServerName() == m.link.Stats().Standby {
			return s
		}
	}
	m.t.Fatalf("no connection is warm: %+v", m.link.Stats())
	return nil
}

func TestALostServerIsReplacedWithinMilliseconds(t *testing.T) {
	inMesh(t, func(m *mesh) {
		standby := m.warm()
		if !m.a.Attached() || standby == m.a {
			t.Fatalf("%+v: want the session at home and another server warm", m.link.Stats())
		}
		m.a.Stop()
		time.Sleep(moveJitter + time.Millisecond)
		if st := m.link.Stats(); !standby.Attached() || st.Gap > moveJitter || st.Lost != 1 {
			t.Errorf("%v after its server died: %+v; want a session with %s", moveJitter, st, standby.ServerName())
		}
		state := standby.Seen().Results(meshv1.ResultBatch_STATE)
		if len(state) != 10 {
			t.Errorf("%d votes came first; want the newest of each of ten checks", len(state))
		}
		// And again, when that one dies soon after.
		time.Sleep(6 * time.Second)
		standby.Stop()
		time.Sleep(moveJitter + time.Millisecond)
		if st := m.link.Stats(); st.Server == "" || st.Gap > moveJitter {
			t.Errorf("%v after the second server died: %+v", moveJitter, st)
		}
		m.nothingLost()
	})
}

// An upgrade ends every session within seconds, again and again; each time another server is there, and the prober is there at once.
func TestServersRestartedInTurnNeverMakeTheProberWait(t *testing.T) {
	inMesh(t, func(m *mesh) {
		m.warm()
		for i := range 9 {
			time.Sleep(4 * time.Second)
			for _, s := range []*linktest.Server{m.a, m.b, m.c} {
				if s.Attached() {
					s.Stop()
					time.Sleep(moveJitter + 10*time.Millisecond)
					s.Start(m.net)
					break
				}
			}
			if st := m.link.Stats(); st.Server == "" || st.Gap > moveJitter+10*time.Millisecond {
				t.Errorf("after stop %d of a server: %+v", i+1, st)
			}
		}
		m.nothingLost()
	})
}

func TestASilentServerIsLeftAfterThreeSeconds(t *testing.T) {
	inMesh(t, func(m *mesh) {
		standby := m.warm()
		m.a.Freeze(true)
		time.Sleep(silenceMax + moveJitter + time.Millisecond)
		if !standby.Attached() {
			t.Errorf("no session 3 s after the last word: %+v", m.link.Stats())
		}
		m.nothingLost()
	})
}

func TestTheProberComesHomeWithoutAGap(t *testing.T) {
	inMesh(t, func(m *mesh) {
		standby := m.warm()
		m.a.Stop()
		time.Sleep(20 * time.Second)
		m.a.Start(m.net)
		back := time.Now()
		for !m.a.Attached() {
			if !standby.Attached() || m.link.Stats().Server == "" {
				t.Fatal("it left before it was at home")
			}
			if time.Since(back) > 2*homeAfter+3*checkEvery {
				t.Fatalf("still away %v after its home came back: %+v", time.Since(back), m.link.Stats())
			}
			time.Sleep(10 * time.Millisecond)
		}
		away := time.Since(back)
		if away < homeAfter {
			t.Errorf("home after %v; it must have been healthy for %v", away, homeAfter)
		}
		time.Sleep(2 * lingerMin)
		if st := m.link.Stats(); standby.Attached() || st.Server != st.Home || st.Homecomings != 1 || st.Lost != 1 {
			t.Errorf("after the return: %+v; want one session, at home", st)
		}
		if n := standby.Seen().Goodbyes; n != 0 {
			t.Errorf("%d Goodbyes on leaving: its checks would move", n)
		}
		m.nothingLost()
		// Every result since the move was somewhere as LIVE within two seconds: no vote was late.
		live := map[uint64]bool{}
		for _, s := range []*linktest.Server{m.a, standby} {
			for _, r := range s.Seen().Results(meshv1.ResultBatch_LIVE, meshv1.ResultBatch_STATE) {
				live[r.GetSequence()] = true
			}
		}
		late := 0
		for _, r := range m.maker.made {
			if !live[r.GetSequence()] {
				late++
			}
		}
		// Two rounds of ten checks may be superseded by newer results of the same checks, in the second in which unchanged ones are gathered, at each of two moves.
		if late > 2*int(time.Second/pace) {
			t.Errorf("%d results of %d never were votes", late, len(m.maker.made))
		}
	})
}

func TestARunIsAnsweredAcrossTheReturn(t *testing.T) {
	inMesh(t, func(m *mesh) {
		m.maker.takes = 3 * time.Second
		standby := m.warm()
		m.a.Stop()
		time.Sleep(20 * time.Second)
		m.a.Start(m.net)
		for i := 0; !m.a.Attached() && i < 400; i++ {
			standby.Say(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_RunNow{RunNow: &meshv1.RunNow{RunId: fmt.Sprint("run-", i), Check: "checks/c1"}}})
			time.Sleep(250 * time.Millisecond)
		}
		if !standby.Attached() {
			t.Error("it left a server that waits for runs")
		}
		time.Sleep(m.maker.takes + 2*lingerMin)
		if standby.Attached() {
			t.Error("the old session still lives although everything was answered")
		}
		m.stop()
		asked, answered := 0, map[string]bool{}
		for _, r := range standby.Seen().Results(meshv1.ResultBatch_LIVE) {
			answered[r.GetRunId()] = true
		}
		for _, r := range m.maker.made {
			if r.GetRunId() != "" {
				asked++
				if !answered[r.GetRunId()] {
					t.Errorf("%s was not answered to the server that asked", r.GetRunId())
				}
			}
		}
		if asked < 50 {
			t.Errorf("%d runs were asked for", asked)
		}
		m.nothingLost()
	})
}

func TestAServerThatIsNotServingIsNeitherStandbyNorHome(t *testing.T) {
	inMesh(t, func(m *mesh) {
		standby := m.warm()
		standby.Healthy(false)
		time.Sleep(2 * checkEvery)
		if other := m.warm(); other == standby || other == m.a {
			t.Errorf("%s is warm", other.ServerName())
		}
		m.a.Stop()
		time.Sleep(time.Second)
		m.a.Start(m.net)
		m.a.Healthy(false)
		time.Sleep(5 * time.Minute)
		if m.a.Attached() {
			t.Error("it went home to a server that is not serving")
		}
	})
}

func TestARedirectedProberStaysAway(t *testing.T) {
	inMesh(t, func(m *mesh) {
		m.warm()
		m.a.Say(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Redirect{Redirect: &meshv1.Redirect{Addresses: []string{"c:1"}}}})
		time.Sleep(redirectHolds - time.Second)
		if st := m.link.Stats(); !m.c.Attached() || st.Redirected != 1 || st.Homecomings != 0 {
			t.Errorf("%+v: want it to be where it was sent", st)
		}
		time.Sleep(2*homeAfter + 4*checkEvery)
		if !m.a.Attached() {
			t.Errorf("%+v: want it at home", m.link.Stats())
		}
		m.nothingLost()
	})
}

func TestNewServersAreLearnedWithinASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, net: linktest.NewNetwork(), servers: []string{"a:1"}, log: quiet}
		m.a = &linktest.Server{Address: "a:1", Name: "a"}
		m.b = &linktest.Server{Address: "b:1", Name: "b"}
		m.c = &linktest.Server{Address: "c:1", Name: "c"}
		dir := t.TempDir()
		for _, s := range []*linktest.Server{m.a, m.b, m.c} {
			s.Start(m.net)
		}
		m.start(dir)
		time.Sleep(3 * checkEvery)
		if st := m.link.Stats(); st.Standby != "" || st.Home != "" {
			t.Fatalf("an older server names no servers, and yet: %+v", st)
		}
		list := []*meshv1.ServerAddress{{Server: "servers/a", Datacenter: "x", Address: "0.0.0.0:1"}, {Server: "servers/b", Datacenter: "a", Address: "b:1"}}
		m.a.Say(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Servers{Servers: &meshv1.Servers{Servers: list}}})
		time.Sleep(3 * time.Second)
		if st := m.link.Stats(); st.Server != "servers/b" || st.Standby != "servers/a" || st.Home != "servers/b" || st.Lost != 0 {
			t.Errorf("%+v; want it to be at home with b, of its datacenter, and a as its standby", st)
		}
		if got := openBook(Config{Book: filepath.Join(dir, "servers.json"), Prober: "p-1", Datacenter: "a", Servers: []string{"a:1"}}, quiet).ranked(); len(got) != 2 ||
			got[0] != (place{"servers/b", "a", "b:1"}) || got[1] != (place{"servers/a", "x", "a:1"}) {
			t.Errorf("on disk: %v; want both, a at the address where it was reached", got)
		}
		m.nothingLost()
		for _, s := range []*linktest.Server{m.a, m.b, m.c} {
			s.Stop()
		}
	})
}

func TestAStoppingServerIsLeftAtOnce(t *testing.T) {
	stopping := fault.New(codes.Unavailable, meshv1.ErrorReason_SHUTTING_DOWN, "", "this server is stopping").Retry(time.Second)
	l := New(Config{Servers: []string{"a:1", "b:1"}, Book: filepath.Join(t.TempDir(), "book")}, nil, clock.New(), nil, quiet)
	r := &retries{link: l}
	s := newSession(l, "a:1")
	s.began = time.Now()
	if pause := r.pause(&attempt{s: s, address: "a:1", err: stopping, lived: time.Hour}); pause > moveJitter {
		t.Errorf("it waits %v", pause)
	}
	if next, _ := l.book.next(); next != "b:1" {
		t.Errorf("it tries %s next", next)
	}
	if pause := r.pause(&attempt{s: newSession(l, "b:1"), address: "b:1", err: stopping}); pause < time.Second {
		t.Errorf("a server that refused it is asked again after %v; it said 1 s", pause)
	}
}

// longest is a source of the longest pauses.
type longest struct{}

func (longest) Uint64() uint64 { return math.MaxUint64 }

func TestOnePauseIsForAWholeRoundOfServersThatDoNotAnswer(t *testing.T) {
	inMeshFrom(t, quiet, []string{"a:1", "b:1", "c:1"}, func(m *mesh) {
		m.warm()
		synctest.Wait()
		m.link.rand = rand.New(longest{})
		for _, s := range []*linktest.Server{m.a, m.b, m.c} {
			s.Stop()
		}
		time.Sleep(2 * time.Minute) // until pauses are as long as they get
		m.c.Start(m.net)
		time.Sleep(backoffMax + 3*moveJitter)
		if !m.c.Attached() {
			t.Errorf("%v after one of three servers has come back: %+v; want a session there", backoffMax+3*moveJitter, m.link.Stats())
		}
		m.nothingLost()
	})
}
