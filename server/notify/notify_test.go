package notify_test

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/protobuf/types/known/durationpb"
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

func TestEachNotificationIsDeliveredOnceAndRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a", "b")
		m.open(1, "a", "b")
		time.Sleep(time.Minute)
		m.resolve(1, "a", "b")
		time.Sleep(time.Hour)
		if got := m.recv.count(); got != 4 {
			t.Fatalf("sent %d: %s", got, m.recv.log())
		}
		if got := m.timeline(1); got != "NOTIFIED/1 NOTIFIED/1 NOTIFIED/1 NOTIFIED/1" {
			t.Fatalf("timeline %s", got)
		}
		if m.outbox() != 0 || m.n.State("receivers/a").Owed != 0 || m.n.State("receivers/a").LastDelivery.IsZero() {
			t.Fatalf("%d owed; %+v", m.outbox(), m.n.State("receivers/a"))
		}
		if s := m.recv.times("i1.OPENED.a"); s[0] > 100*time.Millisecond {
			t.Fatalf("first sent after %s", s[0])
		}
	})
}

func TestResolvedNeverComesBeforeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(key string, nth int) (notify.Answer, time.Duration) {
			if strings.HasSuffix(key, "OPENED.a") && nth < 5 {
				return down("broken"), 0
			}
			return delivered, 0
		}, "a", "b")
		m.open(1, "a", "b")
		m.resolve(1, "a", "b")
		m.open(2, "b")
		time.Sleep(time.Hour)
		log := m.recv.log()
		if strings.Index(log, "i1.RESOLVED.a") < strings.LastIndex(log, "i1.OPENED.a") || strings.Count(log, "i1.OPENED.a") != 5 {
			t.Fatalf("sent %s", log)
		}
		for _, key := range []string{"i1.OPENED.b", "i1.RESOLVED.b", "i2.OPENED.b"} {
			if at := m.recv.times(key); len(at) != 1 || at[0] > 50*time.Millisecond {
				t.Errorf("%s at %v: the broken receiver delayed it", key, at)
			}
		}
		if got := m.timeline(1); strings.Count(got, "NOTIFICATION_FAILED") != 1 || !strings.HasSuffix(got, "NOTIFIED/5 NOTIFIED/1") {
			t.Fatalf("timeline %s", got)
		}
	})
}

func TestSlowReceiverTakesNoMoreThanItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(key string, _ int) (notify.Answer, time.Duration) {
			if strings.HasSuffix(key, ".slow") {
				return delivered, time.Minute
			}
			return delivered, 0
		}, "slow", "fast")
		for i := range 30 {
			m.open(i, "slow", "fast")
		}
		time.Sleep(time.Second)
		if strings.Count(m.recv.log(), ".fast") != 30 || strings.Count(m.recv.log(), ".slow") != 8 {
			t.Fatalf("sent %s", m.recv.log())
		}
		time.Sleep(time.Hour)
		if m.outbox() != 0 || m.recv.peak() > 9 {
			t.Fatalf("%d owed, %d at once", m.outbox(), m.recv.peak())
		}
	})
}

func TestAtMost64DeliveriesAreUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 12 {
			names = append(names, fmt.Sprintf("r%d", i))
		}
		m := newMesh(t, func(string, int) (notify.Answer, time.Duration) { return delivered, time.Second }, names...)
		for i := range 20 {
			m.open(i, names...)
		}
		time.Sleep(time.Minute)
		if m.recv.peak() != 64 || m.outbox() != 0 || m.recv.count() != 240 {
			t.Fatalf("%d at once, %d owed, %d sent", m.recv.peak(), m.outbox(), m.recv.count())
		}
	})
}

