package controller

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/server/election"
	"github.com/probemesh/probemesh/server/store"
)

// Config says which server this is and how the mind is set.
type Config struct {
	// Server is the bare name of this server, for example "a".
	Server string
	// BootID is this process, as its record in the store says. Empty: a second server of the same name is not noticed.
	BootID string
	// Mind are the constants of the scheduler; the zero value means its defaults.
	Mind scheduler.Config
	// VerdictEvery is how often the verdict of every check is given to the history. Default 10 s.
	VerdictEvery time.Duration
	// KeepIncidents is how many resolved incidents are kept. Default 20,000.
	KeepIncidents int
}

// Notifier delivers what the outbox owes, for one reign: it returns when ctx ends.
type Notifier interface {
	Run(ctx context.Context, fence store.Fence) error
}

// VerdictRecorder takes the statuses of all checks, without votes, for the history. It may block; the controller does not wait for it.
type VerdictRecorder func(ctx context.Context, at time.Time, statuses []*meshv1.CheckStatus) error

// Deps are the parts that the controller works with.
type Deps struct {
	Store    *store.Store
	Notifier Notifier
	// Verdicts may be nil: then nothing is recorded.
	Verdicts VerdictRecorder
	// Recall reads what this server recorded before it was started, so that a verdict that it comes to again is shown since when it holds. It may block. Nil: nothing is.
	Recall func(ctx context.Context) (scheduler.Recalled, error)
	// Peers are the other servers. Nil: there are none.
	Peers Peers
	// Glass takes what the mind wishes for while etcd is lost: scheduler.BreakGlass and scheduler.OutageJoined. It is called with the mutex held, must not block and
	// must not call back. Nil: nobody is told of outages then.
	Glass  func(scheduler.Action)
	Log    *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
}

// Controller feeds a mind and carries out its actions. Its methods may be called concurrently.
type Controller struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	m       *metrics
	effects chan effect
	wake    chan struct{}
	ready   chan struct{}
	// outlived: a prober of this server has outlived a rival, which may have enrolled as something else.
	outlived chan struct{}

	statuses  hub
	incidents hub

	// failing: the last effect could not be written; that is logged once.
	failing atomic.Bool

	// mu guards everything below.
	mu         sync.Mutex
	mind       *scheduler.State
	sessions   map[string]Session // of this server
	presences  presences          // of all servers
	waits      waits
	changed    chan struct{} // closed when the servers change
	claims     map[string]*claim
	open       map[string]string // names of open incidents, by key
	enrolments map[string]enrolled
	servers    map[string]*statev1.ServerRecord
	leader     *statev1.LeaderRecord
	term       int64                 // the newest that was seen
	published  bool                  // this process' own record has been seen
	rival      *statev1.ServerRecord // that of another process in its place; to be told of once
	reign      *reign
	runs       map[string]*run
	revision   int64
	unknown    time.Time // since when a notification is waiting for the mind to know of its incident; zero when none is
	synced     bool
}

type enrolled struct {
	record *statev1.Enrolment
	mod    int64
}

// reign is the time in which this server leads.
type reign struct {
	election.Reign
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// effectQueue bounds the effects that wait. When it is full, further ones are given back to the mind, which wishes for them again a second later.
const effectQueue = 4096

// effectWorkers carry out effects concurrently; two effects on one key are never under way at once, since the mind waits for the first.
const effectWorkers = 16

// New makes a controller. It does nothing until Serve.
func New(cfg Config, deps Deps) (*Controller, error) {
	if cfg.VerdictEvery == 0 {
		cfg.VerdictEvery = 10 * time.Second
	}
	if cfg.KeepIncidents == 0 {
		cfg.KeepIncidents = 20_000
	}
	c := &Controller{
		cfg: cfg, deps: deps, log: deps.Log, effects: make(chan effect, effectQueue), wake: make(chan struct{}, 1), ready: make(chan struct{}), outlived: make(chan struct{}, 1),
		mind: scheduler.New(cfg.Mind), sessions: map[string]Session{}, presences: newPresences(), changed: make(chan struct{}), claims: map[string]*claim{}, open: map[string]string{}, enrolments: map[string]enrolled{}, servers: map[string]*statev1.ServerRecord{},
		runs: map[string]*run{},
	}
	var err error
	c.m, err = newMetrics(deps.Meter, c)
	return c, err
}

// Ready is closed when the first snapshot of the store has been applied.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Serve follows the store, keeps time and carries out effects until ctx ends; then it returns nil when all its goroutines have ended. It returns an error only for a
// fault of ours.
func (c *Controller) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for range effectWorkers {
		wg.Go(func() { c.work(ctx) })
	}
	wg.Go(func() { c.tick(ctx) })
	wg.Go(func() { c.mend(ctx) })
	if c.deps.Peers != nil {
		wg.Go(func() { c.tellPresence(ctx) })
	}
	if c.deps.Verdicts != nil {
		wg.Go(func() { c.recordVerdicts(ctx) })
	}
	if c.deps.Recall != nil {
		wg.Go(func() { c.recall(ctx) })
	}
	err := c.deps.Store.Follow(ctx, c.follow)
	cancel()
	wg.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tick applies time: at the mind's next due moment, or when that has moved nearer.
func (c *Controller) tick(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.wake:
		}
		c.apply()
		c.mu.Lock()
		due := c.mind.Due()
		c.mu.Unlock()
		timer.Reset(max(time.Until(due), 5*time.Millisecond))
	}
}

