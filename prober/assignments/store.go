package assignments

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// saveDelay gathers changes before the file is written; retryDelay is the pause after a write that failed.
const (
	saveDelay  = 2 * time.Second
	retryDelay = 30 * time.Second
)

// fileMagic begins the file; CRC-32C (4 bytes) and an encoded AssignmentUpdate follow.
const fileMagic = "PMASSGN1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Store is a Set that is kept in a file. Safe for concurrent use.
type Store struct {
	path string
	log  *slog.Logger
	kick chan struct{}

	mu  sync.Mutex // guards everything below
	set *Set
}

// Open reads the file, when there is one. The error says that it exists and cannot be read or set aside.
func Open(path string, log *slog.Logger) (*Store, error) {
	s := &Store{path: path, log: log, set: NewSet(), kick: make(chan struct{}, 1)}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("assignments: %w", err)
	}
	u, err := decode(b)
	if err != nil {
		aside := path + ".corrupt"
		if rerr := os.Rename(path, aside); rerr != nil {
			return nil, fmt.Errorf("assignments: %s is corrupt (%w) and cannot be set aside: %w", path, err, rerr)
		}
		log.Warn("assignments on disk are corrupt and were set aside; a server will send them anew", "file", aside, "err", err)
		return s, nil
	}
	s.set.Apply(u)
	log.Info("assignments read from disk", "assignments", s.set.Len(), "revision", s.set.Revision())
	return s, nil
}

// Apply applies an update and sees to it that the file follows.
func (s *Store) Apply(u *Update) Change {
	s.mu.Lock()
	c := s.set.Apply(u)
	s.mu.Unlock()
	if !c.ShrinkRefused {
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
	return c
}

// Position is the revision, digest and number of what is held.
func (s *Store) Position() (revision int64, digest uint64, held int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Revision(), s.set.Digest(), s.set.Len()
}

// Get returns the assignment of a check, nil when there is none.
func (s *Store) Get(check string) *meshv1.Assignment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Get(check)
}

// All returns every assignment, by name.
func (s *Store) All() []*meshv1.Assignment {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.All()
}

// Inventory lists what is held and the revision it stands at.
func (s *Store) Inventory() ([]*meshv1.InventoryItem, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set.Inventory(), s.set.Revision()
}

// Run writes the file 2 s after a change, and once more when ctx ends. It returns nil; a file that cannot be written is logged, and written later.
func (s *Store) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	dirty, failing := false, false
	for {
		select {
		case <-ctx.Done():
			select {
			case <-s.kick:
				dirty = true
			default:
			}
			if dirty {
				s.save(failing)
			}
			return nil
		case <-s.kick:
			if !dirty {
				timer.Reset(saveDelay)
			}
			dirty = true
		case <-timer.C:
			dirty = !s.save(failing)
			failing = dirty
			if dirty {
				timer.Reset(retryDelay)
			}
		}
	}
}

// save writes the file; failing says that the write before failed too, which was logged.
func (s *Store) save(failing bool) bool {
	s.mu.Lock()
	b := s.set.Encoded(append([]byte(fileMagic), 0, 0, 0, 0))
	s.mu.Unlock()
	binary.BigEndian.PutUint32(b[len(fileMagic):], crc32.Checksum(b[len(fileMagic)+4:], castagnoli))
	err := write(s.path, b)
	switch {
	case err != nil && !failing:
		s.log.Error("assignments cannot be written; a restart would begin with older ones", "file", s.path, "err", err)
	case err == nil && failing:
		s.log.Info("assignments can be written again", "file", s.path)
	}
	return err == nil
}

func decode(b []byte) (*Update, error) {
	n := len(fileMagic)
	if len(b) < n+4 || string(b[:n]) != fileMagic {
		return nil, errors.New("it does not begin as such a file does")
	}
	if crc32.Checksum(b[n+4:], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return nil, errors.New("its checksum does not match")
	}
	m := &meshv1.AssignmentUpdate{}
	if err := proto.Unmarshal(b[n+4:], m); err != nil {
		return nil, err
	}
	u := &Update{}
	u.Add(m)
	return u, nil
}

// write replaces the file so that a crash leaves the old or the new one, whole.
func write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	if d, derr := os.Open(filepath.Dir(path)); derr == nil {
		d.Sync() // some filesystems cannot sync a directory; the rename is atomic all the same
		d.Close()
	}
	return nil
}
