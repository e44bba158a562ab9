package cli

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestIncidentIsExplainedWithWhatTheProbeSaw(t *testing.T) {
	at := func(s int) *timestamppb.Timestamp {
		return timestamppb.New(time.Date(2026, 3, 1, 10, 0, s, 0, time.UTC))
	}
	i := &meshv1.Incident{
		Name: "incidents/01h", State: meshv1.Incident_RESOLVED, Summary: "shop is UP again after 9s.", StartTime: at(1), OpenTime: at(3), EndTime: at(10),
		AcknowledgedBy: "alice", Annotations: map[string]string{"runbook": "https://wiki/shop"},
		Evidence: []*meshv1.Vote{
			{Prober: "probers/fra-1", Datacenter: "fra", Outcome: meshv1.Result_FAIL, StartTime: at(1), Duration: durationpb.New(1500 * time.Microsecond),
				Error: "expectation response.status == 200 does not hold: response.status is 503",
				Evidence: &meshv1.Evidence{StatusLine: "HTTP/1.1 503 Service Unavailable", Body: []byte("{\"ok\": false}\n"), BodyTruncated: true,
					Headers: []*meshv1.Header{{Name: "Retry-After", Value: "30"}}, ResolvedAddresses: []string{"192.0.2.7"}}},
			{Prober: "probers/iad-1", Datacenter: "iad", Outcome: meshv1.Result_FAIL, StartTime: at(2), Duration: durationpb.New(time.Second),
				Error: "wait for the answer of 192.0.2.7:80: timed out after 1s", Evidence: &meshv1.Evidence{Body: []byte{0xff, 0xfe, 0}}},
		},
		Timeline: []*meshv1.TimelineEntry{{Time: at(3), Event: meshv1.TimelineEntry_OPENED, Text: "shop is DOWN."}, {Time: at(4), Event: meshv1.TimelineEntry_NOTIFIED, Text: "receivers/ops was told."}},
	}
	want := strings.TrimPrefix(`
incidents/01h is RESOLVED.
  shop is UP again after 9s.
  failed 2026-03-01T10:00:01Z, decided 2s later
  over   2026-03-01T10:00:10Z
  alice takes care of it
  runbook: https://wiki/shop

Evidence, as the probes saw it when it was decided
  fra-1            fra        FAIL  10:00:01, took 1.5ms
    expectation response.status == 200 does not hold: response.status is 503
    resolved to 192.0.2.7
    HTTP/1.1 503 Service Unavailable
    Retry-After: 30
    | {"ok": false}
    | (the body went on)
  iad-1            iad        FAIL  10:00:02, took 1s
    wait for the answer of 192.0.2.7:80: timed out after 1s
    | (3 bytes that are no text; -o json has them)

Timeline
  10:00:03  OPENED               shop is DOWN.
  10:00:04  NOTIFIED             receivers/ops was told.`, "\n")
	if got := incidentText(i); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestWhatAProberWasSetAsideForIsExplained(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC))
	text := incidentText(&meshv1.Incident{Name: "incidents/01h", Kind: meshv1.Incident_MESH, State: meshv1.Incident_OPEN, StartTime: at, OpenTime: at, SetAside: &meshv1.SetAside{
		Dimension: "prober", Value: "nrt-1", Probers: []string{"probers/nrt-1"}, Dissents: 7, Agreements: 1, Since: at, Comparisons: []*meshv1.Comparison{{
			Check: "checks/shop", Uri: "https://shop.example.com/",
			Inside:  []*meshv1.Vote{{Prober: "probers/nrt-1", Datacenter: "nrt", Outcome: meshv1.Result_FAIL, StartTime: at, Error: "connection refused"}},
			Outside: []*meshv1.Vote{{Prober: "probers/fra-1", Datacenter: "fra", Outcome: meshv1.Result_OK, StartTime: at}},
		}},
	}})
	for _, want := range []string{
		"  set aside: nrt-1\n", "alone in 7 comparisons, in agreement in 1,", "\nWhat was held against each other when it was decided\n  shop  https://shop.example.com/\n",
		"    it      nrt-1            nrt        FAIL  10:00:00  connection refused\n", "    others  fra-1            fra        OK    10:00:00\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Evidence") {
		t.Errorf("an empty section:\n%s", text)
	}
}
