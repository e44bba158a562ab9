package websocket_test

import (
	"context"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ws "github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/websocket"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// short is the timeout of probes that are to run into it.
const short = 300 * time.Millisecond

func run(t *testing.T, uri string, o *meshv1.WebsocketProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, uri, o)
}

func within(t *testing.T, timeout time.Duration, uri string, o *meshv1.WebsocketProbe) *meshv1.Result {
	t.Helper()
	return probetest.Run(t, websocket.Compile, uri, timeout, probe.Options{}, func(c *meshv1.Check) { c.Websocket = o })
}

// serve runs handle for every WebSocket; it is closed when handle returns. It gives the URI.
func serve(t *testing.T, options *ws.AcceptOptions, handle func(context.Context, *ws.Conn, *nethttp.Request)) string {
	t.Helper()
	s := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		c, err := ws.Accept(w, r, options)
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		handle(ctx, c, r)
	}))
	t.Cleanup(s.Close)
	return "ws" + strings.TrimPrefix(s.URL, "http") + "/chat?x=1"
}

// echo answers every message with itself until the peer closes.
func echo(ctx context.Context, c *ws.Conn, _ *nethttp.Request) {
	for {
		kind, data, err := c.Read(ctx)
		if err != nil || c.Write(ctx, kind, data) != nil {
			return
		}
	}
}

func say(t testing.TB, ctx context.Context, c *ws.Conn, text string) {
	if err := c.Write(ctx, ws.MessageText, []byte(text)); err != nil {
		t.Logf("write: %v", err)
	}
}

func TestTheUpgradeIsEnoughAndTheProbeTakesLeave(t *testing.T) {
	left := make(chan ws.StatusCode, 1)
	uri := serve(t, &ws.AcceptOptions{Subprotocols: []string{"b"}, OriginPatterns: []string{"*"}}, func(ctx context.Context, c *ws.Conn, r *nethttp.Request) {
		if r.Header.Get("Origin") != "https://a.example.com" || r.Header.Get("Authorization") != "Bearer s3cret" || r.Header.Get("User-Agent") != "probemesh/test" || r.URL.RawQuery != "x=1" {
			t.Errorf("the request is %v %v", r.URL, r.Header)
		}
		_, _, err := c.Read(ctx)
		left <- ws.CloseStatus(err)
	})
	r := run(t, uri, &meshv1.WebsocketProbe{Origin: "https://a.example.com", BearerToken: "s3cret", Subprotocols: []string{"a", "b"}, Expect: []string{
		`response.status == 101`, `response.websocket.subprotocol == "b"`, `response.headers["upgrade"] == "websocket"`}})
	probetest.OK().Match(t, r)
	if r.Websocket.GetStatus() != 101 || r.Websocket.GetSubprotocol() != "b" || r.Timings.Connect == nil || r.Timings.Processing == nil {
		t.Errorf("got %v", r)
	}
	if code := <-left; code != ws.StatusNormalClosure {
		t.Errorf("the probe left with %v", code)
	}
}

func TestStepsSendExpectCaptureAndPing(t *testing.T) {
	uri := serve(t, nil, func(ctx context.Context, c *ws.Conn, r *nethttp.Request) {
		say(t, ctx, c, "noise")
		say(t, ctx, c, `{"session": {"id": "s-17"}, "greeting": "welcome ann"}`)
		echo(ctx, c, r)
	})
	r := run(t, uri, &meshv1.WebsocketProbe{
		Steps: []*meshv1.WebsocketStep{
			{Name: "early-ping", Ping: true},
			{Name: "hello", Expect: `welcome (?P<user>\w+)`, ExpectType: meshv1.WebsocketStep_TEXT, Capture: []*meshv1.Capture{{Name: "id", JsonPath: "session.id"}}},
			{Send: "I am ${user} in ${id}, ${1}, $${x}", Expect: `^I am ann in s-17, ann, \$\{x\}$`},
			{SendBytes: []byte{0, 255}, ExpectBytes: []byte{0, 255}, ExpectType: meshv1.WebsocketStep_BINARY},
			{Name: "bye", Close: true, ExpectClose: 1000},
		},
		Expect: []string{`response.captures.id == "s-17"`, `response.websocket.messages == 4`, `response.websocket.binary`, `response.websocket.close_code == 1000`, `response.websocket.ping_rtt > duration("0s")`},
	})
	probetest.OK().Match(t, r)
	if w := r.Websocket; w.GetStepsDone() != 5 || w.GetFailedStep() != "" || w.GetMessagesSent() != 2 || len(r.Steps) != 5 || r.Steps[0].Name != "early-ping" || r.Steps[2].Name != "3" {
		t.Errorf("got %v, %v", w, r.Steps)
	}
}

