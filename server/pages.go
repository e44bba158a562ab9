package server

import (
	"context"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
	"github.com/probemesh/probemesh/server/store"
)

const (
	// pageIncidents is how many of the newest closed incidents the page of a check looks through for its own, pageStep at a time, since each may have a megabyte of evidence;
	// pageMembers how many members of a group are linked.
	pageIncidents = 500
	pageStep      = 10
	pageMembers   = 200
	// pagePatience is how long a page waits for etcd.
	pagePatience = 3 * time.Second
)

// incidentLine is an incident in a list.
type incidentLine struct{ ID, State, Verdict, Summary, Started, Lasted string }

func lineOf(i *meshv1.Incident, now time.Time) incidentLine {
	end := now
	if i.GetEndTime() != nil {
		end = i.GetEndTime().AsTime()
	}
	return incidentLine{ID: spec.ID(i.GetName()), State: i.GetState().String(), Verdict: i.GetVerdict().String(), Summary: i.GetSummary(), Started: clock(i.GetStartTime().AsTime()),
		Lasted: alert.Span(max(0, end.Sub(i.GetStartTime().AsTime())))}
}

// clock is a moment for people.
func clock(t time.Time) string { return t.UTC().Format("2 Jan 2006 15:04:05 UTC") }

// checkView is what the page of a check shows.
type checkView struct {
	Name, Verdict, Since, For, Summary, Text, Note string
	Incidents                                      []incidentLine
}

// checkPage explains the verdict of one check and lists its incidents.
func (s *Server) checkPage(w http.ResponseWriter, r *http.Request) {
	name, now := spec.Name(spec.Checks, r.PathValue("name")), time.Now()
	e, ok := s.mesh.Explain(name)
	if !ok {
		s.noPage(w, fmt.Sprintf("There is no check named %q; it may have been deleted.", r.PathValue("name")), s.nearChecks(r.PathValue("name"))...)
		return
	}
	st := e.GetStatus()
	page := checkView{Name: spec.ID(name), Verdict: st.GetVerdict().String(), Since: clock(st.GetSince().AsTime()), For: alert.Span(max(0, now.Sub(st.GetSince().AsTime()))), Summary: st.GetSummary(), Text: e.GetText()}
	for _, i := range s.mesh.OpenIncidents() {
		if i.GetCheck() == name {
			page.Incidents = append(page.Incidents, lineOf(i, now))
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), pagePatience)
	defer cancel()
	closed, err := closedOf(ctx, name, now, s.store.ListClosedIncidents)
	if err != nil {
		page.Note = "Not all closed incidents can be shown: etcd does not answer in time."
	}
	page.Incidents = append(page.Incidents, closed...)
	s.writePage(w, http.StatusOK, checkHTML, page)
}

// closedOf are those of a check among the newest closed incidents, newest first; after an error, those found until then.
func closedOf(ctx context.Context, check string, now time.Time,
	list func(ctx context.Context, before string, limit int) ([]store.Versioned[*statev1.StoredIncident], int64, error),
) (lines []incidentLine, err error) {
	before := ""
	for range pageIncidents / pageStep {
		some, _, err := list(ctx, before, pageStep)
		if err != nil {
			return lines, err
		}
		for _, v := range some {
			i := v.Value.GetIncident()
			if before = i.GetName(); i.GetCheck() == check {
				lines = append(lines, lineOf(i, now))
			}
		}
		if len(some) < pageStep {
			break
		}
	}
	return lines, nil
}

// incidentPage tells what happened in one incident.
func (s *Server) incidentPage(w http.ResponseWriter, r *http.Request) {
	name, now := spec.Name(spec.Incidents, r.PathValue("name")), time.Now()
	i := s.openIncident(name)
	if i == nil {
		ctx, cancel := context.WithTimeout(r.Context(), pagePatience)
		defer cancel()
		v, err := s.store.GetIncident(ctx, name)
		switch {
		case fault.IsReason(err, meshv1.ErrorReason_RESOURCE_NOT_FOUND):
			s.noPage(w, "There is no incident of this name. Of those that are closed, the oldest are dropped in time.")
			return
		case err != nil:
			s.writePage(w, http.StatusServiceUnavailable, noPageHTML, nothing{Title: "Not now", Why: "Etcd does not answer, so only incidents that are open can be shown. Try again in a moment."})
			return
		}
		i = v.Value.GetIncident()
	}
	s.writePage(w, http.StatusOK, incidentHTML, storyOf(i, now))
}

// story is what the page of an incident shows.
type (
	story struct {
		Line                        incidentLine
		Check, Group, Ended, AckdBy string
		Members                     []string
		More                        int
		Timeline                    []event
		Votes                       []seen
		Aside                       string
		Compared                    []compared
	}
	// compared is what the probers that are set aside say of a check beside what the others say.
	compared struct {
		Check, URI      string
		Inside, Outside []seen
	}
	event struct{ Time, Event, Text string }
	seen  struct{ Prober, Datacenter, Outcome, Error string }
)

func storyOf(i *meshv1.Incident, now time.Time) story {
	page := story{Line: lineOf(i, now), Check: spec.ID(i.GetCheck()), Group: spec.ID(i.GetGroup()), AckdBy: i.GetAcknowledgedBy()}
	if i.GetEndTime() != nil {
		page.Ended = clock(i.GetEndTime().AsTime())
	}
	for _, c := range i.GetAffectedChecks()[:min(pageMembers, len(i.GetAffectedChecks()))] {
		page.Members = append(page.Members, spec.ID(c))
	}
	page.More = max(0, int(i.GetAffectedCount())-len(page.Members))
	for _, t := range i.GetTimeline() {
		page.Timeline = append(page.Timeline, event{clock(t.GetTime().AsTime()), t.GetEvent().String(), t.GetText()})
	}
	page.Votes = seenOf(i.GetEvidence())
	if a := i.GetSetAside(); a != nil {
		var probers []string
		for _, p := range a.GetProbers() {
			probers = append(probers, spec.ID(p))
		}
		page.Aside = fmt.Sprintf("Set aside: %s. Lately alone in %d comparisons, in agreement in %d.", strings.Join(probers, ", "), a.GetDissents(), a.GetAgreements())
		for _, c := range a.GetComparisons() {
			page.Compared = append(page.Compared, compared{spec.ID(c.GetCheck()), c.GetUri(), seenOf(c.GetInside()), seenOf(c.GetOutside())})
		}
	}
	return page
}

func seenOf(votes []*meshv1.Vote) (list []seen) {
	for _, v := range votes {
		list = append(list, seen{spec.ID(v.GetProber()), v.GetDatacenter(), v.GetOutcome().String(), v.GetError()})
	}
	return list
}

// openIncident is the open incident of that name, nil when there is none.
func (s *Server) openIncident(name string) *meshv1.Incident {
	for _, i := range s.mesh.OpenIncidents() {
		if i.GetName() == name {
			return i
		}
	}
	return nil
}

// writePage writes a page that needs no script and may load nothing from elsewhere.
func (s *Server) writePage(w http.ResponseWriter, code int, page string, data any) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	t := template.Must(template.Must(template.New("page").Parse(page)).Parse(partsHTML))
	if err := t.Execute(w, data); err != nil {
		s.log.Debug("a page could not be written", "err", err)
	}
}
