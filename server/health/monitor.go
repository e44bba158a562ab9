package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/peer"
	"github.com/probemesh/probemesh/server/store"
)

// Config says whose health is watched. Server, Datacenter and Version are required.
type Config struct {
	// Server is this server, for example "servers/a".
	Server string
	// Datacenter is where it runs.
	Datacenter string
	// Version is its build.
	Version string
	// Embedded tells that every member of the etcd cluster is a server's, with that server's name: then a member is missed whose server is not there.
	Embedded bool
	// Every is how often conditions are looked at. Default 1 s.
	Every time.Duration
	// AskEvery is how often etcd's members, the outbox, the receivers and the checks are asked about. Default 5 s.
	AskEvery time.Duration
}

// Standing is what a server knows of itself and of who leads.
type Standing struct {
	// Leader and Term are who leads as far as it knows; empty and 0 when nobody does.
	Leader string
	Term   int64
	// Leading tells whether it leads.
	Leading bool
	// Sessions is how many probers are attached to it.
	Sessions int
	// Revision is the etcd revision it has applied; 0 before it has read the store.
	Revision int64
}

// Store is what the monitor reads of the store; *store.Store is one.
type Store interface {
	Ready(ctx context.Context) error
	ListOutbox(ctx context.Context) ([]store.Versioned[*statev1.OutboxEntry], int64, error)
	GetIncident(ctx context.Context, name string) (store.Versioned[*statev1.StoredIncident], error)
	ListReceivers(ctx context.Context, after string, limit int) ([]*meshv1.Receiver, int64, error)
	WriteLatency(now time.Time) (median time.Duration, n int)
}

// Sources are where the facts come from. All functions may be called concurrently and do not block; what they give is not changed. Those marked so may be nil.
type Sources struct {
	// Standing is the controller's.
	Standing func() Standing
	// Servers are the records of the servers that are alive, as the store has them.
	Servers func() []*statev1.ServerRecord
	// Probers are all enrolled probers.
	Probers func() []*meshv1.Prober
	// Checks is what is known of the checks; it may take milliseconds.
	Checks func() Checks
	// Views is what this server makes of the others. Nil: there are no streams between servers, and a server is heard while it has a record.
	Views func() []peer.View
	// Store is asked with deadlines.
	Store Store
	// Members asks etcd for its members and alarms, within ctx. Nil: nothing is known of them.
	Members func(ctx context.Context) ([]Member, []string, error)
	// HistoryFailed tells that the history cannot be written. May be nil.
	HistoryFailed func() bool
	// Disk is that of the data directory. May be nil.
	Disk func() Disk
	// Uncommitted is how long the oldest write of this server's reign has been waiting for etcd. May be nil.
	Uncommitted func() time.Duration
	// DeadMan is the dead man's switch. May be nil.
	DeadMan func() DeadMan
	// TurnedAway are the processes that say they are probers and that this server has refused lately. May be nil.
	TurnedAway func() []TurnedAway
}

// Deps are what the monitor works with. The zero value is good.
type Deps struct {
	// Log gets conditions that appear and disappear. Default: nothing is logged.
	Log *slog.Logger
	// Meter gets the metrics. Default: none.
	Meter metric.Meter
}

// Monitor watches the health of the mesh from one server. Make it with New; Run runs it, the other methods may be called concurrently and at any time.
type Monitor struct {
	cfg Config
	src Sources
	log *slog.Logger

	// tracker and roll belong to the loop of Run.
	tracker Tracker
	roll    roll

	// mu guards everything below.
	mu    sync.Mutex
	mesh  *meshv1.Mesh
	facts Facts
	asked asked
}

// New makes a monitor. It does nothing until Run.
func New(cfg Config, src Sources, deps Deps) (*Monitor, error) {
	if cfg.Every == 0 {
		cfg.Every = time.Second
	}
	if cfg.AskEvery == 0 {
		cfg.AskEvery = 5 * time.Second
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Meter == nil {
		deps.Meter = noop.Meter{}
	}
	m := &Monitor{cfg: cfg, src: src, log: deps.Log, roll: newRoll()}
	m.mesh = &meshv1.Mesh{Server: cfg.Server, State: meshv1.Mesh_STATE_UNSPECIFIED, Summary: "This server has not looked yet."}
	if err := newMetrics(deps.Meter, m); err != nil {
		return nil, fmt.Errorf("make the metrics of health: %w", err)
	}
	return m, nil
}

// Run looks again and again until ctx ends; then it returns nil when all its goroutines have ended.
func (m *Monitor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { every(ctx, m.cfg.Every, m.readEtcd) })
	wg.Go(func() { every(ctx, m.cfg.AskEvery, m.askMembers) })
	wg.Go(func() { every(ctx, m.cfg.AskEvery, m.askOutbox) })
	wg.Go(func() { every(ctx, m.cfg.AskEvery, m.askChecks) })
	every(ctx, m.cfg.Every, func(context.Context) { m.look(time.Now()) })
	return nil
}

