package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// meshKind is the word for `get mesh`: there is one mesh, so it is no resource with names.
const meshKind = "mesh"

// getMesh shows how the mesh itself is. The exit code is 0 when it is healthy, else ExitNo.
func (a *app) getMesh(ctx context.Context, o getOptions) error {
	if err := checkFormat(o.output, formatTable, formatWide, formatJSON, formatYAML); err != nil {
		return err
	}
	if o.filter != "" {
		return usagef("the mesh cannot be filtered: there is one only; leave --filter out")
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if o.watch {
		return a.watchMesh(ctx, c, o)
	}
	resp, err := answer(ctx, a, c.mesh.GetMesh, &meshv1.GetMeshRequest{})
	if err != nil {
		return err
	}
	if err := a.showMesh(resp, o); err != nil {
		return err
	}
	if resp.GetMesh().GetState() != meshv1.Mesh_HEALTHY {
		return answerNo()
	}
	return nil
}

func (a *app) showMesh(resp *meshv1.GetMeshResponse, o getOptions) error {
	if o.output == formatJSON || o.output == formatYAML {
		return a.printMessage(resp, o.output)
	}
	for _, line := range meshLines(resp.GetMesh(), a.out, o.output == formatWide, time.Now()) {
		a.print(line)
	}
	return nil
}

// watchMesh asks every two seconds: on a terminal the screen is kept up to date, otherwise it is printed again when something but ages has changed.
func (a *app) watchMesh(ctx context.Context, c *client, o getOptions) error {
	drawn, lost := 0, false
	last := &meshv1.Mesh{}
	for first := true; ; first = false {
		resp, err := answer(ctx, a, c.mesh.GetMesh, &meshv1.GetMeshRequest{})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil && !lost:
			a.note("lost the connection: %s; trying again every %s", firstLine(err.Error()), pollEvery)
		case err == nil && a.out.terminal && (o.output == formatTable || o.output == formatWide):
			drawn = a.redraw(meshLines(resp.GetMesh(), a.out, o.output == formatWide, time.Now()), drawn)
		case err == nil && changedMesh(last, resp.GetMesh()):
			if err := a.showMesh(resp, o); err != nil {
				return err
			}
		}
		if lost = err != nil; !lost {
			last = resp.GetMesh()
		} else {
			drawn = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pollEvery):
		}
	}
}

// redraw writes lines over those drawn before, and says how many there are now.
func (a *app) redraw(lines []string, drawn int) int {
	a.out.resize()
	if room := a.out.height - 1; room > 1 && len(lines) > room {
		lines = append(lines[:room-1], a.out.paint(dim, "… a taller window shows the rest"))
	}
	var b strings.Builder
	if drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", drawn)
	}
	for _, line := range lines {
		b.WriteString(line + clearLine + "\n")
	}
	b.WriteString(clearBelow)
	fmt.Fprint(a.env.Out, b.String())
	return len(lines)
}

// changedMesh tells whether two looks at the mesh differ in what a reader of lines wants to know: not in times and figures that move all the while.
func changedMesh(before, after *meshv1.Mesh) bool {
	plain := func(m *meshv1.Mesh) *meshv1.Mesh {
		m = proto.CloneOf(m)
		m.Time, m.DeadManTime, m.Summary = nil, nil, ""
		for _, c := range m.GetConditions() {
			c.Summary, c.Since = "", nil
		}
		for _, s := range m.GetServers() {
			s.Silence = nil
		}
		for _, e := range m.GetEtcdMembers() {
			e.DbSizeBytes, e.Error = 0, ""
		}
		return m
	}
	return !proto.Equal(plain(before), plain(after))
}

// meshLines is the screen: the verdict, what is wrong with what follows from it, and who is there.
func meshLines(m *meshv1.Mesh, s screen, wide bool, now time.Time) []string {
	state := stateCell(m.GetState())
	out := wrapped(s, state.text+"  "+clean(m.GetSummary()), "", len(state.text)+2)
	out[0] = s.paint(state.colour, state.text) + strings.TrimPrefix(out[0], state.text)
	leader := "nobody leads"
	if m.GetLeader() != "" {
		leader = fmt.Sprintf("%s leads, term %d", spec.ID(m.GetLeader()), m.GetTerm())
	}
	out = append(out, s.paint(dim, fmt.Sprintf("as server %s sees it; %s%s%s", spec.ID(m.GetServer()), leader, owedText(m, now), deadManText(m, now))))
	depth := map[meshv1.Condition_Code]int{}
	for _, c := range m.GetConditions() {
		level := 0
		if above, ok := depth[c.GetCausedBy()]; ok && c.GetCausedBy() != 0 {
			level = above + 1
		}
		depth[c.GetCode()] = level
		out = append(out, conditionLines(c, s, level, now)...)
	}
	out = append(out, "")
	places := &table{}
	places.columns("DATACENTER*", "SERVERS HEARD", "PROBERS HEARD")
	for _, d := range m.GetDatacenters() {
		places.rows = append(places.rows, []cell{text(d.GetName()), share(d.GetServersHeard(), d.GetServers()), share(d.GetProbersOnline(), d.GetProbers())})
	}
	out = append(out, places.lines(s)...)
	if wide {
		out = append(append(out, ""), serverHealth(m).lines(s)...)
	}
	if len(m.GetEtcdMembers()) > 0 {
		out = append(append(out, ""), etcdTable(m, wide).lines(s)...)
		if slices.ContainsFunc(m.GetEtcdMembers(), func(e *meshv1.EtcdMember) bool { return e.GetHealthy() && e.GetDbSizeBytes() == 0 }) {
			out = append(out, s.paint(dim, "DATABASE -: a server knows that of its own etcd member only; ask another with --server"))
		}
	}
	return out
}

