package configfile

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// inline reads the files that the checks of the document name for their request bodies, relative to the document itself (to the working directory for stdin), and puts their
// content in place of the names: a check is kept by servers and run by many probers, which have no such file.
func (d *Document) inline(file string) []Fault {
	directory := "."
	if file != Stdin {
		directory = filepath.Dir(file)
	}
	var faults []Fault
	for i, c := range d.Config.GetChecks() {
		h := c.GetHttp()
		if h.GetBodyFile() == "" {
			continue
		}
		path := fmt.Sprintf("checks[%d].http.body_file", i)
		refuse := func(format string, args ...any) {
			faults = append(faults, Fault{Position: d.Position(path), Path: path, Problem: fmt.Sprintf(format, args...)})
		}
		name := h.GetBodyFile()
		h.BodyFile = ""
		if h.Body != "" || len(h.BodyBytes) > 0 || len(h.Form) > 0 || h.Graphql != nil {
			refuse("is given besides another body; a request has one, keep one")
			continue
		}
		if !filepath.IsAbs(name) {
			name = filepath.Join(directory, name)
		}
		if err := readBody(h, name); err != nil {
			refuse("%s", err)
		}
	}
	return faults
}

// readBody reads a file into the body of a check.
func readBody(h *meshv1.HttpProbe, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, spec.MaxRequestBody+1))
	switch {
	case err != nil:
		return fmt.Errorf("cannot be read: %w", err)
	case len(data) == 0:
		return fmt.Errorf("%s is empty; remove the field to send no body", name)
	case len(data) > spec.MaxRequestBody:
		return fmt.Errorf("%s has more than %d bytes, which is the most that a request body may have", name, spec.MaxRequestBody)
	}
	if utf8.Valid(data) {
		h.Body = string(data)
	} else {
		h.BodyBytes = data
	}
	return nil
}