// every calls f at once and then again and again, never twice at a time, until ctx ends.
func every(ctx context.Context, period time.Duration, f func(context.Context)) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		f(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Mesh is how the mesh is, as of at most a second ago; the caller's own copy.
func (m *Monitor) Mesh() *meshv1.Mesh {
	m.mu.Lock()
	defer m.mu.Unlock()
	return proto.CloneOf(m.mesh)
}

// Facts are those of the latest look. Slices in it must not be changed.
func (m *Monitor) Facts() Facts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.facts
}

// look gathers, evaluates and publishes.
func (m *Monitor) look(now time.Time) {
	f := m.gather(now)
	if f.Server == "" {
		return // it has not read the store yet, and /readyz says so
	}
	m.tracker.Enrolled(f.Probers)
	shown := m.tracker.Track(now, Evaluate(now, f))
	mesh := m.picture(now, f, shown)
	m.mu.Lock()
	before := m.mesh.GetConditions()
	m.mesh, m.facts = mesh, f
	m.mu.Unlock()
	m.tell(before, shown)
}

// tell logs what has appeared and what is gone.
func (m *Monitor) tell(before, after []*meshv1.Condition) {
	in := func(list []*meshv1.Condition, c *meshv1.Condition) bool {
		return slices.ContainsFunc(list, func(x *meshv1.Condition) bool { return x.GetCode() == c.GetCode() })
	}
	for _, c := range after {
		if in(before, c) || c.GetCausedBy() != 0 {
			continue
		}
		level := slog.LevelInfo
		if c.GetSeverity() >= warning {
			level = slog.LevelWarn
		}
		m.log.Log(context.Background(), level, "the mesh has a condition", "condition", c.GetCode().String(), "severity", c.GetSeverity().String(), "summary", c.GetSummary())
	}
	for _, c := range before {
		if !in(after, c) && c.GetCausedBy() == 0 {
			m.log.Info("a condition of the mesh is over", "condition", c.GetCode().String())
		}
	}
}

// picture puts all of it into one message.
func (m *Monitor) picture(now time.Time, f Facts, shown []*meshv1.Condition) *meshv1.Mesh {
	mesh := &meshv1.Mesh{Server: m.cfg.Server, Time: timestamppb.New(now), Leader: f.Leader, Term: f.Term, Conditions: shown, DeadMan: f.DeadMan.Configured}
	for _, s := range f.Servers {
		h := &meshv1.ServerHealth{Name: s.Name, Datacenter: s.Datacenter, Heard: s.heard(), Version: s.Version}
		if !s.heard() {
			h.Silence = durationpb.New(s.Silence)
		}
		mesh.Servers = append(mesh.Servers, h)
	}
	for _, e := range f.Etcd.Members {
		mesh.EtcdMembers = append(mesh.EtcdMembers, &meshv1.EtcdMember{Id: e.ID, Name: e.Name, Leader: e.Leader, Healthy: e.Healthy, Learner: e.Learner,
			DbSizeBytes: e.DBSize, PeerUrl: e.PeerURL, Error: e.Error})
	}
	mesh.Datacenters = datacenters(f)
	for _, o := range f.Owed {
		mesh.Owed += int32(o.Count)
		if mesh.OldestOwedTime == nil || o.Oldest.Before(mesh.GetOldestOwedTime().AsTime()) {
			mesh.OldestOwedTime = timestamppb.New(o.Oldest)
		}
	}
	if !f.DeadMan.Told.IsZero() {
		mesh.DeadManTime = timestamppb.New(f.DeadMan.Told)
	}
	mesh.State, mesh.Summary = verdict(now, f, mesh)
	return mesh
}

// datacenters counts who is heard where.
func datacenters(f Facts) []*meshv1.DatacenterHealth {
	byName := map[string]*meshv1.DatacenterHealth{}
	at := func(name string) *meshv1.DatacenterHealth {
		if byName[name] == nil {
			byName[name] = &meshv1.DatacenterHealth{Name: name}
		}
		return byName[name]
	}
	for _, s := range f.Servers {
		if s.Datacenter == "" {
			continue
		}
		d := at(s.Datacenter)
		d.Servers++
		if s.heard() {
			d.ServersHeard++
		}
	}
	for _, p := range places(f.Probers) {
		d := at(p.name)
		d.Probers, d.ProbersOnline = int32(p.enrolled), int32(p.online)
	}
	names := make([]string, 0, len(byName))
	for n := range byName {
		names = append(names, n)
	}
	slices.Sort(names)
	out := make([]*meshv1.DatacenterHealth, len(names))
	for i, n := range names {
		out[i] = byName[n]
	}
	return out
}

