package cli

import (
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/probemesh/probemesh/internal/nearest"
)

// envPrefix begins the environment variable of every flag.
const envPrefix = "PROBEMESH_"

// envName is the environment variable of a flag: `log-level` has PROBEMESH_LOG_LEVEL.
func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// settle gives each flag that is not on the command line its value from the environment or the file, and then looks at the terminal again.
func (a *app) settle(cmd *cobra.Command) error {
	var problems []string
	given := map[string]bool{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			given[f.Name] = true
			return
		}
		value := a.env.Getenv(envName(f.Name))
		if value == "" || f.Name == "help" {
			return
		}
		given[f.Name] = true
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %s", envName(f.Name), flagProblem(cmd, err)))
		}
	})
	if a.config != "" {
		problems = append(problems, a.settleFromFile(cmd, given)...)
	}
	if len(problems) > 0 {
		return usagef("%s", strings.Join(problems, "\n  "))
	}
	a.out, a.err = newScreen(a.env.Out, a.noColour, a.env.Getenv), newScreen(a.env.Err, a.noColour, a.env.Getenv)
	return a.check()
}

// settleFromFile sets the flags that were not given from the file of --config, and returns every fault of it.
func (a *app) settleFromFile(cmd *cobra.Command, given map[string]bool) []string {
	data, err := os.ReadFile(a.config)
	if err != nil {
		return []string{fmt.Sprintf("--config: %v", err)}
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return []string{fmt.Sprintf("%s: this is not YAML: %s", a.config, strings.TrimPrefix(err.Error(), "yaml: "))}
	}
	if len(root.Content) == 0 {
		return nil
	}
	top := root.Content[0]
	if top.Kind != yaml.MappingNode {
		return []string{fmt.Sprintf("%s:%d: the file must have lines like `server: 127.0.0.1:7700`", a.config, top.Line)}
	}
	known := allFlags(cmd.Root())
	var problems []string
	seen := map[string]int{}
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		name := strings.ReplaceAll(key.Value, "_", "-")
		at := fmt.Sprintf("%s:%d:%d: %s", a.config, key.Line, key.Column, key.Value)
		switch first, twice := seen[name]; {
		case twice:
			problems = append(problems, fmt.Sprintf("%s: is written twice, first in line %d; keep one", at, first))
			continue
		case !contains(known, name):
			problems = append(problems, at+": "+unknownSetting(name, known))
			continue
		}
		seen[name] = key.Line
		if f := cmd.Flags().Lookup(name); f != nil && !given[name] {
			if err := setFromNode(cmd, f, value); err != nil {
				problems = append(problems, at+": "+flagProblem(cmd, err))
			}
		}
	}
	return problems
}

func unknownSetting(name string, known []string) string {
	if near := nearest.To(name, known); near != "" {
		return fmt.Sprintf("no flag has this name; did you mean %q?", strings.ReplaceAll(near, "-", "_"))
	}
	return "no flag has this name; `probemesh COMMAND --help` lists them"
}

// setFromNode sets a flag from YAML: a word, a list for a flag that may be repeated, a mapping for one of key=value pairs.
func setFromNode(cmd *cobra.Command, f *pflag.Flag, n *yaml.Node) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch n.Kind {
	case yaml.SequenceNode:
		if _, many := f.Value.(pflag.SliceValue); !many && !strings.HasPrefix(f.Value.Type(), "stringTo") {
			return fmt.Errorf("takes one value, not a list")
		}
		for _, item := range n.Content {
			if err := cmd.Flags().Set(f.Name, item.Value); err != nil {
				return err
			}
		}
		return nil
	case yaml.MappingNode:
		if !strings.HasPrefix(f.Value.Type(), "stringTo") {
			return fmt.Errorf("takes one value, not a mapping")
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if err := cmd.Flags().Set(f.Name, n.Content[i].Value+"="+n.Content[i+1].Value); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd.Flags().Set(f.Name, n.Value)
}

// allFlags lists the flags of all commands, since one file may serve them all. `config` and `help` cannot stand in it.
func allFlags(root *cobra.Command) []string {
	names := map[string]bool{}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		collect := func(f *pflag.Flag) {
			if f.Name != "config" && f.Name != "help" {
				names[f.Name] = true
			}
		}
		c.Flags().VisitAll(collect)
		c.PersistentFlags().VisitAll(collect)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
	out := make([]string, 0, len(names))
	for n := range names {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

var (
	badShorthand = regexp.MustCompile(`^unknown shorthand flag: '(.)' in `)
	badValue     = regexp.MustCompile(`(?s)^invalid argument (".*") for "(?:-., )?--([^"]+)" flag: (.*)$`)
)

// valueProblem says what would be right for a flag of its type; problem is what pflag said of the value, which comes quoted.
func valueProblem(cmd *cobra.Command, value, name, problem string) string {
	wants := ""
	if f := cmd.Flags().Lookup(name); f != nil {
		switch t := f.Value.Type(); {
		case t == "duration" && strings.Contains(problem, "missing unit"):
			return fmt.Sprintf("--%s %s has no unit; write %ss for seconds", name, value, strings.Trim(value, `"`))
		case t == "duration":
			wants = "a duration; write it like 30s, 1m30s, 500ms or 2h"
		case strings.HasPrefix(t, "int"):
			wants = "a whole number of the size that fits; write it in digits"
		case t == "bool":
			wants = "true or false"
		case strings.HasPrefix(t, "stringTo"):
			wants = "a pair; write KEY=VALUE"
		}
	}
	if wants == "" {
		return fmt.Sprintf("--%s %s: %s", name, value, problem)
	}
	return fmt.Sprintf("--%s %s is not %s", name, value, wants)
}

// flagProblem says what is wrong with a flag, with the nearest name for one that does not exist.
func flagProblem(cmd *cobra.Command, err error) string {
	msg := err.Error()
	if m := badShorthand.FindStringSubmatch(msg); m != nil {
		return "there is no flag -" + m[1]
	}
	if m := badValue.FindStringSubmatch(msg); m != nil {
		return valueProblem(cmd, m[1], m[2], m[3])
	}
	name, ok := strings.CutPrefix(msg, "unknown flag: --")
	if !ok {
		return msg
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if near := nearest.To(name, names); near != "" {
		return fmt.Sprintf("there is no flag --%s; did you mean --%s?", name, near)
	}
	return fmt.Sprintf("there is no flag --%s", name)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
