package server

// partsHTML are the parts that pages share.
const partsHTML = `{{define "style"}}<style>
:root{color-scheme:light dark;--line:#8883;--dim:#777}
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.3rem;margin:0} h2{font-size:1rem;margin:2rem 0 .5rem} .dim{color:var(--dim)}
table{border-collapse:collapse;width:100%} th{font-weight:600;text-align:left} th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
.v{font-weight:600;font-size:.8rem;padding:.1rem .5rem;border-radius:.6rem;color:#fff;background:#777;white-space:nowrap}
.UP,.ONLINE{background:#1a7f37}.DOWN{background:#c4262e}.DEGRADED,.OFFLINE{background:#b35900}.UNKNOWN{background:#6639ba}.PAUSED,.DRAINED{background:#777}
.critical{border-left:3px solid #c4262e;padding-left:.8rem;font-weight:600}.info{border-left:3px solid var(--line);padding-left:.8rem}.follows{margin:-.6rem 0 1rem;padding-left:1.6rem;color:var(--dim)}
.warn{border-left:3px solid #b35900;padding-left:.8rem} code{font-size:.9em;overflow-wrap:anywhere} td.uri{overflow-wrap:anywhere;min-width:min(18rem,30vw)}
p,h1,td{overflow-wrap:anywhere} .tight{white-space:nowrap} td.whole{overflow-wrap:break-word} th{white-space:nowrap} pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:.85rem}a{color:inherit}
@media(max-width:48rem){body{margin:1rem auto} table,tbody,tr,td{display:block} tr:has(th){display:none} tr{border-bottom:1px solid var(--line);padding:.4rem 0} td{border:0;padding:.05rem 0} td:nth-child(-n+3){display:inline-block;padding-right:.7rem} td:empty{display:none}}
</style>{{end}}
{{define "head"}}<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{.}} &middot; probemesh</title>
{{template "style"}}</head><body>
<p class="dim"><a href="/">probemesh</a></p>{{end}}
{{define "incidents"}}<table><tr><th>Incident</th><th>State</th><th>Began</th><th>Lasted</th><th>Summary</th></tr>
{{range .}}<tr><td><a href="/incidents/{{.ID}}">{{.ID}}</a></td><td>{{.State}}</td><td>{{.Started}}</td><td>{{.Lasted}}</td><td>{{.Summary}}</td></tr>
{{end}}</table>{{end}}`

const noPageHTML = `{{template "head" .Title}}
<h1>{{.Title}}</h1><p>{{.Why}}</p>
{{if .Meant}}<p>Was this meant: {{range .Meant}}<a href="{{.Path}}">{{.Text}}</a> {{end}}?</p>{{end}}
<p class="dim">Pages are <a href="/">the status page</a>, <code>/checks/NAME</code> and <code>/incidents/NAME</code>.</p></body></html>
`

const checkHTML = `{{template "head" .Name}}
<h1>{{.Name}} <span class="v {{.Verdict}}">{{.Verdict}}</span></h1>
<p>{{.Summary}}</p>
<p class="dim">For {{.For}}, since {{.Since}}. Its results, as Prometheus answers: <a href="/api/v1/query?query=probe_success%7Bcheck%3D%22{{.Name}}%22%7D">probe_success</a>,
<a href="/api/v1/query?query=probe_duration_seconds%7Bcheck%3D%22{{.Name}}%22%7D">probe_duration_seconds</a>.</p>
<h2>Why</h2>
<pre>{{.Text}}</pre>
<h2>Incidents</h2>
{{if .Note}}<p class="warn">{{.Note}}</p>{{end}}
{{if .Incidents}}{{template "incidents" .Incidents}}{{else}}<p class="dim">None among the newest; <code>probemesh get incidents --filter 'check = "{{.Name}}"'</code> looks through all.</p>{{end}}
</body></html>
`

