package breakglass

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/spec"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// Config says which server this is and whom it tells.
type Config struct {
	// Server is its bare name.
	Server string
	// Dir is where it keeps what it delivered; it must exist.
	Dir string
	// File is the break-glass file. It is read by New and again within 5 s of a change. Empty: this server tells nobody, but knows and joins outages as the others do.
	File string
}

// Mesh is what is needed of the controller.
type Mesh interface {
	// Apply gives events to the mind. It must not be called from Take.
	Apply(events ...scheduler.Event)
	// Ready is closed when the store has been read for the first time.
	Ready() <-chan struct{}
	// Term is the newest term that the store has told of, 0 for none.
	Term() int64
	// Applied is the etcd revision up to which the store has told of everything.
	Applied() int64
	// OpenAfter are the incidents of checks that are open and were changed after a revision. They are the caller's.
	OpenAfter(revision int64) []*peerv1.KnownIncident
	// ClosedAfter are the incidents of checks that have ended after a revision. They are the caller's.
	ClosedAfter(revision int64) []*peerv1.ClosedIncident
	// Others are the other servers: those that the store has, and those that are heard.
	Others() []Peer
}

// Pulse tells how this server's reads of etcd fare; *store.Pulse is one.
type Pulse interface {
	Lost() (since time.Time, lost bool)
	Answered() bool
}

// Answer is what came of sending a message once.
type Answer struct {
	// Delivered: the receiver has accepted it.
	Delivered bool
	// Problem is why not, a sentence without its full stop.
	Problem string
}

// Deps are the parts it works with. All but Log and Meter are required.
type Deps struct {
	Pulse Pulse
	// Send sends a notification to a receiver once, under an idempotency key, within the receiver's timeout.
	Send func(ctx context.Context, r *meshv1.Receiver, key string, n *meshv1.Notification) Answer
	// Closed gives the closed incidents that have taken outages in, oldest first. A server that is started reads them once, so as not to use a key again, and each time
	// that etcd is back, so as not to bring up what is over.
	Closed func(ctx context.Context) ([]*meshv1.Incident, error)
	Log    *slog.Logger
	Meter  metric.Meter
}

// Glass is one server's part. Make it with New, run it once.
type Glass struct {
	cfg  Config
	name string // resource name
	deps Deps
	log  *slog.Logger
	m    *metrics
	wake chan struct{}
	// changed: what was delivered is to be written down; save does that, into the directory, and may hang with its disk.
	changed chan struct{}
	save    func(dir string, outages []*peerv1.Outage) error

	// Only Run's goroutine touches these.
	looked   time.Time
	listened time.Time
	stamp    stamp
	said     scheduler.Store
	back     time.Time // since when this server reads etcd again, after a loss or its start
	known    known     // its lists are read under mu too
	checked  bool      // whether the store was asked for outages that are joined, since then
	recalled bool      // whether it was asked for those that are over, since this process began
	recallAt time.Time // when it is asked again, once everything else is settled

	// mu guards what follows.
	mu        sync.Mutex
	receivers []*meshv1.Receiver
	inbox     []scheduler.Action
	refused   bool
	entries   map[string]*entry
	others    map[string][]*peerv1.OutageDelivery // what other servers delivered, by outage
	windows   map[meshv1.Notification_Transition]*window
	tasks     []*task
	flying    int // messages under way, blind those of them that the store knows nothing of
	blind     int
	now       judgement
	work      sync.WaitGroup
}

const (
	// beat is how often everything is looked at: half as often as servers hear each other.
	beat = 100 * time.Millisecond
	// settleFor is how long the other servers are waited for after etcd has come back.
	settleFor = 3 * time.Second
	// recallEvery is how often it is tried to read which outages are over, when that was not to be had within settleFor.
	recallEvery = 30 * time.Second
	// inboxMost bounds what the mind may wish for between two beats; more is refused, counted and logged.
	inboxMost = 100_000
)

// New reads the break-glass file, if one is named, and what an earlier process of this server delivered.
func New(cfg Config, deps Deps) (*Glass, error) {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	if deps.Meter == nil {
		deps.Meter = noop.Meter{}
	}
	g := &Glass{
		cfg: cfg, name: spec.Name(spec.Servers, cfg.Server), deps: deps, log: deps.Log, wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), save: writeJournal,
		entries: map[string]*entry{},
		others:  map[string][]*peerv1.OutageDelivery{}, windows: map[meshv1.Notification_Transition]*window{},
	}
	var err error
	if cfg.File != "" {
		g.stamp = stampOf(cfg.File)
		if g.receivers, err = Load(cfg.File); err != nil {
			return nil, fmt.Errorf("break-glass: %w", err)
		}
	}
	outages, broken, err := readJournal(cfg.Dir)
	if err != nil || broken > 0 {
		g.log.Warn("what was delivered without etcd cannot all be read; it may be told again", "file", journalFile, "lines", broken, "err", err)
	}
	for _, o := range outages {
		g.entries[o.GetKey()] = &entry{outage: o}
	}
	g.m, err = newMetrics(deps.Meter, g)
	return g, err
}

