package health_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/health"
	"github.com/probemesh/probemesh/server/peer"
	"github.com/probemesh/probemesh/server/store"
)

// world is what a monitor of server a looks at: a test changes it.
type world struct {
	mu         sync.Mutex // guards everything below
	standing   health.Standing
	etcd       error
	outbox     []store.Versioned[*statev1.OutboxEntry]
	outboxLost bool
	records    []*statev1.ServerRecord
	views      []peer.View
	silent     map[string]bool
	probers    []*meshv1.Prober
	members    []health.Member

	*health.Monitor
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func locked[T any](w *world, f func() T) func() T {
	return func() T {
		w.mu.Lock()
		defer w.mu.Unlock()
		return f()
	}
}

func (w *world) Ready(context.Context) error                 { return locked(w, func() error { return w.etcd })() }
func (w *world) WriteLatency(time.Time) (time.Duration, int) { return time.Millisecond, 10 }

func (w *world) ListOutbox(context.Context) ([]store.Versioned[*statev1.OutboxEntry], int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.outboxLost {
		return nil, 0, errors.New("no answer")
	}
	return w.outbox, 1, w.etcd
}

func (w *world) GetIncident(context.Context, string) (store.Versioned[*statev1.StoredIncident], error) {
	return store.Versioned[*statev1.StoredIncident]{Value: &statev1.StoredIncident{Incident: &meshv1.Incident{Timeline: []*meshv1.TimelineEntry{
		{Event: meshv1.TimelineEntry_NOTIFICATION_FAILED, Receiver: "receivers/ops", Text: "503 Service Unavailable; tried again in 3s"}}}}}, nil
}

func (w *world) ListReceivers(context.Context, string, int) ([]*meshv1.Receiver, int64, error) {
	return []*meshv1.Receiver{{Name: "receivers/dev"}, {Name: "receivers/ops", MeshIncidents: true}}, 1, nil
}

// peers are the views of servers b and c, heard just now unless a test has silenced them.
func (w *world) peers() []peer.View {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, hears := time.Now(), int32(0)
	for _, p := range w.probers {
		if p.GetState() == meshv1.Prober_ONLINE {
			hears++
		}
	}
	for i := range w.views {
		if !w.silent[w.views[i].Server] {
			w.views[i].Heard = now
			w.views[i].Beat = &peerv1.Beat{Time: timestamppb.New(now), Leader: "servers/a", Term: 3, Hears: hears, Revision: 50}
		}
	}
	return append([]peer.View(nil), w.views...)
}

func watch(t *testing.T) *world { return watchFor(t, 20*time.Second, func(*world) {}) }

// watchFor prepares a world and lets a monitor watch it for so long.
func watchFor(t *testing.T, long time.Duration, prepare func(*world)) *world {
	w := &world{standing: health.Standing{Leader: "servers/a", Term: 3, Leading: true, Sessions: 1, Revision: 50}, silent: map[string]bool{}}
	for _, n := range []string{"a", "b", "c"} {
		w.records = append(w.records, &statev1.ServerRecord{Name: "servers/" + n, Datacenter: "dc-" + n, Version: "1"})
		w.members = append(w.members, health.Member{Name: n, Healthy: true})
		w.probers = append(w.probers, &meshv1.Prober{Name: "probers/" + n, Datacenter: "dc-" + n, State: meshv1.Prober_ONLINE, InSync: true})
		if n != "a" {
			w.views = append(w.views, peer.View{Server: "servers/" + n, Datacenter: "dc-" + n, Since: time.Now()})
		}
	}
	prepare(w)
	var err error
	w.Monitor, err = health.New(health.Config{Server: "servers/a", Datacenter: "dc-a", Version: "1", Embedded: true}, health.Sources{
		Standing: locked(w, func() health.Standing { return w.standing }), Servers: locked(w, func() []*statev1.ServerRecord { return w.records }),
		Probers: locked(w, func() []*meshv1.Prober { return w.probers }), Checks: func() health.Checks { return health.Checks{Total: 3} }, Views: w.peers, Store: w,
		Members: func(context.Context) ([]health.Member, []string, error) {
			return locked(w, func() []health.Member { return w.members })(), nil, nil
		},
	}, health.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	pass(long)
	return w
}

func pass(d time.Duration) {
	time.Sleep(d) // in a bubble: no time passes
	synctest.Wait()
}

func (w *world) codes() string { return strings.Join(told(w.Mesh().GetConditions()), ", ") }

func TestAMonitorSaysThatAllIsWellAndThatItMayTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		m := w.Mesh()
		if m.GetState() != meshv1.Mesh_HEALTHY || len(m.GetServers()) != 3 || len(m.GetDatacenters()) != 3 || w.codes() != "" {
			t.Errorf("%v", m)
		}
		if err := w.MayTell(time.Now(), time.Minute); err != nil {
			t.Error(err)
		}
	})
}

