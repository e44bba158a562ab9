package dialogue_test

import (
	"context"
	"errors"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/dialogue"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer runs serve at the other end of a connection, which is closed when it returns and whose end is waited for.
func peer(t *testing.T, serve func(net.Conn)) net.Conn {
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); defer far.Close(); serve(far) }()
	t.Cleanup(func() { near.Close(); <-done })
	return near
}

// TestAPatternIsNotTriedForEveryByte: a peer that drips is tried a few times for each pause and each eighth of growth, and found out as soon as it pauses with what is expected.
func TestAPatternIsNotTriedForEveryByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bytes = 60_000
		conn := peer(t, func(c net.Conn) {
			for range bytes {
				if _, err := c.Write([]byte{'x'}); err != nil {
					return
				}
			}
			time.Sleep(time.Second)
			_, _ = io.WriteString(c, "login: ")
			time.Sleep(time.Hour)
		})
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r := dialogue.Reader{Conn: conn, Limit: 64 << 10}
		begin, tried := time.Now(), 0
		err := r.Until(ctx, &probe.Attempt{}, begin.Add(time.Minute), 0, func(text []byte) bool {
			tried++
			return strings.HasSuffix(string(text), "login: ")
		})
		if took := time.Since(begin); err != nil || took > 2*time.Second || tried > 1200 || len(r.Bytes) != bytes+7 {
			t.Errorf("%v after %s, %d tries, %d bytes", err, took, tried, len(r.Bytes))
		}
	})
}

func TestReadingEndsAtTheLimitTheEndAndTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		until := func(serve func(net.Conn), wait time.Duration) (seen string, err error) {
			conn := peer(t, serve)
			defer conn.Close()
			r := dialogue.Reader{Conn: conn, Limit: 5}
			err = r.Until(ctx, &probe.Attempt{}, time.Now().Add(wait), 0, func(text []byte) bool { seen = string(text); return false })
			return seen, err
		}
		seen, err := until(func(c net.Conn) { _, _ = io.WriteString(c, "0123456789") }, time.Second)
		var limit *dialogue.LimitError
		if seen != "01234" || !errors.As(err, &limit) || limit.Limit != 5 {
			t.Errorf("%q, %v", seen, err)
		}
		if seen, err := until(func(c net.Conn) { _, _ = io.WriteString(c, "01") }, time.Second); seen != "01" || !errors.Is(err, io.EOF) {
			t.Errorf("%q, %v", seen, err)
		}
		seen, err = until(func(c net.Conn) { _, _ = io.WriteString(c, "01"); _, _ = c.Read(make([]byte, 1)) }, time.Second)
		if timeout, ok := err.(net.Error); seen != "01" || !ok || !timeout.Timeout() { //nolint:errorlint // as the connection gives it
			t.Errorf("%q, %v", seen, err)
		}
	})
}

// TestADialogueIsCancelledAtOnce: the end of the context ends a step that waits, although the step has a deadline of its own.
func TestADialogueIsCancelledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := peer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		parent, stop := context.WithTimeout(context.Background(), time.Hour)
		defer stop()
		ctx, cancel := context.WithCancel(parent)
		defer probe.Watch(ctx, conn)()
		time.AfterFunc(time.Second, cancel)
		hello, err := spec.ParseTemplate("hello ${x}", false)
		if err != nil {
			t.Fatal(err)
		}
		d := &dialogue.Dialogue{Steps: []dialogue.Step{{Name: "a", Send: hello}, {Name: "b", Expect: regexp.MustCompile("x"), Timeout: 10 * time.Minute}}, ReadLimit: 100, LineLimit: 100}
		begin := time.Now()
		record, err := d.Hold(ctx, &probe.Attempt{}, conn)
		if took := time.Since(begin); err == nil || took != time.Second || record.Done != 1 || record.Failed != "b" || record.Sent != 6 {
			t.Errorf("%v after %s, %+v", err, took, record)
		}
		conn.Close()
	})
}

// TestATextIsNotSentWithMoreThanFitsIntoACapture: else a peer could have a prober make a gigabyte of a text of 4 KiB.
func TestATextIsNotSentWithMoreThanFitsIntoACapture(t *testing.T) {
	for size, want := range map[int]string{4096: "", 4097: "${1} to be sent has 4097 bytes, which is more than 4096"} {
		conn := peer(t, func(c net.Conn) {
			_, _ = io.WriteString(c, strings.Repeat("x", size)+"\n")
			_, _ = io.Copy(io.Discard, c)
		})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		stop := probe.Watch(ctx, conn)
		echo, err := spec.ParseTemplate("${1}${1}", false)
		if err != nil {
			t.Fatal(err)
		}
		d := &dialogue.Dialogue{Steps: []dialogue.Step{{Name: "a", Expect: regexp.MustCompile("^(x+)$")}, {Name: "b", Send: echo}}, ReadLimit: 1 << 20, LineLimit: 1 << 16}
		_, err = d.Hold(ctx, &probe.Attempt{}, conn)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d bytes: %v", size, err)
		}
		stop()
		cancel()
		conn.Close()
	}
}

func TestStepsThatCannotBeCompiledAreNamed(t *testing.T) {
	for want, step := range map[string]*meshv1.DialogueStep{
		"step 2 \"(\" is not a regular expression": {Expect: "("},
		"step 2 has ${ without a }":                {Send: "${"},
		"step 2 capture 1 ":                        {Expect: "x", Capture: []*meshv1.Capture{{Name: "A"}}},
	} {
		if _, err := dialogue.Compile([]*meshv1.DialogueStep{{Send: "x"}, step}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
