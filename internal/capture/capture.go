// Package capture takes named parts out of what one step of a probe received, and writes them into the texts of later ones.
//
// A check says what to capture in messages [meshv1.Capture]; [Compile] makes a [Program] of those of one step, which is done where the check is accepted and again
// where it is run. [Program.Take] adds what it finds to [Values], which belong to one probe, and [Values.Expand] replaces `${name}` in a text:
//
//	values := make(capture.Values)
//	err := program.Take(capture.Source{Body: body, Header: header.Get}, values)   // {"token": "abc"}
//	text, err := values.Expand("/orders?token=${token}")                          // "/orders?token=abc"
//
// What is captured comes from the target, which may be hostile: a value has at most [MaxValue] bytes, a check at most [MaxCaptures] of them, an expanded text at most
// [MaxExpanded] bytes, and what is searched is cut at [MaxRegexpInput] or [MaxJSONInput]. RE2 takes time in proportion to the text, whatever the text is.
// A captured value is not expanded again.
package capture

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Limits, as Capture in probe_options.proto documents them.
const (
	// MaxCaptures is how many captures a check may have.
	MaxCaptures = 16
	// MaxValue is how many bytes a captured value may have.
	MaxValue = 4 << 10
	// MaxExpanded is how many bytes a text may have after its variables have been replaced.
	MaxExpanded = 64 << 10
	// MaxRegexpInput and MaxJSONInput are how much of what was received is looked into.
	MaxRegexpInput = 256 << 10
	MaxJSONInput   = 1 << 20
	// maxPattern is how many characters a regular expression or a path may have.
	maxPattern = 500
)

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Source is what one step received.
type Source struct {
	// Body is the body or the bytes.
	Body []byte
	// Header gives the first value of a header and whether there is one; nil where the protocol has none.
	Header func(name string) (string, bool)
}

// Program is the compiled captures of one step. It does not change. The nil Program captures nothing.
type Program struct{ parts []part }

// part is one compiled capture.
type part struct {
	name   string
	header string
	path   string
	expr   *regexp.Regexp
}

// Fault is what is wrong with one capture of a list.
type Fault struct {
	// Index is its place in the list.
	Index int
	// Field is the field that is wrong; empty for the capture as a whole.
	Field string
	// Problem says what is wrong and what would be right.
	Problem string
}

// Compile compiles the captures of one step, which may have as many as a check. headers tells whether the protocol has headers. It lists every fault; the program is nil when
// there are any, and when there is nothing to capture.
func Compile(captures []*meshv1.Capture, headers bool) (*Program, []Fault) {
	var p Program
	var faults []Fault
	for i, c := range captures {
		add := func(field, format string, args ...any) {
			faults = append(faults, Fault{Index: i, Field: field, Problem: fmt.Sprintf(format, args...)})
		}
		compiled := part{name: c.GetName(), header: c.GetHeader(), path: c.GetJsonPath()}
		if !namePattern.MatchString(c.GetName()) {
			add("name", "%q is not a name of a capture; write 1 to 63 characters of a-z, 0-9 and _, beginning with a letter", short(c.GetName()))
		}
		if c.GetHeader() != "" && !headers {
			add("header", "is for protocols with headers, which this is not; remove it")
		}
		if c.GetRegexp() != "" && c.GetJsonPath() != "" {
			add("json_path", "is given besides regexp; keep one")
		}
		for field, text := range map[string]string{"regexp": c.GetRegexp(), "json_path": c.GetJsonPath()} {
			if n := utf8.RuneCountInString(text); n > maxPattern {
				add(field, "has %d characters, which is more than %d; shorten it", n, maxPattern)
			}
		}
		if strings.ContainsAny(c.GetJsonPath(), "@!{[") {
			add("json_path", "%q has modifiers or literals (@ ! { [), which are not for probes; write a path such as items.0.id", short(c.GetJsonPath()))
		}
		if c.GetRegexp() != "" {
			expr, err := regexp.Compile(c.GetRegexp())
			if err != nil {
				add("regexp", "cannot be compiled: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			}
			compiled.expr = expr
		}
		p.parts = append(p.parts, compiled)
	}
	if len(faults) > 0 || len(p.parts) == 0 {
		return nil, faults
	}
	return &p, nil
}

// Names are the names of the captures, in order.
func (p *Program) Names() []string {
	if p == nil {
		return nil
	}
	names := make([]string, len(p.parts))
	for i := range p.parts {
		names[i] = p.parts[i].name
	}
	return names
}

// Take adds what the captures find in the source to the values, in order, until one finds nothing or too much: the error is a sentence that names it.
func (p *Program) Take(s Source, into Values) error {
	if p == nil {
		return nil
	}
	for i := range p.parts {
		value, err := p.parts[i].find(s)
		if err != nil {
			return fmt.Errorf("capture %s: %w", p.parts[i].name, err)
		}
		if _, again := into[p.parts[i].name]; !again && len(into) >= MaxCaptures {
			return fmt.Errorf("capture %s: there are %d captures already, which is the most", p.parts[i].name, MaxCaptures)
		}
		into[p.parts[i].name] = value
	}
	return nil
}

// find finds the value of one capture.
func (c *part) find(s Source) (string, error) {
	body, where := s.Body, "what was received"
	if c.header != "" {
		if s.Header == nil {
			return "", fmt.Errorf("there are no headers")
		}
		v, ok := s.Header(c.header)
		if !ok {
			return "", fmt.Errorf("the answer has no header %s", c.header)
		}
		body, where = []byte(v), "header "+c.header
	}
	var value string
	switch {
	case c.expr != nil:
		m := c.expr.FindSubmatch(body[:min(len(body), MaxRegexpInput)])
		if m == nil {
			return "", fmt.Errorf("%s does not match in %s", c.expr, where)
		}
		group := m[0]
		if len(m) > 1 {
			group = m[1]
		}
		if len(group) > MaxValue {
			return "", tooLong(len(group))
		}
		value = string(group)
	case c.path != "":
		found := gjson.GetBytes(body[:min(len(body), MaxJSONInput)], c.path)
		if !found.Exists() {
			return "", fmt.Errorf("%s is not in the JSON of %s", c.path, where)
		}
		value = found.String()
	case len(body) > MaxValue:
		return "", tooLong(len(body))
	default:
		value = string(body)
	}
	value = strings.ToValidUTF8(value, "\uFFFD") // which may lengthen it
	if len(value) > MaxValue {
		return "", tooLong(len(value))
	}
	return value, nil
}

func tooLong(n int) error {
	return fmt.Errorf("it found %d bytes, which is more than %d", n, MaxValue)
}

// short shortens a text for a sentence.
func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "..."
	}
	return s
}