// apply gives events to the mind and sends out what it wishes for.
func (c *Controller) apply(events ...scheduler.Event) {
	c.mu.Lock()
	notes := c.applyLocked(events)
	c.mu.Unlock()
	c.tell(notes)
}

// applyLocked dispatches without blocking and returns what is to be logged after the mutex is free.
func (c *Controller) applyLocked(events []scheduler.Event) []scheduler.StatusChanged {
	before := c.mind.Due()
	actions := c.mind.Apply(time.Now(), events...)
	if len(actions) == 0 && !c.mind.Due().Before(before) {
		return nil
	}
	var notes []scheduler.StatusChanged
	var failed []scheduler.Event
	for _, a := range actions {
		switch a := a.(type) {
		case scheduler.StatusChanged:
			c.statuses.publish(a.Check)
			if a.Before != a.After || a.Gone {
				notes = append(notes, a)
			}
		case scheduler.Assign:
			if s := c.sessions[a.Prober]; s != nil {
				s.Wake()
			}
		case scheduler.Confirm:
			if !c.askLocked(a) {
				failed = append(failed, scheduler.RunRefused{Prober: a.Prober, RunID: a.Run.GetRunId()})
			}
		case scheduler.BreakGlass, scheduler.OutageJoined:
			if c.deps.Glass != nil {
				c.deps.Glass(a)
			}
		default:
			failed = append(failed, c.enqueueLocked(a)...)
		}
	}
	if failed != nil {
		notes = append(notes, c.applyLocked(failed)...)
	}
	if c.mind.Due().Before(before) {
		signal(c.wake)
	}
	return notes
}

func (c *Controller) tell(notes []scheduler.StatusChanged) {
	for _, n := range notes {
		if n.Gone {
			continue
		}
		c.m.verdict(n)
		level := slog.LevelInfo
		if n.After == meshv1.CheckStatus_DOWN {
			level = slog.LevelWarn
		}
		c.log.Log(context.Background(), level, "verdict changed", "check", n.Check, "before", n.Before.String(), "verdict", n.After.String(), "reason", n.Reason.String())
	}
}

// follow turns a batch of the store's watch into events.
func (c *Controller) follow(_ context.Context, b store.Batch) error {
	events := make([]scheduler.Event, 0, len(b.Events)+1)
	c.mu.Lock()
	if b.Snapshot {
		events = append(events, scheduler.Reset{Revision: b.Revision})
		c.enrolments, c.servers, c.leader = map[string]enrolled{}, map[string]*statev1.ServerRecord{}, nil
		c.serversChangedLocked()
		// What is not in the snapshot any more was resolved meanwhile, and no event says so.
		for key, name := range c.open {
			c.incidents.publish(name)
			c.statuses.publish(key)
		}
		clear(c.open)
	}
	for _, e := range b.Events {
		if ev := c.eventLocked(e); ev != nil {
			events = append(events, ev)
		}
	}
	c.revision, c.unknown = b.Revision, time.Time{}
	notes := c.applyLocked(events)
	first := !c.synced
	c.synced = true
	rival := c.rival
	c.rival = nil
	c.mu.Unlock()
	if rival != nil {
		c.log.Error("another server has taken this server's name", "server", rival.GetName(), "address", rival.GetGrpcAddress(), "boot_id", rival.GetBootId())
	}
	c.tell(notes)
	if first {
		close(c.ready)
	}
	return nil
}

