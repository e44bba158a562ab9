package telemetry

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is a writer that hangs while it is closed.
type stuck struct {
	open chan struct{}
	mu   sync.Mutex
	b    bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.open
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *stuck) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestLogThatHangsKeepsNobodyAndLosesNothingWithinItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{open: make(chan struct{})}
		p := &patient{w: s, missing: func(n int) []byte { return fmt.Appendf(nil, "dropped=%d\n", n) }}
		begun := time.Now()
		for i := range 1000 {
			fmt.Fprintf(p, "line %d\n", i)
		}
		if took := time.Since(begun); took > 3*patience {
			t.Errorf("a thousand lines into a log that hangs took %s", took)
		}
		for range waiting {
			fmt.Fprintln(p, "more")
		}
		close(s.open)
		synctest.Wait()
		out := s.String()
		if !strings.HasPrefix(out, "line 0\nline 1\n") || strings.Count(out, "line ") != 1000 {
			t.Errorf("%d lines, which begin with %.40q", strings.Count(out, "line "), out)
		}
		if !strings.HasSuffix(out, "dropped=1000\n") {
			t.Errorf("it ends with %q", out[len(out)-80:])
		}
	})
}

func TestLineIsWrittenWhenWriteReturns(t *testing.T) {
	var b bytes.Buffer
	p := &patient{w: &b}
	for i := range 1000 {
		fmt.Fprintln(p, i)
		if strings.Count(b.String(), "\n") != i+1 {
			t.Fatalf("line %d is not written", i)
		}
	}
}
