package server

import (
	"path/filepath"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/server/members"
	"github.com/probemesh/probemesh/server/succession"
)

// assembleSuccession makes the part that moves leadership.
func (s *Server) assembleSuccession() (err error) {
	dirs := []string{s.cfg.Data}
	if s.member != nil {
		dirs = append(dirs, filepath.Join(s.cfg.Data, "etcd")) // often a disk of its own
	}
	s.succ, err = succession.New(succession.Config{Server: spec.Name(spec.Servers, s.cfg.Name), Unassisted: s.cfg.Unassisted, Dirs: dirs}, succession.Deps{
		Hears: s.mesh.Hears, Uncommitted: s.store.Uncommitted, Read: s.store.Ready, Log: s.log, Meter: s.tel.Meter(meterName + "/succession"),
	})
	return err
}

// assembleMembers makes the service that changes etcd's members.
func (s *Server) assembleMembers() {
	lead := func() uint64 { return 0 }
	if s.member != nil {
		lead = s.member.ClusterLeader
	}
	members.New(s.client, s.member == nil, lead, s.log).Register(s.rpc)
}
