package notify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// errStore is a store that does not answer.
var errStore = errors.New("the store does not answer")

// fakeStore keeps outbox, receivers and incidents in memory, with revisions and a fence, and can be told to fail.
type fakeStore struct {
	mu        sync.Mutex
	rev       int64
	keys      map[string]store.Event // by kind and name
	incidents map[string]*statev1.StoredIncident
	log       []store.Event // every change
	changed   chan struct{}
	reign     int64 // the create revision that a fence must have
	// lag delays what followers are told.
	lag time.Duration
	// snapshot makes the follower begin again with it.
	snapshot *store.Batch

	failSettle, failDelete, failAmend func() error
	settles, deletes, amends          int
	// loseAnswer makes the next SettleOutbox fail although it was done.
	loseAnswer bool
}

func newFakeStore() *fakeStore {
	return &fakeStore{keys: map[string]store.Event{}, incidents: map[string]*statev1.StoredIncident{}, changed: make(chan struct{}), reign: 1}
}

func (f *fakeStore) set(kind store.Kind, name string, v proto.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setLocked(kind, name, v)
}

func (f *fakeStore) setLocked(kind store.Kind, name string, v proto.Message) {
	f.rev++
	key := fmt.Sprint(kind, " ", name)
	e := store.Event{Kind: kind, Name: name, ModRevision: f.rev}
	if v != nil {
		e.Value, e.CreateRevision = proto.Clone(v), f.rev
		if held, ok := f.keys[key]; ok {
			e.CreateRevision = held.CreateRevision
		}
		f.keys[key] = e
	} else {
		delete(f.keys, key)
	}
	f.log = append(f.log, e)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeStore) stateLocked() store.Batch {
	b := store.Batch{Snapshot: true, Revision: f.rev}
	for _, e := range f.keys {
		b.Events = append(b.Events, e)
	}
	sort.Slice(b.Events, func(i, j int) bool { return b.Events[i].ModRevision < b.Events[j].ModRevision })
	return copied(b)
}

// copied gives the follower values of its own.
func copied(b store.Batch) store.Batch {
	b.Events = slices.Clone(b.Events)
	for i := range b.Events {
		if b.Events[i].Value != nil {
			b.Events[i].Value = proto.Clone(b.Events[i].Value)
		}
	}
	return b
}

func (f *fakeStore) Follow(ctx context.Context, tell func(context.Context, store.Batch) error) error {
	f.mu.Lock()
	b, seen := f.stateLocked(), len(f.log)
	f.mu.Unlock()
	for {
		if err := tell(ctx, b); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(f.lag):
		}
		for b = (store.Batch{}); !b.Snapshot && len(b.Events) == 0; {
			f.mu.Lock()
			changed := f.changed
			if f.snapshot != nil { // what came after its revision follows it
				b, f.snapshot = copied(*f.snapshot), nil
				seen = slices.IndexFunc(f.log, func(e store.Event) bool { return e.ModRevision > b.Revision })
				if seen < 0 {
					seen = len(f.log)
				}
			} else {
				b = copied(store.Batch{Revision: f.rev, Events: f.log[seen:]})
				seen = len(f.log)
			}
			f.mu.Unlock()
			if b.Snapshot || len(b.Events) > 0 {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
		}
	}
}

func (f *fakeStore) check(ctx context.Context, fence store.Fence, fail func() error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if fence.CreateRevision != f.reign {
		return fmt.Errorf("term %d: %w", fence.Term, store.ErrFenced)
	}
	if fail != nil {
		return fail()
	}
	return nil
}

func (f *fakeStore) DeleteOutbox(ctx context.Context, fence store.Fence, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.deletes++
	if err := f.check(ctx, fence, f.failDelete); err != nil {
		return err
	}
	f.setLocked(store.KindOutbox, id, nil)
	return nil
}

func (f *fakeStore) SettleOutbox(ctx context.Context, fence store.Fence, id, incident string, change func(*statev1.StoredIncident) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settles++
	if err := f.check(ctx, fence, f.failSettle); err != nil {
		return err
	}
	if held := f.incidents[incident]; held != nil {
		edited := proto.CloneOf(held)
		if err := change(edited); err != nil {
			return err
		}
		f.incidents[incident] = edited
	}
	f.setLocked(store.KindOutbox, id, nil)
	if f.loseAnswer {
		f.loseAnswer = false
		return errStore
	}
	return nil
}

func (f *fakeStore) UpdateOutbox(ctx context.Context, fence store.Fence, e *statev1.OutboxEntry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(ctx, fence, nil); err != nil {
		return err
	}
	if _, ok := f.keys[fmt.Sprint(store.KindOutbox, " ", e.GetId())]; !ok {
		return fault.NotFound("outbox/" + e.GetId())
	}
	f.setLocked(store.KindOutbox, e.GetId(), e)
	return nil
}

func (f *fakeStore) AmendIncident(ctx context.Context, fence *store.Fence, name string, change func(*statev1.StoredIncident) error) (store.Versioned[*statev1.StoredIncident], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.amends++
	var none store.Versioned[*statev1.StoredIncident]
	if err := f.check(ctx, *fence, f.failAmend); err != nil {
		return none, err
	}
	held := f.incidents[name]
	if held == nil {
		return none, fault.New(codes.NotFound, meshv1.ErrorReason_RESOURCE_NOT_FOUND, name, "%s does not exist", name)
	}
	edited := proto.CloneOf(held)
	if err := change(edited); err != nil {
		return none, err
	}
	f.incidents[name] = edited
	return store.Versioned[*statev1.StoredIncident]{Value: proto.CloneOf(edited)}, nil
}

