package spool

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func open(t testing.TB, dir string, limit int64) *Spool {
	t.Helper()
	s, err := Open(Config{Dir: dir, Limit: limit, Boot: strings.Repeat("a", 32)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// add appends results named from..to.
func add(s *Spool, from, to int) {
	for i := from; i <= to; i++ {
		s.Append(&meshv1.Result{Check: fmt.Sprint("checks/c", i), Outcome: meshv1.Result_OK, Error: strings.Repeat("x", 100)}, false, nil)
	}
}

// kill is what a SIGKILL leaves behind: what was written stays, the rest is gone.
func kill(s *Spool) {
	if s.file != nil {
		s.file.Close()
	}
}

// readAll returns the checks of everything the spool holds, and fails unless the numbers rise.
func readAll(t testing.TB, s *Spool) []string {
	t.Helper()
	r := s.NewReader()
	defer r.Close()
	var out []string
	last := uint64(0)
	for {
		records := r.Next(7, ^uint64(0)-1)
		if len(records) == 0 {
			return out
		}
		for _, rec := range records {
			if rec.Result.GetSequence() <= last {
				t.Fatalf("number %d follows %d", rec.Result.GetSequence(), last)
			}
			last = rec.Result.GetSequence()
			out = append(out, rec.Result.GetCheck())
		}
	}
}

func want(t testing.TB, got []string, from, to int) {
	t.Helper()
	if len(got) != to-from+1 {
		t.Fatalf("%d results; want %d (c%d to c%d)", len(got), to-from+1, from, to)
	}
	for i, c := range got {
		if c != fmt.Sprint("checks/c", from+i) {
			t.Fatalf("result %d is %s; want c%d", i, c, from+i)
		}
	}
}

func TestResultsComeBackInOrderUntilAcknowledged(t *testing.T) {
	s := open(t, t.TempDir(), 0)
	add(s, 1, 1000)
	want(t, readAll(t, s), 1, 1000)
	if err := s.Ack(400); err != nil {
		t.Fatal(err)
	}
	want(t, readAll(t, s), 401, 1000)
	if first, last := s.Range(); first != 401 || last != 1000 {
		t.Fatalf("range %d to %d; want 401 to 1000", first, last)
	}
	if err := s.Ack(1001); err == nil {
		t.Fatal("a number that was never given out was acknowledged")
	}
	if err := s.Ack(1000); err != nil || s.Stats().Held != 0 {
		t.Fatalf("held %d after the last acknowledgement, err %v", s.Stats().Held, err)
	}
}

func TestAKilledProcessLosesOnlyWhatWasNotWritten(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	add(s, 1, 5000)
	s.mu.Lock()
	s.writeLocked()
	s.mu.Unlock()
	add(s, 5001, 5002)
	kill(s)
	// The kernel had taken half of another record.
	newest, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	f, _ := os.OpenFile(newest[len(newest)-1], os.O_APPEND|os.O_WRONLY, 0)
	f.Write([]byte{0, 0, 0, 99, 1, 2, 3, 4, 5})
	f.Close()

	s = open(t, dir, 0)
	if s.Stats().Torn != 1 || s.Stats().Corrupt != 0 {
		t.Fatalf("stats %+v; want one torn tail", s.Stats())
	}
	want(t, readAll(t, s), 1, 5000)
	if first, last := s.Range(); first != 1 || last != 5000 {
		t.Fatalf("range %d to %d; want 1 to 5000", first, last)
	}
	add(s, 5001, 5003)
	want(t, readAll(t, s), 1, 5003)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, readAll(t, open(t, dir, 0)), 1, 5003)
}

func TestWhatWasAcknowledgedIsNotSentAgainAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	add(s, 1, 1000)
	s.Close()
	s = open(t, dir, 0) // now of an earlier boot
	s.Ack(300)
	s.Close()
	s = open(t, dir, 0)
	want(t, readAll(t, s), 301, 1000)
	if first, last := s.Range(); first != 1 || last != 700 {
		t.Fatalf("range %d to %d; want what is left numbered anew, 1 to 700", first, last)
	}
	add(s, 1001, 1100)
	s.Ack(750)
	s.Close()
	want(t, readAll(t, open(t, dir, 0)), 1051, 1100)
}

func TestAFullSpoolDropsAndCountsTheOldest(t *testing.T) {
	s := open(t, t.TempDir(), LimitMin)
	add(s, 1, 20_000)
	st := s.Stats()
	if st.DiskBytes > LimitMin {
		t.Fatalf("%d bytes on disk; the limit is %d", st.DiskBytes, LimitMin)
	}
	if st.Dropped == 0 || st.Dropped+st.Held != 20_000 {
		t.Fatalf("%d dropped and %d held; want 20000 in all", st.Dropped, st.Held)
	}
	want(t, readAll(t, s), int(st.Dropped)+1, 20_000)
}

func TestACorruptRecordIsLeftOutAndTheFileSetAside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	add(s, 1, 100)
	s.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	b, _ := os.ReadFile(files[0])
	b[len(b)/2] ^= 0x40
	os.WriteFile(files[0], b, 0o600)
	s = open(t, dir, 0)
	if got := readAll(t, s); len(got) != 99 {
		t.Fatalf("%d results kept; want 99", len(got))
	}
	if aside, _ := filepath.Glob(filepath.Join(dir, "*.corrupt")); len(aside) != 1 || s.Stats().Corrupt != 1 {
		t.Fatalf("set aside: %v; stats %+v", aside, s.Stats())
	}
}

