package cli

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/spec"
)

// newView chooses how a watch is shown: documents for programs, a table in place on a terminal, lines elsewhere.
func (a *app) newView(kind *resource, o getOptions) view {
	switch {
	case o.output == formatJSON || o.output == formatYAML:
		return &documentView{a: a, kind: kind, yaml: o.output == formatYAML}
	case a.out.terminal:
		fmt.Fprint(a.env.Out, hideCursor)
		return &liveView{a: a, kind: kind, wide: o.output == formatWide, items: map[string]proto.Message{}}
	}
	return &lineView{a: a, kind: kind, wide: o.output == formatWide, items: map[string]proto.Message{}}
}

// documentView prints each resource as it is now as a document of its own, and one with the name alone when it is gone: JSON one a line, YAML
// after `---`.
type documentView struct {
	a    *app
	kind *resource
	yaml bool
}

func (v *documentView) apply(ch change) {
	if ch.synced {
		return
	}
	m := ch.item
	if m == nil {
		m = v.gone(ch.name)
	}
	if v.yaml {
		if out, err := configfile.Marshal(m); err == nil {
			v.a.print("---\n" + strings.TrimSuffix(string(out), "\n"))
		}
		return
	}
	if out, err := toJSON(m, false); err == nil {
		v.a.print(string(out))
	}
}

// gone is a resource of the kind that has only its name.
func (v *documentView) gone(name string) proto.Message {
	list := v.kind.response().ProtoReflect()
	fd := list.Descriptor().Fields().ByName(protoreflect.Name(v.kind.plural))
	m := list.NewField(fd).List().NewElement().Message()
	field := m.Descriptor().Fields().ByName("name")
	if field == nil {
		field = m.Descriptor().Fields().ByName("check")
	}
	m.Set(field, protoreflect.ValueOfString(name))
	return m.Interface()
}

func (v *documentView) broken(problem string, wait time.Duration) { noteBreak(v.a, problem, wait) }
func (v *documentView) tick()                                     {}
func (v *documentView) close()                                    {}

// noteBreak tells of a lost connection on standard error.
func noteBreak(a *app, problem string, wait time.Duration) {
	if problem == "" {
		a.note("connected again")
		return
	}
	a.note("lost the connection: %s; trying again in %s", firstLine(problem), since(wait))
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// lineView prints the table once it is complete, and then a line for each change, under the same columns, with the time of day in front.
type lineView struct {
	a      *app
	kind   *resource
	wide   bool
	items  map[string]proto.Message
	widths []int
}

func (v *lineView) apply(ch change) {
	switch {
	case ch.synced && v.widths == nil:
		t := v.stamped()
		for _, name := range order(v.kind, v.items) {
			t.rows = append(t.rows, append([]cell{text(clock(time.Now()))}, v.kind.row(v.items[name], v.wide, time.Now())...))
		}
		v.widths = t.widths(0)
		for _, line := range t.lines(v.a.out) {
			v.a.print(line)
		}
	case ch.synced:
	case ch.item == nil:
		if _, ok := v.items[ch.name]; ok && v.widths != nil {
			v.a.print(renderRow(v.a.out, []cell{text(clock(time.Now())), text(spec.ID(ch.name)), {"(gone)", dim}}, v.widths))
		}
		delete(v.items, ch.name)
	default:
		old, ok := v.items[ch.name]
		v.items[ch.name] = ch.item
		if v.widths == nil || (ok && proto.Equal(old, ch.item)) {
			return
		}
		row := append([]cell{text(clock(time.Now()))}, v.kind.row(ch.item, v.wide, time.Now())...)
		for i, c := range row {
			v.widths[i] = max(v.widths[i], cells(clean(c.text)))
		}
		v.a.print(renderRow(v.a.out, row, v.widths))
	}
}

// stamped is an empty table with a column for the time of day.
func (v *lineView) stamped() *table {
	t := &table{}
	t.columns("TIME")
	v.kind.columns(t, v.wide)
	return t
}

func (v *lineView) broken(problem string, wait time.Duration) { noteBreak(v.a, problem, wait) }
func (v *lineView) tick()                                     {}
func (v *lineView) close()                                    {}

func clock(t time.Time) string { return t.Format("15:04:05") }

// Control sequences of terminals (ECMA-48).
const (
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	clearLine  = "\x1b[K"
	clearBelow = "\x1b[J"
)

// liveView keeps a table on a terminal up to date in place. Ages go on each second.
type liveView struct {
	a       *app
	kind    *resource
	wide    bool
	items   map[string]proto.Message
	synced  bool
	problem string
	drawn   int
	last    time.Time
	dirty   bool
}

// redrawEvery bounds how often a busy mesh redraws the table; what waits is drawn at the next tick at the latest.
const redrawEvery = 100 * time.Millisecond

func (v *liveView) apply(ch change) {
	switch {
	case ch.synced:
		v.synced = true
	case ch.item == nil:
		delete(v.items, ch.name)
	default:
		v.items[ch.name] = ch.item
	}
	v.dirty = true
	if v.synced && time.Since(v.last) >= redrawEvery {
		v.draw()
	}
}

func (v *liveView) broken(problem string, wait time.Duration) {
	v.problem = ""
	if problem != "" {
		v.problem = fmt.Sprintf("lost the connection: %s; trying again in %s", firstLine(problem), since(wait))
	}
	v.draw()
}

func (v *liveView) tick() {
	if v.synced {
		v.draw()
	}
}

func (v *liveView) close() { fmt.Fprint(v.a.env.Out, showCursor) }

// draw writes the table over the one before. What does not fit the terminal's height is counted.
func (v *liveView) draw() {
	v.a.out.resize()
	v.last, v.dirty = time.Now(), false
	ordered := order(v.kind, v.items)
	items := make([]proto.Message, len(ordered))
	for i, name := range ordered {
		items[i] = v.items[name]
	}
	// A line that wraps would be two on the screen, and the next drawing would begin a line too low.
	lines := v.kind.table(items, v.wide, v.last).fitted(v.a.out.width, true).lines(v.a.out)
	if len(items) == 0 {
		hint := v.kind.hint
		if v.kind.plural == "incidents" {
			hint = "No incident is open." // a watch begins with the open ones
		}
		lines = []string{v.a.out.paint(dim, fit(hint, v.a.out.width))}
	}
	if room := v.a.out.height - 3; len(lines) > room && room > 1 {
		hidden := len(lines) - room + 1
		lines = append(lines[:room-1], v.a.out.paint(dim, fmt.Sprintf("… %d more; a taller window or --filter shows them", hidden)))
	}
	footer := clock(v.last) + "  " + count(len(items), v.kind.singular) + ", kept up to date; Ctrl-C ends it"
	if v.kind.plural == "statuses" {
		footer = strings.Replace(footer, "statuss", "statuses", 1)
	}
	if v.problem != "" {
		footer = v.a.out.paint(yellow, fit(clean(v.problem), v.a.out.width))
	} else {
		footer = v.a.out.paint(dim, fit(footer, v.a.out.width))
	}
	lines = append(lines, footer)
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", v.drawn)
	}
	for _, line := range lines {
		b.WriteString(line + clearLine + "\n")
	}
	b.WriteString(clearBelow)
	v.drawn = len(lines)
	fmt.Fprint(v.a.env.Out, b.String())
}

// order sorts names as their list does: by name, incidents newest first.
func order(kind *resource, items map[string]proto.Message) []string {
	names := sortedNames(items)
	if kind.plural == "incidents" {
		sort.Sort(sort.Reverse(sort.StringSlice(names)))
	}
	return names
}
