package server

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/version"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler/alert"
)

// indexRows bounds the page: it is a glance, not a listing.
const indexRows = 500

// index is a page to glance at: every check with its verdict, those in trouble first, the probers, and where to look further: each check and each incident has a page. It reloads itself and needs no script.
func (s *Server) index(w http.ResponseWriter, r *http.Request) {
	type prober struct{ Name, Datacenter, State, Build string }
	info := s.leader()
	page := struct {
		Server, Leader, Version string
		Term                    int64
		Checks                  []row
		More                    bool
		Counts                  []count
		Probers                 []prober
		Warnings                []warning
		Now                     string
	}{Server: info.Name, Leader: info.Leader, Version: version.Build(), Term: info.Term, Warnings: pageWarnings(append(s.unready(), s.warnings()...)), Now: clock(time.Now())}
	g := glance{now: time.Now(), rows: map[meshv1.CheckStatus_Verdict][]row{}, counts: map[meshv1.CheckStatus_Verdict]int{}}
	s.mesh.EachStatus("", g.add)
	page.Checks, page.Counts, page.More = g.result()
	for i := range page.Checks {
		if k, ok := s.mesh.Check(spec.Name(spec.Checks, page.Checks[i].Name)); ok {
			page.Checks[i].URI = k.GetUri()
		}
	}
	for _, p := range s.mesh.Probers() {
		page.Probers = append(page.Probers, prober{spec.ID(p.GetName()), p.GetDatacenter(), p.GetState().String(), p.GetBuild()})
	}
	s.writePage(w, http.StatusOK, indexHTML, page)
}

// warning is a line about the mesh on the page; Class is how it looks.
type warning struct{ Class, Text string }

// pageWarnings gives the lines of /readyz the look of their severity.
func pageWarnings(lines []string) []warning {
	var all []warning
	for _, l := range lines {
		text := strings.TrimSpace(l)
		class := "warn"
		switch {
		case strings.HasPrefix(text, "follows: "):
			class = "follows"
		case strings.HasPrefix(text, meshv1.Condition_CRITICAL.String()):
			class = "critical"
		case strings.HasPrefix(text, meshv1.Condition_INFO.String()):
			class = "info"
		}
		all = append(all, warning{class, text})
	}
	return all
}

// unready says what /readyz says of this server by itself.
func (s *Server) unready() []string {
	var all []string
	for _, c := range s.conditions() {
		if !c.ok {
			all = append(all, fmt.Sprintf("%s: %s", meshv1.Condition_CRITICAL, c.why))
		}
	}
	return all
}

// row is a check on the page, count how many have a verdict.
type (
	row struct {
		Name, Verdict, Since, Began, Summary, URI, Incident, Group, Undecided string
		Warnings                                                              []string
	}
	count struct {
		Verdict string
		N       int
	}
)

// glance collects what the page shows of all checks: those that need somebody first, each kind by name.
type glance struct {
	now    time.Time
	rows   map[meshv1.CheckStatus_Verdict][]row
	counts map[meshv1.CheckStatus_Verdict]int
}

// add takes a status in; it always wants more.
func (g *glance) add(st *meshv1.CheckStatus) bool {
	v := st.GetVerdict()
	if g.counts[v]++; g.counts[v] <= indexRows {
		g.rows[v] = append(g.rows[v], row{Name: spec.ID(st.GetCheck()), Verdict: v.String(), Summary: st.GetSummary(), Warnings: st.GetWarnings(), Incident: spec.ID(st.GetIncident()), Group: spec.ID(st.GetGroup()), Undecided: st.GetUndecidedSummary(),
			Began: clock(st.GetSince().AsTime()),
			Since: alert.Span(max(0, g.now.Sub(st.GetSince().AsTime())).Truncate(time.Second))})
	}
	return true
}

// result is the first rows, the count of each verdict that there is, and whether rows are missing.
func (g *glance) result() (rows []row, counts []count, more bool) {
	for _, v := range []meshv1.CheckStatus_Verdict{meshv1.CheckStatus_DOWN, meshv1.CheckStatus_DEGRADED, meshv1.CheckStatus_UNKNOWN, meshv1.CheckStatus_UP, meshv1.CheckStatus_PAUSED} {
		if g.counts[v] == 0 {
			continue
		}
		counts = append(counts, count{v.String(), g.counts[v]})
		fits := min(len(g.rows[v]), indexRows-len(rows))
		rows, more = append(rows, g.rows[v][:fits]...), more || fits < g.counts[v]
	}
	return rows, counts, more
}
