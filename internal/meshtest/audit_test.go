package meshtest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/etcdfake"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

const (
	openPrefix   = store.Prefix + "incident/open/"
	closedPrefix = store.Prefix + "incident/closed/"
	outboxPrefix = store.Prefix + "outbox/"
	tablePrefix  = store.Prefix + "placement/"
)

// audit sees every transaction at the moment at which etcd applies it, beside whoever wrote it, and holds it to what a leader may do.
type audit struct {
	m *mesh

	mu         sync.Mutex
	violations []string
	refused    int                  // writes of an old term that etcd refused
	opened     map[string]time.Time // incidents, when they were opened
	resolved   map[string]time.Time
	owed       map[string]time.Time // what the outbox owes
	everOwed   map[string]bool
}

func newAudit(m *mesh) *audit {
	return &audit{m: m, opened: map[string]time.Time{}, resolved: map[string]time.Time{}, owed: map[string]time.Time{}, everOwed: map[string]bool{}}
}

func (a *audit) violate(format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.violateLocked(format, args...)
}

func (a *audit) violateLocked(format string, args ...any) {
	if len(a.violations) < 20 {
		a.violations = append(a.violations, time.Now().Format("15:04:05.0")+" "+fmt.Sprintf(format, args...))
	}
}

func (a *audit) found() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.violations)
}

// see is called for every write, with etcd's lock held.
func (a *audit) see(w etcdfake.Write) {
	a.mu.Lock()
	defer a.mu.Unlock()
	claimed, fenced := int64(0), false
	for _, c := range w.Request.Compare {
		if string(c.Key) == store.LeaderKey && c.Target == pb.Compare_CREATE && c.GetCreateRevision() != 0 {
			claimed, fenced = c.GetCreateRevision(), true
		}
	}
	_, created := w.At(store.LeaderKey)
	if !w.Response.Succeeded {
		if fenced && claimed != created {
			a.refused++
		}
		return
	}
	for _, op := range w.Request.Success {
		key, value := "", []byte(nil)
		switch {
		case op.GetRequestPut() != nil:
			key, value = string(op.GetRequestPut().Key), op.GetRequestPut().Value
		case op.GetRequestDeleteRange() != nil:
			key = string(op.GetRequestDeleteRange().Key)
		default:
			continue
		}
		if strings.HasPrefix(key, store.Prefix+"incident/") || strings.HasPrefix(key, outboxPrefix) || strings.HasPrefix(key, tablePrefix) {
			if !fenced {
				a.violateLocked("%s was written without a fence", key)
			} else if claimed != created {
				a.violateLocked("an effect of an old term was applied: %s was written by the reign of revision %d, the leader's is %d", key, claimed, created)
			}
		}
		a.takeLocked(w, key, value)
	}
}

// takeLocked follows what becomes of incidents and of what is owed for them.
func (a *audit) takeLocked(w etcdfake.Write, key string, value []byte) {
	before, _ := w.At(key)
	switch {
	case strings.HasPrefix(key, openPrefix) && value != nil:
		now, old := incidentOf(value), incidentOf(before)
		if old != nil && old.GetName() != now.GetName() {
			a.violateLocked("%s was opened in place of %s, which was open", now.GetName(), old.GetName())
		}
		if old == nil {
			if _, again := a.opened[now.GetName()]; again {
				a.violateLocked("%s was opened twice", now.GetName())
			}
			a.opened[now.GetName()] = time.Now()
		}
		if now.GetVerdict() == meshv1.CheckStatus_DOWN && old.GetVerdict() != meshv1.CheckStatus_DOWN {
			a.quorumLocked(now)
		}
	case strings.HasPrefix(key, closedPrefix) && value != nil && before == nil:
		a.resolved[incidentOf(value).GetName()] = time.Now()
	case strings.HasPrefix(key, outboxPrefix) && value != nil && before == nil:
		id := strings.TrimPrefix(key, outboxPrefix)
		if a.everOwed[id] {
			a.violateLocked("%s was put into the outbox a second time", id)
		}
		a.owed[id], a.everOwed[id] = time.Now(), true
	case strings.HasPrefix(key, outboxPrefix) && value == nil:
		delete(a.owed, strings.TrimPrefix(key, outboxPrefix))
	}
}

// quorumLocked counts anew, from what the probers met, that as many datacenters saw a check fail as its quorum asks for.
func (a *audit) quorumLocked(i *meshv1.Incident) {
	quorum, slack := 2, 30*time.Second+5*time.Second+8*time.Second // interval, timeout, and what a vote may be on its way
	if i.GetBreakGlassKey() != "" {
		return // it was due while nobody could write it down, and may be over; what was told of it is looked at in the end
	}
	if named := failingPlaces(i); len(named) < quorum {
		a.violateLocked("%s of %s is DOWN by the votes of %v alone", i.GetName(), i.GetCheck(), named)
	}
	if places := a.m.target.failing(i.GetCheck(), time.Now().Add(-slack)); len(places) < quorum {
		a.violateLocked("%s of %s is DOWN, and lately only probers of %v saw it fail", i.GetName(), i.GetCheck(), places)
	}
}

func incidentOf(value []byte) *meshv1.Incident {
	if value == nil {
		return nil
	}
	s := &statev1.StoredIncident{}
	if proto.Unmarshal(value, s) != nil {
		return nil
	}
	return s.GetIncident()
}

// failing are the datacenters whose probers have seen a check fail since a time.
func (g *target) failing(check string, since time.Time) map[string]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	places := map[string]bool{}
	for _, s := range g.seen[check] {
		if !s.failed.Before(since) {
			places[s.datacenter] = true
		}
	}
	return places
}

// openChecks are the checks that have an open incident.
func (a *audit) openChecks(e *etcdfake.Server) map[string]bool {
	open := map[string]bool{}
	for _, key := range e.Keys() {
		if id, ok := strings.CutPrefix(key, openPrefix); ok {
			open["checks/"+id] = true
		}
	}
	return open
}

func failingPlaces(i *meshv1.Incident) map[string]bool {
	places := map[string]bool{}
	for _, v := range i.GetEvidence() {
		if v.GetOutcome() == meshv1.Result_FAIL && v.GetFresh() {
			places[v.GetDatacenter()] = true
		}
	}
	return places
}
