//go:build linux

package e2e

import (
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A target that swallows packets is the slowest to judge, since every probe of it takes the whole timeout. Two probers must agree, and have before the
// timeout of the first probe that met the silence has run out twice.
func TestBlackHoleIsConfirmedWithinTwoTimeouts(t *testing.T) {
	t.Parallel()
	t.Run("connections are dropped", func(t *testing.T) {
		t.Parallel()
		target := startSwallower(t)
		blackHole(t, "tcp://"+target.address, target.die)
	})
	t.Run("answers never come", func(t *testing.T) {
		t.Parallel()
		silent := make(chan struct{})
		target := startWebTarget(t, func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-silent:
				<-r.Context().Done()
			default:
			}
		})
		blackHole(t, target.url(), func() { close(silent) })
	})
}

func blackHole(t *testing.T, uri string, die func()) {
	t.Helper()
	const interval, timeout = 5 * time.Second, 3 * time.Second
	m := startMesh(t, "up", []string{"--datacenter", "a"})
	startProber(t, m, "b-1", "b")
	hook := startReceiver(t)
	m.apply(hook.yaml("ops") + "checks:\n  - {name: checks/hole, uri: \"" + uri + "\", interval: 5s, timeout: 3s, probers: 2, quorum: 2, receivers: [receivers/ops]}\n")
	m.awaitVerdict("hole", meshv1.CheckStatus_UP, 2)

	died := time.Now()
	die()
	d := hook.await(t, 1, opened)
	list := m.allIncidents()
	if len(list) != 1 {
		t.Fatalf("want one incident, got %d", len(list))
	}
	incident := list[0]
	first := firstFailure(t, m, "hole", incident, died)
	took := incident.GetOpenTime().AsTime().Sub(first)
	if took >= 2*timeout {
		t.Errorf("DOWN was decided %s after the start of the first failing probe, which is not below two timeouts of %s", took, timeout)
	}
	for _, v := range incident.GetEvidence() {
		if v.GetOutcome() == meshv1.Result_FAIL && v.GetErrorClass() != meshv1.Result_TIMEOUT {
			t.Errorf("%s failed with %s (%s), want TIMEOUT", v.GetProber(), v.GetErrorClass(), v.GetError())
		}
	}
	t.Logf("timeout %s, interval %s: DOWN was decided %s after the start of the first failing probe, and announced %s after the target died", timeout, interval,
		took.Round(time.Millisecond), d.at.Sub(died).Round(time.Millisecond))
}

// firstFailure is when the first failing probe began: as the incident has it, or earlier if the history knows of an earlier one.
func firstFailure(t *testing.T, m *mesh, check string, incident *meshv1.Incident, since time.Time) time.Time {
	t.Helper()
	first := incident.GetStartTime().AsTime()
	for _, v := range incident.GetEvidence() {
		if at := v.GetStartTime().AsTime(); v.GetOutcome() == meshv1.Result_FAIL && at.Before(first) {
			first = at
		}
	}
	resp, err := m.history.QueryRange(m.ctx(), &meshv1.QueryRangeRequest{Check: "checks/" + check, StartTime: timestamppb.New(since.Add(-10 * time.Second))})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range resp.GetSeries() {
		for _, p := range s.GetPoints() {
			if at := p.GetTime().AsTime(); p.GetValue() == 0 && at.Before(first) {
				first = at
			}
		}
	}
	return first
}
