package referee

import (
	"fmt"
	"html"
	"io"
	"math"
	"strings"
)

// Geometry of the plot, in pixels.
const (
	plotWidth, plotHeight            = 960, 600
	plotLeft, plotRight              = 90, 40
	plotTop, plotBottom              = 60, 80
	plotFastest, plotSlowest         = 5.0, 200.0 // seconds
	plotFewest, plotMost             = 1.0, 1e5   // per million check-days
	oursColour, othersColour, inkHex = "#0a7d4f", "#b3261e", "#333"
)

// Plot writes an SVG of speed against error: to the left is faster, further down is less often wrong. Rules without a false alert lie on the lower edge. The area of a
// dot is the number of probes a day.
func Plot(w io.Writer, lines []Line) error {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="13" fill="%s">`+"\n", plotWidth, plotHeight, inkHex)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<text x="%d" y="28" font-size="17" font-weight="600">Speed against error: rules that call a target down</text>`+"\n", plotLeft)
	fmt.Fprintf(&b, `<text x="%d" y="46" fill="#666">dot area: probes a check and day; green: ours; red: rules of other systems</text>`+"\n", plotLeft)
	for _, s := range []float64{5, 10, 20, 50, 100, 200} {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#e5e5e5"/><text x="%.1f" y="%d" text-anchor="middle">%g s</text>`+"\n",
			across(s), plotTop, across(s), plotHeight-plotBottom, across(s), plotHeight-plotBottom+20, s)
	}
	for _, f := range []float64{1, 10, 100, 1e3, 1e4, 1e5} {
		label := fmt.Sprintf("%g", f)
		if f == plotFewest {
			label = "none seen"
		}
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#e5e5e5"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			plotLeft, down(f), plotWidth-plotRight, down(f), plotLeft-8, down(f)+4, label)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">median time from the target's failure to the decision</text>`+"\n", (plotLeft+plotWidth-plotRight)/2, plotHeight-24)
	fmt.Fprintf(&b, `<text transform="translate(18 %d) rotate(-90)" text-anchor="middle">false alerts per million check-days</text>`+"\n", (plotTop+plotHeight-plotBottom)/2)
	var labels []label
	for _, l := range lines {
		colour := othersColour
		if l.Rule.Ours {
			colour = oursColour
		}
		x, y, r := across(l.P50.Seconds()), down(l.FalsePerMillion), math.Sqrt(l.ProbesPerDay)/12
		at := free(labels, label{x: x + r + 4, y: y - 4, wide: 7 * float64(len(l.Rule.Name))})
		labels = append(labels, at)
		fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="%.1f" fill="%s" fill-opacity="0.55" stroke="%s"><title>%s</title></circle>`+"\n", x, y, r, colour, colour, html.EscapeString(l.Rule.Note))
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f">%s</text>`+"\n", at.x, at.y, html.EscapeString(l.Rule.Name))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// label is where a text begins and how wide it is about.
type label struct{ x, y, wide float64 }

// free moves a label up until it covers none of the others.
func free(labels []label, at label) label {
	for moved := true; moved; {
		moved = false
		for _, o := range labels {
			if at.x < o.x+o.wide && o.x < at.x+at.wide && math.Abs(at.y-o.y) < labelHeight {
				at.y, moved = o.y-labelHeight, true
			}
		}
	}
	return at
}

// labelHeight is the least distance of two lines of text.
const labelHeight = 15

func across(seconds float64) float64 {
	return scale(seconds, plotFastest, plotSlowest, plotLeft, plotWidth-plotRight)
}

func down(rate float64) float64 {
	return scale(rate, plotFewest, plotMost, plotHeight-plotBottom, plotTop)
}

// scale is logarithmic, and keeps to the edges.
func scale(v, lowest, highest float64, from, to float64) float64 {
	v = min(max(v, lowest), highest)
	return from + (to-from)*math.Log(v/lowest)/math.Log(highest/lowest)
}