func TestRetriesFollowTheClassOfTheFailure(t *testing.T) {
	cases := map[string]struct {
		answer notify.Answer
		check  func(n int, gap time.Duration) bool // gap before attempt n+1
	}{
		"temporary": {down("503"), func(n int, gap time.Duration) bool { return gap <= min(2*time.Minute, time.Second<<min(n-1, 8)) }},
		"refused":   {notify.Answer{Status: 404, Error: "404"}, func(_ int, gap time.Duration) bool { return gap == 2*time.Minute }},
		"asked to wait": {notify.Answer{Status: 429, Error: "429", Temporary: true, RetryAfter: 37 * time.Second},
			func(_ int, gap time.Duration) bool { return gap == 37*time.Second }},
		"asked to wait too long": {notify.Answer{Status: 503, Error: "503", Temporary: true, RetryAfter: time.Hour},
			func(_ int, gap time.Duration) bool { return gap == 10*time.Minute }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t, func(string, int) (notify.Answer, time.Duration) { return c.answer, 0 }, "a")
				m.open(1, "a")
				time.Sleep(25 * time.Hour)
				at := m.recv.times("i1.OPENED.a")
				if len(at) < 20 {
					t.Fatalf("%d attempts", len(at))
				}
				for i := 1; i < len(at); i++ {
					if gap := at[i] - at[i-1]; !c.check(i, gap) {
						t.Fatalf("attempt %d after %s", i+1, gap)
					}
				}
				if last := at[len(at)-1]; last > 24*time.Hour || last < 23*time.Hour {
					t.Fatalf("last attempt after %s, want just before 24h", last)
				}
				if got := m.timeline(1); got != fmt.Sprintf("NOTIFICATION_FAILED/1 NOTIFICATION_DROPPED/%d", len(at)) || m.outbox() != 0 {
					t.Fatalf("timeline %s, %d owed", got, m.outbox())
				}
			})
		})
	}
}

func TestRecordsOfFailuresAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(_ string, nth int) (notify.Answer, time.Duration) { return down(fmt.Sprint("at ", nth)), 0 }, "a")
		m.open(1, "a")
		time.Sleep(12 * time.Hour)
		if n := strings.Count(m.timeline(1), "NOTIFICATION_FAILED"); n != 20 {
			t.Fatalf("%d failures recorded", n)
		}
		if s := m.n.State("receivers/a"); s.Owed != 1 || !strings.HasPrefix(s.LastError, "at ") {
			t.Fatalf("%+v", s)
		}
	})
}

func TestReceiverThatIsPausedOrGoneGetsNothingAndThatIsRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(down("broken")), "a", "b")
		m.open(1, "a", "b", "never")
		time.Sleep(time.Minute)
		before := m.recv.count()
		m.ok(m.store.DeleteReceiver(t.Context(), "receivers/a", ""))
		_, err := m.store.UpdateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/b", Paused: true}, "")
		m.ok(err)
		time.Sleep(time.Second)
		if got := strings.Count(m.timeline(1), "NOTIFICATION_DROPPED"); got != 3 || m.outbox() != 0 {
			t.Fatalf("%d dropped, %d owed", got, m.outbox())
		}
		time.Sleep(time.Hour)
		if m.recv.count() != before {
			t.Fatalf("sent after all: %s", m.recv.log())
		}
	})
}

func TestMendedReceiverIsTriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mended := false
		m := newMesh(t, func(string, int) (notify.Answer, time.Duration) {
			if mended {
				return delivered, 0
			}
			return notify.Answer{Status: 404, Error: "404"}, 0
		}, "a")
		m.open(1, "a")
		time.Sleep(30 * time.Second)
		m.recv.mu.Lock()
		mended = true
		m.recv.mu.Unlock()
		_, err := m.store.UpdateReceiver(t.Context(), &meshv1.Receiver{Name: "receivers/a", GiveUpAfter: durationpb.New(time.Hour)}, "")
		m.ok(err)
		time.Sleep(time.Second)
		if m.outbox() != 0 {
			t.Fatal("the change of the receiver did not bring the retry forward")
		}
	})
}

