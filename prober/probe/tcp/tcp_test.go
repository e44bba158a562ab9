package tcp_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tcp"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, address string, o *meshv1.TcpProbe) *meshv1.Result {
	t.Helper()
	return within(t, 10*time.Second, address, o)
}

// short is the timeout of probes that are to run into it.
const short = 300 * time.Millisecond

// within is run with a timeout.
func within(t *testing.T, timeout time.Duration, address string, o *meshv1.TcpProbe) *meshv1.Result {
	t.Helper()
	return probetest.Run(t, tcp.Compile, "tcp://"+address, timeout, probe.Options{}, func(c *meshv1.Check) { c.Tcp = o })
}

func TestConnectingIsEnoughWithoutExpectations(t *testing.T) {
	address := probetest.Listen(t, probetest.Hang)
	r := run(t, address, nil)
	probetest.OK().Match(t, r)
	if r.RemoteAddress != address || r.Timings.Connect == nil || r.Timings.Processing != nil {
		t.Errorf("got %v", r)
	}
	refused := probetest.RefusedAddress(t)
	probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connect to "+refused+": connection refused").Match(t, run(t, refused, nil))
}

func TestReadingGoesOnUntilTheExpectationsHold(t *testing.T) {
	echo := probetest.Listen(t, func(c net.Conn) {
		line, _ := bufio.NewReader(c).ReadString('\n')
		for _, b := range []byte("you said " + line) { // in pieces of one byte
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
		}
		probetest.Hang(c)
	})
	r := run(t, echo, &meshv1.TcpProbe{Send: "hello\n", Expect: []string{`response.body == "you said hello\n"`}})
	probetest.OK().Match(t, r)
	if r.Duration.AsDuration() > 5*time.Second || r.Timings.Processing == nil || r.Timings.Transfer == nil {
		t.Errorf("it waited for more: %v", r)
	}
	r = within(t, short, echo, &meshv1.TcpProbe{Send: "hello\n", Expect: []string{`response.body.contains("bye")`}})
	probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, `does not hold: response.body is "you said hello\n"`).Match(t, r)
	if string(r.Evidence.Body) != "you said hello\n" {
		t.Errorf("evidence %q", r.Evidence.Body)
	}
}

func TestHostilePeersEndInAFailureThatSaysWhy(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  probetest.Want
	}{
		"silent":      {probetest.Hang, probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, "timed out after 300ms")},
		"closes":      {func(net.Conn) {}, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "without sending anything")},
		"resets":      {probetest.Reset, probetest.Fail(meshv1.Result_CONNECTION_RESET, 0, "")},
		"half closed": {func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite(); probetest.Hang(c) }, probetest.Fail(meshv1.Result_CONNECTION_RESET, meshv1.Result_PROCESSING, "without sending")},
		"wrong":       {func(c net.Conn) { fmt.Fprint(c, "\xff\x00") }, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "does not hold")},
		"endless": {func(c net.Conn) {
			for {
				if _, err := io.WriteString(c, strings.Repeat("x", 1000)); err != nil {
					return
				}
			}
		}, probetest.Fail(meshv1.Result_EXPECTATION, meshv1.Result_EXPECT, "does not hold")},
	} {
		t.Run(name, func(t *testing.T) {
			r := within(t, short, probetest.Listen(t, c.serve), &meshv1.TcpProbe{Expect: []string{`response.body.startsWith("220 ")`}})
			if c.want.Phase == 0 {
				c.want.Phase = r.FailedPhase
			}
			c.want.Match(t, r)
		})
	}
}

func TestReadingStopsAtTheLimit(t *testing.T) {
	address := probetest.Listen(t, func(c net.Conn) { fmt.Fprint(c, strings.Repeat("x", 5000)); probetest.Hang(c) })
	probetest.OK().Match(t, run(t, address, &meshv1.TcpProbe{ReadLimit: 3000, Expect: []string{`response.body.size() == 3000`}}))
}