func TestCompressedMessagesAreBoundedByWhatComesOut(t *testing.T) {
	options := &ws.AcceptOptions{CompressionMode: ws.CompressionNoContextTakeover}
	uri := serve(t, options, echo)
	text := strings.Repeat("abc", 1000)
	r := run(t, uri, &meshv1.WebsocketProbe{Compression: true, Steps: []*meshv1.WebsocketStep{{Send: text, Expect: "^(abc)+$"}}, Expect: []string{"response.websocket.compressed"}})
	probetest.OK().Match(t, r)
	bomb := serve(t, options, func(ctx context.Context, c *ws.Conn, _ *nethttp.Request) {
		_ = c.Write(ctx, ws.MessageText, make([]byte, 64<<20))
	})
	r = run(t, bomb, &meshv1.WebsocketProbe{Compression: true, Steps: []*meshv1.WebsocketStep{{Expect: "x"}}})
	probetest.Fail(meshv1.Result_PROTOCOL, r.FailedPhase, "a message is longer than message_limit, 65536 bytes").Match(t, r)
}

func TestWhatDoesNotGoAsTheStepSaysNamesTheStepAndWhatCame(t *testing.T) {
	closing := serve(t, nil, func(ctx context.Context, c *ws.Conn, _ *nethttp.Request) {
		_, _, _ = c.Read(ctx)
		c.Close(ws.StatusPolicyViolation, "go away")
	})
	echoing := serve(t, nil, echo)
	ms := durationpb.New(100 * time.Millisecond)
	for name, c := range map[string]struct {
		uri  string
		step *meshv1.WebsocketStep
		want probetest.Want
	}{
		"other message": {echoing, &meshv1.WebsocketStep{Name: "a", Send: "no", Expect: "yes", Timeout: ms},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `step a: expected yes, and "no" came within 100ms`)},
		"rejected": {echoing, &meshv1.WebsocketStep{Send: "error 7", Expect: "yes", Reject: "^error"},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `step 1: expected yes, and "error 7" came, which is rejected (^error)`)},
		"other bytes": {echoing, &meshv1.WebsocketStep{Send: "ab", ExpectBytes: []byte("ac")},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `expected "ac", and "ab" came`)},
		"other type": {echoing, &meshv1.WebsocketStep{Send: "ab", ExpectType: meshv1.WebsocketStep_BINARY},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `expected BINARY message`)},
		"nothing to capture": {echoing, &meshv1.WebsocketStep{Send: "{}", Expect: ".*", Capture: []*meshv1.Capture{{Name: "x", JsonPath: "a.b"}}},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "capture x: a.b is not in the JSON")},
		"silence": {echoing, &meshv1.WebsocketStep{Expect: "yes", Timeout: ms},
			probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "step 1: no message came within 100ms")},
		"close in place of a message": {closing, &meshv1.WebsocketStep{Send: "x", Expect: "yes"},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `the peer closed with code 1008: "go away"`)},
		"other close code": {closing, &meshv1.WebsocketStep{Send: "x", ExpectClose: 1000},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `expected close code 1000, and the peer closed with code 1008`)},
		"no close": {echoing, &meshv1.WebsocketStep{Send: "x", ExpectClose: 1000, Timeout: ms},
			probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `none came within 100ms`)},
		"the right close code": {closing, &meshv1.WebsocketStep{Send: "x", ExpectClose: 1008}, probetest.OK()},
	} {
		t.Run(name, func(t *testing.T) {
			c.want.Match(t, run(t, c.uri, &meshv1.WebsocketProbe{Steps: []*meshv1.WebsocketStep{c.step}}))
		})
	}
}

