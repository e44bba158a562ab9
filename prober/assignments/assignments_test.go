package assignments

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/probemesh/probemesh/internal/assignment"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func made(from, to int, revision int64) []*meshv1.Assignment {
	var out []*meshv1.Assignment
	for i := from; i <= to; i++ {
		a := &meshv1.Assignment{Check: &meshv1.Check{Name: fmt.Sprint("checks/c", i), Uri: "tcp://a:1", Revision: revision}}
		a.Fingerprint = assignment.Fingerprint(a)
		out = append(out, a)
	}
	return out
}

func names(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint("checks/c", i))
	}
	return out
}

func digestOf(list []*meshv1.Assignment) uint64 {
	var d assignment.Digest
	for _, a := range list {
		d.Add(a.GetCheck().GetName(), a.GetFingerprint())
	}
	return uint64(d)
}

func TestAnUpdateChangesWhatDiffers(t *testing.T) {
	s := NewSet()
	s.Apply(&Update{Upserts: made(1, 20, 1), Revision: 5})
	c := s.Apply(&Update{Upserts: append(made(1, 3, 1), made(4, 4, 2)...), Removals: []string{"checks/c20", "checks/unknown"}, Revision: 6})
	if len(c.Upserted) != 1 || c.Upserted[0].GetCheck().GetName() != "checks/c4" || len(c.Removed) != 1 {
		t.Fatalf("change %+v; want c4 upserted and c20 removed", c)
	}
	want := append(append(made(1, 3, 1), made(4, 4, 2)...), made(5, 19, 1)...)
	if s.Digest() != digestOf(want) || s.Revision() != 6 || s.Len() != 19 {
		t.Fatalf("digest %x, revision %d, %d held", s.Digest(), s.Revision(), s.Len())
	}
}

func TestTheShrinkGuardRefusesAnAccident(t *testing.T) {
	for _, c := range []struct {
		held, removed     int
		intended, refused bool
	}{
		{30, 10, false, false}, // a third, but no more than 10
		{30, 11, false, true},
		{30, 30, false, true},
		{30, 30, true, false},
		{100, 30, false, false}, // 30 %, not more
		{100, 31, false, true},
		{5, 5, false, false},
	} {
		s := NewSet()
		s.Apply(&Update{Upserts: made(1, c.held, 1), Revision: 5})
		before := s.Digest()
		got := s.Apply(&Update{Removals: names(1, c.removed), Revision: 6, Intended: c.intended})
		if got.ShrinkRefused != c.refused || got.Shrink != c.removed {
			t.Errorf("%d of %d, intended %v: refused %v (%d)", c.removed, c.held, c.intended, got.ShrinkRefused, got.Shrink)
		}
		if c.refused && (s.Digest() != before || s.Revision() != 5 || s.Len() != c.held) {
			t.Errorf("%d of %d: a refused update changed the set", c.removed, c.held)
		}
		if !c.refused && s.Len() != c.held-c.removed {
			t.Errorf("%d of %d: %d left", c.removed, c.held, s.Len())
		}
	}
}

func TestAMoveIsNoShrink(t *testing.T) {
	s := NewSet()
	s.Apply(&Update{Upserts: made(1, 20, 1)})
	if c := s.Apply(&Update{Upserts: made(1, 20, 2), Removals: names(1, 20)}); c.ShrinkRefused || s.Len() != 20 {
		t.Fatalf("removing and putting back the same checks: %+v", c)
	}
}

func TestUpsertsWithoutACheckAreCounted(t *testing.T) {
	s := NewSet()
	if c := s.Apply(&Update{Upserts: []*meshv1.Assignment{nil, {}, {Check: &meshv1.Check{}}}}); c.Nameless != 3 || s.Len() != 0 {
		t.Fatalf("change %+v, %d held", c, s.Len())
	}
}

func openStore(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTheSetSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "assignments")
		s := openStore(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		s.Apply(&Update{Upserts: made(1, 50, 1), Revision: 77})
		time.Sleep(saveDelay + time.Second)
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		s.Apply(&Update{Upserts: made(51, 60, 1), Revision: 78})
		cancel() // before the delay is over
		<-done
		revision, digest, held := openStore(t, path).Position()
		if revision != 78 || digest != digestOf(made(1, 60, 1)) || held != 60 {
			t.Fatalf("revision %d, digest %x, %d held after the restart", revision, digest, held)
		}
	})
}

func TestACorruptFileIsSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "assignments")
	whole := openStore(t, path)
	whole.Apply(&Update{Upserts: made(1, 9, 1), Revision: 3})
	if !whole.save(false) {
		t.Fatal("the file cannot be written")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, held := openStore(t, path).Position(); held != 9 {
		t.Fatalf("%d held, want 9", held)
	}
	for name, bad := range map[string][]byte{"flipped": append(append([]byte(nil), b[:40]...), append([]byte{b[40] ^ 1}, b[41:]...)...), "short": b[:len(b)/2],
		"empty": {}, "garbage": []byte("not such a file at all")} {
		os.WriteFile(path, bad, 0o600)
		if _, _, held := openStore(t, path).Position(); held != 0 {
			t.Errorf("%s: %d held", name, held)
		}
		if _, err := os.Stat(path + ".corrupt"); err != nil {
			t.Errorf("%s: not set aside: %v", name, err)
		}
	}
}

func TestAFileThatCannotBeWrittenIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "missing")
		path := filepath.Join(dir, "assignments")
		s := openStore(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		s.Apply(&Update{Upserts: made(1, 5, 1), Revision: 1})
		time.Sleep(10 * time.Second)
		os.Mkdir(dir, 0o700)
		time.Sleep(retryDelay)
		if _, _, held := openStore(t, path).Position(); held != 5 {
			t.Errorf("%d held after the directory came back", held)
		}
		cancel()
		<-done
	})
}
