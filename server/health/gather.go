package health

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/peer"
)

const (
	// readTimeout bounds a read of etcd: longer than an etcd election at default ticks takes.
	readTimeout = 3 * time.Second
	// lostAfter is how long etcd may not answer before it counts as lost.
	lostAfter = time.Second
	// readsKept is how many of the latest reads say how fast etcd is, readsLeast how many it takes to say anything.
	readsKept, readsLeast = 15, 5
	// errorsAsked bounds the failing receivers of which the last error is looked up.
	errorsAsked = 5
	// forgetAfter is how long a server that went without a goodbye is missed, where etcd's members do not say who ought to be there.
	forgetAfter = 24 * time.Hour
)

// asked is what the slower questions found last. Guarded by Monitor.mu.
type asked struct {
	readAt   time.Time // when etcd answered last
	lost     time.Time // since when it does not
	reads    []time.Duration
	members  []Member
	alarms   []string
	owedRead bool // since the start
	owed     []Owed
	receives []Receiver
	checks   Checks
}

// readEtcd makes one linearizable read and notes how long it took.
func (m *Monitor) readEtcd(ctx context.Context) {
	call, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	begun := time.Now()
	err := m.src.Store.Ready(call)
	if ctx.Err() != nil {
		return
	}
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		if m.asked.lost.IsZero() {
			m.asked.lost = begun
		}
		return
	}
	m.asked.readAt, m.asked.lost = now, time.Time{}
	m.asked.reads = append(m.asked.reads, now.Sub(begun))
	if n := len(m.asked.reads); n > readsKept {
		m.asked.reads = m.asked.reads[n-readsKept:]
	}
}

// slow is the greater of the medians of the latest reads and transactions. Called under mu.
func (m *Monitor) slow(now time.Time) time.Duration {
	slowest := time.Duration(0)
	if n := len(m.asked.reads); n >= readsLeast {
		slowest = slices.Sorted(slices.Values(m.asked.reads))[n/2]
	}
	if median, n := m.src.Store.WriteLatency(now); n >= readsLeast {
		slowest = max(slowest, median)
	}
	return slowest
}