func TestGarbageFilesDoNotStopTheSpool(t *testing.T) {
	dir := t.TempDir()
	os.WriteFile(segmentPath(dir, 3), []byte(strings.Repeat("garbage ", 100)), 0o600)
	os.WriteFile(segmentPath(dir, 4), nil, 0o600)
	os.WriteFile(filepath.Join(dir, "head"), []byte("garbage"), 0o600)
	s := open(t, dir, 0)
	add(s, 1, 3)
	want(t, readAll(t, s), 1, 3)
	s.Close()
	want(t, readAll(t, open(t, dir, 0)), 1, 3)
}

func TestAFullDiskIsBridgedInMemoryAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir, 0)
		full := false
		s.write = func(f *os.File, b []byte) (int, error) {
			if !full {
				return f.Write(b)
			}
			n, _ := f.Write(b[:len(b)/2]) // what fits
			return n, syscall.ENOSPC
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		add(s, 1, 500)
		time.Sleep(time.Second)
		s.mu.Lock()
		full = true
		s.mu.Unlock()
		add(s, 501, 1500)
		time.Sleep(5 * time.Second)
		if st := s.Stats(); !st.Failing || st.MemoryBytes == 0 {
			t.Fatalf("stats %+v; want results in memory", st)
		}
		want(t, readAll(t, s), 1, 1500)
		s.mu.Lock()
		full = false
		s.mu.Unlock()
		time.Sleep(2 * time.Second)
		if st := s.Stats(); st.Failing || st.MemoryBytes != 0 || st.Dropped != 0 {
			t.Fatalf("stats %+v; want all on disk again", st)
		}
		cancel()
		<-done
		kill(s)
		want(t, readAll(t, open(t, dir, 0)), 1, 1500)
	})
}

func TestMemoryIsBoundedWhileTheDiskFails(t *testing.T) {
	s := open(t, t.TempDir(), LimitMin)
	s.write = func(*os.File, []byte) (int, error) { return 0, syscall.ENOSPC }
	add(s, 1, 10_000)
	st := s.Stats()
	if st.MemoryBytes > LimitMin/4 || st.Dropped == 0 || st.Dropped+st.Held != 10_000 {
		t.Fatalf("stats %+v; want at most %d bytes and 10000 in all", st, LimitMin/4)
	}
	want(t, readAll(t, s), int(st.Dropped)+1, 10_000)
	if s.Close() == nil {
		t.Fatal("losing results at the end is no error")
	}
}

func TestAcknowledgedAtOnceNeverReachesTheDisk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 0)
	for i := 1; i <= 1000; i++ {
		add(s, i, i)
		s.Ack(uint64(i))
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.seg")); len(files) != 0 {
		t.Fatalf("files %v", files)
	}
}

// Whatever is appended, acknowledged and reopened, the spool holds exactly what was not acknowledged, in order.
func TestNothingIsLostNorDoubled(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s := open(t, dir, LimitDefault)
		s.segmentSize = 8 << 10
		first, last := 1, 0
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				n := rapid.IntRange(1, 100).Draw(rt, "n")
				add(s, last+1, last+n)
				last += n
			},
			"ack": func(rt *rapid.T) {
				low, high := s.Range()
				if low > high {
					return
				}
				n := rapid.Uint64Range(low, high).Draw(rt, "to") - low + 1
				if err := s.Ack(low + n - 1); err != nil {
					rt.Fatal(err)
				}
				first += int(n)
			},
			"write": func(*rapid.T) { s.upkeep(time.Time{}) },
			"reopen": func(*rapid.T) {
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				s = open(t, dir, LimitDefault)
				s.segmentSize = 8 << 10
			},
			"": func(*rapid.T) {
				want(t, readAll(t, s), first, last)
				if held := s.Stats().Held; held < int64(last-first+1) {
					rt.Fatalf("held %d; want %d", held, last-first+1)
				}
			},
		})
		s.Close()
	})
}

func TestAReaderMayGoBack(t *testing.T) {
	s := open(t, t.TempDir(), 0)
	add(s, 1, 2000)
	r := s.NewReader()
	defer r.Close()
	for len(r.Next(100, 1500)) > 0 {
	}
	if r.Position() != 1501 {
		t.Fatalf("position %d; want 1501", r.Position())
	}
	r.Seek(10)
	if got := r.Next(1, 1500); len(got) != 1 || got[0].Result.GetSequence() != 10 {
		t.Fatalf("got %v; want number 10", got)
	}
}

func FuzzScan(f *testing.F) {
	b, _ := appendRecord(append([]byte(magic), make([]byte, 32)...), &meshv1.Result{Check: "checks/a", Sequence: 7}, 7, 1)
	f.Add(b, true)
	f.Add(b[:len(b)-3], true)
	f.Add(append(b, b[segmentHeader:]...), false)
	f.Fuzz(func(t *testing.T, b []byte, newest bool) {
		orig := string(b)
		s := scan(b, newest, 5)
		if string(b) != orig {
			t.Fatal("scan changed its input")
		}
		if s.count > 0 {
			again := scan(s.good, true, 5)
			if again.count != s.count || again.torn != 0 || again.corrupt {
				t.Fatalf("what was kept does not verify: %+v, then %+v", s, again)
			}
		}
		if r, err := parseRecord(b); err == nil {
			r.record(1, false)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	r := &meshv1.Result{Check: "checks/some-check", Prober: "probers/fra-1", Outcome: meshv1.Result_OK, RemoteAddress: "192.0.2.7:443",
		Http: &meshv1.HttpResult{Status: 200, Version: "1.1", BodyBytes: 5120, ContentLength: 5120}}
	for _, acked := range []bool{true, false} {
		b.Run(map[bool]string{true: "acknowledged", false: "kept"}[acked], func(b *testing.B) {
			s := open(b, b.TempDir(), 64<<20)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Append(r, false, nil)
				if acked && i%100 == 99 {
					s.Ack(r.GetSequence())
				}
			}
			s.Close()
		})
	}
}
