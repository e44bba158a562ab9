package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shown is one resource as `get` shows it to somebody who reads no colours.
func shown(kind *resource, m proto.Message, now time.Time) string {
	return strings.Join(kind.table([]proto.Message{m}, false, now).withoutEmpty(whyColumn).lines(screen{}), "\n")
}

func TestEveryCheckThatIsNotUPSaysWhy(t *testing.T) {
	for _, x := range []struct {
		status *meshv1.CheckStatus
		want   string
	}{
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_UNKNOWN, Summary: "no prober has voted yet"}, "no prober has voted yet"},
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_DEGRADED, Summary: "3 of 3 datacenters see it degraded"}, "3 of 3 datacenters see it degraded"},
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_DOWN, Summary: "3 of 3 datacenters see it answer again"}, "see it answer again"},
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_DOWN, Summary: "3 of 3 fail", Failure: "connection refused"}, "connection refused"},
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_UNKNOWN, Summary: "it asks for 2, only 1 has", Failure: "connection refused"}, "  it asks for 2, only 1 has"},
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_UNKNOWN, Reason: meshv1.CheckStatus_TOO_FEW_DOMAINS, Summary: "none has", Warnings: []string{"nobody is in frra"}}, "nobody is in frra; none has"},
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_UP, Summary: "3 of 3 answer", Warnings: []string{`datacenters[1] is "frra"`}}, `datacenters[1] is "frra"`},
		{&meshv1.CheckStatus{Verdict: meshv1.CheckStatus_UNKNOWN, Summary: "only 1 has", Warnings: []string{"fra-1 refuses"}}, "only 1 has; fra-1 refuses"},
	} {
		text := shown(checkResource(), &meshv1.Check{Name: "checks/shop", Uri: "https://a/", Status: x.status}, time.Now())
		if !strings.Contains(text, "WHY") || !strings.HasSuffix(text, x.want) || strings.Contains(text, "3 of 3 answer") {
			t.Errorf("want %q at the end of\n%s", x.want, text)
		}
	}
	for _, v := range []meshv1.CheckStatus_Verdict{meshv1.CheckStatus_UP, meshv1.CheckStatus_PAUSED} {
		if text := shown(checkResource(), &meshv1.Check{Name: "checks/shop", Status: &meshv1.CheckStatus{Verdict: v, Summary: "said"}}, time.Now()); strings.Contains(text, "said") {
			t.Errorf("%s says why:\n%s", v, text)
		}
	}
}

func TestAServerThatIsGoneIsShownSinceWhen(t *testing.T) {
	now := time.Now()
	text := shown(serverResource(), &meshv1.Server{Name: "servers/fra-1", Gone: true, SilentTime: timestamppb.New(now.Add(-5 * time.Minute))}, now)
	if !strings.Contains(text, "gone") || !strings.Contains(text, "not for 5m") {
		t.Errorf("got\n%s", text)
	}
}

func TestAMemberThatNobodyCanReachStandsAlone(t *testing.T) {
	text := shown(memberResource(), &meshv1.Member{Name: "members/local", Started: true, Reachable: true}, time.Now())
	if !strings.Contains(text, "(stands alone)") {
		t.Errorf("got\n%s", text)
	}
}

func TestWhatIsNotKnownOfAReceiverIsNotMadeUp(t *testing.T) {
	text := shown(receiverResource(), &meshv1.Receiver{Name: "receivers/ops", DeliveryUnknown: true, LastError: "not known: etcd does not answer"}, time.Now())
	if strings.Count(text, "?") != 3 || strings.Contains(text, "failing") || strings.Contains(text, "never") || strings.Contains(text, " 0 ") {
		t.Errorf("got\n%s", text)
	}
}