// askMembers asks etcd for its members; what it does not answer is as it was.
func (m *Monitor) askMembers(ctx context.Context) {
	if m.src.Members == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	members, alarms, err := m.src.Members(ctx)
	if err != nil {
		m.log.Debug("etcd's members are not known at present", "err", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked.members, m.asked.alarms = members, alarms
}

// askChecks counts the checks.
func (m *Monitor) askChecks(context.Context) {
	checks := m.src.Checks()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked.checks = checks
}

// askOutbox reads what is owed and to whom.
func (m *Monitor) askOutbox(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	entries, _, err := m.src.Store.ListOutbox(ctx)
	if err != nil {
		return // what is known is as old as etcd's silence, which is a condition of its own
	}
	byReceiver, last := map[string]*Owed{}, map[string]string{}
	for _, v := range entries {
		n := v.Value.GetNotification()
		o := byReceiver[n.GetReceiver()]
		at := v.Value.GetCreateTime().AsTime()
		if o == nil {
			o = &Owed{Receiver: n.GetReceiver(), Oldest: at}
			byReceiver[n.GetReceiver()] = o
		}
		o.Count++
		o.Oldest = earliest(o.Oldest, at)
		if v.Value.GetAttempts() > 0 {
			o.Failed, last[o.Receiver] = true, n.GetIncident()
		}
	}
	var owed []Owed
	for _, r := range slices.Sorted(maps.Keys(byReceiver)) {
		o := *byReceiver[r]
		if o.Failed && len(last) <= errorsAsked {
			o.Error = m.lastError(ctx, last[r], r)
		}
		owed = append(owed, o)
	}
	receivers, err := m.listReceivers(ctx)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked.owed, m.asked.receives, m.asked.owedRead = owed, receivers, true
}

// lastError is what the last failed attempt met, as the incident's timeline has it.
func (m *Monitor) lastError(ctx context.Context, incident, receiver string) string {
	v, err := m.src.Store.GetIncident(ctx, incident)
	if err != nil {
		return ""
	}
	text := ""
	for _, e := range v.Value.GetIncident().GetTimeline() {
		if e.GetReceiver() == receiver && e.GetEvent() == meshv1.TimelineEntry_NOTIFICATION_FAILED {
			text, _, _ = strings.Cut(e.GetText(), "; ") // without when it is tried again, which is over by now
		}
	}
	return text
}

func (m *Monitor) listReceivers(ctx context.Context) ([]Receiver, error) {
	const page = 500
	var all []Receiver
	for after := ""; ; {
		batch, _, err := m.src.Store.ListReceivers(ctx, after, page)
		if err != nil {
			return nil, err
		}
		for _, r := range batch {
			all = append(all, Receiver{Name: r.GetName(), Paused: r.GetPaused(), Mesh: r.GetMeshIncidents()})
		}
		if len(batch) < page {
			return all, nil
		}
		after = batch[len(batch)-1].GetName()
	}
}

// gather puts the facts of now together; they have no server before the store was read.
func (m *Monitor) gather(now time.Time) Facts {
	st := m.src.Standing()
	if st.Revision == 0 {
		return Facts{}
	}
	f := Facts{Server: m.cfg.Server, Leading: st.Leading, Leader: st.Leader, Term: st.Term, Probers: m.src.Probers()}
	f.SeesProbers = st.Leading || m.src.Views != nil
	m.mu.Lock()
	a := m.asked
	f.Etcd = Etcd{Slow: m.slow(now), Members: a.members, Alarms: a.alarms}
	m.mu.Unlock()
	if !a.lost.IsZero() && now.Sub(a.lost) >= lostAfter {
		f.Etcd.LostSince = a.lost
	}
	f.Asked, f.Owed, f.Receivers, f.Checks = a.owedRead, a.owed, a.receives, a.checks
	if m.src.HistoryFailed != nil {
		f.HistoryFailed = m.src.HistoryFailed()
	}
	if m.src.Disk != nil {
		f.Disk = m.src.Disk()
	}
	if m.src.DeadMan != nil {
		f.DeadMan = m.src.DeadMan()
	}
	if m.src.TurnedAway != nil {
		f.TurnedAway = m.src.TurnedAway()
	}
	hears := 0
	for _, p := range f.Probers {
		if online(p) {
			hears++
		}
	}
	self := Server{Name: m.cfg.Server, Datacenter: m.cfg.Datacenter, Version: m.cfg.Version, Self: true, Beat: true, Leader: st.Leader, Term: st.Term,
		Hears: hears, Sessions: st.Sessions, Revision: st.Revision, EtcdLostSince: f.Etcd.LostSince, DiskStall: f.Disk.Stall}
	if m.src.Uncommitted != nil {
		self.Uncommitted = m.src.Uncommitted()
	}
	f.Servers = m.servers(now, self, a.members)
	if !f.Leading && !f.Etcd.LostSince.IsZero() && !f.leaderHeard() {
		f.Leader, f.Term = "", 0 // what etcd said last is no longer true
	}
	return f
}

// leaderHeard tells whether the leader, which is not this server, is heard.
func (f Facts) leaderHeard() bool {
	return slices.ContainsFunc(f.Servers, func(s Server) bool { return s.Name == f.Leader && !s.Self && s.Silence < SilentLimit })
}

// servers puts together who ought to be there: who has a record, who is a member of etcd, and who went without a goodbye.
func (m *Monitor) servers(now time.Time, self Server, members []Member) []Server {
	var views []peer.View
	if m.src.Views != nil {
		views = m.src.Views()
	}
	all, recorded := map[string]Server{}, map[string]bool{}
	for _, r := range m.src.Servers() {
		recorded[r.GetName()] = true
		all[r.GetName()] = Server{Name: r.GetName(), Datacenter: r.GetDatacenter(), Version: r.GetVersion(), GRPC: r.GetGrpcAddress(), HTTP: r.GetHttpAddress()}
	}
	for _, v := range views {
		if v.Server == m.cfg.Server {
			continue
		}
		s := all[v.Server]
		if s.Name == "" {
			s = Server{Name: v.Server, Datacenter: v.Datacenter}
		}
		all[v.Server] = m.roll.fill(now, s, v)
	}
	self.RevisionSince = m.roll.revision(now, self.Name, self.Revision)
	all[self.Name] = self
	for name, s := range m.roll.missing(now, all, m.embeddedNames(members), m.cfg.Embedded) {
		all[name] = s
	}
	out := make([]Server, 0, len(all))
	for _, n := range slices.Sorted(maps.Keys(all)) {
		out = append(out, all[n])
	}
	if len(views) == 0 {
		return out // without streams between servers, who has no record is gone, and nobody hears anybody
	}
	own := slices.IndexFunc(out, func(s Server) bool { return s.Self })
	for _, s := range out {
		if !s.heard() && recorded[s.Name] {
			out[own].Misses = append(out[own].Misses, s.Name)
		}
	}
	return out
}

// embeddedNames are the servers that etcd's members belong to.
func (m *Monitor) embeddedNames(members []Member) []string {
	var list []string
	for _, x := range members {
		if m.cfg.Embedded && x.Name != "" {
			list = append(list, spec.Name(spec.Servers, x.Name))
		}
	}
	return list
}
