package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/probemesh/probemesh/internal/rpc"
)

// handOver is how long everything else goes on, at most, while a server that stops gives up leading: resigning takes milliseconds unless etcd hangs.
const handOver = 300 * time.Millisecond

// lastWords is how long a server that has resigned goes on telling the others how it is: the time of a beat.
const lastWords = 50 * time.Millisecond

// leaveBehind is how long parts that wait for a member that stands still may take to end after calls under way had their time: none that does not wait for it needs as much.
const leaveBehind = time.Second

// serve is the one list of what runs. The first part that fails ends all of them. They stop in three steps: a leader resigns when stop ends, so that another decides
// before anything else is given up; then what talks to users and probers ends, which is what ctx, ended by end, is for; and only then what those calls still need.
func (s *Server) serve(stop, ctx context.Context, end context.CancelFunc) error {
	base, stopBase := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBase()
	ground, base := errgroup.WithContext(base)
	ground.Go(func() error { return s.mesh.Serve(base) })
	ground.Go(func() error { return s.hist.Run(base) })
	s.glass.Begin(glassMesh{s.mesh, s})
	ground.Go(func() error { return s.pulse.Run(base) })
	ground.Go(func() error { return s.glass.Run(base, glassMesh{s.mesh, s}) })

	front, ctx := errgroup.WithContext(ctx)
	lead, endLead := context.WithCancel(ctx)
	defer endLead()
	// The other servers are told before anything is given up that this one stops, and it goes on telling how it is until the end.
	defer context.AfterFunc(stop, func() {
		s.succ.Stop()
		endLead()
		time.AfterFunc(handOver, end)
	})()
	ground.Go(func() error { return s.succ.Run(base, s.elect, s.peers) })
	talk, hush := context.WithCancel(context.WithoutCancel(ctx))
	defer hush()
	front.Go(func() error { return s.peers.Run(talk, s.mesh) })
	front.Go(func() error {
		err := ended(s.elect.Run(lead, s.mesh.Lead))
		end()
		// The streams to the other servers must end before the gRPC server can stop gracefully; that this one leads no more is the last that they say.
		s.peers.Beat()
		time.AfterFunc(lastWords, hush)
		return err
	})
	front.Go(func() error { return ended(s.store.KeepServer(ctx, s.record(), s.cfg.LeaseTTL)) })
	front.Go(func() error { return rpc.Serve(ctx, s.rpc, s.health, s.grpcL, s.cfg.StopTimeout) })
	front.Go(func() error { return s.serveHTTP(ctx) })
	front.Go(func() error { return s.monitor.Run(ctx) })
	if s.deadMan != nil {
		front.Go(func() error { return s.deadMan.Run(ctx) })
	}
	if s.member != nil {
		// An etcd that has ended, such as after a disk error, does not come back in this process: better to be started anew than to serve what is no longer true.
		front.Go(func() error { return s.tendMember(ctx) })
		front.Go(func() error {
			s.member.Tend(ctx)
			return nil
		})
	}
	front.Go(func() error {
		// Watches wait for changes for ever: they must end before the gRPC server can stop gracefully.
		<-ctx.Done()
		s.api.Stop()
		return nil
	})
	front.Go(func() error {
		s.awaitReady(ctx)
		return nil
	})
	front.Go(func() error {
		select {
		case <-base.Done():
			return fmt.Errorf("a part that all others need has ended: %w", context.Cause(base))
		case <-ctx.Done():
			return nil
		}
	})
	done := make(chan error, 1)
	go func() {
		err := front.Wait()
		stopBase()
		done <- errors.Join(err, ended(ground.Wait()))
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	if !s.full.Load() {
		return <-done
	}
	// A member whose disk was full holds its locks for ever, and a call to it heeds no context: who is in one is left behind, since the process ends with this server.
	select {
	case err := <-done:
		return err
	case <-time.After(s.cfg.StopTimeout + leaveBehind):
	}
	s.log.Warn("parts of this server wait for its etcd member, which stands still since the disk was full; they are left behind")
	return ended(context.Cause(ctx))
}

// awaitReady closes Ready when every condition of readiness holds for the first time.
func (s *Server) awaitReady(ctx context.Context) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		ok := true
		for _, c := range s.conditions() {
			ok = ok && c.ok
		}
		if ok {
			close(s.ready)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// ended turns the end of a context into a clean end.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// serveHTTP serves operators and Grafana until ctx ends.
func (s *Server) serveHTTP(ctx context.Context) error {
	srv := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(s.httpL) }()
	select {
	case err := <-done:
		return fmt.Errorf("http listener: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.StopTimeout)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		srv.Close()
	}
	<-done
	return nil
}
