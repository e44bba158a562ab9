package server

import (
	"fmt"
	"html/template"
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

// index is a page to glance at: every check with its verdict, those in trouble first, the probers, and where to look further. It reloads itself and needs no script.
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
	}{Server: info.Name, Leader: info.Leader, Version: version.Build(), Term: info.Term, Warnings: pageWarnings(append(s.unready(), s.warnings()...)), Now: time.Now().UTC().Format(time.RFC3339)}
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
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err := indexPage().Execute(w, page); err != nil {
		s.log.Debug("the index page could not be written", "err", err)
	}
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
	row   struct{ Name, Verdict, Since, Summary, URI, Incident, Undecided string }
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
		g.rows[v] = append(g.rows[v], row{Name: spec.ID(st.GetCheck()), Verdict: v.String(), Summary: st.GetSummary(), Incident: st.GetIncident(), Undecided: st.GetUndecidedSummary(),
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

func indexPage() *template.Template {
	return template.Must(template.New("index").Parse(indexHTML))
}

const indexHTML = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{range .Counts}}{{if eq .Verdict "DOWN"}}{{.N}} DOWN &middot; {{end}}{{end}}probemesh</title>
<style>
:root{color-scheme:light dark;--line:#8883;--dim:#777}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.3rem;margin:0} h2{font-size:1rem;margin:2rem 0 .5rem} .dim{color:var(--dim)}
table{border-collapse:collapse;width:100%} th{font-weight:600;text-align:left} th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.v{font-weight:600;font-size:.8rem;padding:.1rem .5rem;border-radius:.6rem;color:#fff;background:#777;white-space:nowrap}
.UP,.ONLINE{background:#1a7f37}.DOWN{background:#c4262e}.DEGRADED,.OFFLINE{background:#b35900}.UNKNOWN{background:#6639ba}.PAUSED,.DRAINED{background:#777}
.critical{border-left:3px solid #c4262e;padding-left:.8rem;font-weight:600}.info{border-left:3px solid var(--line);padding-left:.8rem}.follows{margin:-.6rem 0 1rem;padding-left:1.6rem;color:var(--dim)}
.warn{border-left:3px solid #b35900;padding-left:.8rem} code{font-size:.9em} td.uri{overflow-wrap:anywhere;min-width:min(18rem,30vw)}
</style></head><body>
<h1>probemesh</h1>
<p class="dim">{{.Server}} &middot; leader {{if .Leader}}{{.Leader}}, term {{.Term}}{{else}}none{{end}} &middot; {{.Version}} &middot; {{.Now}}</p>
{{range .Warnings}}<p class="{{.Class}}">{{.Text}}</p>{{end}}
<h2>Checks{{range .Counts}} &nbsp;<span class="v {{.Verdict}}">{{.N}} {{.Verdict}}</span>{{end}}</h2>
{{if .Checks}}<table><tr><th>Check</th><th>Verdict</th><th>For</th><th>Why</th><th>Target</th></tr>
{{range .Checks}}<tr><td>{{.Name}}</td><td><span class="v {{.Verdict}}">{{.Verdict}}</span></td><td>{{.Since}}</td><td>{{.Summary}}{{if .Undecided}}<br><b>{{.Undecided}}</b>{{end}}{{if .Incident}}<br><span class="dim">{{.Incident}}</span>{{end}}</td><td class="uri">{{.URI}}</td></tr>
{{end}}</table>{{if .More}}<p class="dim">Only the first ones are shown; <code>probemesh get checks</code> lists all.</p>{{end}}
{{else}}<p class="dim">None yet. Write them into a file and run <code>probemesh apply -f FILE</code>.</p>{{end}}
<h2>Probers</h2>
{{if .Probers}}<table><tr><th>Prober</th><th>State</th><th>Datacenter</th><th>Build</th></tr>
{{range .Probers}}<tr><td>{{.Name}}</td><td><span class="v {{.State}}">{{.State}}</span></td><td>{{.Datacenter}}</td><td>{{.Build}}</td></tr>
{{end}}</table>{{else}}<p class="dim">None yet.</p>{{end}}
<p class="dim">Metrics at <a href="/metrics">/metrics</a>, readiness at <a href="/readyz">/readyz</a>, history as a Prometheus data source at this address.</p>
</body></html>
`
