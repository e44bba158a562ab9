package meshtest

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

// mesh is everything, in a bubble.
type mesh struct {
	t       *testing.T
	etcd    *etcdfake.Server
	admin   *store.Store
	net     *network
	target  *target
	box     *inbox
	servers map[string]*server
	probers map[string]*agent
	skews   *skews
	audit   *audit
	trial   bool // what is not within its limit is noted as a violation, and ends nothing
	boots   int
	lacked  string // a probe that missing did not find
	differ  string // what servers say differently, when alike was asked last
	log     *slog.Logger
	journal *journal
}

// agent is one boot of a prober.
type agent struct {
	p      *prober.Prober
	cancel context.CancelFunc
	done   chan error
	dir    string
}

func inMesh(t *testing.T, f func(m *mesh)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &mesh{t: t, etcd: etcdfake.New(t), net: newNetwork(), target: newTarget(), servers: map[string]*server{}, probers: map[string]*agent{},
			journal: &journal{}}
		m.log = slog.New(recorder{j: m.journal})
		if testing.Verbose() && os.Getenv("MESHTEST_LOG") != "" {
			m.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
		}
		m.skews, m.audit = newSkews(), newAudit(m)
		m.etcd.Observe(m.audit.see)
		m.etcd.Serve(m.net.listen("etcd", etcdAddress))
		m.box = openInbox(m)
		defer m.box.close()
		m.admin = store.New(m.etcd.Client(t), store.Options{})
		if _, err := m.admin.CreateReceiver(t.Context(), m.box.receiver()); err != nil {
			t.Fatal(err)
		}
		defer m.stop()
		f(m)
	})
}

func (m *mesh) stop() {
	for n := range m.probers {
		m.stopProber(n)
	}
	for _, s := range m.servers {
		m.kill(s.name)
	}
	for _, s := range m.servers {
		<-s.ended
	}
}

