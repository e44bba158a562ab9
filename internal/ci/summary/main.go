// Command summary reads the events of `go test -json` and prints what a reader wants to know: what was skipped and why, what failed, with its output, and one closing
// line with the counts. It exits with 1 when a test failed or none was run.
//
// With -again it runs each test that failed once more, by itself, with the flags of `go test` that follow as arguments. One that passes then is reported as flaky, with
// the output of its failure, and is no failure of the whole: on a machine that is shared, a test of real processes may meet a moment in which nothing runs. More than
// five failing tests are no such thing, and are not run again.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// againMost is how many tests are run again.
const againMost = 5

func main() {
	again := flag.Bool("again", false, "run each failed test once more, by itself; arguments are flags for go test")
	flag.Parse()
	r := read(os.Stdin)
	flaky := 0
	if *again {
		flaky = r.runAgain(flag.Args())
	}
	r.print(os.Stdout)
	fmt.Printf("%d passed, %d failed, %d flaky, %d skipped\n", r.passed, len(r.failures), flaky, len(r.skips))
	if len(r.failures) > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

// runAgain runs what failed once more and moves what passes to the flaky ones.
func (r *report) runAgain(flags []string) int {
	roots := r.roots()
	if len(roots) == 0 || len(roots) > againMost {
		return 0
	}
	passed := map[key]bool{}
	for _, k := range roots {
		// The package comes first: after a flag of the tests' own, go test takes it for an argument.
		args := []string{"test", k.pkg, "-count", "1"}
		if k.test != "" {
			args = append(args, "-run", "^"+k.test+"$")
		}
		out, err := exec.Command("go", append(args, flags...)...).CombinedOutput() //nolint:gosec // names of our own tests
		if err == nil {
			passed[k] = true
			continue
		}
		r.output[k] = append(r.output[k], "\nand once more:\n", string(out))
	}
	var left []key
	for _, f := range r.failures {
		if passed[f.root()] || passed[key{f.pkg, ""}] || f.test == "" && r.allPassed(f.pkg, roots, passed) {
			r.flaky = append(r.flaky, f)
		} else {
			left = append(left, f)
		}
	}
	r.failures = left
	return len(passed)
}

// allPassed tells whether every failed test of a package passed when it was run again, so that the package did.
func (r *report) allPassed(pkg string, roots []key, passed map[key]bool) bool {
	for _, k := range roots {
		if k.pkg == pkg && !passed[k] {
			return false
		}
	}
	return true
}

// roots are the top-level tests that failed, and the packages that failed without one.
func (r *report) roots() (all []key) {
	seen := map[key]bool{}
	tested := map[string]bool{}
	for _, f := range r.failures {
		if f.test != "" {
			tested[f.pkg] = true
		}
	}
	for _, f := range r.failures {
		k := f.root()
		if k.test == "" && tested[k.pkg] || seen[k] {
			continue
		}
		seen[k] = true
		all = append(all, k)
	}
	return all
}

func (r *report) print(w *os.File) {
	sort.Strings(r.skips)
	for _, s := range r.skips {
		fmt.Fprintln(w, "skipped", s)
	}
	for _, p := range slowest(r.slow, 5) {
		fmt.Fprintf(w, "%6.1fs %s\n", r.slow[p], p)
	}
	for _, f := range r.flaky {
		fmt.Fprintf(w, "--- FLAKY, passed when it was run again: %s\n%s\n", f, strings.Join(tail(r.output[f], 40), ""))
	}
	for _, f := range r.failures {
		fmt.Fprintf(w, "--- FAILED %s\n%s\n", f, strings.Join(tail(r.output[f], 80), ""))
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
