package server

import (
	"context"
	"errors"
	"time"

	"github.com/probemesh/probemesh/server/store/embedded"
)

// ErrRestart is what Run returns when the process must begin anew on the same data: its disk was full, the embedded etcd could not go on, and there is room again. What
// the server could close it has closed; the caller replaces the process, which frees what it could not.
var ErrRestart = errors.New("there is room on the disk again: the process must begin anew")

// room is how much must be free before the server begins anew: etcd's next files and some of the history.
const room = 32 << 20

// tendMember waits for the embedded member to fail. When it failed because the disk is full, the server goes on without: probers keep their sessions, votes are counted, what
// is known is answered, and this returns ErrRestart once there is room. Any other failure ends the server.
func (s *Server) tendMember(ctx context.Context) error {
	err := s.member.Wait(ctx)
	if !errors.Is(err, embedded.ErrNoSpace) {
		return ended(err)
	}
	if _, known := freeBytes(s.cfg.Data); !known {
		return err
	}
	s.full.Store(true)
	s.log.Error("the disk is full and etcd cannot write: nothing is opened, resolved or sent until there is room; then this server begins anew", "dir", s.cfg.Data,
		"needed_bytes", room, "err", err)
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if free, _ := freeBytes(s.cfg.Data); free >= room {
			s.log.Warn("there is room on the disk again; this server begins anew", "dir", s.cfg.Data, "free_bytes", free)
			return ErrRestart
		}
	}
}
