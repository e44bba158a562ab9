package configfile

import (
	"slices"
	"strings"

	"github.com/probemesh/probemesh/internal/fault"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Understood tells whether the names of all resources of the files could be read, whatever else is wrong with them: then it makes sense to ask whether what they name exists.
func (c *Config) Understood() bool {
	if c == nil || len(c.documents) == 0 {
		return false
	}
	for _, d := range c.documents {
		if len(d.positions) == 0 {
			return false // it is no YAML, or empty
		}
		for path := range d.muted {
			// The file as a whole, a list, an item or its name.
			if !strings.Contains(path, ".") || strings.HasSuffix(path, "].name") {
				return false
			}
		}
	}
	return !slices.ContainsFunc(c.Config.GetChecks(), func(x *meshv1.Check) bool { return x.GetName() == "" }) &&
		!slices.ContainsFunc(c.Config.GetReceivers(), func(x *meshv1.Receiver) bool { return x.GetName() == "" })
}

// Also gives the faults of the files with what a server finds wrong besides. What is about a field that has a fault already, or about what a fault hides, is left out.
func (c *Config) Also(e *Error, violations []fault.Violation) *Error {
	type place struct{ file, path string }
	known := map[place]bool{}
	for _, f := range e.Faults {
		known[place{f.Position.File, f.Path}] = true
	}
	all := &Error{Faults: slices.Clone(e.Faults)}
	for _, v := range violations {
		at, path, found := c.Locate(v.Field)
		if !found || known[place{at.File, path}] || c.hidden(v.Field) {
			continue
		}
		all.Faults = append(all.Faults, Fault{Position: at, Path: path, Problem: v.Problem})
	}
	var files []string
	for _, f := range all.Faults {
		if !slices.Contains(files, f.Position.File) {
			files = append(files, f.Position.File)
		}
	}
	slices.SortStableFunc(all.Faults, func(a, b Fault) int {
		if d := slices.Index(files, a.Position.File) - slices.Index(files, b.Position.File); d != 0 {
			return d
		}
		if d := a.Position.Line - b.Position.Line; d != 0 {
			return d
		}
		return a.Position.Column - b.Position.Column
	})
	return all
}

// hidden tells whether a field, or something that it is a part of, was not understood.
func (c *Config) hidden(path string) bool {
	o, local, found := c.origin(path)
	for p := local; found && p != ""; p = parent(p) {
		if o.document.muted[p] {
			return true
		}
	}
	return false
}
