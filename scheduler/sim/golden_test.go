package sim

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write the expected output of the golden scenarios anew")

// Each file of testdata is prose, then blocks: commands, a line of dashes, what the trace said, an empty line.
func TestGoldenScenarios(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txt")
	if len(files) < 10 {
		t.Fatalf("%d scenarios, want ten or more", len(files))
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playFile(t, file) })
	}
}

func playFile(t *testing.T, file string) {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := play(t, string(b))
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got == string(b) {
		return
	}
	want, have := strings.Split(string(b), "\n"), strings.Split(got, "\n")
	for i := range have {
		if i >= len(want) || want[i] != have[i] {
			t.Fatalf("%s:%d\n got: %s\nwant: %s\n(-rewrite writes it anew)", file, i+1, have[i], want[min(i, len(want)-1)])
		}
	}
	t.Fatalf("%s is longer than what was played", file)
}

func play(t *testing.T, text string) string {
	var s Script
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); {
		if lines[i] == "" || strings.HasPrefix(lines[i], "#") {
			out.WriteString(lines[i] + "\n")
			i++
			continue
		}
		var said []string
		for ; i < len(lines) && lines[i] != "" && lines[i] != "----"; i++ {
			out.WriteString(lines[i] + "\n")
			l, err := s.Do(lines[i])
			if err != nil {
				t.Errorf("line %d: %v", i+1, err)
			}
			said = append(said, l...)
		}
		out.WriteString("----\n")
		for _, l := range said {
			out.WriteString(strings.TrimRight(l, " ") + "\n")
		}
		if i < len(lines) && lines[i] == "----" {
			// What it said last time ends at the next empty line that is followed by a command, a comment or nothing; output has none itself.
			for i++; i < len(lines) && lines[i] != ""; i++ {
			}
		}
	}
	return out.String()
}