// owe writes an entry, and the incident if it is new, and returns the entry's id.
func (f *fakeStore) owe(incident int, receiver string, tr meshv1.Notification_Transition, ordinal int32) string {
	name := fmt.Sprintf("incidents/%06d", incident)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.incidents[name] == nil {
		f.incidents[name] = &statev1.StoredIncident{Incident: &meshv1.Incident{Name: name, Check: "checks/shop"}}
	}
	id := fmt.Sprintf("%06d.%s.%s", incident, tr, receiver)
	f.setLocked(store.KindOutbox, id, &statev1.OutboxEntry{Id: id, Ordinal: ordinal, CreateTime: timestamppb.Now(), Notification: &meshv1.Notification{
		Incident: name, Transition: tr, Check: "checks/shop", Receiver: "receivers/" + receiver, DecideTime: timestamppb.Now(),
	}})
	return id
}

func (f *fakeStore) receiver(name string, edit ...func(*meshv1.Receiver)) {
	r := &meshv1.Receiver{Name: "receivers/" + name, Webhook: &meshv1.Webhook{Url: "https://" + name + ".example.com/hook"}}
	for _, e := range edit {
		e(r)
	}
	f.set(store.KindReceiver, r.Name, r)
}

func (f *fakeStore) deleteReceiver(name string) { f.set(store.KindReceiver, "receivers/"+name, nil) }

func (f *fakeStore) owed() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []string
	for _, e := range f.keys {
		if e.Kind == store.KindOutbox {
			ids = append(ids, e.Name)
		}
	}
	sort.Strings(ids)
	return ids
}

func (f *fakeStore) timeline(incident int) []*meshv1.TimelineEntry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.incidents[fmt.Sprintf("incidents/%06d", incident)].GetIncident().GetTimeline()
}

func (f *fakeStore) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// failing fails the first n calls.
func failing(n int) func() error {
	return func() error {
		if n--; n >= 0 {
			return errStore
		}
		return nil
	}
}

// sent is a message as a receiver saw it.
type sent struct {
	at       time.Time
	key      string
	receiver string
	attempt  int32
	took     bool // answered 2xx
}

// fakeSender is all receivers: respond says what one answers, after as long as it takes.
type fakeSender struct {
	mu       sync.Mutex
	respond  func(ctx context.Context, r *meshv1.Receiver, m message) answer
	all      []sent
	now, top int // in flight
	each     map[string]int
	topEach  map[string]int
}

func (s *fakeSender) idle() {}

func (s *fakeSender) send(ctx context.Context, r *meshv1.Receiver, m message) answer {
	s.mu.Lock()
	at := len(s.all)
	s.all = append(s.all, sent{at: time.Now(), key: m.key, receiver: r.GetName(), attempt: m.notification.GetAttempt()})
	s.now++
	s.each[r.GetName()]++
	s.top = max(s.top, s.now)
	s.topEach[r.GetName()] = max(s.topEach[r.GetName()], s.each[r.GetName()])
	respond := s.respond
	s.mu.Unlock()
	a := ok()
	if respond != nil {
		a = respond(ctx, r, m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	s.each[r.GetName()]--
	s.all[at].took = a.outcome == delivered
	return a
}

func (s *fakeSender) sent() []sent {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// times are when a key was sent.
func (s *fakeSender) times(key string) []time.Time {
	var at []time.Time
	for _, m := range s.sent() {
		if m.key == key {
			at = append(at, m.at)
		}
	}
	return at
}

func ok() answer { return answer{outcome: delivered, status: 200, statusText: "200 OK"} }
func fail(o outcome, text string) answer {
	return answer{outcome: o, err: text}
}

// after answers after d, or not at all when ctx ends before.
func after(ctx context.Context, d time.Duration, a answer) answer {
	select {
	case <-time.After(d):
		return a
	case <-ctx.Done():
		return fail(timeout, "no answer")
	}
}

// stage is a notifier over fakes.
type stage struct {
	t      *testing.T
	store  *fakeStore
	sender *fakeSender
	n      *Notifier
}

func newStage(t *testing.T, cfg Config) *stage {
	t.Helper()
	s := &stage{t: t, store: newFakeStore(), sender: &fakeSender{each: map[string]int{}, topEach: map[string]int{}}}
	if cfg.Seed == 0 {
		cfg.Seed = 7
	}
	n, err := New(s.store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.sender = s.sender
	s.n = n
	return s
}

// lead begins a reign; stop ends it and gives what Run returned.
func (s *stage) lead() (stop func() error) {
	s.store.mu.Lock()
	fence := store.Fence{Key: "leader", CreateRevision: s.store.reign, Term: s.store.reign}
	s.store.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.n.Run(ctx, fence) }()
	stop = func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}
	s.t.Cleanup(func() { stop() })
	return stop
}

// depose makes every fence so far void.
func (s *stage) depose() { s.store.locked(func() { s.store.reign++ }) }

// wait lets fake time pass and everything settle that is due by then.
func (s *stage) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *stage) wantOwed(want ...string) {
	s.t.Helper()
	if got := s.store.owed(); !slices.Equal(got, want) {
		s.t.Errorf("still owed: %q, want %q", got, want)
	}
}

func giveUp(d time.Duration) func(*meshv1.Receiver) {
	return func(r *meshv1.Receiver) { r.GiveUpAfter = durationpb.New(d) }
}