func TestCrashBetweenAnswerAndRecordResendsUnderTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		m.open(1, "a")
		synctest.Wait()
		m.etcd.SetLeaderless(true) // the answer comes, and nothing can be written
		time.Sleep(5 * time.Second)
		_ = m.stop() // the process dies
		m.etcd.SetLeaderless(false)
		if m.outbox() != 1 {
			t.Fatalf("%d owed", m.outbox())
		}
		m.lead()
		time.Sleep(time.Minute)
		if got := m.recv.log(); got != "i1.OPENED.a i1.OPENED.a" || m.outbox() != 0 {
			t.Fatalf("sent %q, %d owed", got, m.outbox())
		}
		if got := m.timeline(1); got != "NOTIFIED/1" {
			t.Fatalf("timeline %s", got)
		}
	})
}

func TestAnswerIsRememberedWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		m.open(1, "a")
		synctest.Wait()
		m.etcd.SetLeaderless(true)
		time.Sleep(time.Hour)
		m.etcd.SetLeaderless(false)
		time.Sleep(time.Minute)
		if got := m.recv.log(); got != "i1.OPENED.a" || m.outbox() != 0 || m.timeline(1) != "NOTIFIED/1" {
			t.Fatalf("sent %q, %d owed, %s", got, m.outbox(), m.timeline(1))
		}
	})
}

func TestLostAnswersOfTheStoreDoNotDoubleAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		for i := range 10 {
			m.open(i, "a")
			m.etcd.LoseAnswers(1)
			time.Sleep(time.Minute)
			m.etcd.LoseAnswers(0)
			if got := m.timeline(i); got != "NOTIFIED/1" {
				t.Fatalf("timeline %s", got)
			}
		}
		if m.recv.count() != 10 || m.outbox() != 0 {
			t.Fatalf("sent %s", m.recv.log())
		}
	})
}

func TestOldLeaderStopsAtItsFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(string, int) (notify.Answer, time.Duration) { return delivered, 10 * time.Second }, "a")
		m.open(1, "a")
		time.Sleep(time.Second)
		oldStop := m.stop
		m.recv.mu.Lock()
		m.recv.answer = func(string, int) (notify.Answer, time.Duration) { return delivered, time.Minute }
		m.recv.mu.Unlock()
		m.lead() // while the old leader waits for its answer
		time.Sleep(30 * time.Second)
		if m.outbox() != 1 {
			t.Fatal("the old leader deleted an entry under its past fence")
		}
		if err := oldStop(); !errors.Is(err, store.ErrFenced) {
			t.Fatalf("the old Run ended with %v", err)
		}
		time.Sleep(time.Minute)
		if m.outbox() != 0 || m.timeline(1) != "NOTIFIED/1" {
			t.Fatalf("%d owed, %s", m.outbox(), m.timeline(1))
		}
	})
}

func TestEndOfTheReignLetsAnAnswerArrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, func(key string, _ int) (notify.Answer, time.Duration) {
			if key == "i1.OPENED.a" {
				return delivered, 150 * time.Millisecond
			}
			return delivered, time.Hour
		}, "a")
		m.open(1, "a")
		m.open(2, "a")
		time.Sleep(50 * time.Millisecond)
		begun := time.Now()
		_ = m.stop()
		if d := time.Since(begun); d > 250*time.Millisecond {
			t.Fatalf("took %s", d)
		}
		if m.outbox() != 1 || m.timeline(1) != "NOTIFIED/1" || m.timeline(2) != "" {
			t.Fatalf("%d owed, %q, %q", m.outbox(), m.timeline(1), m.timeline(2))
		}
	})
}

func TestEchoOfASettledEntryIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, always(delivered), "a")
		e := owed(1, meshv1.Notification_OPENED, 0, "a")
		m.etcd.SetStarved(true) // the feed will not tell of the deletion
		_, err := m.store.OpenIncident(t.Context(), m.fence, incident(1), []*statev1.OutboxEntry{e}, 0)
		m.ok(err)
		m.n.Put(e)
		time.Sleep(time.Second)
		m.n.Put(e)
		m.n.Replace([]*statev1.OutboxEntry{e}, []*meshv1.Receiver{{Name: "receivers/a"}})
		time.Sleep(time.Minute)
		if got := m.recv.log(); got != e.Id {
			t.Fatalf("sent %q", got)
		}
	})
}

func TestNothingIsSentBeforeTheFirstSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receivers{begun: time.Now(), answer: always(delivered), nths: map[string]int{}}
		n := notify.New(nil, r, notify.Config{})
		n.Put(owed(1, meshv1.Notification_OPENED, 0, "a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := n.Run(ctx, store.Fence{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if r.count() != 0 {
			t.Fatalf("sent %s without knowing its receiver", r.log())
		}
	})
}

func TestFiguresTellOfWhatIsOwedAndHowLongItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := metric.NewManualReader()
		spans := tracetest.NewSpanRecorder()
		r := &receivers{begun: time.Now(), nths: map[string]int{}, answer: func(_ string, nth int) (notify.Answer, time.Duration) {
			if nth < 3 {
				return notify.Answer{Status: 404, Error: "404"}, 0
			}
			return delivered, 0
		}}
		n := notify.New(sink{}, r, notify.Config{Meter: metric.NewMeterProvider(metric.WithReader(reader)).Meter("t"),
			Tracer: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("t")})
		e := owed(1, meshv1.Notification_OPENED, 0, "a")
		e.Notification.TraceId = "0102030405060708090a0b0c0d0e0f10"
		n.Replace([]*statev1.OutboxEntry{e}, []*meshv1.Receiver{{Name: "receivers/a"}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx, store.Fence{}) }()
		time.Sleep(time.Minute)
		if got := figures(t, reader); got != "attempts refused=1; owed 1; oldest 60" {
			t.Errorf("after a minute: %s", got)
		}
		time.Sleep(time.Hour)
		if got := figures(t, reader); got != "attempts delivered=1 refused=2; latency 1x240; owed 0; oldest 0" {
			t.Errorf("at the end: %s", got)
		}
		cancel()
		<-done
		if got := spans.Ended(); len(got) != 3 || got[0].SpanContext().TraceID().String() != e.Notification.TraceId {
			t.Errorf("%d spans", len(got))
		}
	})
}

// sink is a store that takes everything.
type sink struct{}

func (sink) AmendIncident(context.Context, *store.Fence, string, func(*statev1.StoredIncident) error) (store.Versioned[*statev1.StoredIncident], error) {
	return store.Versioned[*statev1.StoredIncident]{}, nil
}
func (sink) UpdateOutbox(context.Context, store.Fence, *statev1.OutboxEntry) error { return nil }
func (sink) SettleOutbox(context.Context, store.Fence, string, string, func(*statev1.StoredIncident) error) error {
	return nil
}

// figures is the metrics as one line.
func figures(t *testing.T, r metric.Reader) string {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	var attempts, latency, owedText, oldest string
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch d := m.Data.(type) {
		case metricdata.Sum[int64]:
			var parts []string
			for _, p := range d.DataPoints {
				v, _ := p.Attributes.Value("outcome")
				parts = append(parts, fmt.Sprintf("%s=%d", v.AsString(), p.Value))
			}
			sort.Strings(parts)
			attempts = "attempts " + strings.Join(parts, " ")
		case metricdata.Histogram[float64]:
			latency = fmt.Sprintf("; latency %dx%.0f", d.DataPoints[0].Count, d.DataPoints[0].Sum)
		case metricdata.Gauge[int64]:
			owedText = fmt.Sprintf("; owed %d", d.DataPoints[0].Value)
		case metricdata.Gauge[float64]:
			oldest = fmt.Sprintf("; oldest %.0f", d.DataPoints[0].Value)
		}
	}
	return attempts + latency + owedText + oldest
}
