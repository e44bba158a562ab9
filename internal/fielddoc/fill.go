package main

import (
	"fmt"
	"strings"
)

const (
	openMark  = "<!-- fields: "
	markEnd   = " -->"
	closeMark = "<!-- /fields -->"
)

// fill returns the page with the lines between its markers replaced by the tables that they name.
func fill(page string, tables map[string]string) (string, error) {
	var out strings.Builder
	lines := strings.SplitAfter(page, "\n")
	for i := 0; i < len(lines); i++ {
		out.WriteString(lines[i])
		name, ok := marked(lines[i])
		if !ok {
			continue
		}
		table, ok := tables[name]
		if !ok {
			return "", fmt.Errorf("line %d: the protos have no message and no enum %q", i+1, name)
		}
		end := i + 1
		for end < len(lines) && strings.TrimSpace(lines[end]) != closeMark {
			if _, again := marked(lines[end]); again {
				break
			}
			end++
		}
		if end == len(lines) || strings.TrimSpace(lines[end]) != closeMark {
			return "", fmt.Errorf("line %d: the fields of %s end nowhere; write %q on a line of its own after them", i+1, name, closeMark)
		}
		out.WriteString("\n" + table + "\n")
		i = end - 1
	}
	return out.String(), nil
}

// marked returns the name in a line that opens a table.
func marked(line string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), openMark)
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, markEnd)
}
