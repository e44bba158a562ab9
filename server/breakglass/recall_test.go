package breakglass

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// soundEtcd is an etcd that works, and a mind that remembers which outages it was told are over.
type soundEtcd struct {
	lostEtcd
	mu   *sync.Mutex
	over *[]string
}

func (soundEtcd) Lost() (time.Time, bool) { return time.Time{}, false }
func (soundEtcd) Answered() bool          { return true }

func (e soundEtcd) Apply(events ...scheduler.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range events {
		if o, yes := x.(scheduler.OutageOver); yes {
			*e.over = append(*e.over, o.Check+" "+o.Key)
		}
	}
}

func (e soundEtcd) told() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(*e.over)
}

// A store that cannot list its incidents for a minute after the start is asked again, and the oldest outages are told of first: the mind remembers the last.
func TestOutagesThatAreOverAreReadAlsoWhenThatFailsAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := soundEtcd{lostEtcd{ready: make(chan struct{})}, &sync.Mutex{}, &[]string{}}
		close(etcd.ready)
		begun, reads := time.Now(), atomic.Int32{}
		g, err := New(Config{Server: "a", Dir: t.TempDir()}, Deps{Pulse: etcd, Closed: func(context.Context) ([]*meshv1.Incident, error) {
			if reads.Add(1); time.Since(begun) < time.Minute {
				return nil, errors.New("too slow")
			}
			return []*meshv1.Incident{
				{Check: "checks/web", BreakGlassKey: "outage-f"},
				{Check: "checks/shop", BreakGlassKey: "outage-e", Timeline: []*meshv1.TimelineEntry{{Event: meshv1.TimelineEntry_BREAK_GLASS, Text: "under the key x (of outage outage-d)."}}},
				{Check: "checks/shop", BreakGlassKey: "outage-a"},
			}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		g.Begin(etcd)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			_ = g.Run(ctx, etcd)
			close(done)
		}()
		time.Sleep(settleFor + time.Second)
		early := reads.Load()
		time.Sleep(2 * time.Minute)
		cancel()
		<-done
		if want := []string{"checks/web outage-f", "checks/shop outage-e", "checks/shop outage-d", "checks/shop outage-a"}; !slices.Equal(etcd.told(), want) {
			t.Errorf("told of %q, want %q", etcd.told(), want)
		}
		if late := reads.Load() - early; late > 3 {
			t.Errorf("it was read %d times in two minutes", late)
		}
	})
}
