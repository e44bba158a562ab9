package breakglass

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

// lostEtcd is a pulse, and a mesh of one server, without etcd.
type lostEtcd struct{ ready chan struct{} }

func (lostEtcd) Lost() (time.Time, bool)                 { return time.Now().Add(-10 * time.Second), true }
func (lostEtcd) Answered() bool                          { return true }
func (lostEtcd) Apply(...scheduler.Event)                {}
func (l lostEtcd) Ready() <-chan struct{}                { return l.ready }
func (lostEtcd) Term() int64                             { return 1 }
func (lostEtcd) Applied() int64                          { return 0 }
func (lostEtcd) OpenAfter(int64) []*peerv1.KnownIncident { return nil }

func (lostEtcd) ClosedAfter(int64) []*peerv1.ClosedIncident { return nil }
func (lostEtcd) Others() []Peer                             { return nil }

func TestDiskThatHangsHoldsUpNeitherMessagesNorBeatsNorTheMind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := lostEtcd{ready: make(chan struct{})}
		sent := make(chan string, 10)
		g, err := New(Config{Server: "a", Dir: t.TempDir()}, Deps{Pulse: etcd, Send: func(_ context.Context, _ *meshv1.Receiver, key string, _ *meshv1.Notification) Answer {
			sent <- key
			return Answer{Delivered: true}
		}})
		if err != nil {
			t.Fatal(err)
		}
		mend := make(chan struct{})
		hangs := make(chan struct{}, 10)
		g.save = func(string, []*peerv1.Outage) error {
			hangs <- struct{}{}
			<-mend
			return nil
		}
		g.receivers = []*meshv1.Receiver{{Name: "receivers/pager"}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			_ = g.Run(ctx, etcd)
			close(done)
		}()
		g.Take(wish(1))
		<-hangs // the first message is delivered, and is being written down
		g.Take(wish(2))
		b := &peerv1.Beat{}
		g.Fill(b)
		if len(b.GetOutages()) == 0 {
			t.Error("a beat says nothing of the outage")
		}
		time.Sleep(20 * time.Second)
		if len(sent) != 2 {
			t.Errorf("%d messages were sent while the disk hung, want 2", len(sent))
		}
		cancel()
		begin := time.Now()
		<-done
		if took := time.Since(begin); took > 2*patience {
			t.Errorf("the end waited %s for a disk that hangs", took)
		}
		close(mend)
	})
}