const incidentHTML = `{{template "head" .Line.Summary}}
<h1>{{if .Check}}<a href="/checks/{{.Check}}">{{.Check}}</a>{{else if .Members}}{{len .Members}}{{if .More}} and more{{end}} checks{{else}}The mesh{{end}} <span class="v {{.Line.Verdict}}">{{.Line.Verdict}}</span> {{.Line.State}}</h1>
<p>{{.Line.Summary}}</p>
<p class="dim">{{.Line.ID}}. Began {{.Line.Started}}{{if .Ended}}, ended {{.Ended}}{{end}}, lasted {{.Line.Lasted}}{{if not .Ended}} so far{{end}}.{{if .AckdBy}} Acknowledged by {{.AckdBy}}.{{end}}</p>
{{if .Group}}<p>It is told of with others in <a href="/incidents/{{.Group}}">a group</a>.</p>{{end}}
{{if .Members}}<h2>Checks</h2><p>{{range .Members}}<a href="/checks/{{.}}">{{.}}</a> {{end}}{{if .More}}and {{.More}} more{{end}}</p>{{end}}
<h2>What happened</h2>
<table><tr><th>When</th><th>What</th><th></th></tr>
{{range .Timeline}}<tr><td>{{.Time}}</td><td>{{.Event}}</td><td>{{.Text}}</td></tr>
{{end}}</table>
{{if .Aside}}<h2>What was held against each other</h2><p>{{.Aside}}</p>{{end}}
{{if .Compared}}<table><tr><th>Check</th><th>Who</th><th>Prober</th><th>Datacenter</th><th>Outcome</th><th>Error</th></tr>
{{range .Compared}}{{$c := .}}{{range .Inside}}<tr><td><a href="/checks/{{$c.Check}}" title="{{$c.URI}}">{{$c.Check}}</a></td><td>set aside</td><td>{{.Prober}}</td><td>{{.Datacenter}}</td><td>{{.Outcome}}</td><td>{{.Error}}</td></tr>
{{end}}{{range .Outside}}<tr><td></td><td class="dim">others</td><td>{{.Prober}}</td><td>{{.Datacenter}}</td><td>{{.Outcome}}</td><td>{{.Error}}</td></tr>
{{end}}{{end}}</table>{{end}}
{{if .Votes}}<h2>What the probers saw</h2><table><tr><th>Prober</th><th>Datacenter</th><th>Outcome</th><th>Error</th></tr>
{{range .Votes}}<tr><td>{{.Prober}}</td><td>{{.Datacenter}}</td><td>{{.Outcome}}</td><td>{{.Error}}</td></tr>
{{end}}</table>{{end}}
<p class="dim">Bodies, headers and certificates: <code>probemesh explain incident {{.Line.ID}}</code>.</p>
</body></html>
`

const indexHTML = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{range .Counts}}{{if eq .Verdict "DOWN"}}{{.N}} DOWN &middot; {{end}}{{end}}probemesh</title>
{{template "style"}}</head><body>
<h1>probemesh</h1>
<p class="dim">{{.Server}} &middot; leader {{if .Leader}}{{.Leader}}, term {{.Term}}{{else}}none{{end}} &middot; {{.Version}} &middot; {{.Now}}</p>
{{range .Warnings}}<p class="{{.Class}}">{{.Text}}</p>{{end}}
<h2>Checks{{range .Counts}} &nbsp;<span class="v {{.Verdict}}">{{.N}} {{.Verdict}}</span>{{end}}</h2>
{{if .Checks}}<table><tr><th>Check</th><th>Verdict</th><th>For</th><th>Why</th><th>Target</th></tr>
{{range .Checks}}<tr><td class="whole"><a href="/checks/{{.Name}}">{{.Name}}</a></td><td><span class="v {{.Verdict}}">{{.Verdict}}</span></td><td class="tight" title="since {{.Began}}">{{.Since}}</td><td>{{.Summary}}{{range .Warnings}}<br>Warning: {{.}}{{end}}{{if .Undecided}}<br><b>{{.Undecided}}</b>{{end}}{{if .Incident}}<br><a href="/incidents/{{.Incident}}">incident {{.Incident}}</a>{{end}}{{if .Group}} <a href="/incidents/{{.Group}}">told of as a group</a>{{end}}</td><td class="uri">{{.URI}}</td></tr>
{{end}}</table>{{if .More}}<p class="dim">Only the first ones are shown; <code>probemesh get checks</code> lists all.</p>{{end}}
{{else}}<p class="dim">None yet. Write them into a file and run <code>probemesh apply -f FILE</code>.</p>{{end}}
<h2>Probers</h2>
{{if .Probers}}<table><tr><th>Prober</th><th>State</th><th>Datacenter</th><th>Build</th></tr>
{{range .Probers}}<tr><td>{{.Name}}</td><td><span class="v {{.State}}">{{.State}}</span></td><td>{{.Datacenter}}</td><td>{{.Build}}</td></tr>
{{end}}</table>{{else}}<p class="dim">None yet.</p>{{end}}
<p class="dim">Metrics at <a href="/metrics">/metrics</a>, readiness at <a href="/readyz">/readyz</a>, history as a Prometheus data source at this address.</p>
</body></html>
`
