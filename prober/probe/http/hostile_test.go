package http_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	nethttp "net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

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
		"100k names": {func(c net.Conn) {
			answer(ok, nil)(c)
			for i := range 100_000 {
				if _, err := fmt.Fprintf(c, "X-%d: y\r\n", i); err != nil {
					return
				}
			}
			probetest.Hang(c)
		}, probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "headers are longer than 64 KiB")},
		"one endless line":   {answer("HTTP/1.1 200 ", endless("OKOKOKOKOKOKOKOK")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "")},
		"endless extension":  {answer(ok+"Transfer-Encoding: chunked\r\n\r\n1;", endless("x=yyyyyyyyyyyyyy")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "")},
		"many extensions":    {answer(ok+"Transfer-Encoding: chunked\r\n\r\n", endless("1;"+strings.Repeat("x=y;", 500)+"\r\nz\r\n")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "")},
		"endless trailers":   {answer(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n", endless("X-A: "+strings.Repeat("b", 100)+"\r\n")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "")},
		"huge chunk":         {answer(ok+"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", endless("x")), probetest.OK()},
		"overlong chunk":     {answer(ok+"Transfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\n", endless("x")), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "")},
		"huge length":        {answer(ok+"Content-Length: 9223372036854775807\r\n\r\n", endless("x")), probetest.OK()},
		"negative length":    {answer(ok+"Content-Length: -1\r\n\r\n", probetest.Hang), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "Content-Length")},
		"endless digest":     {answer("HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: "+strings.Repeat(`Digest realm="a", nonce="b", `, 2000)+"\r\n\r\n", nil), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 401")},
		"nul in a header":    {answer(ok+"X-A: \x00\r\n\r\n", probetest.Hang), probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "")},
		"switches protocols": {answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", nil), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 101")},
		"resets in headers":  {answer(ok+"X-A: b\r\n", probetest.Reset), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "")},
		"resets in chunks":   {answer(ok+"Transfer-Encoding: chunked\r\n\r\n5\r\nab", probetest.Reset), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "reset")},
		"status 99":          {answer("HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n", nil), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 099 X")},
		"long reason":        {answer("HTTP/1.1 500 "+strings.Repeat("x", 5000)+"\r\nContent-Length: 0\r\n\r\n", nil), probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "status 500 xxx")},
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
			kept := within(t, timeout, uri, &meshv1.HttpProbe{KeepAlive: true}) // by a transport, which must not see it otherwise
			if kept.Outcome != r.Outcome || kept.ErrorClass != r.ErrorClass || kept.FailedPhase != r.FailedPhase {
				t.Errorf("without a transport %v %v in %v: %s\nby a transport      %v %v in %v: %s", r.Outcome, r.ErrorClass, r.FailedPhase, r.Error, kept.Outcome, kept.ErrorClass, kept.FailedPhase, kept.Error)
			}
		})
	}
}

// TestAHostileRedirectorEndsWithinItsLimit loops, spreads over names, and sends long URIs and many cookies.
func TestAHostileRedirectorEndsWithinItsLimit(t *testing.T) {
	var n atomic.Int64
	s := serve(t, func(w nethttp.ResponseWriter, r *nethttp.Request) {
		to := fmt.Sprintf("/%d?%s", n.Add(1), strings.Repeat("x", 30_000))
		w.Header().Set("Set-Cookie", fmt.Sprintf("c%d=%s", n.Load(), strings.Repeat("y", 4000)))
		nethttp.Redirect(w, r, to, nethttp.StatusTemporaryRedirect)
	})
	r := run(t, s.URL, &meshv1.HttpProbe{MaxRedirects: 20, Body: "x"})
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "stopped after 20 redirects").Match(t, r)
	if size := proto.Size(r); size > 32<<10 {
		t.Errorf("the result has %d bytes", size)
	}
}

// TestHostileTLSEndsInAFailure breaks the handshake at every place that a script can.
func TestHostileTLSEndsInAFailure(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, time.Hour, "127.0.0.1")
	secure := func(then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
			if s.Handshake() == nil {
				then(s)
			}
		}
	}
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  probetest.Want
	}{
		"resets at once":      {probetest.Reset, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_HANDSHAKE, "reset")},
		"silent":              {probetest.Hang, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_HANDSHAKE, "timed out")},
		"resets after hello":  {answer("", probetest.Reset), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_HANDSHAKE, "reset")},
		"endless records":     {answer("", endless("\x16\x03\x03\x40\x00"+strings.Repeat("\x00", 1<<14))), probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "")},
		"drips":               {drip, probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "")},
		"silent afterwards":   {secure(probetest.Hang), probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out")},
		"endless body":        {secure(answer("HTTP/1.1 200 OK\r\n\r\n", endless(strings.Repeat("x", 1<<14)))), probetest.OK()},
		"ends without notice": {secure(answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab", nil)), probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_TRANSFER, "too early")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := 10 * time.Second
			if c.want.Class == meshv1.Result_TIMEOUT {
				timeout = 700 * time.Millisecond
			}
			r := within(t, timeout, "https://"+probetest.Listen(t, c.serve), &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}})
			if name == "resets at once" && r.FailedPhase == meshv1.Result_CONNECT { // the reset may come before the connection is noticed
				c.want.Phase = r.FailedPhase
			}
			c.want.Match(t, r)
			kept := within(t, timeout, "https://"+probetest.Listen(t, c.serve), &meshv1.HttpProbe{Tls: &meshv1.TlsConfig{CaPem: ca.PEM}, KeepAlive: true}) // by a transport
			if kept.Outcome != r.Outcome || kept.ErrorClass != r.ErrorClass || name != "resets at once" && kept.FailedPhase != r.FailedPhase {
				t.Errorf("without a transport %v %v in %v: %s\nby a transport      %v %v in %v: %s", r.Outcome, r.ErrorClass, r.FailedPhase, r.Error, kept.Outcome, kept.ErrorClass, kept.FailedPhase, kept.Error)
			}
		})
	}
}

// TestHostileServersCostLittleMemory watches what the worst of them make a probe allocate.
func TestHostileServersCostLittleMemory(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, serve := range map[string]func(net.Conn){
		"headers":    answer(ok, endless("X-A: "+strings.Repeat("b", 100)+"\r\n")),
		"body":       answer(ok+"\r\n", endless(strings.Repeat("x", 1<<16))),
		"extensions": answer(ok+"Transfer-Encoding: chunked\r\n\r\n1;", endless("x=yyyyyyyyyyyyyy")),
		"trailers":   answer(ok+"Transfer-Encoding: chunked\r\n\r\n0\r\n", endless("X-A: "+strings.Repeat("b", 100)+"\r\n")),
	} {
		uri := "http://" + probetest.Listen(t, serve)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run(t, uri, &meshv1.HttpProbe{BodyLimit: 100_000})
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
			t.Errorf("%s: %d KiB were allocated", name, grown>>10)
		}
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