// Take takes an action of the mind: BreakGlass and OutageJoined; others are ignored.
func (g *Glass) Take(a scheduler.Action) {
	switch a.(type) {
	case scheduler.BreakGlass, scheduler.OutageJoined:
	default:
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.inbox) >= inboxMost {
		g.m.refused.Add(context.Background(), 1)
		g.refused = true
		return
	}
	g.inbox = append(g.inbox, a)
	signal(g.wake)
}

// Begin tells a mind that has just been made that nothing is settled yet; it is to be called before that mind is told that it leads.
func (g *Glass) Begin(mesh Mesh) {
	g.said = scheduler.Store{Unsettled: true}
	mesh.Apply(g.said)
}

// Run does all of it until ctx ends; then it waits for messages under way, writes down what was delivered, and returns nil. A disk that hangs is not waited for.
func (g *Glass) Run(ctx context.Context, mesh Mesh) error {
	t := time.NewTicker(beat)
	defer t.Stop()
	defer g.keep()()
	defer g.work.Wait()
	for {
		g.step(ctx, mesh, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		case <-t.C:
		}
	}
}

func (g *Glass) step(ctx context.Context, mesh Mesh, now time.Time) {
	g.reload(now)
	peers := mesh.Others()
	failed, lost := g.deps.Pulse.Lost()
	if !lost {
		failed = time.Time{}
	}
	j := judge(now, failed, g.name, mesh.Term(), peers)
	g.mu.Lock()
	g.now = j
	g.mu.Unlock()
	if now.Sub(g.listened) >= beat { // what the mind answers wakes this loop
		g.listened = now
		g.know(mesh, failed, peers)
		g.hear(mesh, peers)
	}
	g.say(ctx, mesh, now, failed, j, peers)
	g.sort(now)
	g.dispatch(ctx, now, j)
}

// say tells the mind how etcd is, when that has changed.
func (g *Glass) say(ctx context.Context, mesh Mesh, now, failed time.Time, j judgement, peers []Peer) {
	s := scheduler.Store{Lost: j.lost, Since: j.since, Term: j.term, Alone: j.lost && j.alone, Unsettled: g.said.Unsettled}
	switch {
	case !failed.IsZero():
		// A loss that nobody can have broken a glass for leaves nothing to settle.
		g.back, g.checked = time.Time{}, false
		s.Unsettled = s.Unsettled || now.Sub(failed) >= quietFor
	case s.Unsettled:
		s.Unsettled = !g.settle(ctx, mesh, now, peers)
		g.recallAt = now.Add(recallEvery)
	case !g.recalled && !now.Before(g.recallAt):
		g.recalled = g.recall(ctx, mesh)
		g.recallAt = now.Add(recallEvery)
	}
	same := s.Lost == g.said.Lost && s.Unsettled == g.said.Unsettled && (!s.Lost || s.Term == g.said.Term && s.Alone == g.said.Alone)
	if same {
		return
	}
	if s.Lost != g.said.Lost && s.Lost {
		g.log.Error("etcd has lost its quorum: nobody can open, resolve or send anything; outages are told by break-glass messages until it is back", "since", s.Since, "term", s.Term)
	}
	g.said = s
	mesh.Apply(s)
}

// quietFor is below the grace of the mind, after which messages are sent.
const quietFor = 4 * time.Second

// settle tells whether all that other servers did without etcd is known here, or has been waited for long enough.
func (g *Glass) settle(ctx context.Context, mesh Mesh, now time.Time, peers []Peer) bool {
	select {
	case <-mesh.Ready():
	default:
		return false
	}
	if !g.deps.Pulse.Answered() {
		return false
	}
	if g.back.IsZero() {
		g.back = now
		return false // what the others know now is heard in the next round
	}
	if !g.recalled {
		g.recalled = g.recall(ctx, mesh)
	}
	if !g.checked {
		g.checked = g.reconcile(ctx, mesh, peers)
	}
	if now.Sub(g.back) >= settleFor {
		return true
	}
	g.mu.Lock()
	blind := g.blind
	g.mu.Unlock()
	if !g.recalled || !g.checked || blind > 0 {
		return false
	}
	for _, p := range peers {
		if !p.Heard || p.Beat == nil || p.Beat.GetEtcdLostTime() != nil {
			return false
		}
	}
	return true
}

// recall tells the mind of outages that were over before this process began, as far as that can be read: it counts those of a term from the beginning, and one of them
// may have the key of the next.
func (g *Glass) recall(ctx context.Context, mesh Mesh) bool {
	events, read := g.over(ctx, func(string) bool { return true })
	if len(events) > 0 {
		mesh.Apply(events...)
	}
	return read
}

