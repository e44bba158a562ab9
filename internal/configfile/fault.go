package configfile

import (
	"fmt"
	"sort"
	"strings"
)

// Position is a place in a file. Its zero value is no place.
type Position struct {
	// File is the name of the file as the user gave it, or `stdin`.
	File string
	// Line counts from 1; 0 when it is not known.
	Line int
	// Column counts from 1; 0 when it is not known.
	Column int
}

// String is `file:line:column`, without the parts that are not known.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Fault is one thing that is wrong with a configuration file.
type Fault struct {
	// Position is where it is.
	Position Position
	// Path is the field, for example `checks[3].http.expect[0]`; empty when the fault is about the file as a whole.
	Path string
	// Problem says what is wrong and what would be right, without repeating the path.
	Problem string
}

// String is the fault as one line.
func (f Fault) String() string {
	if f.Path == "" {
		return f.Position.String() + ": " + f.Problem
	}
	return f.Position.String() + ": " + f.Path + ": " + f.Problem
}

// Error is every fault of a set of configuration files. It has at least one.
type Error struct {
	// Faults are sorted by file in the order read, then by line and column.
	Faults []Fault
}

// Error is a heading and one line for each fault.
func (e *Error) Error() string {
	var b strings.Builder
	if len(e.Faults) == 1 {
		b.WriteString("the configuration has 1 fault:")
	} else {
		fmt.Fprintf(&b, "the configuration has %d faults:", len(e.Faults))
	}
	for _, f := range e.Faults {
		b.WriteString("\n  ")
		b.WriteString(f.String())
	}
	return b.String()
}

// sortFaults sorts the faults of one file by place; faults at one place stay in the order in which they were found.
func sortFaults(faults []Fault) {
	sort.SliceStable(faults, func(i, j int) bool {
		a, b := faults[i].Position, faults[j].Position
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
}
