package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/breakglass"
	"github.com/probemesh/probemesh/server/controller"
	"github.com/probemesh/probemesh/server/store"
)

// assembleGlass makes what knows that etcd is lost, and what is done then.
func (s *Server) assembleGlass() (err error) {
	log := s.log
	if len(s.cfg.Etcd) > 0 {
		log = log.With("etcd", strings.Join(s.cfg.Etcd, ",")) // who reads that it does not answer looks there first
	}
	s.pulse = store.NewPulse(s.store.Ready, log, s.tel.Meter(meterName+"/pulse"))
	s.glass, err = breakglass.New(breakglass.Config{Server: s.cfg.Name, Dir: s.cfg.Data, File: s.cfg.BreakGlass}, breakglass.Deps{
		Pulse: s.pulse, Closed: s.store.ClosedOutages, Log: s.log, Meter: s.tel.Meter(meterName + "/breakglass"),
		Send: func(ctx context.Context, r *meshv1.Receiver, key string, n *meshv1.Notification) breakglass.Answer {
			delivered, problem := s.notify.SendOnce(ctx, r, key, n)
			return breakglass.Answer{Delivered: delivered, Problem: problem}
		},
	})
	if err != nil {
		return fmt.Errorf("break-glass: %w", err)
	}
	return nil
}

// glassMesh is the mesh as breakglass sees it.
type glassMesh struct {
	*controller.Controller
	s *Server
}

// Others are the other servers, with what is heard of them.
func (g glassMesh) Others() []breakglass.Peer {
	now := time.Now()
	var list []breakglass.Peer
	for _, v := range g.s.peers.Views() {
		list = append(list, breakglass.Peer{Server: v.Server, Heard: v.Beat != nil && !v.Missed(now), Beat: v.Beat})
	}
	return list
}
