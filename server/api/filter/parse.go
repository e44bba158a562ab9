package filter

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/nearest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Parse reads a filter over the given keys. Empty text, or blanks only, accepts everything. The error is a *fault.Error with reason FILTER_INVALID.
func Parse(text string, keys []Key) (Filter, error) {
	if len(text) > LengthMax {
		return Filter{}, invalid(fmt.Sprintf("the filter has %d bytes; at most %d are allowed", len(text), LengthMax))
	}
	p := &parser{text: text, keys: keys}
	terms, problem := p.terms()
	if problem != "" {
		return Filter{}, invalid("the filter is not valid: " + problem)
	}
	return Filter{terms: terms}, nil
}

func invalid(message string) error {
	e := fault.New(codes.InvalidArgument, meshv1.ErrorReason_FILTER_INVALID, "", "%s", message)
	e.Violations = []fault.Violation{{Field: "filter", Problem: message}}
	return e
}

// parser reads from at on. Its methods return a problem, empty when there is none.
type parser struct {
	text string
	at   int
	keys []Key
}

func (p *parser) terms() ([]term, string) {
	if p.blank(); p.at == len(p.text) {
		return nil, ""
	}
	var terms []term
	for {
		t, problem := p.term()
		if problem != "" {
			return nil, problem
		}
		terms = append(terms, t)
		if p.blank(); p.at == len(p.text) {
			return terms, ""
		}
		if problem := p.and(); problem != "" {
			return nil, problem
		}
	}
}

func (p *parser) and() string {
	start := p.at
	word := p.word()
	switch {
	case word == "AND":
		if p.blank(); p.at == len(p.text) {
			return "nothing follows the last AND; write another term or leave it out"
		}
		return ""
	case strings.EqualFold(word, "and"):
		return fmt.Sprintf("%s %s must be written AND", word, p.place(start))
	case strings.EqualFold(word, "or"), strings.EqualFold(word, "not"):
		return fmt.Sprintf("%s %s is not supported; terms can only be joined by AND, and negated by !=", word, p.place(start))
	}
	return fmt.Sprintf("%s a term ends, and %q follows; join terms by AND, and put values with blanks into double quotes", p.place(start), clip(p.text[start:]))
}

func (p *parser) term() (term, string) {
	p.blank()
	start := p.at
	name := p.word()
	if name == "" {
		if p.at == len(p.text) {
			return term{}, "it ends where a key is expected"
		}
		return term{}, fmt.Sprintf("%s is %q where a key is expected; the keys are %s", p.place(start), clip(p.text[start:]), p.known())
	}
	key, ok := p.key(name)
	if !ok {
		return term{}, fmt.Sprintf("the key %s is not known; the keys are %s%s", name, p.known(), nearest.Hint(name, p.names()))
	}
	negate, problem := p.operator(name)
	if problem != "" {
		return term{}, problem
	}
	value, problem := p.value(name)
	if problem != "" {
		return term{}, problem
	}
	if len(key.Values) > 0 && !slices.Contains(key.Values, value) {
		return term{}, fmt.Sprintf("%s cannot be %q; it is one of %s%s", name, clip(value), strings.Join(key.Values, ", "), nearest.Hint(value, key.Values))
	}
	if key.Collection != "" && value != "" && !strings.Contains(value, "/") {
		value = key.Collection + "/" + value
	}
	return term{key: name, negate: negate, value: value}, ""
}

func (p *parser) operator(name string) (negate bool, problem string) {
	p.blank()
	rest := p.text[p.at:]
	switch {
	case strings.HasPrefix(rest, "=="):
		return false, fmt.Sprintf("== %s must be written =", p.place(p.at))
	case strings.HasPrefix(rest, "!="):
		p.at += 2
		return true, ""
	case strings.HasPrefix(rest, "="):
		p.at++
		return false, ""
	}
	return false, fmt.Sprintf("after the key %s, = or != is expected", name)
}

func (p *parser) value(name string) (value, problem string) {
	p.blank()
	if p.at == len(p.text) {
		return "", fmt.Sprintf("%s is compared with nothing; write a value, or \"\" for the empty one", name)
	}
	if p.text[p.at] == '"' {
		return p.quoted()
	}
	start := p.at
	if value = p.word(); value == "" {
		return "", fmt.Sprintf("%s is %q where the value of %s is expected; put it into double quotes", p.place(start), clip(p.text[start:]), name)
	}
	return value, ""
}

func (p *parser) quoted() (value, problem string) {
	start := p.at
	var b strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; c {
		case '"':
			p.at++
			return b.String(), ""
		case '\\':
			p.at++
			if p.at == len(p.text) || (p.text[p.at] != '"' && p.text[p.at] != '\\') {
				return "", fmt.Sprintf("%s is a backslash that escapes nothing; in quotes write \\\" for a quote and \\\\ for a backslash", p.place(p.at-1))
			}
			b.WriteByte(p.text[p.at])
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Sprintf("the quote that opens %s is never closed", p.place(start))
}

// word reads up to a blank or a character that means something.
func (p *parser) word() string {
	start := p.at
	for p.at < len(p.text) && !strings.ContainsRune(" \t\r\n\"=!()", rune(p.text[p.at])) {
		p.at++
	}
	return p.text[start:p.at]
}

func (p *parser) blank() {
	for p.at < len(p.text) && strings.ContainsRune(" \t\r\n", rune(p.text[p.at])) {
		p.at++
	}
}

func (p *parser) key(name string) (Key, bool) {
	for _, k := range p.keys {
		if strings.HasSuffix(k.Name, ".") {
			if strings.HasPrefix(name, k.Name) && len(name) > len(k.Name) {
				return k, true
			}
		} else if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

func (p *parser) known() string {
	names := make([]string, len(p.keys))
	for i, k := range p.keys {
		names[i] = k.Name
		if strings.HasSuffix(k.Name, ".") {
			names[i] += "<key>"
		}
	}
	return strings.Join(names, ", ")
}

// names are the keys that can be written as they are.
func (p *parser) names() []string {
	var names []string
	for _, k := range p.keys {
		if !strings.HasSuffix(k.Name, ".") {
			names = append(names, k.Name)
		}
	}
	return names
}

func (p *parser) place(at int) string { return fmt.Sprintf("at character %d", at+1) }

func clip(s string) string {
	const most = 30
	if len(s) <= most {
		return s
	}
	cut := most
	for cut > 0 && s[cut]&0xC0 == 0x80 {
		cut--
	}
	return s[:cut] + "..."
}
