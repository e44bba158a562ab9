package probe_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// planned runs a plan whose Talk is talk.
func planned(t *testing.T, timeout time.Duration, exprs []string, talk func(context.Context, *probe.Attempt) (probe.Answer, error)) *meshv1.Result {
	t.Helper()
	c, _ := probetest.Check(t, "tcp://a.example.com:1", timeout, nil)
	p, err := probe.NewPlan(c, exprs)
	if err != nil {
		t.Fatal(err)
	}
	p.Talk = talk
	r := p.Run(context.Background(), probe.Options{})
	probetest.Promises(t, r)
	return r
}

func TestErrorsAreClassifiedByWhoseFaultTheyAre(t *testing.T) {
	const fail, mine = meshv1.Result_FAIL, meshv1.Result_ERROR
	for _, c := range []struct {
		err     error
		phase   meshv1.Result_Phase
		outcome meshv1.Result_Outcome
		class   meshv1.Result_ErrorClass
		text    string
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, meshv1.Result_CONNECT, fail, meshv1.Result_CONNECTION_REFUSED, "connect to 192.0.2.7:443: connection refused"},
		{syscall.ECONNRESET, meshv1.Result_TRANSFER, fail, meshv1.Result_CONNECTION_RESET, "read the answer of 192.0.2.7:443: connection reset by peer"},
		{syscall.EPIPE, meshv1.Result_PROCESSING, fail, meshv1.Result_CONNECTION_RESET, "reset"},
		{syscall.EHOSTUNREACH, meshv1.Result_CONNECT, fail, meshv1.Result_UNREACHABLE, "no route to host"},
		{syscall.ETIMEDOUT, meshv1.Result_CONNECT, fail, meshv1.Result_TIMEOUT, "connect to 192.0.2.7:443: timed out after 5s"},
		{context.DeadlineExceeded, meshv1.Result_HANDSHAKE, fail, meshv1.Result_TIMEOUT, "TLS handshake with 192.0.2.7:443: timed out after 5s"},
		{os.ErrDeadlineExceeded, meshv1.Result_PROCESSING, fail, meshv1.Result_TIMEOUT, "wait for the answer of 192.0.2.7:443: timed out"},
		{io.ErrUnexpectedEOF, meshv1.Result_TRANSFER, fail, meshv1.Result_CONNECTION_RESET, "too early"},
		{errors.New("odd"), meshv1.Result_TRANSFER, fail, meshv1.Result_PROTOCOL, "odd"},
		{errors.New("odd"), meshv1.Result_HANDSHAKE, fail, meshv1.Result_TLS, "odd"},
		{&net.DNSError{Err: "no such host", Name: "a", IsNotFound: true}, meshv1.Result_RESOLVE, fail, meshv1.Result_NAME_NOT_FOUND, "resolve a.example.com: no such host"},
		{&net.DNSError{Err: "server misbehaving", Name: "a", Server: "192.0.2.53:53"}, meshv1.Result_RESOLVE, fail, meshv1.Result_RESOLVER_FAILED, "server misbehaving (resolver 192.0.2.53:53)"},
		{&net.DNSError{Err: "i/o timeout", Name: "a", IsTimeout: true}, meshv1.Result_RESOLVE, fail, meshv1.Result_RESOLVER_FAILED, "i/o timeout"},
		{os.NewSyscallError("socket", syscall.EMFILE), meshv1.Result_CONNECT, mine, meshv1.Result_PROBER, "ulimit -n"},
		{syscall.ENOBUFS, meshv1.Result_CONNECT, mine, meshv1.Result_PROBER, "the send queue of its network interface is full"},
		{syscall.EADDRNOTAVAIL, meshv1.Result_CONNECT, mine, meshv1.Result_PROBER, "ip_local_port_range"},
		{syscall.EPERM, meshv1.Result_CONNECT, mine, meshv1.Result_PROBER, "firewall"},
		{syscall.EACCES, meshv1.Result_CONNECT, mine, meshv1.Result_PROBER, "permissions"},
		{&probe.Failure{Class: meshv1.Result_PROTOCOL, Phase: meshv1.Result_TRANSFER, Sentence: "as it is"}, meshv1.Result_CONNECT, fail, meshv1.Result_PROTOCOL, "as it is"},
	} {
		r := planned(t, 5*time.Second, nil, func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
			a.Meeting("a.example.com")
			a.Connecting("192.0.2.7:443")
			a.Enter(c.phase)
			return nil, fmt.Errorf("wrapped: %w", c.err)
		})
		if r.Outcome != c.outcome || r.ErrorClass != c.class || !strings.Contains(r.Error, c.text) {
			t.Errorf("%v: got %v %v: %s", c.err, r.Outcome, r.ErrorClass, r.Error)
		}
	}
}

