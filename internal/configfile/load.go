package configfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Stdin is the path that stands for standard input, and what faults in it call it.
const (
	Stdin     = "-"
	stdinName = "stdin"
)

// Config is a set of files read together: their checks and receivers in the order of the files.
type Config struct {
	// Config has everything, with full names: `checks/shop` where a file says `shop`.
	Config *meshv1.Config

	documents []*Document
	checks    []origin
	receivers []origin
}

// origin is where a resource of the whole comes from.
type origin struct {
	document *Document
	index    int
}

// Load reads the paths in order: files, directories (every *.yaml, *.yml and *.json directly inside, by name) and `-` for stdin, which may be given
// once. The error is an [*Error] with every fault of every file, of form and of content; then the Config has what could be understood, to ask what else is wrong with it, and nothing of it is
// to be applied.
func Load(paths []string, stdin io.Reader) (*Config, error) {
	c := &Config{Config: &meshv1.Config{}}
	var faults []Fault
	for _, file := range expand(paths, &faults) {
		name, data, err := read(file, stdin)
		if err != nil {
			faults = append(faults, Fault{Position: Position{File: name}, Problem: err.Error()})
			continue
		}
		doc, found := Parse(name, data)
		found = append(found, doc.inline(file)...)
		found = append(found, doc.judge()...)
		sortFaults(found)
		faults = append(faults, found...)
		c.add(doc)
	}
	faults = append(faults, c.duplicates()...)
	for _, check := range c.Config.GetChecks() {
		spec.Normalize(check)
	}
	for _, receiver := range c.Config.GetReceivers() {
		spec.NormalizeReceiver(receiver)
	}
	if len(faults) > 0 {
		return c, &Error{Faults: faults}
	}
	return c, nil
}

// expand replaces directories by their files.
func expand(paths []string, faults *[]Fault) []string {
	var out []string
	refuse := func(path, format string, args ...any) {
		*faults = append(*faults, Fault{Position: Position{File: path}, Problem: fmt.Sprintf(format, args...)})
	}
	stdins := 0
	for _, path := range paths {
		if path == Stdin {
			if stdins++; stdins > 1 {
				refuse(stdinName, "standard input can be read once; give - once")
				continue
			}
			out = append(out, path)
			continue
		}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			refuse(path, "there is no such file or directory")
		case err != nil:
			refuse(path, "%v", err)
		case !info.IsDir():
			out = append(out, path)
		default:
			inside := list(path)
			if len(inside) == 0 {
				refuse(path, "the directory has no *.yaml, *.yml or *.json file")
			}
			out = append(out, inside...)
		}
	}
	return out
}

func list(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var out []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".json":
			if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
				out = append(out, filepath.Join(dir, e.Name()))
			}
		}
	}
	return out
}

// read gives a file's name for faults and its text, of which it reads at most one byte more than is allowed.
func read(path string, stdin io.Reader) (string, []byte, error) {
	name, from := path, stdin
	if path == Stdin {
		name = stdinName
	} else {
		f, err := os.Open(path)
		if err != nil {
			return name, nil, plain(err)
		}
		defer f.Close()
		from = f
	}
	data, err := io.ReadAll(io.LimitReader(from, MaxBytes+1))
	return name, data, plain(err)
}

// plain takes the operation and path out of a file system's error: the fault names the file already.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("cannot be read: %w", p.Err)
	}
	return err
}

// judge lists what is wrong with the values, where form was right.
func (d *Document) judge() []Fault {
	var out []Fault
	report := func(violations []fault.Violation) {
		for _, v := range violations {
			if !d.muted[v.Field] {
				out = append(out, Fault{Position: d.Position(v.Field), Path: v.Field, Problem: v.Problem})
			}
		}
	}
	for i, check := range d.Config.GetChecks() {
		if path := "checks[" + strconv.Itoa(i) + "]"; !d.muted[path] {
			report(spec.ValidateCheck(check, path))
		}
	}
	if p := d.Config.GetBuildPolicy(); p != nil {
		report(spec.BuildPolicyFaults("build_policy", p))
	}
	for i, receiver := range d.Config.GetReceivers() {
		if path := "receivers[" + strconv.Itoa(i) + "]"; !d.muted[path] {
			report(spec.ValidateReceiver(receiver, path))
		}
	}
	return out
}

func (c *Config) add(doc *Document) {
	c.documents = append(c.documents, doc)
	for i, check := range doc.Config.GetChecks() {
		c.Config.Checks = append(c.Config.Checks, check)
		c.checks = append(c.checks, origin{doc, i})
	}
	for i, receiver := range doc.Config.GetReceivers() {
		c.Config.Receivers = append(c.Config.Receivers, receiver)
		c.receivers = append(c.receivers, origin{doc, i})
	}
	if p := doc.Config.GetBuildPolicy(); p != nil {
		c.Config.BuildPolicy = p
	}
}

// duplicates reports names that are used twice, in one file or in two.
func (c *Config) duplicates() []Fault {
	var out []Fault
	find := func(collection, name string, o origin, first map[string]Position) {
		full, err := spec.ParseName(collection, name)
		if err != nil {
			return // reported as not a name
		}
		path := fmt.Sprintf("%s[%d].name", collection, o.index)
		at := o.document.Position(path)
		if before, ok := first[full]; ok {
			out = append(out, Fault{Position: at, Path: path, Problem: fmt.Sprintf("the name %s is taken already at %s; names must be unique", full, before)})
			return
		}
		first[full] = at
	}
	var policy *Document
	for _, d := range c.documents {
		if d.Config.GetBuildPolicy() == nil {
			continue
		}
		if policy != nil {
			out = append(out, Fault{Position: d.Position("build_policy"), Path: "build_policy",
				Problem: fmt.Sprintf("there is one policy of builds, and another is at %s; leave one out", policy.Position("build_policy"))})
		}
		policy = d
	}
	first := map[string]Position{}
	for i, check := range c.Config.GetChecks() {
		find(spec.Checks, check.GetName(), c.checks[i], first)
	}
	for i, receiver := range c.Config.GetReceivers() {
		find(spec.Receivers, receiver.GetName(), c.receivers[i], first)
	}
	return out
}

var indexed = regexp.MustCompile(`^(checks|receivers)\[([0-9]+)\]`)

// Locate gives the place and the path in its own file of a field of the whole, as a server's refusal names it: `checks[17].interval`. It is false
// for a path of something else.
func (c *Config) Locate(path string) (Position, string, bool) {
	o, local, found := c.origin(path)
	if !found {
		return Position{}, path, false
	}
	return o.document.Position(local), local, true
}

// origin is what a field of the whole comes from, and its path there.
func (c *Config) origin(path string) (origin, string, bool) {
	m := indexed.FindStringSubmatch(path)
	if m == nil {
		return origin{}, path, false
	}
	from := c.checks
	if m[1] == spec.Receivers {
		from = c.receivers
	}
	i, err := strconv.Atoi(m[2])
	if err != nil || i >= len(from) {
		return origin{}, path, false
	}
	o := from[i]
	return o, fmt.Sprintf("%s[%d]%s", m[1], o.index, path[len(m[0]):]), true
}
