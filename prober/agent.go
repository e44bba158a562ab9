package prober

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/prober/assignments"
	"github.com/probemesh/probemesh/prober/canary"
	"github.com/probemesh/probemesh/prober/clock"
	"github.com/probemesh/probemesh/prober/link"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/timetable"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// agent is one boot of a prober: it holds the jobs, and joins timetable, spool and link. Its methods for the link are those of [link.Agent].
type agent struct {
	compile   func(*meshv1.Check) (probe.Runner, error)
	clock     *clock.Clock
	spool     *spool.Spool
	held      *assignments.Store
	timetable *timetable.Timetable
	link      *link.Link
	canaries  *canary.Canary // nil: none
	aliases   *probe.Aliases
	metrics   *metrics
	tracer    trace.Tracer
	log       *slog.Logger
	runs      *runs
	scratch   sync.Pool // of *[]byte, what results are encoded into for a moment

	mu       sync.RWMutex // guards everything below
	jobs     map[string]*job
	refusals map[string]*meshv1.AssignmentRefusal
}

// restore makes jobs of the assignments that were on disk.
func (a *agent) restore() {
	for _, as := range a.held.All() {
		a.put(as)
	}
}

// put makes a job of an assignment, or refuses it, and puts it in place of the one before.
func (a *agent) put(as *meshv1.Assignment) {
	name := as.GetCheck().GetName()
	j, refusal := a.make(as)
	a.mu.Lock()
	old := a.jobs[name]
	delete(a.jobs, name)
	delete(a.refusals, name)
	if refusal != nil {
		a.refusals[name] = refusal
	} else {
		if old != nil {
			j.inherit(old)
		}
		a.jobs[name] = j
	}
	a.mu.Unlock()
	if refusal != nil {
		a.log.Warn("assignment cannot be run here", "check", name, "reason", refusal.GetReason(), "capability", refusal.GetCapability())
		a.timetable.Remove(name)
	} else {
		a.timetable.Set(name, j.interval, as.GetPhase().AsDuration())
	}
	if old != nil {
		old.retire()
	}
}

// make compiles an assignment.
func (a *agent) make(as *meshv1.Assignment) (*job, *meshv1.AssignmentRefusal) {
	c := as.GetCheck()
	j := &job{check: c.GetName(), revision: c.GetRevision(), traced: as.GetTraced(), kind: kindOf(c.GetUri()), interval: c.GetInterval().AsDuration(), timeout: c.GetTimeout().AsDuration()}
	refuse := func(reason string) (*job, *meshv1.AssignmentRefusal) {
		return nil, &meshv1.AssignmentRefusal{Check: c.GetName(), Reason: reason}
	}
	if j.interval <= 0 || j.timeout <= 0 {
		return refuse(fmt.Sprintf("the assignment has interval %v and timeout %v; both must be positive", j.interval, j.timeout))
	}
	runner, err := a.compile(c)
	var refusal *probe.Refusal
	if errors.As(err, &refusal) {
		return nil, &meshv1.AssignmentRefusal{Check: c.GetName(), Reason: refusal.Reason, Capability: refusal.Capability}
	}
	if err != nil {
		return refuse(err.Error())
	}
	j.runner = runner
	return j, nil
}

// Apply applies an update of the server.
func (a *agent) Apply(u *assignments.Update) *meshv1.AssignmentAck {
	change := a.held.Apply(u)
	if change.ShrinkRefused {
		a.log.Warn("update refused: it would remove too many assignments at once", "removals", change.Shrink, "revision", u.Revision)
		ack := a.Holding()
		ack.ShrinkRefused, ack.ShrinkCount = true, int32(change.Shrink)
		return ack
	}
	if change.Nameless > 0 {
		a.log.Warn("update has assignments without a check; they are ignored", "assignments", change.Nameless, "revision", u.Revision)
	}
	for _, name := range change.Removed {
		a.mu.Lock()
		old := a.jobs[name]
		delete(a.jobs, name)
		delete(a.refusals, name)
		a.mu.Unlock()
		a.timetable.Remove(name)
		if old != nil {
			old.retire()
		}
	}
	for _, as := range change.Upserted {
		a.put(as)
	}
	if n := len(change.Upserted) + len(change.Removed); n > 0 {
		a.log.Info("assignments changed", "upserted", len(change.Upserted), "removed", len(change.Removed), "revision", u.Revision)
	}
	return a.Holding()
}

// Holding says what is held and what of it is refused.
func (a *agent) Holding() *meshv1.AssignmentAck {
	revision, digest, held := a.held.Position()
	ack := &meshv1.AssignmentAck{Revision: revision, Digest: digest, Held: int32(held)}
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, r := range a.refusals {
		ack.Refusals = append(ack.Refusals, r)
	}
	sort.Slice(ack.Refusals, func(i, j int) bool { return ack.Refusals[i].GetCheck() < ack.Refusals[j].GetCheck() })
	return ack
}

// Inventory lists what is held.
func (a *agent) Inventory() ([]*meshv1.InventoryItem, int64) { return a.held.Inventory() }

// Newest returns the newest result of every job, on the mesh's clock.
func (a *agent) Newest() []*meshv1.Result {
	offset := a.clock.Offset()
	a.mu.RLock()
	defer a.mu.RUnlock()
	out := make([]*meshv1.Result, 0, len(a.jobs))
	for _, j := range a.jobs {
		r, unsynced := j.result()
		if r == nil {
			continue
		}
		if unsynced && offset != 0 {
			r.StartTime = timestamppb.New(r.GetStartTime().AsTime().Add(-offset))
		}
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].GetCheck() < out[j].GetCheck() })
	return out
}

func (a *agent) job(check string) *job {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.jobs[check]
}

// retireAll closes every runner; no probe runs any more.
func (a *agent) retireAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range a.jobs {
		j.retire()
	}
	a.jobs = map[string]*job{}
}

// probe runs a scheduled probe; it is the timetable's.
func (a *agent) probe(ctx context.Context, check string, due time.Time) {
	j := a.job(check)
	if j == nil || !j.use() {
		return // removed in this moment
	}
	defer j.done()
	lag := max(0, a.clock.Local().Sub(due))
	a.metrics.lag(ctx, lag)
	a.conduct(ctx, j, order{lag: lag})
}

// jobKinds are the kinds that kindOf knows.
func jobKinds() []string {
	return []string{"http", "tcp", "tls", "dns", "icmp", "grpc", "udp", "websocket", "other"}
}

func kindOf(uri string) string {
	scheme, _, _ := strings.Cut(uri, ":")
	switch scheme = strings.ToLower(scheme); scheme {
	case "http", "tcp", "tls", "dns", "icmp", "grpc", "udp":
		return scheme
	case "https":
		return "http"
	case "grpcs":
		return "grpc"
	case "unix":
		return "tcp"
	case "ws", "wss":
		return "websocket"
	}
	return "other" // a kind of a newer build; the label set stays bounded
}
