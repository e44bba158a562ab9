package cli_test

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/cli"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// session is a command that runs in the background; its lines are read one by one.
type session struct {
	t        *testing.T
	out, err *bufio.Reader
	cancel   context.CancelFunc
	code     chan int
}

func startSession(t *testing.T, m *fakeMesh, args ...string) *session {
	ctx, cancel := context.WithCancel(context.Background())
	outR, outW := io.Pipe()
	errR, errW := io.Pipe()
	s := &session{t: t, out: bufio.NewReader(outR), err: bufio.NewReader(errR), cancel: cancel, code: make(chan int, 1)}
	go func() {
		s.code <- cli.Run(ctx, cli.Environment{Args: append([]string{"--server", m.addr}, args...), In: strings.NewReader(""), Out: outW, Err: errW, Getenv: func(string) string { return "" }})
		outW.Close()
		errW.Close()
	}()
	t.Cleanup(func() {
		cancel()
		outR.Close()
		errR.Close()
	})
	return s
}

// line waits for the next line and fails when it does not have the words.
func (s *session) line(r *bufio.Reader, words ...string) string {
	s.t.Helper()
	type read struct {
		text string
		err  error
	}
	got := make(chan read, 1)
	go func() {
		text, err := r.ReadString('\n')
		got <- read{text, err}
	}()
	select {
	case l := <-got:
		for _, w := range words {
			if !strings.Contains(l.text, w) {
				s.t.Fatalf("the line %q (%v) does not have %q", l.text, l.err, w)
			}
		}
		return l.text
	case <-time.After(20 * time.Second):
		s.t.Fatalf("no line with %q came", words)
		return ""
	}
}

func (s *session) end(want int) {
	s.t.Helper()
	s.cancel()
	go func() { _, _ = io.Copy(io.Discard, s.out) }()
	go func() { _, _ = io.Copy(io.Discard, s.err) }()
	select {
	case got := <-s.code:
		if got != want {
			s.t.Errorf("it exits with %d, not %d", got, want)
		}
	case <-time.After(20 * time.Second):
		s.t.Error("it does not end")
	}
}

func withChecks(t *testing.T, names ...string) *fakeMesh {
	m := startFake(t)
	for _, n := range names {
		m.change(func() { m.checks["checks/"+n] = &meshv1.Check{Name: "checks/" + n, Uri: "tcp://" + n + ":1"} })
		m.setVerdict("checks/"+n, meshv1.CheckStatus_UP, "fine")
	}
	return m
}

func TestWatchAddsALineForEachChange(t *testing.T) {
	m := withChecks(t, "api", "shop")
	s := startSession(t, m, "get", "statuses", "--watch")
	s.line(s.out, "TIME", "CHECK", "VERDICT")
	s.line(s.out, "api", "UP")
	s.line(s.out, "shop", "UP")
	m.setVerdict("checks/shop", meshv1.CheckStatus_DOWN, "refused")
	s.line(s.out, "shop", "DOWN", "refused")
	m.change(func() { delete(m.checks, "checks/api") })
	s.line(s.out, "api", "(gone)")
	s.end(cli.ExitOK)
}

func TestWatchOfChecksFollowsTheirStatus(t *testing.T) {
	m := withChecks(t, "api", "shop", "zoo")
	s := startSession(t, m, "get", "checks", "shop", "--watch")
	s.line(s.out, "TIME", "NAME", "URI")
	s.line(s.out, "shop", "UP", "tcp://shop:1")
	m.setVerdict("checks/zoo", meshv1.CheckStatus_DOWN, "not asked for")
	m.setVerdict("checks/shop", meshv1.CheckStatus_DOWN, "refused")
	s.line(s.out, "shop", "DOWN")
	s.end(cli.ExitOK)
}

func TestWatchSurvivesARestartOfTheServer(t *testing.T) {
	m := withChecks(t, "api", "shop")
	s := startSession(t, m, "get", "statuses", "--watch", "-o", "json")
	s.line(s.out, `"check":"checks/api"`)
	s.line(s.out, `"check":"checks/shop"`)
	addr := m.addr
	m.stop()
	s.line(s.err, "lost the connection", "trying again in")
	m.change(func() { delete(m.checks, "checks/api") })
	m.listen(t, addr)
	for !strings.Contains(s.line(s.err), "connected again") {
		continue
	}
	s.line(s.out, `"check":"checks/shop"`)
	s.line(s.out, `"check":"checks/api"`, `"verdict":"VERDICT_UNSPECIFIED"`)
	s.end(cli.ExitOK)
}

func TestWatchOfAKindWithoutAStreamAsksAgain(t *testing.T) {
	m := startFake(t)
	m.change(func() { fill(m) })
	s := startSession(t, m, "get", "probers", "-w")
	s.line(s.out, "NAME", "DATACENTER")
	s.line(s.out, "fra-1", "ONLINE")
	s.line(s.out, "iad-1")
	s.line(s.out, "sin-1")
	if _, err := m.setDrained("probers/iad-1", meshv1.Prober_DRAINED); err != nil {
		t.Fatal(err)
	}
	s.line(s.out, "iad-1", "DRAINED")
	s.end(cli.ExitOK)
}

func TestWatchThatTheServerRefusesEnds(t *testing.T) {
	m := startFake(t)
	s := startSession(t, m, "get", "checks", "--watch", "--filter", "((")
	s.line(s.err, "error:", "does not parse")
	s.end(cli.ExitServer)
}
