package cli

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/width"
)

// minColumn is the width down to which a column may be cut; roomy is what the last one gets before optional columns are shown beside it.
const (
	minColumn = 8
	roomy     = 24
)

// cell is one field of a table.
type cell struct {
	text   string
	colour colour
}

// text is a cell without a colour.
func text(s string) cell { return cell{text: s} }

// table is rows under headings, aligned to the left. It is rendered for a width; nothing is cut when the width is 0.
type table struct {
	// headings are in capitals.
	headings []string
	// flexible marks the columns that may be cut to make the table fit; the widest is cut first.
	flexible []bool
	// optional marks the columns that are left out, from the left, when the others have no room beside them.
	optional []bool
	rows     [][]cell
}

// column adds a column.
func (t *table) column(heading string, flexible, optional bool) {
	t.headings = append(t.headings, heading)
	t.flexible = append(t.flexible, flexible)
	t.optional = append(t.optional, optional)
}

// fitted is the table without the optional columns that there is no room for in so many cells, and, when last columns may go too, without those
// that would not fit even when cut.
func (t *table) fitted(limit int, lastMayGo bool) *table {
	for limit > 0 {
		out := slices.Index(t.optional, true)
		least := t.least(out >= 0)
		if out < 0 && lastMayGo && len(t.headings) > 1 {
			out = len(t.headings) - 1
		}
		if least <= limit || out < 0 {
			break
		}
		t = t.without(out)
	}
	return t
}

// without is the table without column i.
func (t *table) without(i int) *table {
	less := &table{
		headings: slices.Delete(slices.Clone(t.headings), i, i+1), flexible: slices.Delete(slices.Clone(t.flexible), i, i+1),
		optional: slices.Delete(slices.Clone(t.optional), i, i+1),
	}
	for _, row := range t.rows {
		less.rows = append(less.rows, slices.Delete(slices.Clone(row), i, i+1))
	}
	return less
}

// withoutEmpty is the table without the column of that heading, if no row has anything in it.
func (t *table) withoutEmpty(heading string) *table {
	i := slices.Index(t.headings, heading)
	if i < 0 || slices.ContainsFunc(t.rows, func(row []cell) bool { return row[i].text != "" }) {
		return t
	}
	return t.without(i)
}

// least is how many cells the table needs when everything is cut that may be, but the last column keeps some room if asked for.
func (t *table) least(room bool) int {
	total := 2 * (len(t.headings) - 1)
	for i, w := range t.widths(0) {
		if t.flexible[i] {
			least := max(minColumn, cells(t.headings[i]))
			if room && i == len(t.headings)-1 {
				least = max(least, roomy)
			}
			w = min(w, least)
		}
		total += w
	}
	return total
}

// lines renders the table: the heading, then one line a row, none longer than width unless the columns that may not be cut or left out are.
func (t *table) lines(s screen) []string {
	t = t.fitted(s.width, false)
	widths := t.widths(s.width)
	heading := make([]cell, len(t.headings))
	for i, h := range t.headings {
		heading[i] = cell{h, dim}
	}
	out := make([]string, 0, len(t.rows)+1)
	out = append(out, renderRow(s, heading, widths))
	for _, row := range t.rows {
		out = append(out, renderRow(s, row, widths))
	}
	return out
}

// widths decides how wide each column is.
func (t *table) widths(limit int) []int {
	out := make([]int, len(t.headings))
	for i, h := range t.headings {
		out[i] = cells(h)
	}
	for _, row := range t.rows {
		for i, c := range row {
			out[i] = max(out[i], cells(clean(c.text)))
		}
	}
	if limit <= 0 {
		return out
	}
	total := 2 * (len(out) - 1)
	for _, w := range out {
		total += w
	}
	for total > limit {
		widest := -1
		for i, w := range out {
			if t.flexible[i] && w > max(minColumn, cells(t.headings[i])) && (widest < 0 || w > out[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		out[widest]--
		total--
	}
	return out
}

func renderRow(s screen, row []cell, widths []int) string {
	var b strings.Builder
	for i, c := range row {
		shown := fit(clean(c.text), widths[i])
		b.WriteString(s.paint(c.colour, shown))
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", widths[i]-cells(shown)+2))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// fit cuts a text to so many cells, with … at the end when something is missing.
func fit(s string, limit int) string {
	if cells(s) <= limit {
		return s
	}
	used := 1
	for i, r := range s {
		if used += runeCells(r); used > limit {
			return s[:i] + "…"
		}
	}
	return s
}

// cells is how many cells of a terminal a text takes.
func cells(s string) int {
	n := 0
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		n += runeCells(r)
		i += size
	}
	return n
}

func runeCells(r rune) int {
	if r < 0x300 {
		return 1
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}
