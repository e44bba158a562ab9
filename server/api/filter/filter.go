// Package filter reads the `filter` of list and watch requests: `key = "value"` terms joined by AND, where != negates.
//
//	labels.team = "payments" AND verdict != UP
//
// A value is bare (letters, digits and anything else but blanks, quotes, `=`, `!`, `(` and `)`), or in double quotes, where \" and \\ stand for
// a quote and a backslash. A key that has several values, such as the receivers of a check, equals a value when one of them does. A key that has
// none equals the empty value, so that `labels.team = ""` finds what has no team. Every error is a FILTER_INVALID that says where and what would
// be right. Values are immutable once made and safe for concurrent use.
package filter

import (
	"slices"
	"strings"
)

// LengthMax is how long a filter may be, in bytes.
const LengthMax = 4096

// Key is something that can be filtered by.
type Key struct {
	// Name is the key, for example `verdict`. One that ends with a dot stands for all keys that begin with it, for example `labels.`.
	Name string
	// Values, if not empty, are the only values that make sense.
	Values []string
	// Collection, if set, is put before bare ids, so that `receiver = ops` means `receivers/ops`.
	Collection string
}

// Filter is a filter that was read. The zero Filter accepts everything.
type Filter struct {
	terms []term
}

type term struct {
	key    string
	negate bool
	value  string
}

// String is the filter in its one canonical form; equal filters have equal forms.
func (f Filter) String() string {
	var b strings.Builder
	for i, t := range f.terms {
		if i > 0 {
			b.WriteString(" AND ")
		}
		b.WriteString(t.key)
		if t.negate {
			b.WriteString(" != ")
		} else {
			b.WriteString(" = ")
		}
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(t.value))
		b.WriteByte('"')
	}
	return b.String()
}

// Empty tells whether the filter accepts everything.
func (f Filter) Empty() bool { return len(f.terms) == 0 }

// Match tells whether something passes. values gives what it has under a key.
func (f Filter) Match(values func(key string) []string) bool {
	for _, t := range f.terms {
		have := values(t.key)
		equal := slices.Contains(have, t.value) || (len(have) == 0 && t.value == "")
		if equal == t.negate {
			return false
		}
	}
	return true
}

// Excludes tells whether no thing whose only value under key is value can pass, so that there is no need to look for one.
func (f Filter) Excludes(key, value string) bool {
	for _, t := range f.terms {
		if t.key == key && (t.value == value) == t.negate {
			return true
		}
	}
	return false
}

// Uses tells whether a term is about the key.
func (f Filter) Uses(key string) bool {
	return slices.ContainsFunc(f.terms, func(t term) bool { return t.key == key })
}
