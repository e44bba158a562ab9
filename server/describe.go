package server

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/health"
)

// describe fills in what this server has heard of another one, or knows of itself.
func (s *Server) describe(v *meshv1.Server) {
	v.Leader = v.Leader && s.leader().Leader == v.GetName()
	describe(v, s.monitor.Facts().Servers, time.Now())
}

// missed are those of all that are not heard.
func missed(all []health.Server, now time.Time) (list []*meshv1.Server) {
	for _, x := range all {
		if !x.Self && x.Silence > 0 {
			list = append(list, &meshv1.Server{Name: x.Name, Datacenter: x.Datacenter, Version: x.Version, GrpcAddress: x.GRPC, HttpAddress: x.HTTP, SilentTime: timestamppb.New(now.Add(-x.Silence))})
		}
	}
	return list
}

// describe fills in what all, of which one is the server that answers, say of a server.
func describe(v *meshv1.Server, all []health.Server, now time.Time) {
	i := slices.IndexFunc(all, func(x health.Server) bool { return x.Name == v.GetName() })
	if i < 0 {
		return // it has come since the last look
	}
	x := all[i]
	v.Heard = x.Silence == 0
	if !v.Heard {
		v.SilentTime = timestamppb.New(now.Add(-x.Silence))
	}
	if !x.Beat {
		return
	}
	v.Sessions, v.Hears, v.Revision, v.HistoryLag = int32(x.Sessions), int32(x.Hears), x.Revision, x.HistoryLag
	if !x.Self {
		v.ClockOffset = durationpb.New(x.ClockOffset)
	}
	newest := int64(0)
	for _, y := range all {
		newest = max(newest, y.Revision)
		if y.Name == x.Name {
			continue
		}
		p := &meshv1.ServerPeer{Server: y.Name, Heard: !slices.Contains(x.Misses, y.Name)}
		if x.Self && !p.Heard {
			p.Silence, p.Refused = durationpb.New(y.Silence), y.Refused
		}
		v.Peers = append(v.Peers, p)
	}
	v.RevisionLag = newest - x.Revision
}
