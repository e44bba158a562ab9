package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// key names a test, or with an empty test a package.
type key struct{ pkg, test string }

func (k key) String() string { return strings.TrimSpace(k.pkg + " " + k.test) }

// root is the top-level test of a subtest.
func (k key) root() key {
	top, _, _ := strings.Cut(k.test, "/")
	return key{k.pkg, top}
}

// event is a line of `go test -json`, as cmd/test2json describes it.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// report is what the events come to.
type report struct {
	passed          int
	failures, flaky []key
	skips           []string
	output          map[key][]string
	slow            map[string]float64 // seconds by package
}

func read(in io.Reader) *report {
	r := &report{output: map[key][]string{}, slow: map[string]float64{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		r.take(e)
	}
	return r
}

func (r *report) take(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		r.output[k] = append(r.output[k], e.Output)
	case "pass":
		if e.Test == "" {
			r.slow[e.Package] = e.Elapsed
			return
		}
		r.passed++
		delete(r.output, k)
	case "skip":
		if e.Test != "" {
			r.skips = append(r.skips, k.String()+": "+strings.TrimSpace(strings.Join(r.output[k], " ")))
		}
	case "fail":
		if e.Package != "" {
			r.failures = append(r.failures, k)
		}
	}
}
