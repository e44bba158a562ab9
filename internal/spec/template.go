package spec

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxRegexpSteps is the most instructions that a pattern may compile to. Matching takes time in proportion to them and to the text: 1,000 of them need about a third of a second for
// 64 KiB at worst.
const maxRegexpSteps = 1_000

// captureName is the name of what a step captures, and holeName, which is wider, what a text may ask for.
var (
	captureName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)
	holeName    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)
)

// Template is a text to send, with holes for what earlier steps captured. The zero value is the empty text. It does not change.
type Template struct {
	parts []templatePart
}

// templatePart is a literal and the hole after it; the last one has no hole.
type templatePart struct {
	literal string
	hole    string
}

// ParseTemplate takes a text apart: `${name}` is a hole. Of several dollar signs right before a `{` two stand for one, so `$${` is `${`, and `$$${name}`
// a dollar sign and a hole. Any other dollar sign stands for itself. With escapes, `\xNN`, `\0`, `\a`, `\b`, `\f`, `\n`, `\r`, `\t`, `\v`
// and `\\` are bytes. The error follows the name of the field.
func ParseTemplate(text string, escapes bool) (Template, error) {
	var t Template
	var literal strings.Builder
	for i := 0; i < len(text); {
		switch rest := text[i:]; {
		case dollars(rest) >= 2:
			n := dollars(rest)
			literal.WriteString(strings.Repeat("$", n/2))
			if i += n / 2 * 2; n%2 == 0 {
				literal.WriteByte('{')
				i++
			}
		case strings.HasPrefix(rest, "${"):
			end := strings.IndexByte(rest, '}')
			if end < 0 {
				return Template{}, fmt.Errorf("has ${ without a }; write ${name}, or $${ for a plain ${")
			}
			name := rest[2:end]
			if _, err := strconv.ParseUint(name, 10, 8); err != nil && !holeName.MatchString(name) {
				return Template{}, fmt.Errorf("has ${%s}, which is not the name of a capture; write letters, digits and _, or $${ for a plain ${", clip(name))
			}
			t.parts = append(t.parts, templatePart{literal: literal.String(), hole: name})
			literal.Reset()
			i += end + 1
		case escapes && rest[0] == '\\':
			b, n, err := unescape(rest)
			if err != nil {
				return Template{}, err
			}
			literal.WriteByte(b)
			i += n
		default:
			literal.WriteByte(text[i])
			i++
		}
	}
	if literal.Len() > 0 {
		t.parts = append(t.parts, templatePart{literal: literal.String()})
	}
	return t, nil
}

// dollars counts the dollar signs at the beginning of s; 0 when no `{` follows them.
func dollars(s string) int {
	n := len(s) - len(strings.TrimLeft(s, "$"))
	if n == len(s) || s[n] != '{' {
		return 0
	}
	return n
}

// unescape reads one escape at the beginning of s: the byte, and how many bytes of s it took.
func unescape(s string) (b byte, n int, err error) {
	if len(s) < 2 {
		return 0, 0, fmt.Errorf(`ends with a single \; write \\ for a backslash`)
	}
	const letters, values = `0abfnrtv\`, "\x00\a\b\f\n\r\t\v\\"
	if i := strings.IndexByte(letters, s[1]); i >= 0 {
		return values[i], 2, nil
	}
	if s[1] == 'x' && len(s) >= 4 {
		if v, err := strconv.ParseUint(s[2:4], 16, 8); err == nil {
			return byte(v), 4, nil
		}
	}
	return 0, 0, fmt.Errorf(`has the escape %q, which is not known; the known ones are \xNN, \0, \a, \b, \f, \n, \r, \t, \v and \\`, clip(s[:min(len(s), 4)]))
}

// Literal is the template of a text without holes, whatever dollar signs it has.
func Literal(text string) Template {
	if text == "" {
		return Template{}
	}
	return Template{parts: []templatePart{{literal: text}}}
}

// Empty tells whether there is nothing to send.
func (t Template) Empty() bool { return len(t.parts) == 0 }

// Holes are the names in the template, in order.
func (t Template) Holes() []string {
	var names []string
	for _, p := range t.parts {
		if p.hole != "" {
			names = append(names, p.hole)
		}
	}
	return names
}

// Expand appends the text to dst, with value for each hole.
func (t Template) Expand(dst []byte, value func(name string) string) []byte {
	for _, p := range t.parts {
		dst = append(dst, p.literal...)
		if p.hole != "" {
			dst = append(dst, value(p.hole)...)
		}
	}
	return dst
}

// Regexp compiles a pattern that is applied to what a target sends. The error follows the name of the field.
func Regexp(pattern string) (*regexp.Regexp, error) {
	if n := utf8.RuneCountInString(pattern); n > maxExpectationRunes {
		return nil, fmt.Errorf("has %d characters, which is more than %d; shorten it", n, maxExpectationRunes)
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("%q is not a regular expression: %s", clip(pattern), strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, fmt.Errorf("%q is not a regular expression: %w", clip(pattern), err)
	}
	if len(program.Inst) > maxRegexpSteps {
		return nil, fmt.Errorf("%q takes %d steps to match, which is more than %d; lower its repetitions", clip(pattern), len(program.Inst), maxRegexpSteps)
	}
	return regexp.Compile(pattern)
}
