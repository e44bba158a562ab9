package clients

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// example is a command of a document and what it must print.
type example struct {
	line    int
	command string
	want    []string
}

// examples reads the blocks marked `console`: lines that begin with `$ ` are commands, up to the line where quotes and backslashes end; what follows is
// their output. In it a line `...` stands for any lines, and `...` within a line for any text.
func examples(text string) []example {
	var all []example
	inside := false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			all = append(all, example{line: i + 1, command: line[2:]})
		default:
			last := &all[len(all)-1]
			if c := last.command; strings.Count(c, "'")%2 == 1 || strings.HasSuffix(c, `\`) {
				last.command += "\n" + line
			} else {
				last.want = append(last.want, line)
			}
		}
	}
	return all
}

// pattern matches the output of an example, whatever its indentation.
func (e example) pattern() *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	for _, line := range e.want {
		line = strings.Join(strings.Fields(line), " ")
		if line == "..." {
			b.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `[^\n]*`) + `\n`)
	}
	return regexp.MustCompile(b.String() + `$`)
}

func TestTheExamplesOfTheAPIDocumentPrintWhatTheySay(t *testing.T) {
	c := callerOf(t)
	b, err := os.ReadFile(filepath.Join(c.m.root, "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("127.0.0.1:7700", c.m.GRPC, "127.0.0.1:7701", c.m.HTTP, "http://127.0.0.1:8080/health", c.m.target,
		"7d4c0f6e", fmt.Sprint("docs-", time.Now().UnixNano())) // a request_id is good for one request
	path := "PATH=" + filepath.Dir(c.path) + string(os.PathListSeparator) + os.Getenv("PATH")
	all := examples(here.Replace(string(b)))
	if len(all) < 10 {
		t.Fatalf("only %d examples were found", len(all))
	}
	for _, e := range all {
		if strings.HasPrefix(e.command, "curl ") && execute(t, t.TempDir(), nil, "sh", "-c", "command -v curl").code != 0 {
			continue
		}
		out := execute(t, c.m.root, ownEnvironment(path), "sh", "-c", e.command+" 2>&1")
		var got strings.Builder
		for _, line := range strings.Split(strings.TrimRight(out.stdout, "\n"), "\n") {
			got.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
		}
		if !e.pattern().MatchString(got.String()) {
			t.Errorf("docs/api.md:%d: %s\nprints\n%s\nwhich is not\n%s", e.line, e.command, out.stdout, strings.Join(e.want, "\n"))
		}
	}
}

// What a document links to must exist.
func TestTheLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	docs, _ := filepath.Glob("../../../docs/*.md")
	if len(docs) < 3 {
		t.Fatalf("documents: %v", docs)
	}
	for _, doc := range append(docs, "../../../README.md") {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)[^)]*\)`).FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", doc, m[1])
			}
		}
	}
}

// Names in the operator's manual must be those of the program: metrics, log messages, flags.
func TestTheOperatorsManualNamesWhatExists(t *testing.T) {
	m := running(t)
	b, err := os.ReadFile(filepath.Join(m.root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	known := instruments(t, m.root)
	for _, name := range regexp.MustCompile(`probemesh_[a-z_]+`).FindAllString(text, -1) {
		if !known[name] {
			t.Errorf("there is no metric %s", name)
		}
	}
	help := ""
	for _, command := range [][]string{{"server"}, {"prober"}, {"up"}, {"member", "remove"}} {
		help += execute(t, m.root, ownEnvironment(), m.binary, append(command, "--help")...).stdout
	}
	for _, flag := range regexp.MustCompile("`(--[a-z-]+)").FindAllStringSubmatch(text, -1) {
		if !strings.Contains(help, " "+flag[1]+" ") {
			t.Errorf("there is no flag %s", flag[1])
		}
	}
	_, table, _ := strings.Cut(text, "## Log lines")
	table, _, _ = strings.Cut(table, "\n## ")
	source, rows := messagesOf(t, m.root), 0
	for _, row := range strings.Split(table, "\n") {
		if !strings.HasPrefix(row, "| `") {
			continue
		}
		rows++
		for _, message := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(strings.Split(row, " | ")[0], -1) {
			// A long message may be given by its beginning, with dots.
			begin, cut := strings.CutSuffix(message[1], " ...")
			if !strings.Contains(source, `"`+begin) || !cut && !strings.Contains(source, `"`+begin+`"`) {
				t.Errorf("nothing logs %q", message[1])
			}
		}
	}
	if rows < 10 {
		t.Errorf("only %d log lines were found", rows)
	}
}

// messagesOf is the source of server, prober and spool, where log messages are literals.
func messagesOf(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	for _, tree := range []string{"server", "prober", "internal/spool"} {
		err := filepath.WalkDir(filepath.Join(root, tree), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			all.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
