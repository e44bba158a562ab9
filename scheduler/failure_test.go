package scheduler

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// result casts a vote of the prober of a datacenter with more than an outcome.
func (r *rig) result(check, datacenter string, change func(*meshv1.Result)) {
	c := r.s.checks["checks/"+check]
	m := &meshv1.Result{Check: c.name, StartTime: timestamppb.New(r.now), Outcome: ok, CheckRevision: c.workHash, Duration: durationpb.New(time.Millisecond)}
	change(m)
	r.apply(Cast{Prober: datacenter + "-1", Result: m})
	r.now = r.now.Add(time.Millisecond)
}

func TestAStatusSaysWhatMostFailingVotesSay(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	says := func(class meshv1.Result_ErrorClass, text string) func(*meshv1.Result) {
		return func(m *meshv1.Result) { m.Outcome, m.ErrorClass, m.Error = fail, class, text }
	}
	long := "the answer is " + strings.Repeat("x", 900) + "."
	r.result("shop", "ams", says(meshv1.Result_TIMEOUT, "no answer within 2s"))
	r.result("shop", "fra", says(meshv1.Result_CONNECTION_REFUSED, "connect to 192.0.2.7:443: connection refused."))
	r.result("shop", "iad", says(meshv1.Result_CONNECTION_REFUSED, "connect to 192.0.2.8:443: connection refused."))
	st := r.status("shop")
	if st.GetFailureClass() != meshv1.Result_CONNECTION_REFUSED || st.GetFailure() != "connect to 192.0.2.7:443: connection refused." {
		t.Errorf("it fails by %s: %s", st.GetFailureClass(), st.GetFailure())
	}
	if want := "3 of 3 datacenters see it fail (ams, fra, iad), quorum 2: connect to 192.0.2.7:443: connection refused"; st.GetSummary() != want {
		t.Errorf("summary %q, want %q", st.GetSummary(), want)
	}
	r.after(10 * time.Second)
	for _, dc := range []string{"ams", "fra", "iad"} {
		r.result("shop", dc, says(meshv1.Result_PROTOCOL, long))
	}
	if st := r.status("shop"); st.GetFailure() != long || len(st.GetSummary()) > 300 || !strings.HasSuffix(st.GetSummary(), "x…") {
		t.Errorf("a long failure: %d bytes whole, summary %q", len(st.GetFailure()), st.GetSummary())
	}
	r.after(10 * time.Second)
	r.votes("shop", ok, "ams", "fra", "iad")
	if st := r.status("shop"); st.GetFailure() != "" || st.GetFailureClass() != 0 {
		t.Errorf("nobody sees it fail, and it fails by %s: %s", st.GetFailureClass(), st.GetFailure())
	}
}

func TestExplainShowsStepsAndAddresses(t *testing.T) {
	r := up(t, tcpCheck("shop", 2))
	step := func(name string, o meshv1.Result_Outcome, text string) *meshv1.StepResult {
		return &meshv1.StepResult{Name: name, Outcome: o, Error: text, Duration: durationpb.New(12 * time.Millisecond)}
	}
	r.result("shop", "ams", func(m *meshv1.Result) {
		m.Steps = []*meshv1.StepResult{step("login", ok, ""), step("pay", ok, "")}
	})
	r.result("shop", "fra", func(m *meshv1.Result) {
		m.Outcome, m.ErrorClass, m.Error = fail, meshv1.Result_EXPECTATION, "step pay: status 500"
		m.Steps = []*meshv1.StepResult{step("login", ok, ""), step("pay", fail, "status 500")}
	})
	r.result("shop", "iad", func(m *meshv1.Result) {
		m.Addresses = []*meshv1.AddressResult{{RemoteAddress: "192.0.2.7:443", Outcome: ok}, {RemoteAddress: "192.0.2.8:443", Outcome: fail, Error: "connection refused"}}
	})
	for _, want := range []string{
		"    steps: login 12ms, pay 12ms\n", "    step 1 login        OK   took 12ms\n    step 2 pay          FAIL took 12ms\n",
		"    address 192.0.2.8:443 FAIL after 0s: connection refused\n    1 of 2 addresses answer\n",
	} {
		r.wantText("shop", want)
	}
	e, _ := r.s.Explain("checks/shop", r.now)
	steps, addresses := 0, 0
	for _, v := range e.GetStatus().GetVotes() {
		steps, addresses = steps+len(v.GetSteps()), addresses+len(v.GetAddresses())
	}
	if steps != 4 || addresses != 2 {
		t.Errorf("the votes have %d steps and %d addresses", steps, addresses)
	}
}
