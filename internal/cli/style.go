package cli

import (
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// colour is an ANSI code, empty for none.
type colour string

const (
	plainText colour = ""
	green     colour = "32"
	red       colour = "31;1"
	yellow    colour = "33"
	magenta   colour = "35"
	cyan      colour = "36"
	dim       colour = "2"
	bold      colour = "1"
)

// screen is what is known of a stream that is written to.
type screen struct {
	out io.Writer
	// terminal tells whether a person looks at it.
	terminal bool
	// width and height are the terminal's, in cells; 0 when it is none.
	width, height int
	// colours tells whether to use them.
	colours bool
}

// newScreen looks at a stream. Colours are used on a terminal, unless noColour, NO_COLOR (https://no-color.org) or TERM=dumb says otherwise.
func newScreen(out io.Writer, noColour bool, getenv func(string) string) screen {
	s := screen{out: out}
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	s.terminal = true
	s.width, s.height, _ = term.GetSize(int(f.Fd()))
	if s.width <= 0 {
		s.width, s.height = 80, 24
	}
	s.colours = !noColour && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	return s
}

// resize reads the terminal's size again.
func (s *screen) resize() {
	if f, ok := s.out.(*os.File); ok && s.terminal {
		if w, h, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			s.width, s.height = w, h
		}
	}
}

// paint colours a text, where the stream has colours.
func (s screen) paint(c colour, text string) string {
	if !s.colours || c == plainText || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// clean makes a text of unknown origin safe for one line of a terminal: control characters become spaces.
func clean(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s))
}

// cleanText is clean for a text of several lines.
func cleanText(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '\uFFFD'
		}
		return r
	}, s)
}
