package notify_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/etcdfake"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/notify"
	"github.com/probemesh/probemesh/server/store"
)

// sent is one attempt that the fake receiver saw.
type sent struct {
	key     string
	attempt int32
	at      time.Duration // since the mesh began
}

// receivers is a fake of the outside: answer says what each attempt gets, after how long.
type receivers struct {
	begun  time.Time
	answer func(key string, nth int) (notify.Answer, time.Duration)

	mu   sync.Mutex
	all  []sent
	nths map[string]int
	now  int
	most int
}

func (r *receivers) Send(ctx context.Context, rc *meshv1.Receiver, n *meshv1.Notification, key string) notify.Answer {
	r.mu.Lock()
	r.nths[key]++
	r.now++
	r.most = max(r.most, r.now)
	r.all = append(r.all, sent{key: key, attempt: n.GetAttempt(), at: time.Since(r.begun)})
	a, wait := r.answer(key, r.nths[key])
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.now--
		r.mu.Unlock()
	}()
	select {
	case <-time.After(wait):
		return a
	case <-ctx.Done():
		return notify.Answer{Error: "cut off", Temporary: true}
	}
}

// log is what was sent, without times.
func (r *receivers) log() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, s := range r.all {
		out = append(out, s.key)
	}
	return strings.Join(out, " ")
}

func (r *receivers) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.all)
}

// peak is how many were under way at once at most.
func (r *receivers) peak() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most
}

func (r *receivers) times(key string) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []time.Duration
	for _, s := range r.all {
		if s.key == key {
			out = append(out, s.at)
		}
	}
	return out
}

// mesh is a store on a fake etcd with one leader's notifier.
type mesh struct {
	t     *testing.T
	etcd  *etcdfake.Server
	store *store.Store
	fence store.Fence
	recv  *receivers
	n     *notify.Notifier
	stop  func() error // ends the reign and gives Run's error
}

var delivered = notify.Answer{Delivered: true, Status: 200}

func newMesh(t *testing.T, answer func(key string, nth int) (notify.Answer, time.Duration), names ...string) *mesh {
	t.Helper()
	etcd := etcdfake.New(t)
	m := &mesh{t: t, etcd: etcd, store: store.New(etcd.Client(t), store.Options{VerifyEvery: -1}),
		recv: &receivers{begun: time.Now(), answer: answer, nths: map[string]int{}}}
	for _, name := range names {
		_, err := m.store.CreateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/" + name, Webhook: &meshv1.Webhook{Url: "http://" + name}})
		m.ok(err)
	}
	m.lead()
	return m
}

func (m *mesh) ok(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// lead begins a new reign, with a notifier that knows nothing yet, as on another server.
func (m *mesh) lead() {
	m.t.Helper()
	c := m.etcd.Client(m.t)
	if _, err := c.Delete(m.t.Context(), store.LeaderKey); err != nil {
		m.t.Fatal(err)
	}
	p, err := c.Put(m.t.Context(), store.LeaderKey, "")
	m.ok(err)
	m.fence = store.Fence{Key: store.LeaderKey, CreateRevision: p.Header.Revision, Term: m.fence.Term + 1}
	n := notify.New(m.store, m.recv, notify.Config{Seed: 1})
	m.n = n
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = m.store.Follow(ctx, func(_ context.Context, b store.Batch) error { feed(n, b); return nil })
	})
	done := make(chan error, 1)
	fence := m.fence
	wg.Go(func() { done <- n.Run(ctx, fence) })
	stopped := false
	m.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		wg.Wait()
		return <-done
	}
	stop := m.stop
	m.t.Cleanup(func() { _ = stop() })
}

// feed is what a controller does with the batches of the store.
func feed(n *notify.Notifier, b store.Batch) {
	var entries []*statev1.OutboxEntry
	var rs []*meshv1.Receiver
	for _, e := range b.Events {
		switch v := e.Value.(type) {
		case *statev1.OutboxEntry:
			entries = append(entries, v)
			if !b.Snapshot {
				n.Put(v)
			}
		case *meshv1.Receiver:
			rs = append(rs, v)
			if !b.Snapshot {
				n.PutReceiver(v)
			}
		case nil:
			if e.Kind == store.KindOutbox {
				n.Gone(e.Name)
			}
			if e.Kind == store.KindReceiver {
				n.GoneReceiver(e.Name)
			}
		}
	}
	if b.Snapshot {
		n.Replace(entries, rs)
	}
}

func incident(i int) *statev1.StoredIncident {
	return &statev1.StoredIncident{Incident: &meshv1.Incident{Name: fmt.Sprintf("incidents/i%d", i), Kind: meshv1.Incident_CHECK,
		Check: fmt.Sprintf("checks/c%d", i), State: meshv1.Incident_OPEN}}
}

func owed(i int, tr meshv1.Notification_Transition, ordinal int32, receiver string) *statev1.OutboxEntry {
	return &statev1.OutboxEntry{Id: fmt.Sprintf("i%d.%s.%s", i, tr, receiver), Ordinal: ordinal, CreateTime: timestamppb.Now(),
		Notification: &meshv1.Notification{Incident: fmt.Sprintf("incidents/i%d", i), Transition: tr, Receiver: "receivers/" + receiver, DecideTime: timestamppb.Now()}}
}

// open opens incident i and owes OPENED to the receivers.
func (m *mesh) open(i int, to ...string) {
	m.t.Helper()
	var out []*statev1.OutboxEntry
	for n, r := range to {
		out = append(out, owed(i, meshv1.Notification_OPENED, int32(n), r))
	}
	_, err := m.store.OpenIncident(m.t.Context(), m.fence, incident(i), out, 0)
	m.ok(err)
}

func (m *mesh) resolve(i int, to ...string) {
	m.t.Helper()
	v, err := m.store.GetIncident(m.t.Context(), fmt.Sprintf("incidents/i%d", i))
	m.ok(err)
	var out []*statev1.OutboxEntry
	for n, r := range to {
		out = append(out, owed(i, meshv1.Notification_RESOLVED, int32(100+n), r))
	}
	_, err = m.store.ResolveIncident(m.t.Context(), m.fence, v.Value, out, v.ModRevision)
	m.ok(err)
}

// timeline is the events of incident i, such as "NOTIFICATION_FAILED/1 NOTIFIED/2".
func (m *mesh) timeline(i int) string {
	m.t.Helper()
	v, err := m.store.GetIncident(m.t.Context(), fmt.Sprintf("incidents/i%d", i))
	m.ok(err)
	var out []string
	for _, e := range v.Value.Incident.Timeline {
		out = append(out, fmt.Sprintf("%s/%d", e.Event, e.Attempt))
	}
	return strings.Join(out, " ")
}

func (m *mesh) outbox() int {
	m.t.Helper()
	all, _, err := m.store.ListOutbox(m.t.Context())
	m.ok(err)
	return len(all)
}

func always(a notify.Answer) func(string, int) (notify.Answer, time.Duration) {
	return func(string, int) (notify.Answer, time.Duration) { return a, 10 * time.Millisecond }
}

func down(text string) notify.Answer { return notify.Answer{Status: 503, Error: text, Temporary: true} }
