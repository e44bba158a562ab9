package dialogue

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/probemesh/probemesh/internal/capture"
	"github.com/probemesh/probemesh/internal/spec"
)

// Memory is what the steps of one probe have captured so far, for what later ones send. The zero value remembers nothing. It belongs to one goroutine.
type Memory struct {
	// Groups are what the groups of the newest match of a pattern hold: first the whole match. Nil before any.
	Groups []string

	named map[string]string
}

// Value is what a name in a text to send stands for: a group of the newest match by its number, or what was captured under the name. It is empty for what there is not.
func (m *Memory) Value(name string) string {
	if n, err := strconv.Atoi(name); err == nil {
		if n < 0 || n >= len(m.Groups) {
			return ""
		}
		return m.Groups[n]
	}
	return m.named[name]
}

// Fits tells whether what the holes of a text stand for has [capture.MaxValue] bytes each at most: groups without a name may have matched all that the peer sent, and a text may ask
// for one a thousand times. The error is a sentence.
func (m *Memory) Fits(t spec.Template) error {
	for _, hole := range t.Holes() {
		if n := len(m.Value(hole)); n > capture.MaxValue {
			return fmt.Errorf("${%s} to be sent has %d bytes, which is more than %d", hole, n, capture.MaxValue)
		}
	}
	return nil
}

// Captures are what was captured by name, as text; nil when nothing was. What is not valid UTF-8 in them is replaced by U+FFFD.
func (m *Memory) Captures() map[string]string {
	if len(m.named) == 0 {
		return nil
	}
	out := make(map[string]string, len(m.named))
	for k, v := range m.named {
		out[k] = strings.ToValidUTF8(v, "\uFFFD")
	}
	return out
}

// Keep notes the groups of a match, of which those with names are captured: names are [regexp.Regexp.SubexpNames], and groups begin with the whole match. The error
// is a sentence that names the group which is too long.
func (m *Memory) Keep(names, groups []string) error {
	m.Groups = groups
	for i, name := range names {
		if name == "" {
			continue
		}
		if n := len(groups[i]); n > capture.MaxValue {
			return fmt.Errorf("capture %s: it found %d bytes, which is more than %d", name, n, capture.MaxValue)
		}
		m.set(name, groups[i])
	}
	return nil
}

// set notes a captured value.
func (m *Memory) set(name, value string) {
	if m.named == nil {
		m.named = make(map[string]string)
	}
	m.named[name] = value
}

// Take adds what the captures find in body. The error is a sentence that names the capture which finds nothing.
func (m *Memory) Take(p *capture.Program, body []byte) error {
	if p == nil {
		return nil
	}
	values := make(capture.Values)
	if err := p.Take(capture.Source{Body: body}, values); err != nil {
		return err
	}
	for name, value := range values {
		m.set(name, value)
	}
	return nil
}