func TestAllIsWellIsNotSaidBeforeItIsKnown(t *testing.T) {
	fresh := func(prepare func(w *world)) (summary string) {
		synctest.Test(t, func(t *testing.T) {
			w := watchFor(t, time.Second, prepare)
			if s := w.Mesh().GetState(); s == meshv1.Mesh_HEALTHY != strings.HasPrefix(w.Mesh().GetSummary(), "All is well") {
				t.Errorf("%v: %s", s, w.Mesh().GetSummary())
			}
			summary = w.Mesh().GetSummary()
		})
		return summary
	}
	for want, prepare := range map[string]func(*world){
		"All is well: ":         func(*world) {},
		"has not been read yet": func(w *world) { w.outboxLost = true },
		"none of 3 probers that ": func(w *world) {
			for _, p := range w.probers {
				p.State = meshv1.Prober_OFFLINE
			}
		},
	} {
		if got := fresh(prepare); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestAServerThatDiedIsMissedAsLongAsItsMemberIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		w.change(func() { w.silent["servers/c"] = true })
		pass(15 * time.Second)
		// Its lease runs out, its record goes, and the stream to it is given up.
		w.change(func() { w.records, w.views = w.records[:2], w.views[:1]; w.members[2].Healthy = false })
		pass(2 * time.Hour)
		if got := w.codes(); got != "SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN" {
			t.Errorf("two hours later: %s", got)
		}
		if s := w.Mesh().GetServers()[2]; s.GetSilence().AsDuration() < 2*time.Hour || s.GetDatacenter() != "dc-c" {
			t.Errorf("server c is %v", s)
		}
		w.change(func() { w.members = w.members[:2] })
		pass(20 * time.Second)
		if got := w.codes(); got != "" {
			t.Errorf("after its member was removed: %s", got)
		}
	})
}

func TestTheSwitchIsNotToldWhileAlertsMayNotCome(t *testing.T) {
	for name, c := range map[string]struct {
		make func(*world)
		says string
	}{
		"it does not lead":       {func(w *world) { w.standing.Leading = false }, "does not lead"},
		"etcd does not answer":   {func(w *world) { w.etcd = errors.New("no") }, "etcd has not answered"},
		"most datacenters gone":  {func(w *world) { w.probers[1].State, w.probers[2].State = meshv1.Prober_OFFLINE, meshv1.Prober_OFFLINE }, "1 of 3 datacenters"},
		"nothing is sent":        {func(w *world) { owe(w, "ops", 0) }, "owed for"},
		"every receiver fails":   {func(w *world) { owe(w, "ops", 3); owe(w, "dev", 2) }, "owed for"},
		"one of two fails: told": {func(w *world) { owe(w, "ops", 3) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := watch(t)
				w.change(func() { c.make(w) })
				pass(2 * time.Minute)
				err := w.MayTell(time.Now(), time.Minute)
				switch {
				case c.says == "" && err != nil:
					t.Error(err)
				case c.says != "" && (!errors.Is(err, health.ErrMayNotTell) || !strings.Contains(err.Error(), c.says)):
					t.Errorf("it may, or says %v, want something about %q; conditions %s", err, c.says, w.codes())
				}
			})
		})
	}
}

// owe puts a notification into the outbox, with so many failed attempts.
func owe(w *world, receiver string, attempts int32) {
	w.outbox = append(w.outbox, store.Versioned[*statev1.OutboxEntry]{Value: &statev1.OutboxEntry{Id: receiver, CreateTime: timestamppb.Now(), Attempts: attempts,
		Notification: &meshv1.Notification{Receiver: "receivers/" + receiver, Incident: "incidents/x"}}})
}

func TestTheLastErrorOfAReceiverIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		w.change(func() { owe(w, "ops", 2) })
		pass(30 * time.Second)
		c := w.Mesh().GetConditions()
		if len(c) != 1 || c[0].GetSummary() != "ops does not take what it is sent: 503 Service Unavailable." {
			t.Errorf("%v", c)
		}
	})
}

func TestALeaderThatIsNotHeardIsNotNamedWhileEtcdIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := watch(t)
		w.change(func() {
			w.standing.Leading, w.standing.Leader = false, "servers/b"
			w.silent["servers/b"], w.etcd = true, errors.New("no")
		})
		pass(30 * time.Second)
		if m := w.Mesh(); m.GetLeader() != "" || !strings.Contains(w.codes(), "ETCD_LOST > NO_LEADER") {
			t.Errorf("leader %q, conditions %s", m.GetLeader(), w.codes())
		}
	})
}