func TestARefusedUpgradeSaysWithWhat(t *testing.T) {
	s := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		switch r.URL.Path {
		case "/moved":
			nethttp.Redirect(w, r, "https://b.example.com/", nethttp.StatusFound)
		case "/plain":
			fmt.Fprint(w, "no sockets here")
		default:
			nethttp.Error(w, "who are you?", nethttp.StatusUnauthorized)
		}
	}))
	defer s.Close()
	base := "ws" + strings.TrimPrefix(s.URL, "http")
	r := run(t, base+"/", nil)
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "the server answered the upgrade with 401 Unauthorized, not with 101").Match(t, r)
	if r.Websocket.GetStatus() != 401 || string(r.Evidence.Body) != "who are you?\n" {
		t.Errorf("got %v", r)
	}
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, `302 Found (to "https://b.example.com/", which is not followed)`).Match(t, run(t, base+"/moved", nil))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_PROCESSING, "200 OK").Match(t, run(t, base+"/plain", &meshv1.WebsocketProbe{Expect: []string{"response.websocket.messages == 0"}}))
	probetest.OK().Match(t, run(t, base+"/", &meshv1.WebsocketProbe{Expect: []string{"response.status == 401"}}))
	refused := probetest.RefusedAddress(t)
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connection refused").Match(t, run(t, "ws://"+refused+"/", nil))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_TRANSFER, "").Match(t, run(t, "ws://"+probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, "SSH-2.0-x\r\n"); probetest.Hang(c) })+"/", nil))
}

func TestTLSAndProxiesAreUsed(t *testing.T) {
	ca := probetest.NewCA(t)
	pair, _, _ := ca.Issue(t, 24*time.Hour, "localhost", "127.0.0.1")
	s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		c, err := ws.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		echo(r.Context(), c, r)
	}))
	s.TLS = serverTLS(pair)
	s.StartTLS()
	defer s.Close()
	address := s.Listener.Addr().String()
	steps := []*meshv1.WebsocketStep{{Send: "a", Expect: "a"}}
	tls := &meshv1.TlsConfig{CaPem: ca.PEM}
	r := run(t, "wss://"+address+"/", &meshv1.WebsocketProbe{Tls: tls, Steps: steps, Expect: []string{`response.tls.version == "1.3"`}})
	probetest.OK().Match(t, r)
	probetest.Fail(meshv1.Result_TLS, meshv1.Result_HANDSHAKE, "not trusted").Match(t, run(t, "wss://"+address+"/", nil))

	proxy := probetest.Listen(t, func(c net.Conn) {
		buffer := make([]byte, 1024)
		n, _ := c.Read(buffer)
		if !strings.HasPrefix(string(buffer[:n]), "CONNECT "+address+" HTTP/1.1\r\n") || !strings.Contains(string(buffer[:n]), "Proxy-Authorization: Basic eA==\r\n") {
			fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
			return
		}
		onward, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		defer onward.Close()
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(onward, c); onward.Close() }()
		_, _ = io.Copy(c, onward)
	})
	o := &meshv1.WebsocketProbe{Tls: tls, Steps: steps, ProxyUrl: "http://" + proxy, Headers: map[string]string{"Proxy-Authorization": "Basic eA=="}}
	probetest.OK().Match(t, run(t, "wss://"+address+"/", o))
	probetest.Fail(meshv1.Result_PROTOCOL, meshv1.Result_CONNECT, `answered CONNECT `).Match(t, run(t, "wss://"+address+"/", &meshv1.WebsocketProbe{Tls: tls, ProxyUrl: "http://" + proxy}))
}