// unsettled is why it cannot be said yet that all is well although no condition is shown: some are shown only once they have lasted. Empty when it can be.
func (f Facts) unsettled(now time.Time, mesh *meshv1.Mesh) string {
	enrolled, heard := 0, 0
	for _, p := range places(f.Probers) {
		enrolled, heard = enrolled+p.enrolled, heard+p.online
	}
	switch oldest := mesh.GetOldestOwedTime(); {
	case !f.Asked:
		return "what is owed has not been read yet"
	case oldest != nil && now.Sub(oldest.AsTime()) >= OwedLimit:
		return fmt.Sprintf("%s owed, the oldest for %s", count(int(mesh.GetOwed()), "notification"), span(now.Sub(oldest.AsTime())))
	case f.SeesProbers && enrolled > 0 && heard == 0:
		return fmt.Sprintf("none of %s that are enrolled is heard yet", count(enrolled, "prober"))
	}
	return ""
}

// verdict is the state of the mesh and the sentence that says it.
func verdict(now time.Time, f Facts, mesh *meshv1.Mesh) (meshv1.Mesh_State, string) {
	var roots []*meshv1.Condition
	for _, c := range mesh.GetConditions() {
		if c.GetCausedBy() == 0 && c.GetSeverity() >= warning {
			roots = append(roots, c)
		}
	}
	if len(roots) == 0 {
		if why := f.unsettled(now, mesh); why != "" {
			return meshv1.Mesh_STATE_UNSPECIFIED, "It cannot be said yet that all is well: " + why + "."
		}
		probers, online := 0, 0
		for _, d := range mesh.GetDatacenters() {
			probers, online = probers+int(d.GetProbers()), online+int(d.GetProbersOnline())
		}
		return meshv1.Mesh_HEALTHY, fmt.Sprintf("All is well: %s, %s in %s; %s leads.",
			count(len(mesh.GetServers()), "server"), count(online, "prober"), count(len(mesh.GetDatacenters()), "datacenter"), orNobody(mesh.GetLeader()))
	}
	more := ""
	if n := len(roots) - 1; n == 1 {
		more = " And one thing more."
	} else if n > 1 {
		more = fmt.Sprintf(" And %d things more.", n)
	}
	if roots[0].GetSeverity() == critical {
		return meshv1.Mesh_FAILING, "Somebody should look now. " + roots[0].GetSummary() + more
	}
	return meshv1.Mesh_IMPAIRED, "Alerts come, but something is to be mended. " + roots[0].GetSummary() + more
}

func orNobody(leader string) string {
	if leader == "" {
		return "nobody"
	}
	return spec.ID(leader)
}

// Blocking are the codes that keep alerts from coming, whichever server they are about. OUTBOX_STUCK is judged apart.
func blocking(code meshv1.Condition_Code) bool {
	return slices.Contains([]meshv1.Condition_Code{isolated, etcdLost, etcdAlarm, noLeader, leaderStuck, leaderBlind, noProber, noDatacenterQuorum, diskFull}, code)
}

// ErrMayNotTell is why the dead man's switch is not told that all is well.
var ErrMayNotTell = errors.New("alerts may not come")

// MayTell tells whether this server may say outside that alerts come: it leads, etcd has answered it within the time, it hears most datacenters, nothing else keeps
// it from acting, and notifications get out. One receiver that fails while others take what they are sent does not count: it is a condition of its own, and
// keeping silent for its sake would hide that everything else is gone. The error says why not, and matches ErrMayNotTell.
func (m *Monitor) MayTell(now time.Time, within time.Duration) error {
	no := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrMayNotTell}, args...)...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.src.Standing().Leading {
		return no("this server does not lead")
	}
	if m.asked.readAt.IsZero() || now.Sub(m.asked.readAt) >= within {
		return no("etcd has not answered for %s", within)
	}
	if m.mesh.GetTime() == nil {
		return no("this server has not looked at the mesh yet")
	}
	for _, c := range m.mesh.GetConditions() {
		if c.GetSeverity() == critical && blocking(c.GetCode()) {
			return no("%s", c.GetSummary())
		}
		if c.GetCode() == outboxStuck && (c.GetCausedBy() != receiverFailing || m.allFail()) {
			return no("%s", c.GetSummary())
		}
	}
	return nil
}

// allFail tells whether no receiver that is in use takes what it is sent.
func (m *Monitor) allFail() bool {
	for _, r := range m.facts.Receivers {
		fails := slices.ContainsFunc(m.facts.Owed, func(o Owed) bool { return o.Receiver == r.Name && o.Failed })
		if !r.Paused && !fails {
			return false
		}
	}
	return true
}
