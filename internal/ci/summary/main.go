// Command summary reads the events of `go test -json` and prints what a reader wants to know: what failed, with its output, what was skipped and why, and one closing
// line with the counts. It exits with 1 when a test failed or none was run.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

func main() {
	passed, failed, skipped := 0, 0, 0
	output := map[string][]string{}
	var failures, skips []string
	slow := map[string]float64{}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(make([]byte, 1<<20), 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if e.Action == "build-output" {
				key = e.ImportPath + " "
				fmt.Print(e.Output)
			}
			output[key] = append(output[key], e.Output)
		case "pass":
			if e.Test != "" {
				passed++
				delete(output, key)
			} else {
				slow[e.Package] = e.Elapsed
			}
		case "skip":
			if e.Test != "" {
				skipped++
				skips = append(skips, key+": "+strings.TrimSpace(strings.Join(output[key], " ")))
			}
		case "fail":
			if e.Test != "" {
				failed++
			}
			failures = append(failures, key)
		}
	}
	for _, f := range failures {
		fmt.Printf("--- FAILED %s\n%s\n", f, strings.Join(tail(output[f], 80), ""))
	}
	sort.Strings(skips)
	for _, s := range skips {
		fmt.Println("skipped", s)
	}
	for _, p := range slowest(slow, 5) {
		fmt.Printf("%6.1fs %s\n", slow[p], p)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	if failed > 0 || len(failures) > 0 || passed == 0 {
		os.Exit(1)
	}
}

func tail(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }

func slowest(m map[string]float64, n int) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return m[keys[i]] > m[keys[j]] })
	return keys[:min(n, len(keys))]
}