// eventLocked gives the event for the mind, or nil when the change is the controller's alone.
func (c *Controller) eventLocked(e store.Event) scheduler.Event {
	switch v := e.Value.(type) {
	case *meshv1.Check:
		return scheduler.CheckPut{Check: v, ModRevision: e.ModRevision}
	case *meshv1.Receiver:
		return scheduler.ReceiverPut{Receiver: v}
	case *statev1.Enrolment:
		c.enrolments[spec.ID(e.Name)] = enrolled{v, e.ModRevision}
		return scheduler.EnrolmentPut{Enrolment: v}
	case *meshv1.Build:
		return scheduler.BuildPut{Build: v, ModRevision: e.ModRevision}
	case *meshv1.BuildPolicy:
		return scheduler.BuildPolicyPut{Policy: v}
	case *statev1.PlacementTable:
		return scheduler.TablePut{Table: v, ModRevision: e.ModRevision}
	case *statev1.StoredIncident:
		c.open[e.Subject] = v.GetIncident().GetName()
		c.incidents.publish(v.GetIncident().GetName())
		return scheduler.IncidentPut{Key: e.Subject, Incident: v, ModRevision: e.ModRevision}
	case *statev1.ServerRecord:
		c.servers[e.Name] = v
		c.serversChangedLocked()
		c.compareLocked(e.Name, v)
		return nil
	case *statev1.LeaderRecord:
		c.leader, c.term = v, max(c.term, v.GetTerm())
		return nil
	case nil:
		return c.goneLocked(e)
	}
	return nil
}

func (c *Controller) serversChangedLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// signal sets a channel of one element, if it is not set.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// compareLocked notes a record of this server's name that another process has put into the place of its own.
func (c *Controller) compareLocked(name string, r *statev1.ServerRecord) {
	if c.cfg.BootID == "" || name != spec.Name(spec.Servers, c.cfg.Server) {
		return
	}
	switch mine := r.GetBootId() == c.cfg.BootID; {
	case mine:
		c.published = true
	case c.published:
		// The record of a former life cannot come after that of this one.
		c.rival, c.published = r, false
	}
}

func (c *Controller) goneLocked(e store.Event) scheduler.Event {
	switch e.Kind {
	case store.KindCheck:
		return scheduler.CheckGone{Name: e.Name}
	case store.KindReceiver:
		return scheduler.ReceiverGone{Name: e.Name}
	case store.KindEnrolment:
		delete(c.enrolments, spec.ID(e.Name))
		// A prober that is here enrols again when it attaches again.
		if s := c.sessions[spec.ID(e.Name)]; s != nil {
			s.End("the prober was deleted")
		}
		return scheduler.EnrolmentGone{Name: e.Name}
	case store.KindBuild:
		return scheduler.BuildGone{Name: e.Name}
	case store.KindBuildPolicy:
		return scheduler.BuildPolicyPut{}
	case store.KindTable:
		return scheduler.TableGone{Datacenter: e.Name}
	case store.KindIncident:
		if name, ok := c.open[e.Subject]; ok {
			c.incidents.publish(name)
			delete(c.open, e.Subject)
		}
		return scheduler.IncidentGone{Key: e.Subject, ModRevision: e.ModRevision}
	case store.KindServer:
		delete(c.servers, e.Name)
		c.serversChangedLocked()
	case store.KindLeader:
		c.leader = nil
	}
	return nil
}

// recordVerdicts gives the verdict of every check to the history now and then. A recorder that blocks costs samples, nothing else.
func (c *Controller) recordVerdicts(ctx context.Context) {
	t := time.NewTicker(c.cfg.VerdictEvery)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			var all []*meshv1.CheckStatus
			c.EachStatus("", func(s *meshv1.CheckStatus) bool {
				all = append(all, s)
				return true
			})
			err := c.deps.Verdicts(ctx, now, all)
			if err != nil && !failing && ctx.Err() == nil {
				c.log.Warn("verdicts are not recorded in the history", "err", err)
			}
			failing = err != nil
		}
	}
}

// recall tells the mind once what was recorded before this server was started. It is for people to read: without it verdicts begin anew, and nothing else is different.
func (c *Controller) recall(ctx context.Context) {
	e, err := c.deps.Recall(ctx)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("since when verdicts hold could not be read from the history; they begin anew", "err", err)
		}
		return
	}
	c.apply(e)
}
