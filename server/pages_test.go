package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/store"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// render writes a page and gives what a browser gets.
func render(t *testing.T, page string, data any) string {
	t.Helper()
	s, w := &Server{log: slog.New(slog.NewTextHandler(io.Discard, nil))}, httptest.NewRecorder()
	s.writePage(w, 200, page, data)
	if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, "default-src 'none'") || strings.Contains(w.Body.String(), "<script") {
		t.Errorf("a page that needs a script, or may load one: %q", got)
	}
	if !strings.HasSuffix(w.Body.String(), "</body></html>\n") {
		t.Errorf("the page is cut off: %s", w.Body)
	}
	return w.Body.String()
}

func TestTheStatusPageLinksChecksAndIncidents(t *testing.T) {
	type overview struct {
		Server, Leader, Version string
		Term                    int64
		Checks                  []row
		More                    bool
		Counts                  []count
		Probers                 []struct{ Name, Datacenter, State, Build string }
		Warnings                []warning
		Now                     string
	}
	text := render(t, indexHTML, overview{Checks: []row{{Name: "shop", Verdict: "DOWN", Summary: "it <fails>", Warnings: []string{"nobody is in frra"}, Incident: "01a", Group: "01b"}}})
	for _, want := range []string{"Warning: nobody is in frra", `href="/checks/shop"`, `href="/incidents/01a"`, `href="/incidents/01b"`, "it &lt;fails&gt;"} {
		if !strings.Contains(text, want) {
			t.Errorf("the status page lacks %s:\n%s", want, text)
		}
	}
}

func TestAnIncidentsPageLinksItsChecksAndSaysWhatHappened(t *testing.T) {
	at := timestamppb.New(noon())
	i := &meshv1.Incident{Name: "incidents/01b", Kind: meshv1.Incident_GROUP, State: meshv1.Incident_OPEN, Verdict: meshv1.CheckStatus_DOWN, Summary: "2 checks of one host", StartTime: at,
		AffectedChecks: []string{"checks/shop", "checks/pay"}, AffectedCount: 5, Group: "incidents/01c",
		Timeline: []*meshv1.TimelineEntry{{Time: at, Event: meshv1.TimelineEntry_OPENED, Text: "it began"}},
		Evidence: []*meshv1.Vote{{Prober: "probers/fra-1", Datacenter: "fra", Outcome: meshv1.Result_FAIL, Error: "connection refused"}},
	}
	text := render(t, incidentHTML, storyOf(i, noon()))
	for _, want := range []string{`href="/checks/shop"`, `href="/checks/pay"`, "and 3 more", `href="/incidents/01c"`, "1 Mar 2026 12:00:00 UTC", "it began", "fra-1", "connection refused"} {
		if !strings.Contains(text, want) {
			t.Errorf("the incident's page lacks %s:\n%s", want, text)
		}
	}
	i.Check, i.AffectedChecks, i.AffectedCount, i.Group = "checks/shop", nil, 0, ""
	if text := render(t, incidentHTML, storyOf(i, noon())); !strings.Contains(text, `<a href="/checks/shop">shop</a>`) || strings.Contains(text, "more") {
		t.Errorf("the page of an incident of one check:\n%s", text)
	}
}

func TestTheIncidentsPageOfASetAsideProberShowsWhatTheOthersSaid(t *testing.T) {
	i := &meshv1.Incident{Name: "incidents/01b", Kind: meshv1.Incident_MESH, State: meshv1.Incident_OPEN, StartTime: timestamppb.New(noon()), SetAside: &meshv1.SetAside{Probers: []string{"probers/nrt-1"}, Dissents: 7,
		Comparisons: []*meshv1.Comparison{{Check: "checks/shop", Uri: "https://shop/", Inside: []*meshv1.Vote{{Prober: "probers/nrt-1", Outcome: meshv1.Result_FAIL, Error: "connection refused"}},
			Outside: []*meshv1.Vote{{Prober: "probers/fra-1", Outcome: meshv1.Result_OK}}}}}}
	text := render(t, incidentHTML, storyOf(i, noon()))
	for _, want := range []string{"Set aside: nrt-1. Lately alone in 7 comparisons", `href="/checks/shop"`, "connection refused", "fra-1"} {
		if !strings.Contains(text, want) {
			t.Errorf("the incident's page lacks %s:\n%s", want, text)
		}
	}
}

func TestAChecksPageLinksItsIncidents(t *testing.T) {
	text := render(t, checkHTML, checkView{Name: "shop", Verdict: "DOWN", Text: "a > b", Incidents: []incidentLine{{ID: "01a", State: "OPEN"}}})
	for _, want := range []string{`href="/incidents/01a"`, "a &gt; b", `query=probe_success%7Bcheck%3D%22shop%22%7D`} {
		if !strings.Contains(text, want) {
			t.Errorf("the check's page lacks %s:\n%s", want, text)
		}
	}
}

// Incidents may have a megabyte of evidence each: a page must not have hundreds of them in memory, and still find the oldest that it looks at.
func TestAChecksPageReadsClosedIncidentsAFewAtATime(t *testing.T) {
	const all = 700
	fails := false
	list := func(_ context.Context, before string, limit int) (out []store.Versioned[*statev1.StoredIncident], rev int64, err error) {
		from := all
		if before != "" {
			if _, err := fmt.Sscanf(before, "incidents/%d", &from); err != nil {
				t.Fatal(err)
			}
		}
		if limit < 1 || limit > 20 {
			t.Fatalf("%d are read at once", limit)
		}
		if fails && from <= all-100 {
			return nil, 0, errors.New("no answer")
		}
		for n := from - 1; n >= 0 && len(out) < limit; n-- {
			i := &meshv1.Incident{Name: fmt.Sprintf("incidents/%06d", n), Check: fmt.Sprint("checks/c", n%50), StartTime: timestamppb.New(noon())}
			out = append(out, store.Versioned[*statev1.StoredIncident]{Value: &statev1.StoredIncident{Incident: i}})
		}
		return out, 1, nil
	}
	lines, err := closedOf(t.Context(), "checks/c7", noon(), list)
	if err != nil || len(lines) != pageIncidents/50 || lines[0].ID != "000657" || lines[9].ID != "000207" {
		t.Errorf("found %v, %v", lines, err)
	}
	fails = true
	if lines, err = closedOf(t.Context(), "checks/c7", noon(), list); err == nil || len(lines) != 2 {
		t.Errorf("without an answer: %v, %v", lines, err)
	}
}