// conditionLines is one condition: a heading, what is wrong and, for one that stands for itself, what to do.
func conditionLines(c *meshv1.Condition, s screen, level int, now time.Time) []string {
	indent := strings.Repeat("  ", level)
	if level > 0 {
		// What follows from another needs no remedy: it goes with the other one.
		head := indent + "follows: "
		return wrapped(s, head+c.GetCode().String()+"  "+clean(c.GetSummary()), indent+"         ", 0)
	}
	severity := severityCell(c.GetSeverity())
	head := s.paint(severity.colour, severity.text) + "  " + s.paint(bold, c.GetCode().String()) + s.paint(dim, "  for "+age(c.GetSince(), now))
	out := append([]string{"", head}, wrapped(s, "  "+clean(c.GetSummary()), "  ", 0)...)
	return append(out, wrapped(s, "  What to do: "+clean(c.GetRemedy()), "  ", 0)...)
}

// wrapped breaks a text into lines that fit the screen; lines after the first begin with the indent, or with so many spaces. Without a width it is one line.
func wrapped(s screen, t, indent string, spaces int) []string {
	if spaces > 0 {
		indent = strings.Repeat(" ", spaces)
	}
	if s.width == 0 {
		return []string{t}
	}
	var out []string
	lead := t[:len(t)-len(strings.TrimLeft(t, " "))]
	line := lead
	for _, w := range strings.Fields(t) {
		if strings.TrimSpace(line) != "" && cells(line)+1+cells(w) > s.width {
			out = append(out, line)
			line = indent
		}
		if strings.TrimSpace(line) != "" {
			line += " "
		}
		line += w
	}
	return append(out, line)
}

func owedText(m *meshv1.Mesh, now time.Time) string {
	if m.GetOwed() == 0 {
		return ""
	}
	return fmt.Sprintf("; %s owed, the oldest for %s", count(int(m.GetOwed()), "notification"), age(m.GetOldestOwedTime(), now))
}

func deadManText(m *meshv1.Mesh, now time.Time) string {
	switch {
	case m.GetDeadManTime() != nil && m.GetServer() == m.GetLeader():
		return "; dead man's switch told " + age(m.GetDeadManTime(), now) + " ago"
	case m.GetDeadMan() && m.GetServer() == m.GetLeader():
		return "; dead man's switch not told yet"
	}
	return ""
}

func stateCell(st meshv1.Mesh_State) cell {
	switch st {
	case meshv1.Mesh_HEALTHY:
		return cell{"HEALTHY", green}
	case meshv1.Mesh_IMPAIRED:
		return cell{"IMPAIRED", yellow}
	case meshv1.Mesh_FAILING:
		return cell{"FAILING", red}
	}
	return cell{"UNKNOWN", magenta}
}

func severityCell(v meshv1.Condition_Severity) cell {
	switch v {
	case meshv1.Condition_CRITICAL:
		return cell{"CRITICAL", red}
	case meshv1.Condition_WARNING:
		return cell{"WARNING", yellow}
	}
	return cell{"INFO", cyan}
}

// share is how many of some there are, in the colour that this deserves.
func share(n, of int32) cell {
	c := cell{fmt.Sprintf("%d of %d", n, of), green}
	switch {
	case of == 0:
		c = cell{"-", dim}
	case n == 0:
		c.colour = red
	case n < of:
		c.colour = yellow
	}
	return c
}

func serverHealth(m *meshv1.Mesh) *table {
	t := &table{}
	t.columns("SERVER*", "DATACENTER*", "HEARD", "SILENT FOR", "VERSION*")
	for _, x := range m.GetServers() {
		heard := cell{"yes", green}
		silence := "-"
		if !x.GetHeard() {
			heard, silence = cell{"no", red}, brief(x.GetSilence())
		}
		t.rows = append(t.rows, []cell{text(spec.ID(x.GetName())), text(orDash(x.GetDatacenter())), heard, text(silence), text(orDash(x.GetVersion()))})
	}
	return t
}

func etcdTable(m *meshv1.Mesh, wide bool) *table {
	t := &table{}
	t.columns("ETCD MEMBER*", "ROLE", "HEALTHY", "DATABASE")
	if wide {
		t.columns("ID", "PEER URL*", "ERROR*")
	}
	for _, e := range m.GetEtcdMembers() {
		role, healthy, size := text("follower"), cell{"yes", green}, "-"
		switch {
		case e.GetLeader():
			role = cell{"leader", green}
		case e.GetLearner():
			role = text("learner")
		}
		if !e.GetHealthy() {
			healthy = cell{"no", red}
		}
		if e.GetDbSizeBytes() > 0 {
			size = fmt.Sprintf("%.1f MiB", float64(e.GetDbSizeBytes())/(1<<20))
		}
		row := []cell{text(orDash(e.GetName())), role, healthy, text(size)}
		if wide {
			row = append(row, text(e.GetId()), text(e.GetPeerUrl()), text(orDash(e.GetError())))
		}
		t.rows = append(t.rows, row)
	}
	return t
}
