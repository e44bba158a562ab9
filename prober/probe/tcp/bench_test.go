package tcp_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/probemesh/probemesh/prober/probe/probetest"
	"github.com/probemesh/probemesh/prober/probe/tcp"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestBenchTarget is the target process; it greets whoever connects until its standard input ends.
func TestBenchTarget(t *testing.T) {
	probetest.AsTarget(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "220 target ESMTP\r\n")
			c.Close()
		}
	}()
	probetest.Announce(l.Addr().String())
	l.Close()
	<-done
}

// target starts the target process and gives its address.
func target(b *testing.B) string { return probetest.Target(b)[0] }

// probing gives a function that probes the target once.
func probing(b *testing.B, address string, o *meshv1.TcpProbe) func() {
	return probetest.Probing(b, tcp.Compile, "tcp://"+address, func(c *meshv1.Check) { c.Tcp = o })
}

// bare gives a function that connects once as a plain program would, and with read reads the greeting.
func bare(b *testing.B, address string, read bool) func() {
	buffer := make([]byte, 512)
	return func() {
		c, err := net.DialTimeout("tcp", address, 5*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		if read {
			if _, err := c.Read(buffer); err != nil {
				b.Fatal(err)
			}
		}
		c.Close()
	}
}

// dialogue is the one step of the benchmarks.
func dialogue() *meshv1.TcpProbe {
	return &meshv1.TcpProbe{Steps: []*meshv1.DialogueStep{{Expect: `^220 (?P<name>\S+)`}}}
}

// BenchmarkTCPProbe is a whole probe: connect, result, timings. Run it with -cpu 1 to learn what one core does.
func BenchmarkTCPProbe(b *testing.B) {
	probetest.Measure(b, probing(b, target(b), nil))
}

// BenchmarkTCPProbeDialogue is a probe that reads a greeting.
func BenchmarkTCPProbeDialogue(b *testing.B) {
	probetest.Measure(b, probing(b, target(b), dialogue()))
}

// BenchmarkBareTCP is the same connection by net alone.
func BenchmarkBareTCP(b *testing.B) {
	probetest.Measure(b, bare(b, target(b), false))
}

// BenchmarkTCPProbeAgainstBare compares with the bare connection; 0.8 is the least that cpu-ratio should be.
func BenchmarkTCPProbeAgainstBare(b *testing.B) {
	address := target(b)
	probetest.Against(b, probing(b, address, nil), bare(b, address, false))
}

// BenchmarkTCPDialogueAgainstBare is the same with a greeting that is read.
func BenchmarkTCPDialogueAgainstBare(b *testing.B) {
	address := target(b)
	probetest.Against(b, probing(b, address, dialogue()), bare(b, address, true))
}
