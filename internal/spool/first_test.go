package spool

import (
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func openAt(t *testing.T, dir string, first uint64) *Spool {
	t.Helper()
	s, err := Open(Config{Dir: dir, Boot: strings.Repeat("a", 32), First: first}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put keeps the words and returns the number of the last.
func put(s *Spool, words ...string) uint64 {
	var all []proto.Message
	for _, w := range words {
		all = append(all, wrapperspb.String(w))
	}
	return s.Put(all...)
}

// words reads everything from a number on.
func words(t *testing.T, s *Spool, from uint64) (numbers []uint64, all string) {
	t.Helper()
	r := s.NewReader()
	defer r.Close()
	r.Seek(from)
	for {
		list := r.Payloads(2, ^uint64(0)-1)
		if len(list) == 0 {
			return numbers, all
		}
		for _, p := range list {
			var w wrapperspb.StringValue
			if err := proto.Unmarshal(p.Bytes, &w); err != nil {
				t.Fatal(err)
			}
			numbers, all = append(numbers, p.Sequence), all+w.GetValue()
		}
	}
}

// Two readers of different progress, over a clean stop and a kill: each finds what it lacks under the number it knows.
func TestNumbersOutliveARestart(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, 100)
	if last := put(s, "a", "b", "c", "d"); last != 103 {
		t.Fatalf("the last of four has the number %d; want 103", last)
	}
	if err := s.Ack(100); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = openAt(t, dir, 200)
	put(s, "e", "f")
	if held := s.Stats().Held; held != 5 {
		t.Errorf("%d are held; want b to f", held)
	}
	if numbers, got := words(t, s, 0); got != "bcdef" || numbers[0] != 101 || numbers[3] != 200 {
		t.Errorf("read %q with the numbers %v", got, numbers)
	}
	if _, got := words(t, s, 103); got != "def" {
		t.Errorf("from 103 on: %q; want def", got)
	}
	if err := s.Ack(200); err != nil {
		t.Fatal(err)
	}
	if _, got := words(t, s, 0); got != "f" {
		t.Errorf("after 200 was acknowledged: %q; want f", got)
	}
	s.mu.Lock()
	s.writeLocked()
	s.mu.Unlock()
	kill(s)

	s = openAt(t, dir, 300)
	put(s, "g")
	numbers, got := words(t, s, 201)
	if got != "fg" || numbers[1] != 300 {
		t.Errorf("after a kill, from 201 on: %q with the numbers %v; want f and g at 300", got, numbers)
	}
}
