package api

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// watcher keeps what a watch of statuses says.
type watcher struct {
	mu     sync.Mutex // guards everything below
	view   map[string]meshv1.CheckStatus_Verdict
	synced bool
	err    error
}

func (w *world) watch(filter string) (*watcher, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := w.statuses.WatchStatuses(ctx, &meshv1.WatchStatusesRequest{Filter: filter})
	if err != nil {
		w.t.Fatal(err)
	}
	v := &watcher{view: map[string]meshv1.CheckStatus_Verdict{}}
	go func() {
		for {
			r, err := stream.Recv()
			v.mu.Lock()
			switch {
			case err != nil:
				v.err = err
				v.mu.Unlock()
				return
			case r.Synced:
				v.synced = true
			case r.Removed:
				delete(v.view, r.Status.Check)
			default:
				v.view[r.Status.Check] = r.Status.Verdict
			}
			v.mu.Unlock()
		}
	}()
	return v, cancel
}

func (v *watcher) state() (view map[string]meshv1.CheckStatus_Verdict, synced bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	view = map[string]meshv1.CheckStatus_Verdict{}
	for k, x := range v.view {
		view[k] = x
	}
	return view, v.synced, v.err
}

// Watches that begin in the middle of changes end with the same view as the mesh itself.
func TestAWatchHasNoGap(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 20 {
			w.create(&meshv1.Check{Name: fmt.Sprintf("c%02d", i), Uri: "tcp://a.example.com:1"})
		}
		verdicts := []meshv1.CheckStatus_Verdict{meshv1.CheckStatus_UP, meshv1.CheckStatus_DOWN, meshv1.CheckStatus_UNKNOWN}
		var writers sync.WaitGroup
		for worker := range 4 {
			writers.Go(func() {
				for i := range 300 {
					name := fmt.Sprintf("checks/c%02d", (i*7+worker)%20)
					w.mesh.decide(name, verdicts[(i+worker)%3])
					if i%10 == 0 {
						extra := &meshv1.Check{Name: fmt.Sprintf("checks/x%d-%d", worker, i%50), Uri: "tcp://a.example.com:1"}
						if _, err := w.store.CreateCheck(context.Background(), extra); err != nil {
							_ = w.store.DeleteCheck(context.Background(), extra.Name, "") // it was there: now it goes
						}
					}
				}
			})
		}
		var all, down []*watcher
		for range 5 {
			v, cancel := w.watch("")
			defer cancel()
			d, cancelDown := w.watch("verdict = DOWN")
			defer cancelDown()
			all, down = append(all, v), append(down, d)
			time.Sleep(time.Millisecond) // of the bubble: lets the writers run
		}
		writers.Wait()
		synctest.Wait()
		truth, truthDown := map[string]meshv1.CheckStatus_Verdict{}, map[string]meshv1.CheckStatus_Verdict{}
		w.mesh.EachStatus("", func(s *meshv1.CheckStatus) bool {
			truth[s.Check] = s.Verdict
			if s.Verdict == meshv1.CheckStatus_DOWN {
				truthDown[s.Check] = s.Verdict
			}
			return true
		})
		for i := range all {
			if view, synced, err := all[i].state(); !synced || err != nil || fmt.Sprint(view) != fmt.Sprint(truth) {
				t.Errorf("watch %d: synced %v, %v\n got %v\nwant %v", i, synced, err, view, truth)
			}
			if view, synced, err := down[i].state(); !synced || err != nil || fmt.Sprint(view) != fmt.Sprint(truthDown) {
				t.Errorf("watch %d of what is down: synced %v, %v\n got %v\nwant %v", i, synced, err, view, truthDown)
			}
		}
	})
}

func TestACheckThatLeavesTheFilterIsRemoved(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(check("shop"))
		synctest.Wait()
		v, cancel := w.watch("verdict = UP")
		defer cancel()
		synctest.Wait()
		if view, synced, err := v.state(); len(view) != 1 || !synced || err != nil {
			t.Fatalf("snapshot %v, %v, %v", view, synced, err)
		}
		w.mesh.decide("checks/shop", meshv1.CheckStatus_DOWN)
		synctest.Wait()
		if view, _, _ := v.state(); len(view) != 0 {
			t.Errorf("still %v", view)
		}
		w.mesh.decide("checks/shop", meshv1.CheckStatus_UP)
		synctest.Wait()
		if view, _, _ := v.state(); len(view) != 1 {
			t.Errorf("not back: %v", view)
		}
		if _, err := w.checks.DeleteCheck(context.Background(), &meshv1.DeleteCheckRequest{Name: "shop"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if view, _, _ := v.state(); len(view) != 0 {
			t.Errorf("deleted, and still %v", view)
		}
	})
}

// A client that does not read is ended within the limit, and costs the server nothing afterwards; a client that reads is not disturbed by it.
func TestASlowWatcherIsEnded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.create(check("shop"))
		synctest.Wait()
		w.mesh.mu.Lock()
		w.mesh.summary = strings.Repeat("x", 100_000)
		w.mesh.mu.Unlock()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		slow, err := w.statuses.WatchStatuses(ctx, &meshv1.WatchStatusesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		quick, stop := w.watch("")
		defer stop()
		synctest.Wait()
		begin := time.Now()
		for i := 0; w.mesh.statuses.subscribers() > 1; i++ {
			w.mesh.decide("checks/shop", meshv1.CheckStatus_Verdict(1+i%3))
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if took := time.Since(begin); took < lagLimit || took > lagLimit+5*time.Second {
			t.Errorf("ended after %s, want about %s", took, lagLimit)
		}
		for err == nil {
			_, err = slow.Recv()
		}
		if e := want(t, err, meshv1.ErrorReason_WATCH_LAGGED); e.Code != codes.DataLoss {
			t.Errorf("code %s", e.Code)
		}
		if _, synced, err := quick.state(); !synced || err != nil {
			t.Errorf("the quick watcher: %v, %v", synced, err)
		}
	})
}

func TestStopEndsWatchesAndRefusesNewOnes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		v, cancel := w.watch("")
		defer cancel()
		synctest.Wait()
		w.api.Stop()
		synctest.Wait()
		_, _, err := v.state()
		if e := want(t, err, meshv1.ErrorReason_SHUTTING_DOWN); e.Code != codes.Unavailable {
			t.Errorf("code %s", e.Code)
		}
		late, cancelLate := w.watch("")
		defer cancelLate()
		synctest.Wait()
		_, _, err = late.state()
		want(t, err, meshv1.ErrorReason_SHUTTING_DOWN)
		if n := w.mesh.statuses.subscribers(); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
}

func TestACancelledWatchLeavesNothingBehind(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, cancel := w.watch("")
		synctest.Wait()
		cancel()
		synctest.Wait()
		if n := w.mesh.statuses.subscribers(); n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
	})
}