// over reads which outages are over that are wanted, the oldest first; false when that cannot be read now.
func (g *Glass) over(ctx context.Context, wanted func(key string) bool) (events []scheduler.Event, read bool) {
	ctx, cancel := context.WithTimeout(ctx, settleFor/2)
	defer cancel()
	closed, err := g.deps.Closed(ctx)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			g.log.Warn("cannot look up which outages are over, trying again", "err", err)
		}
		return nil, false
	}
	for _, i := range closed {
		for _, key := range scheduler.OutagesOf(i) {
			if wanted(key) {
				events = append(events, scheduler.OutageOver{Check: i.GetCheck(), Key: key})
			}
		}
	}
	return events, true
}

// reconcile drops outages whose incident is closed in the store already, as far as that can be read. Those of one that is open there the mind joins when it is told of it.
func (g *Glass) reconcile(ctx context.Context, mesh Mesh, peers []Peer) bool {
	asked := map[string]bool{}
	g.mu.Lock()
	for key, e := range g.entries {
		if !e.joined {
			asked[key] = true
		}
	}
	g.mu.Unlock()
	for _, p := range peers {
		for _, o := range p.Beat.GetOutages() {
			asked[o.GetKey()] = true
		}
	}
	if len(asked) == 0 {
		return true
	}
	var keys []string
	events, read := g.over(ctx, func(key string) bool {
		if asked[key] {
			keys = append(keys, key)
		}
		return asked[key]
	})
	if len(keys) > 0 {
		mesh.Apply(events...)
		g.mu.Lock()
		for _, key := range keys {
			g.forgetLocked(key)
		}
		g.mu.Unlock()
		signal(g.changed)
	}
	return read
}

// hear gives the mind what other servers, and this one in its former life, know of outages.
func (g *Glass) hear(mesh Mesh, peers []Peer) {
	select {
	case <-mesh.Ready():
	default:
		return // it knows no checks yet
	}
	var events []scheduler.Event
	if g.said.Lost {
		events = learned(peers)
	}
	g.mu.Lock()
	for _, p := range peers {
		for _, o := range p.Beat.GetOutages() {
			g.noteLocked(o)
			events = append(events, scheduler.OutageSeen{Outage: outageOf(o)})
		}
	}
	for _, e := range g.entries {
		if !e.joined && (len(e.outage.GetDeliveries()) > 0) {
			events = append(events, scheduler.OutageSeen{Outage: outageOf(e.outage)})
		}
	}
	g.mu.Unlock()
	if len(events) > 0 {
		mesh.Apply(events...)
	}
}

// noteLocked remembers what another server delivered.
func (g *Glass) noteLocked(o *peerv1.Outage) {
	for _, d := range o.GetDeliveries() {
		if !has(g.others[o.GetKey()], d.GetReceiver(), d.GetUrlDigest(), d.GetTransition()) {
			g.others[o.GetKey()] = append(g.others[o.GetKey()], d)
		}
	}
}

func has(list []*peerv1.OutageDelivery, receiver, digest string, t meshv1.Notification_Transition) bool {
	for _, d := range list {
		if d.GetTransition() == t && (d.GetReceiver() == receiver || d.GetUrlDigest() == digest) {
			return true
		}
	}
	return false
}

// inBeat is how many outages one beat carries at most, as peer_service.proto says.
const inBeat = 64

// Fill adds to a beat since when etcd does not answer this server, and the outages that wait to be joined.
func (g *Glass) Fill(b *peerv1.Beat) {
	since, lost := g.deps.Pulse.Lost()
	g.mu.Lock()
	defer g.mu.Unlock()
	if lost {
		b.EtcdLostTime = timestamppb.New(since)
		b.KnownIncidents, b.ClosedIncidents = part(g.known.open, b), part(g.known.closed, b)
	} else if g.blind > 0 {
		b.EtcdLostTime = b.GetTime() // what is under way may still be delivered: until it is answered, this server has not settled
	}
	var list []*peerv1.Outage
	for _, key := range sorted(g.entries) {
		if e := g.entries[key]; !e.joined {
			list = append(list, e.outage)
		}
	}
	for _, o := range part(list, b) {
		b.Outages = append(b.Outages, cloneOutage(o))
	}
}

// part is what a beat carries of a list: all of it, or a part that changes with every second.
func part[T any](list []T, b *peerv1.Beat) []T {
	n := len(list)
	if n <= inBeat {
		return list
	}
	parts := (n + inBeat - 1) / inBeat
	from := int(b.GetTime().GetSeconds()%int64(parts)) * inBeat
	return list[from:min(from+inBeat, n)]
}
