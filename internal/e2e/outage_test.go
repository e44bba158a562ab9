//go:build linux

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	opened   = meshv1.Notification_OPENED
	resolved = meshv1.Notification_RESOLVED
)

// pace is the interval, and so the longest timeout, of most checks here: short, so that tests are, and long enough for a target in this process to answer in
// time on a machine that is busy with other tests.
const pace = 2 * time.Second

// webCheck is a check of a web target in a configuration file.
func webCheck(name, uri string, interval time.Duration, probers, quorum int, fields ...string) string {
	y := fmt.Sprintf("checks:\n  - name: checks/%s\n    uri: %q\n    interval: %s\n    timeout: %s\n    probers: %d\n    quorum: %d\n",
		name, uri, interval, min(interval, 2*time.Second), probers, quorum)
	for _, f := range fields {
		y += "    " + f + "\n"
	}
	return y
}

// A target is stopped and started ten times, watched by two probers in two datacenters that must agree. Every outage is one OPENED, within
// interval/n + 2d + 1s of the stop (n probers, d the longest failing probe), and one RESOLVED, in order, and nothing else.
func TestTenOutagesAreTenPairsOfWebhooks(t *testing.T) {
	if testing.Short() {
		t.Skip("ten outages take most of a minute; run without -short")
	}
	t.Parallel()
	const interval, n, outages = pace, 2, 10
	m := startMesh(t, "up", []string{"--datacenter", "a"})
	startProber(t, m, "b-1", "b")
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), interval, n, 2, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)

	var took []time.Duration
	for i := range outages {
		// At any moment of the interval, or all outages would begin just after the probes that ended the one before.
		time.Sleep(rand.N(interval))
		stopped := time.Now()
		target.stop()
		d := hook.await(t, 2*i+1, opened)
		took = append(took, d.at.Sub(stopped))
		var longest time.Duration
		for _, v := range d.note.GetEvidence() {
			longest = max(longest, v.GetDuration().AsDuration())
		}
		if bound := interval/n + 2*longest + time.Second; took[i] > bound {
			t.Errorf("outage %d was announced after %s, which is more than %s (failing probes took up to %s)", i+1, took[i], bound, longest)
		}
		if d.note.GetVerdict() != meshv1.CheckStatus_DOWN || len(d.note.GetEvidence()) < 2 {
			t.Errorf("outage %d was announced as %s with %d votes; want DOWN with two: %s", i+1, d.note.GetVerdict(), len(d.note.GetEvidence()), d.note.GetSummary())
		}
		target.start()
		hook.await(t, 2*i+2, resolved)
		m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)
	}
	all := hook.all()
	if len(all) != 2*outages {
		t.Errorf("%d deliveries for %d outages, want %d: %s", len(all), outages, 2*outages, story(all))
	}
	for i := 1; i < len(all); i += 2 {
		if all[i].note.GetIncident() != all[i-1].note.GetIncident() || all[i].note.GetTransition() != resolved {
			t.Errorf("deliveries %d and %d are no pair: %s", i, i+1, story(all[i-1:i+1]))
		}
	}
	slices.Sort(took)
	t.Logf("from the stop of the target to OPENED at the receiver, %d outages, interval %s, %d probers: min %s, median %s, max %s", outages, interval, n,
		took[0].Round(time.Millisecond), took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
}

// `up` is killed while an incident is open, and started on the same data; then the target comes back.
func TestOutageAcrossASIGKILLIsOnePair(t *testing.T) {
	t.Parallel()
	m := startMesh(t, "up", nil)
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), pace, 1, 1, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	target.stop()
	first := hook.await(t, 1, opened)
	m.restart()
	m.awaitVerdict("shop", meshv1.CheckStatus_DOWN, 1)
	target.start()
	last := hook.await(t, 2, resolved)
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	if first.note.GetIncident() != last.note.GetIncident() {
		t.Errorf("opened %s, resolved %s: not one incident", first.note.GetIncident(), last.note.GetIncident())
	}
	if all := hook.distinct(); len(all) != 2 {
		t.Errorf("want one OPENED and one RESOLVED, got %s", story(all))
	}
	if list := m.allIncidents(); len(list) != 1 || list[0].GetState() != meshv1.Incident_RESOLVED {
		t.Errorf("want one incident, resolved; got %v", list)
	}
	t.Logf("%d deliveries with %d distinct keys", len(hook.all()), len(hook.distinct()))
}

// `up` is killed at a random moment around the opening, several times over, and once in the middle of a delivery, before the receiver has answered.
// No announcement is lost, and what comes twice comes with the same Idempotency-Key.
func TestSIGKILLAroundTheOpeningLosesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("each round restarts the mesh, which takes some seconds; run without -short")
	}
	t.Parallel()
	rounds := 4
	if n, err := strconv.Atoi(os.Getenv("PROBEMESH_E2E_ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	m := startMesh(t, "up", nil)
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), pace, 1, 1, "receivers: [receivers/ops]"))
	killed := make(chan struct{}, 1)
	for i := range rounds {
		m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
		before := len(hook.all())
		inDelivery := i == rounds-1
		if inDelivery {
			proc := m.proc
			hook.onDelivery(func(delivery) int {
				hook.onDelivery(nil)
				proc.kill()
				killed <- struct{}{}
				return 200 // to nobody
			})
		}
		target.stop()
		delay := rand.N(pace + 300*time.Millisecond)
		if inDelivery {
			<-killed
		} else {
			// The moment is what this test varies: it is no wait for a condition.
			time.Sleep(delay)
			m.proc.kill()
		}
		told := len(hook.all()) - before
		m.start()
		hook.await(t, 2*i+1, opened)
		m.awaitVerdict("shop", meshv1.CheckStatus_DOWN, 1)
		target.start()
		hook.await(t, 2*i+2, resolved)
		if inDelivery {
			t.Logf("round %d: killed while the receiver was about to answer; %d deliveries in all", i+1, len(hook.all())-before)
		} else {
			t.Logf("round %d: killed %s after the target stopped, told by then %d times, %d deliveries in all", i+1, delay.Round(time.Millisecond), told, len(hook.all())-before)
		}
	}
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 1)
	if list := m.allIncidents(); len(list) != rounds {
		t.Errorf("%d incidents for %d outages", len(list), rounds)
	}
	if all := hook.distinct(); len(all) != 2*rounds {
		t.Errorf("%d distinct notifications for %d outages, want %d: %s", len(all), rounds, 2*rounds, story(all))
	}
	// A delivery that was cut off must have been repeated: its key came twice.
	if len(hook.all()) == len(hook.distinct()) {
		t.Error("the delivery that the kill cut off was not sent again")
	}
}
