package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/version"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/deadman"
	"github.com/probemesh/probemesh/server/health"
)

// assembleHealth makes the monitor of the mesh's own health, and the dead man's switch that it governs.
func (s *Server) assembleHealth() (err error) {
	s.cluster = health.NewCluster(s.client, s.member != nil)
	s.monitor, err = health.New(health.Config{
		Server: spec.Name(spec.Servers, s.cfg.Name), Datacenter: s.cfg.Datacenter, Version: version.Build(), Embedded: s.member != nil,
	}, health.Sources{
		Standing: s.standing, Servers: s.mesh.Records, Probers: s.mesh.Probers, Checks: s.unjudged, Views: s.peers.Views, Store: s.store, Members: s.cluster.Members,
		HistoryFailed: func() bool { return !s.hist.Available() }, Disk: s.disk, Uncommitted: s.uncommitted, DeadMan: s.deadManState, TurnedAway: s.turnedAway,
	}, health.Deps{Log: s.log, Meter: s.tel.Meter(meterName + "/health")})
	if err != nil {
		return err
	}
	if s.cfg.DeadMan.URL == "" {
		return nil
	}
	d := s.cfg.DeadMan
	s.deadMan, err = deadman.New(deadman.Config{
		URL: d.URL, Method: d.Method, Interval: d.Interval, Leads: func() bool { return s.mesh.Server().Leading },
		May: func(now time.Time) error { return s.monitor.MayTell(now, s.deadMan.Interval()) }, Body: s.deadManBody,
	}, deadman.Deps{Log: s.log, Meter: s.tel.Meter(meterName + "/deadman")})
	return err
}

// standing is what the controller knows of this server and of who leads.
func (s *Server) standing() health.Standing {
	i := s.mesh.Server()
	return health.Standing{Leader: i.Leader, Term: i.Term, Leading: i.Leading, Sessions: i.Sessions, Revision: i.Revision}
}

// turnedAway are the processes that say they are probers and are refused.
func (s *Server) turnedAway() []health.TurnedAway {
	var all []health.TurnedAway
	for _, x := range s.gate.TurnedAway(time.Now()) {
		from := ""
		if x.Address.IsValid() {
			from = x.Address.String()
		}
		all = append(all, health.TurnedAway{Prober: x.Prober, BootID: x.BootID, Datacenter: x.Datacenter, Build: x.Build, Address: from,
			Twin: x.Reason == meshv1.ErrorReason_PROBER_NAME_TAKEN, Why: x.Why, First: x.First, Last: x.Last})
	}
	return all
}

func (s *Server) unjudged() health.Checks {
	u := s.mesh.Unjudged()
	return health.Checks{Total: u.Total, Blind: u.Blind, Silent: u.Silent, Aside: u.Aside, Forbidden: u.Forbidden, ForbiddenBy: u.ForbiddenBy, Unsatisfiable: u.Unsatisfiable}
}

// disk is that of the data directory.
func (s *Server) disk() health.Disk {
	d := health.Disk{Full: s.full.Load()}
	d.Free, d.Known = freeBytes(s.cfg.Data)
	d.Stall = s.succ.DiskStall()
	return d
}

// uncommitted is how long the oldest write of this server's reign has been waiting for etcd, as its beats say it.
func (s *Server) uncommitted() time.Duration {
	var b peerv1.Beat
	s.succ.Fill(&b)
	return b.GetUncommitted().AsDuration()
}

func (s *Server) deadManState() health.DeadMan {
	if s.deadMan == nil {
		return health.DeadMan{}
	}
	st := s.deadMan.State()
	return health.DeadMan{Configured: true, Interval: s.deadMan.Interval(), FailingSince: st.FailingSince, Error: st.Error, Told: st.Told}
}

// deadManBody is what whoever listens outside may want to keep: who says it, and how the mesh is.
func (s *Server) deadManBody() []byte {
	m := s.monitor.Mesh()
	if info := s.mesh.Server(); m.GetLeader() == "" && info.Leading {
		// At the very start of a reign the monitor has not looked again yet.
		m.Leader, m.Term, m.Summary = info.Name, info.Term, ""
	}
	short := &meshv1.Mesh{Server: m.GetServer(), Time: m.GetTime(), State: m.GetState(), Summary: m.GetSummary(), Leader: m.GetLeader(), Term: m.GetTerm(), Owed: m.GetOwed()}
	for _, c := range m.GetConditions() {
		if c.GetCausedBy() == 0 {
			short.Conditions = append(short.Conditions, &meshv1.Condition{Code: c.GetCode(), Severity: c.GetSeverity(), Summary: c.GetSummary(), Since: c.GetSince()})
		}
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(short)
	if err != nil {
		b, _ = json.Marshal(map[string]string{"server": m.GetServer()}) // a message of our own always encodes
	}
	return b
}

// warnings are the conditions of the mesh as lines for people, those that follow from another indented below it. What /readyz says by itself is left out.
func (s *Server) warnings() []string {
	var list []string
	depth := map[meshv1.Condition_Code]int{}
	said := map[meshv1.Condition_Code]bool{}
	for _, c := range s.conditions() {
		if !c.ok {
			said[c.code] = true
		}
	}
	for _, c := range s.monitor.Mesh().GetConditions() {
		cause, below := depth[c.GetCausedBy()]
		if c.GetCausedBy() != 0 && below {
			depth[c.GetCode()] = cause + 1
		} else {
			depth[c.GetCode()] = 0
		}
		if said[c.GetCode()] {
			continue
		}
		line := fmt.Sprintf("%s %s: %s %s", c.GetSeverity(), c.GetCode(), c.GetSummary(), c.GetRemedy())
		if n := depth[c.GetCode()]; n > 0 {
			line = fmt.Sprintf("%sfollows: %s: %s", strings.Repeat("  ", n), c.GetCode(), c.GetSummary())
		}
		list = append(list, line)
	}
	return list
}
