//go:build linux

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// What is refused is refused whole, with every fault named, and what runs goes on as it was.
func TestBadInputChangesNothing(t *testing.T) {
	t.Parallel()
	m := startMesh(t, "up", nil)
	m.awaitProber("local-1")
	target := startWebTarget(t, nil)
	m.apply(webCheck("shop", target.url(), pace, 1, 1) + "receivers: [{name: receivers/ops, webhook: {url: \"http://127.0.0.1:9/\"}}]\n")
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	t.Run("a bad check among a hundred", func(t *testing.T) { badAmongAHundred(t, m) })
	t.Run("a stale etag", func(t *testing.T) { staleETag(t, m) })
	t.Run("another protocol", func(t *testing.T) { otherProtocol(t, m) })
	t.Run("a duplicate prober name", func(t *testing.T) { duplicateProber(t, m) })
}

// unchanged calls f, and holds that everything configured is the same afterwards, etags included.
func (m *mesh) unchanged(t *testing.T, f func()) {
	t.Helper()
	before := m.configured()
	f()
	if after := m.configured(); after != before {
		t.Errorf("something has changed:\n%s\nwas:\n%s", after, before)
	}
}

// configured is every check and receiver as text, without what is observed.
func (m *mesh) configured() string {
	m.t.Helper()
	checks, err := m.checks.ListChecks(m.ctx(), &meshv1.ListChecksRequest{PageSize: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	receivers, err := m.receivers.ListReceivers(m.ctx(), &meshv1.ListReceiversRequest{PageSize: 1000})
	if err != nil {
		m.t.Fatal(err)
	}
	if len(checks.GetChecks()) != 1 || len(receivers.GetReceivers()) != 1 {
		m.t.Errorf("there are %d checks and %d receivers, want one of each", len(checks.GetChecks()), len(receivers.GetReceivers()))
	}
	var all strings.Builder
	for _, c := range checks.GetChecks() {
		c.Status = nil
		all.WriteString(prototext.MarshalOptions{Multiline: true}.Format(c))
	}
	for _, r := range receivers.GetReceivers() {
		r.Owed, r.LastError, r.LastDeliveryTime = 0, "", nil
		all.WriteString(prototext.MarshalOptions{Multiline: true}.Format(r))
	}
	return all.String()
}

func badAmongAHundred(t *testing.T, m *mesh) {
	var y strings.Builder
	y.WriteString("checks:\n")
	line := 1
	var wrong int
	for i := range 100 {
		fmt.Fprintf(&y, "  - name: checks/bulk-%d\n    uri: http://127.0.0.1:9/%d\n    interval: 30s\n", i, i)
		line += 3
		if i == 56 {
			y.WriteString("    timeout: 45s\n")
			line++
			wrong = line
		}
	}
	file := filepath.Join(t.TempDir(), "hundred.yaml")
	if err := os.WriteFile(file, []byte(y.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	m.unchanged(t, func() {
		out, errs, code := m.cli("", "apply", "-f", file)
		if code == 0 {
			t.Errorf("it was applied:\n%s", out)
		}
		if !strings.Contains(errs, fmt.Sprintf("hundred.yaml:%d", wrong)) || !strings.Contains(errs, "timeout") || !strings.Contains(errs, "45s") {
			t.Errorf("the message should name line %d, the field and its value, is:\n%s", wrong, errs)
		}
		t.Logf("exit code %d: %s", code, errs)
	})
	// The server does not rely on its clients: the same by the API, with two faults, both of which are named.
	checks := []*meshv1.Check{{Name: "checks/good", Uri: "http://127.0.0.1:9/"}, {Name: "checks/bad", Uri: "gopher://127.0.0.1/"}, {Name: "checks/worse", Uri: "http://127.0.0.1:9/", Quorum: 4, Probers: 3}}
	m.unchanged(t, func() {
		_, err := m.checks.Apply(m.ctx(), &meshv1.ApplyRequest{Checks: checks})
		e, _ := fault.From(err)
		var fields []string
		for _, v := range e.Violations {
			fields = append(fields, v.Field)
		}
		if status.Code(err) != codes.InvalidArgument || !slices.Equal(fields, []string{"checks[1].uri", "checks[2].quorum"}) {
			t.Errorf("Apply: %v with violations of %v", err, fields)
		}
	})
}

func staleETag(t *testing.T, m *mesh) {
	read, err := m.checks.GetCheck(m.ctx(), &meshv1.GetCheckRequest{Name: "checks/shop"})
	if err != nil {
		t.Fatal(err)
	}
	// Somebody else is faster.
	faster := proto.CloneOf(read)
	faster.DisplayName = "The shop"
	if _, err := m.checks.UpdateCheck(m.ctx(), &meshv1.UpdateCheckRequest{Check: faster}); err != nil {
		t.Fatal(err)
	}
	m.unchanged(t, func() {
		mine := proto.CloneOf(read)
		mine.Uri = "http://127.0.0.1:9/mine"
		_, err = m.checks.UpdateCheck(m.ctx(), &meshv1.UpdateCheckRequest{Check: mine})
		e, _ := fault.From(err)
		if status.Code(err) != codes.Aborted || e.Reason != meshv1.ErrorReason_ETAG_MISMATCH {
			t.Errorf("an update with a stale etag: %v, want ABORTED, ETAG_MISMATCH", err)
		}
		yaml := fmt.Sprintf("checks:\n  - {name: checks/other, uri: \"http://127.0.0.1:9/\"}\n  - {name: checks/shop, uri: \"http://127.0.0.1:9/mine\", etag: %q}\n", read.GetEtag())
		out, errs, code := m.cli(yaml, "apply", "-f", "-")
		if code == 0 || !strings.Contains(errs, "stdin:3") || !strings.Contains(errs, "etag") {
			t.Errorf("apply with a stale etag ended with %d:\n%s%s", code, out, errs)
		}
		t.Logf("by the API: %s\nby apply: %s", status.Convert(err).Message(), errs)
	})
}

func otherProtocol(t *testing.T, m *mesh) {
	for _, protocol := range []int32{0, 2, 99} {
		stream, err := m.sessions.Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = stream.Send(&meshv1.ProberMessage{Message: &meshv1.ProberMessage_Hello{Hello: &meshv1.Hello{
			Prober: "stranger", BootId: strings.Repeat("ab", 16), Build: "9.9", Protocol: protocol, Datacenter: "x", Time: timestamppb.Now(),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		e, _ := fault.From(err)
		if status.Code(err) != codes.FailedPrecondition || e.Reason != meshv1.ErrorReason_PROTOCOL_UNSUPPORTED {
			t.Errorf("protocol %d: %v, want FAILED_PRECONDITION, PROTOCOL_UNSUPPORTED", protocol, err)
		}
		t.Logf("protocol %d: %s", protocol, status.Convert(err).Message())
	}
	if _, err := m.probers.GetProber(m.ctx(), &meshv1.GetProberRequest{Name: "probers/stranger"}); status.Code(err) != codes.NotFound {
		t.Errorf("a prober of another protocol was enrolled: %v", err)
	}
}

func duplicateProber(t *testing.T, m *mesh) {
	first, _ := startProber(t, m, "twin", "b")
	boot := func() string {
		p, err := m.probers.GetProber(m.ctx(), &meshv1.GetProberRequest{Name: "probers/twin"})
		if err != nil {
			t.Fatal(err)
		}
		return p.GetState().String() + " " + p.GetBootId()
	}
	held := boot()
	second := launchProber(t, m.grpc, "twin", "b", t.TempDir())
	until(t, "the second process says why it is not heard", func() (bool, string) {
		return second.log.has("another process") && second.log.has("--name"), tail(second.log.String(), 3)
	})
	if now := boot(); now != held || !second.alive() || !first.alive() {
		t.Errorf("%s has become %s; the processes are alive: first %t, second %t", held, now, first.alive(), second.alive())
	}
	t.Logf("%s", second.log.lines("another process")[0])
	// When the first one is gone, the second takes its place without being told.
	if code, _ := first.interrupt(); code != 0 {
		t.Errorf("the first process ended with %d", code)
	}
	until(t, "the second process has the session", func() (bool, string) { now := boot(); return now != held && strings.HasPrefix(now, "ONLINE"), now })
	second.kill()
}