func TestAPanicIsTheProbersOwnFaultAndEndsNothing(t *testing.T) {
	r := planned(t, time.Second, nil, func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
		a.Enter(meshv1.Result_TRANSFER)
		panic("boom")
	})
	if r.Outcome != meshv1.Result_ERROR || !strings.Contains(r.Error, "boom at ") || !strings.Contains(r.Error, "probe_test.go") {
		t.Errorf("got %v", r)
	}
}

// explosiveAnswer cannot be judged.
type explosiveAnswer struct{ hostileAnswer }

func (explosiveAnswer) Judge(bool) *probe.Failure { panic("boom") }

func TestAPanicInJudgingAnAnswerIsTheProbersOwnFaultToo(t *testing.T) {
	r := planned(t, time.Second, nil, func(context.Context, *probe.Attempt) (probe.Answer, error) { return explosiveAnswer{}, nil })
	if r.Outcome != meshv1.Result_ERROR || r.ErrorClass != meshv1.Result_PROBER || !strings.Contains(r.Error, "boom at ") || !strings.Contains(r.Error, "probe_test.go") {
		t.Errorf("got %v", r)
	}
}

// hostileAnswer has more of everything than evidence may hold.
type hostileAnswer struct{}

func (hostileAnswer) Record(*meshv1.Result)                     {}
func (hostileAnswer) Respond(*meshv1.Response, *expect.Program) {}
func (hostileAnswer) Judge(bool) *probe.Failure {
	return &probe.Failure{Class: meshv1.Result_PROTOCOL, Phase: meshv1.Result_TRANSFER, Sentence: strings.Repeat("é\xff", 5000)}
}
func (hostileAnswer) Evidence(e *meshv1.Evidence) {
	headers := map[string][]string{"Authorization": {"Bearer secret"}, "set-cookie": {"secret"}}
	for i := range 200 {
		headers[fmt.Sprintf("X-%03d", i)] = []string{"\xffvalue", strings.Repeat("v", 100)}
	}
	probe.EvidenceHeaders(e, headers)
	probe.EvidenceBody(e, make([]byte, 10_000), false)
	lines := make([]string, 100)
	for i := range lines {
		lines[i] = strings.Repeat("r", 1000)
	}
	probe.EvidenceRecords(e, lines)
}

func TestEvidenceStaysWithinItsLimitsAndHoldsNoSecrets(t *testing.T) {
	r := planned(t, time.Second, nil, func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
		a.Resolved(make([]netip.Addr, 40))
		return hostileAnswer{}, nil
	})
	e := r.Evidence
	size := 0
	for _, h := range e.Headers {
		size += len(h.Name) + len(h.Value)
	}
	if len(e.Headers) == 0 || len(e.Headers) > 64 || size > 8<<10 || len(e.Body) != 4<<10 || !e.BodyTruncated || len(e.Records) != 32 || len(e.ResolvedAddresses) != 16 {
		t.Errorf("%d headers of %d bytes, body %d, %d records, %d addresses", len(e.Headers), size, len(e.Body), len(e.Records), len(e.ResolvedAddresses))
	}
	if strings.Contains(fmt.Sprint(e.Headers), "secret") {
		t.Errorf("a secret: %v", e.Headers)
	}
	if _, err := proto.Marshal(r); err != nil {
		t.Errorf("the result cannot be encoded: %v", err)
	}
}

func TestPhasesAddUpAndWhatComesLaterIsIgnored(t *testing.T) {
	var kept *probe.Attempt
	r := planned(t, time.Second, nil, func(_ context.Context, a *probe.Attempt) (probe.Answer, error) {
		kept = a
		a.Enter(meshv1.Result_CONNECT)
		a.Enter(meshv1.Result_PROCESSING)
		a.Enter(meshv1.Result_CONNECT)
		a.Enter(meshv1.Result_TRANSFER)
		return nil, nil
	})
	kept.Enter(meshv1.Result_HANDSHAKE)
	kept.Connecting("late")
	if kept.Phase() != meshv1.Result_TRANSFER || kept.Remote() != "" {
		t.Error("an ended attempt was changed")
	}
	if tm := r.Timings; tm.Resolve != nil || tm.Connect == nil || tm.Handshake != nil || tm.Processing == nil || tm.Transfer == nil {
		t.Errorf("got %v", tm)
	}
	sum := r.Timings.Connect.AsDuration() + r.Timings.Processing.AsDuration() + r.Timings.Transfer.AsDuration()
	if sum > r.Duration.AsDuration() {
		t.Errorf("the phases take %s, the probe %s", sum, r.Duration.AsDuration())
	}
}
