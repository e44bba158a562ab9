package websocket_test

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // RFC 6455 says so
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/websocket"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func serverTLS(pair tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{pair}}
} //nolint:gosec // for a test

// upgraded serves raw bytes behind a correct upgrade.
func upgraded(t testing.TB, then func(net.Conn)) string {
	return "ws://" + probetest.Listen(t, func(c net.Conn) {
		if upgrade(c, "") {
			then(c)
		}
	}) + "/"
}

// upgrade answers an upgrade request, with more headers.
func upgrade(c net.Conn, more string) bool {
	req, err := nethttp.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return false
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s\r\n", base64.StdEncoding.EncodeToString(sum[:]), more)
	return err == nil
}

// forever writes b until it cannot.
func forever(b string) func(net.Conn) {
	return func(c net.Conn) {
		for {
			if _, err := io.WriteString(c, b); err != nil {
				return
			}
		}
	}
}

// drip writes byte after byte, slowly.
func drip(b string) func(net.Conn) {
	return func(c net.Conn) {
		for i := 0; ; i++ {
			if _, err := c.Write([]byte{b[i%len(b)]}); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// TestHostilePeersAreBoundedInTimeAndMemory holds every probe to its timeout (probetest.Run), to its class, and to a few mebibytes.
func TestHostilePeersAreBoundedInTimeAndMemory(t *testing.T) {
	any := probetest.Want{Outcome: meshv1.Result_FAIL}
	for name, c := range map[string]struct {
		uri  string
		want meshv1.Result_ErrorClass
	}{
		"endless headers":        {"ws://" + probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 101 x\r\n"); forever("A: b\r\n")(c) }) + "/", meshv1.Result_PROTOCOL},
		"one endless header":     {"ws://" + probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 101 x\r\nA: "); forever("bbbbbbbbbbbbbbbbbbbbbbbbb")(c) }) + "/", meshv1.Result_PROTOCOL},
		"endless status lines":   {"ws://" + probetest.Listen(t, forever("HTTP/1.1 100 Continue\r\n\r\n")) + "/", meshv1.Result_PROTOCOL},
		"dripping headers":       {"ws://" + probetest.Listen(t, drip("HTTP/1.1 101 x\r\n")) + "/", 0},
		"silent":                 {"ws://" + probetest.Listen(t, probetest.Hang) + "/", meshv1.Result_TIMEOUT},
		"closes":                 {"ws://" + probetest.Listen(t, func(net.Conn) {}) + "/", meshv1.Result_CONNECTION_RESET},
		"resets":                 {"ws://" + probetest.Listen(t, probetest.Reset) + "/", meshv1.Result_CONNECTION_RESET},
		"endless body of a 403":  {"ws://" + probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 403 no\r\n\r\n"); forever("x")(c) }) + "/", meshv1.Result_PROTOCOL},
		"dripping body of a 403": {"ws://" + probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "HTTP/1.1 403 no\r\n\r\n"); drip("x")(c) }) + "/", meshv1.Result_PROTOCOL},
		"wrong key": {"ws://" + probetest.Listen(t, func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n")
			probetest.Hang(c)
		}) + "/", meshv1.Result_PROTOCOL},
		"a subprotocol not offered": {"ws://" + probetest.Listen(t, func(c net.Conn) { upgrade(c, "Sec-WebSocket-Protocol: evil\r\n"); probetest.Hang(c) }) + "/", meshv1.Result_PROTOCOL},
		"an extension not offered":  {"ws://" + probetest.Listen(t, func(c net.Conn) { upgrade(c, "Sec-WebSocket-Extensions: permessage-deflate\r\n"); probetest.Hang(c) }) + "/", meshv1.Result_PROTOCOL},
		"a frame of 2^63 bytes":     {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"); probetest.Hang(c) }), meshv1.Result_PROTOCOL},
		"a frame of 2^63-1 bytes": {upgraded(t, func(c net.Conn) {
			fmt.Fprint(c, "\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")
			forever(strings.Repeat("x", 4096))(c)
		}), meshv1.Result_PROTOCOL},
		"fragments for ever":       {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x01\x01a"); forever("\x00\x01b")(c) }), meshv1.Result_PROTOCOL},
		"empty fragments for ever": {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x01\x01a"); forever(strings.Repeat("\x00\x00", 100))(c) }), meshv1.Result_PROTOCOL},
		"a ping flood":             {upgraded(t, func(c net.Conn) { go probetest.Hang(c); forever(strings.Repeat("\x89\x04ping", 100))(c) }), meshv1.Result_PROTOCOL},
		"a pong flood":             {upgraded(t, forever(strings.Repeat("\x8a\x04ping", 100))), meshv1.Result_PROTOCOL},
		"a message flood":          {upgraded(t, forever(strings.Repeat("\x81\x04spam", 100))), meshv1.Result_PROTOCOL},
		"a flood unread":           {upgraded(t, forever(strings.Repeat("\x89\x04ping", 100))), 0},
		"a dripping frame":         {upgraded(t, drip("\x81\x05hello")), 0},
		"a long ping":              {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x89\x7e\x01\x00"); forever("x")(c) }), meshv1.Result_PROTOCOL},
		"reserved bits":            {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\xf1\x01a"); probetest.Hang(c) }), meshv1.Result_PROTOCOL},
		"an unknown opcode":        {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x83\x01a"); probetest.Hang(c) }), meshv1.Result_PROTOCOL},
		"a lone continuation":      {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x80\x01a"); probetest.Hang(c) }), meshv1.Result_PROTOCOL},
		"a close code of 1":        {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x88\x02\x00\x01"); probetest.Hang(c) }), meshv1.Result_PROTOCOL},
		"half closed":              {upgraded(t, func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); probetest.Hang(c) }), meshv1.Result_CONNECTION_RESET},
		"reset after the upgrade":  {upgraded(t, probetest.Reset), meshv1.Result_CONNECTION_RESET},
		"reset within a frame":     {upgraded(t, func(c net.Conn) { fmt.Fprint(c, "\x81\x05he"); probetest.Reset(c) }), meshv1.Result_CONNECTION_RESET},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			timeout := 700 * time.Millisecond
			if c.want == meshv1.Result_PROTOCOL { // which ends it, and not the time
				timeout = 20 * time.Second
			}
			r := within(t, timeout, c.uri, &meshv1.WebsocketProbe{Steps: []*meshv1.WebsocketStep{{Expect: "never"}}})
			runtime.ReadMemStats(&after)
			want := any
			want.Class, want.Phase = c.want, r.FailedPhase
			if c.want == 0 {
				want.Class = r.ErrorClass
			}
			want.Match(t, r)
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
				t.Errorf("%d MiB were allocated", grown>>20)
			}
		})
	}
}

// TestAPingIsNotHeldUpByAFlood keeps what comes before a pong bounded.
func TestAPingIsNotHeldUpByAFlood(t *testing.T) {
	r := within(t, 2*time.Second, upgraded(t, forever(strings.Repeat("\x81\x04spam", 100))), &meshv1.WebsocketProbe{Steps: []*meshv1.WebsocketStep{{Ping: true}}})
	probetest.Fail(meshv1.Result_PROTOCOL, r.FailedPhase, "before the pong").Match(t, r)
	r = within(t, short, upgraded(t, probetest.Hang), &meshv1.WebsocketProbe{Steps: []*meshv1.WebsocketStep{{Ping: true}}})
	probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "no pong came within 300ms").Match(t, r)
	r = within(t, short, upgraded(t, probetest.Hang), &meshv1.WebsocketProbe{Steps: []*meshv1.WebsocketStep{{Close: true}}})
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "expected a close frame").Match(t, r)
}

// FuzzSession: whatever comes behind the upgrade, a probe ends in its time with a result that keeps its promises.
func FuzzSession(f *testing.F) {
	for _, s := range []string{"\x81\x05hello", "\x88\x02\x03\xe8", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", "\x01\x01a\x80\x01b", "\x89\x00\x8a\x00", "\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00"} {
		f.Add([]byte(s), true)
	}
	type script struct {
		frames  []byte
		deflate bool
	}
	var now atomic.Pointer[script]
	address := probetest.Listen(f, func(c net.Conn) {
		s, more := now.Load(), ""
		if s.deflate {
			more = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
		}
		if upgrade(c, more) {
			_, _ = c.Write(s.frames)
			_ = c.(*net.TCPConn).CloseWrite()
			probetest.Hang(c)
		}
	})
	f.Fuzz(func(t *testing.T, frames []byte, compression bool) {
		now.Store(&script{frames, compression})
		r := probetest.Run(t, websocket.Compile, "ws://"+address+"/", 5*time.Second, probe.Options{}, func(c *meshv1.Check) {
			c.Websocket = &meshv1.WebsocketProbe{Compression: compression, Steps: []*meshv1.WebsocketStep{{Ping: true}, {Expect: "(?P<a>.*)x"}, {Close: true, ExpectClose: 1000}}}
		})
		if r.ErrorClass == meshv1.Result_PROBER || r.ErrorClass == meshv1.Result_TIMEOUT {
			t.Fatal(r)
		}
	})
}

// FuzzUpgrade: the same for the answer to the upgrade.
func FuzzUpgrade(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", "HTTP/1.1 403 x\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 100 x\r\n\r\nHTTP/1.0 200\r\nTransfer-Encoding: chunked\r\n\r\nzz"} {
		f.Add([]byte(s))
	}
	var now atomic.Pointer[[]byte]
	address := probetest.Listen(f, func(c net.Conn) {
		_, _ = c.Write(*now.Load())
		_ = c.(*net.TCPConn).CloseWrite()
		probetest.Hang(c)
	})
	f.Fuzz(func(t *testing.T, answer []byte) {
		now.Store(&answer)
		r := probetest.Run(t, websocket.Compile, "ws://"+address+"/", 5*time.Second, probe.Options{}, nil)
		if r.ErrorClass == meshv1.Result_PROBER || r.Outcome == meshv1.Result_OK {
			t.Fatal(r)
		}
	})
}