// probe starts a prober, in a datacenter that is the name up to its dash.
func (m *mesh) probe(name, datacenter string) {
	m.t.Helper()
	m.net.place(name, datacenter)
	dir := ""
	if old := m.probers[name]; old != nil {
		dir = old.dir
	} else {
		dir = m.t.TempDir()
	}
	p, err := prober.New(prober.Config{Name: name, Datacenter: datacenter, Servers: m.addresses(), Data: dir, Build: "test"}, prober.Deps{
		Capabilities: []string{"tcp", "http", "ipv4"}, Log: m.log.With("prober", name),
		Compile: func(c *meshv1.Check) (probe.Runner, error) {
			return &runner{m.target, name, datacenter, c}, nil
		},
		DialOptions: append(m.skews.options(name), grpc.WithContextDialer(m.net.dialer(name))),
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{p: p, cancel: cancel, done: make(chan error, 1), dir: dir}
	go func() { a.done <- p.Run(ctx) }()
	m.probers[name] = a
}

func (m *mesh) stopProber(name string) {
	a := m.probers[name]
	if a.cancel == nil {
		return
	}
	a.cancel()
	if err := <-a.done; err != nil {
		m.t.Errorf("prober %s: %v", name, err)
	}
	a.cancel = nil
}

// spec is a check as the tests have it.
func (m *mesh) spec(name string) *meshv1.Check {
	return &meshv1.Check{Name: name, Uri: "tcp://" + spec.ID(name) + ".example.com:443", Interval: durationpb.New(30 * time.Second), Timeout: durationpb.New(5 * time.Second),
		Probers: 3, Quorum: 2, Receivers: []string{"receivers/ops"}}
}

// edit reads a check, changes it and writes it.
func (m *mesh) edit(name string, change func(*meshv1.Check)) error {
	k, err := m.admin.GetCheck(m.t.Context(), name)
	if err != nil {
		return err
	}
	change(k)
	_, err = m.admin.UpdateCheck(m.t.Context(), k, "")
	return err
}

// exists tells whether there is a check; when that cannot be read, there may be.
func (m *mesh) exists(name string) bool {
	_, err := m.admin.GetCheck(m.t.Context(), name)
	return err == nil || status.Code(err) != codes.NotFound
}

// check makes or changes a check.
func (m *mesh) check(name string, change func(*meshv1.Check)) {
	m.t.Helper()
	k := m.spec("checks/" + name)
	if change != nil {
		change(k)
	}
	_, err := m.admin.UpdateCheck(m.t.Context(), k, "")
	if err != nil {
		_, err = m.admin.CreateCheck(m.t.Context(), k)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// begin is a mesh with servers, three probers in three datacenters and checks c0, c1, ..., all UP.
func (m *mesh) begin(checks int, servers ...string) {
	m.t.Helper()
	for _, s := range servers {
		m.serve(s)
		time.Sleep(time.Second)
	}
	for _, d := range []string{"fra", "iad", "nrt"} {
		m.probe(d+"-1", d)
	}
	for i := range checks {
		m.check(fmt.Sprint("c", i), nil)
	}
	m.await("all are UP", 3*time.Minute, m.allUp)
}

// await waits, in mesh time, for a condition.
func (m *mesh) await(what string, limit time.Duration, ok func() bool) time.Duration {
	m.t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > limit {
			if m.trial {
				m.audit.violate("not within %v: %s", limit, what)
				return limit
			}
			m.t.Fatalf("not within %v: %s\n%s", limit, what, m.describe())
		}
		time.Sleep(100 * time.Millisecond)
	}
	return time.Since(begun)
}

// leader is the server that leads, nil when none does.
func (m *mesh) leader() *server {
	for _, s := range m.servers {
		if !s.dead && s.c.Server().Leading {
			return s
		}
	}
	return nil
}

func (m *mesh) verdict(check string) meshv1.CheckStatus_Verdict {
	if l := m.leader(); l != nil {
		if s, ok := l.c.Status("checks/" + check); ok {
			return s.GetVerdict()
		}
	}
	return meshv1.CheckStatus_VERDICT_UNSPECIFIED
}

func (m *mesh) allUp() bool {
	l := m.leader()
	if l == nil {
		return false
	}
	up, n := true, 0
	l.c.EachStatus("", func(s *meshv1.CheckStatus) bool {
		n++
		up = up && (s.GetVerdict() == meshv1.CheckStatus_UP || s.GetVerdict() == meshv1.CheckStatus_PAUSED) && s.GetIncident() == ""
		return true
	})
	return up && n > 0
}

// settled tells whether the leader hears every prober, wherever it is attached, and each runs what it should.
func (m *mesh) settled() bool {
	l := m.leader()
	if l == nil {
		return false
	}
	n := 0
	for _, p := range l.c.Probers() {
		if p.GetState() == meshv1.Prober_ONLINE && p.GetInSync() {
			n++
		}
	}
	return n == len(m.probers)
}

// missing counts probes of before the last ten seconds that no server has in its history.
func (m *mesh) missing() int {
	n := 0
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	for k, at := range m.target.probed {
		if time.Since(at) < 10*time.Second {
			continue
		}
		found := false
		for _, s := range m.servers {
			s.archive.mu.Lock()
			found = found || s.archive.have[k]
			s.archive.mu.Unlock()
		}
		if !found {
			n++
			m.lacked = k
		}
	}
	return n
}

// lacking counts the probes of before the last ten seconds that the history of a server that lives lacks.
func (m *mesh) lacking() int {
	n := 0
	m.target.mu.Lock()
	defer m.target.mu.Unlock()
	for k, at := range m.target.probed {
		if time.Since(at) < 10*time.Second {
			continue
		}
		for _, s := range m.servers {
			s.archive.mu.Lock()
			if !s.dead && !s.archive.have[k] {
				n++
				m.lacked = k
			}
			s.archive.mu.Unlock()
		}
	}
	return n
}

// spread tells whether each server has a session.
func (m *mesh) spread() bool {
	for _, s := range m.servers {
		if !s.dead && s.c.Server().Sessions == 0 {
			return false
		}
	}
	return true
}

// alike tells whether every server that lives says the same of every check and prober; else differ is what two of them say.
func (m *mesh) alike() bool {
	said := map[string]string{}
	for _, s := range m.servers {
		if !s.dead {
			said[s.says()] = s.name
		}
	}
	m.differ = ""
	if len(said) == 1 {
		return true
	}
	for all, name := range said {
		m.differ += "  " + name + " says:\n"
		for line := range strings.Lines(all) {
			if slices.ContainsFunc(slices.Collect(maps.Keys(said)), func(other string) bool { return !strings.Contains(other, line) }) {
				m.differ += "    " + line
			}
		}
	}
	return false
}

// says is what the server holds for true.
func (s *server) says() string {
	all := ""
	s.c.EachStatus("", func(st *meshv1.CheckStatus) bool {
		all += fmt.Sprintln(st.GetCheck(), st.GetVerdict(), st.GetReason(), st.GetIncident(), st.GetSummary(), st.GetConfirming(), st.GetProbers())
		return true
	})
	for _, p := range s.c.Probers() {
		all += fmt.Sprintln(p.GetName(), p.GetState(), p.GetServer(), p.GetBootId(), p.GetInSync(), p.GetAssignments())
	}
	return all
}

// describe says how the mesh stands, for a test that failed.
func (m *mesh) describe() string {
	l := m.leader()
	if l == nil {
		return "nobody leads"
	}
	out := "leader " + l.name + "\n" + m.differ
	if m.lacked != "" {
		out += "  a probe that was missing: " + m.lacked + "\n"
	}
	for _, p := range l.c.Probers() {
		out += fmt.Sprintf("  %s %s in_sync=%v spooled=%d\n", p.GetName(), p.GetState(), p.GetInSync(), p.GetSpooled())
	}
	l.c.EachStatus("", func(s *meshv1.CheckStatus) bool {
		if s.GetVerdict() != meshv1.CheckStatus_UP {
			out += fmt.Sprintf("  %s %s %s %s\n", s.GetCheck(), s.GetVerdict(), s.GetIncident(), s.GetSummary())
		}
		return true
	})
	return out
}
