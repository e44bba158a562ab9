package store_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probemesh/probemesh/internal/etcdfake"
	"github.com/probemesh/probemesh/server/store"
)

func TestPulseTellsSinceWhenEtcdHasHadNoQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		etcd := etcdfake.New(t)
		p := store.NewPulse(store.New(etcd.Client(t), store.Options{}).Ready, nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = p.Run(ctx) }()
		time.Sleep(5 * time.Second)
		if _, lost := p.Lost(); lost || !p.Answered() {
			t.Fatal("an etcd that answers counts as lost")
		}
		begun := time.Now()
		etcd.SetLeaderless(true)
		time.Sleep(1500 * time.Millisecond)
		if _, lost := p.Lost(); lost {
			t.Fatal("one failed read counts as the loss of etcd")
		}
		time.Sleep(2500 * time.Millisecond)
		since, lost := p.Lost()
		if !lost || since.Before(begun) || since.After(begun.Add(2*time.Second)) {
			t.Fatalf("lost %v since %s after the quorum went", lost, since.Sub(begun))
		}
		etcd.SetLeaderless(false)
		time.Sleep(2500 * time.Millisecond)
		if _, lost := p.Lost(); lost {
			t.Fatal("etcd answers and still counts as lost")
		}
		cancel()
		<-done
	})
}

func TestProcessThatStoodStillHasNotLostEtcd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		p := store.NewPulse(func(ctx context.Context) error {
			if reads++; reads == 2 {
				time.Sleep(time.Minute) // nothing of this process runs
			}
			return ctx.Err()
		}, nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = p.Run(ctx) }()
		time.Sleep(time.Minute + time.Second + 50*time.Millisecond)
		if since, lost := p.Lost(); lost || reads != 2 {
			t.Errorf("after %d reads etcd counts as lost since %s", reads, since)
		}
		cancel()
		<-done
	})
}
