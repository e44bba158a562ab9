package configfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// MaxBytes is the size up to which a file is read. 10,000 checks of ordinary size need about 4 MiB.
const MaxBytes = 8 << 20

// maxValues bounds how many values a file may have once its aliases are followed, so that a few lines of aliases cannot cost gigabytes.
const maxValues = 1_000_000

// Document is one parsed file.
type Document struct {
	// Config is what the file says. After faults it has what could be understood.
	Config *meshv1.Config
	// positions has the place of each field and list item, by path.
	positions map[string]Position
	// muted has the paths about which a fault was reported, so that what follows from it is not reported again.
	muted map[string]bool
	name  string
}

// Parse reads one file's text; name is what faults call the file. It reports every fault of form: YAML that does not parse, unknown or
// duplicate fields, wrong types. It does not judge the values: that is [Load]'s second step. The document is never nil.
func Parse(name string, data []byte) (*Document, []Fault) {
	doc := &Document{Config: &meshv1.Config{}, positions: map[string]Position{}, muted: map[string]bool{}, name: name}
	whole := Position{File: name}
	if len(data) > MaxBytes {
		return doc, []Fault{{Position: whole, Problem: fmt.Sprintf("the file has more than %d MiB; split it and apply the parts together", MaxBytes>>20)}}
	}
	root, faults := parseYAML(name, data)
	if len(faults) > 0 {
		return doc, faults
	}
	if root == nil || isNull(root) {
		return doc, []Fault{{Position: whole, Problem: "the file is empty; write a list of checks under `checks:`"}}
	}
	w := &walker{doc: doc}
	w.message(root, doc.Config.ProtoReflect(), "", nil)
	sortFaults(w.faults)
	return doc, w.faults
}

// parseYAML gives the one value of the text, nil when there is none.
func parseYAML(name string, data []byte) (*yaml.Node, []Fault) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var document, more yaml.Node
	if err := dec.Decode(&document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, []Fault{syntaxFault(name, data, err)}
	}
	root := &document
	if document.Kind == yaml.DocumentNode {
		if len(document.Content) == 0 {
			return nil, nil
		}
		root = document.Content[0]
	}
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
		return root, nil
	case err != nil:
		return nil, []Fault{syntaxFault(name, data, err)}
	}
	at := Position{File: name, Line: more.Line, Column: more.Column}
	return nil, []Fault{{Position: at, Problem: "a second document begins here; a file holds one: put everything into one list of checks, or use several files"}}
}

var yamlLine = regexp.MustCompile(`^line ([0-9]+): (?:column ([0-9]+): )?`)

// syntaxFault turns an error of the YAML parser into a fault at its place.
func syntaxFault(name string, data []byte, err error) Fault {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	at := Position{File: name}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		at.Line, _ = strconv.Atoi(m[1])
		at.Column, _ = strconv.Atoi(m[2])
		text = strings.TrimPrefix(text, m[0])
	}
	if strings.HasPrefix(text, "did not find expected '-'") || strings.HasPrefix(text, "did not find expected key") {
		at.Line, at.Column = brokenLine(data, text), 0
	}
	problem := "this is not YAML: " + text
	if tab := tabIndent(data); tab > 0 && strings.Contains(text, "cannot start any token") {
		at.Line, at.Column = tab, 1
		problem = "this is not YAML: the line is indented with a tab; use spaces"
	}
	return Fault{Position: at, Problem: problem}
}

// brokenLine is the line whose coming makes the text break with the problem. Of a list or mapping that is broken off, the parser names the line before the one in
// which it begins; but it reads a text from its beginning, and what ends before the fault has none of this kind.
func brokenLine(data []byte, problem string) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	return 1 + sort.Search(len(lines)-1, func(i int) bool {
		dec := yaml.NewDecoder(bytes.NewReader(bytes.Join(lines[:i+1], nil)))
		for {
			var document yaml.Node
			if err := dec.Decode(&document); err != nil {
				return strings.HasSuffix(err.Error(), problem)
			}
		}
	})
}

// tabIndent is the first line whose indentation has a tab, 0 if there is none.
func tabIndent(data []byte) int {
	for i, line := range bytes.Split(data, []byte("\n")) {
		if indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]; bytes.ContainsRune(indent, '\t') {
			return i + 1
		}
	}
	return 0
}

// Position is where the field of the path is, or its nearest parent that the file has.
func (d *Document) Position(path string) Position {
	for p := path; p != ""; p = parent(p) {
		if at, ok := d.positions[p]; ok {
			return at
		}
	}
	return Position{File: d.name}
}

// parent cuts the last step off a path: `a.b[0]` gives `a.b`, then `a`, then "".
func parent(path string) string {
	cut := strings.LastIndexAny(path, ".[")
	if cut < 0 {
		return ""
	}
	return path[:cut]
}
