package http_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/http"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// answer reads the request's beginning and then writes the text.
func answer(text string, then func(net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		b := make([]byte, 4096)
		_, _ = c.Read(b)
		_, _ = io.WriteString(c, text)
		if then != nil {
			then(c)
		}
	}
}

// endless writes the text again and again.
func endless(text string) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, text); err != nil {
				return
			}
		}
	}
}

// drip writes one byte every few milliseconds.
func drip(c net.Conn) {
	for {
		if _, err := c.Write([]byte("x")); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond) // the pace of the hostile peer, nothing waits for it
	}
}

func TestHostileServersEndInAFailureThatSaysWhy(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  probetest.Want
	}{
		"silent":             {probetest.Hang, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out after 500ms")},
		"closes at once":     {func(net.Conn) {}, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "")},
		"closes after":       {answer("", nil), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "closed the connection too early")},
		"resets":             {answer("", probetest.Reset), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "connection reset by peer")},
		"garbage":            {answer("SSH-2.0-OpenSSH_9.9\r\n", probetest.Hang), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "malformed HTTP")},
		"binary":             {answer(strings.Repeat("\x00\xff", 500)+"\n", probetest.Hang), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "malformed HTTP")},
		"status alone":       {answer(ok, probetest.Hang), probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "timed out")},
		"endless headers":    {answer(ok, endless("X-A: "+strings.Repeat("b", 100)+"\r\n")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "headers are longer than 64 KiB")},
		"one endless header": {answer(ok+"X-A: ", endless("bbbbbbbbbbbbbbbb")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "headers are longer than 64 KiB")},
		"endless 1xx":        {answer("", endless("HTTP/1.1 103 Early Hints\r\nX-A: b\r\n\r\n")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "")},
		"endless body":       {answer(ok+"\r\n", endless(strings.Repeat("x", 1<<16))), probetest.OK()},
		"slow headers":       {answer(ok+"X-A: ", drip), probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "timed out")},
		"slow body":          {answer(ok+"\r\n", drip), probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_TRANSFER, "timed out")},
		"body cut short":     {answer(ok+"Content-Length: 100\r\n\r\nabc", nil), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "too early")},
		"body reset":         {answer(ok+"Content-Length: 100\r\n\r\nabc", probetest.Reset), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "reset")},
		"bad chunks":         {answer(ok+"Transfer-Encoding: chunked\r\n\r\nzz\r\n", probetest.Hang), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "invalid byte in chunk length")},
		"two lengths":        {answer(ok+"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", probetest.Hang), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "Content-Length")},
		"bad gzip":           {answer(ok+"Content-Encoding: gzip\r\n\r\nnot gzip at all", nil), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "gzip")},
		"half closed": {answer(ok+"Content-Length: 10\r\n\r\nab", func(c net.Conn) {
			_ = c.(*net.TCPConn).CloseWrite()
			probetest.Hang(c)
		}), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "too early")},
		"status 99":   {answer("HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n", nil), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 099 X")},
		"long reason": {answer("HTTP/1.1 500 "+strings.Repeat("x", 5000)+"\r\nContent-Length: 0\r\n\r\n", nil), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 500 xxx")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			uri := "http://" + probetest.Listen(t, c.serve)
			timeout := 10 * time.Second
			if c.want.Class == meshv1.Result_TIMEOUT {
				timeout = 500 * time.Millisecond
			}
			r := within(t, timeout, uri, nil)
			c.want.Match(t, r)
			if r.Outcome == meshv1.Result_FAIL && r.RemoteAddress == "" {
				t.Error("no remote address")
			}
			if r.Timings.Connect == nil {
				t.Errorf("timings of a failure are missing: %v", r.Timings)
			}
			within(t, 500*time.Millisecond, uri, &meshv1.HttpProbe{Expect: []string{`response.body == ""`}})
		})
	}
}

func TestTargetsThatCannotBeReachedAreClassified(t *testing.T) {
	refused := probetest.RefusedAddress(t)
	r := run(t, "http://"+refused+"/", nil)
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connect to "+refused+": connection refused").Match(t, r)
	if r.RemoteAddress != refused || r.Timings.Connect == nil || r.Timings.Processing != nil {
		t.Errorf("got %v", r)
	}
	r = within(t, time.Second, "http://no-such-host.invalid/", nil)
	if r.FailedPhase != meshv1.Result_RESOLVE || r.Outcome == meshv1.Result_OK || r.Timings.Resolve == nil {
		t.Errorf("got %v", r)
	}
	if r.ErrorClass != meshv1.Result_NAME_NOT_FOUND && r.ErrorClass != meshv1.Result_RESOLVER_FAILED && r.ErrorClass != meshv1.Result_TIMEOUT {
		t.Errorf("class %v", r.ErrorClass)
	}
	_, port, _ := net.SplitHostPort(refused)
	r = run(t, "http://localhost:"+port, &meshv1.HttpProbe{})
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connection refused").Match(t, r)
	if len(r.Evidence.ResolvedAddresses) == 0 {
		t.Errorf("no resolved addresses: %v", r.Evidence)
	}
	r = run(t, "http://localhost:"+port, &meshv1.HttpProbe{IpFamily: meshv1.IpFamily_IPV4})
	if r.RemoteAddress != "127.0.0.1:"+port {
		t.Errorf("remote %s", r.RemoteAddress)
	}
}

func TestACancelledProbeIsTheProbersOwn(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	uri := "http://" + probetest.Listen(t, func(c net.Conn) {
		cancel()
		probetest.Hang(c)
	})
	c, target := probetest.Check(t, uri, 10*time.Second, nil)
	r, err := http.Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	result := r.Probe(ctx, probe.Options{})
	probetest.Promises(t, result)
	if result.Outcome != meshv1.Result_ERROR || !strings.Contains(result.Error, "cancelled") {
		t.Errorf("got %v", result)
	}
}

func TestManyProbesAtOnceDoNotMixUp(t *testing.T) {
	uri := "http://" + probetest.Listen(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", nil))
	c, target := probetest.Check(t, uri, 5*time.Second, nil)
	r, err := http.Compile(c, target, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	results := make(chan *meshv1.Result)
	for range 50 {
		go func() { results <- r.Probe(context.Background(), probe.Options{}) }()
	}
	for range 50 {
		if got := <-results; got.Outcome != meshv1.Result_OK || got.Http.BodyBytes != 2 {
			t.Error(fmt.Sprint(got))
		}
	}
}
