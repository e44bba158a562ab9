package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/version"

	"github.com/probemesh/probemesh/internal/rpc"
)

// Environment is what a run of the command line sees of the world. All fields but Program are needed.
type Environment struct {
	// Args are the arguments, without the program's name.
	Args []string
	// In is standard input; read by `-f -` only.
	In io.Reader
	// Out and Err are standard output and standard error. Widths and colours are used when they are an *os.File on a terminal.
	Out, Err io.Writer
	// Program is how the program was called, for commands that people are told to type; empty means "probemesh".
	Program string
	// Getenv looks an environment variable up; empty when it is not set.
	Getenv func(string) string
}

// Defaults of the flags that every command has.
const (
	defaultServer  = "127.0.0.1:7700"
	defaultTimeout = 10 * time.Second
)

// app is one run of the command line: its environment and the values of the flags that every command has.
type app struct {
	env      Environment
	out, err screen

	server   string
	timeout  time.Duration
	logLevel string
	noColour bool
	config   string
	tls      rpc.TLSFiles
}

// Run runs one command line until it is done or ctx ends, and returns the exit code: one of ExitOK, ExitNo, ExitUsage, ExitServer, or 130 when
// ctx was cancelled. It prints errors itself.
func Run(ctx context.Context, env Environment) int {
	a := &app{env: env}
	a.out, a.err = newScreen(env.Out, false, env.Getenv), newScreen(env.Err, false, env.Getenv)
	root := a.root()
	root.SetArgs(env.Args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return exitInterrupted
	}
	if err != nil && strings.HasPrefix(err.Error(), "unknown command") { // cobra's: at the root, nothing but a command may follow
		word, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "unknown command \""), "\"")
		err = usagef("there is no command %q%s", word, cmp.Or(nearest.Hint(word, commandNames(root)), "; `probemesh help` lists them"))
	}
	a.report(err)
	return exitCode(err)
}

// root builds the tree of commands: the one list of them.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "probemesh",
		Short: "Uptime monitoring by consensus of probers in several datacenters",
		Long: `probemesh watches anything reachable over a network from probers in several datacenters, decides by consensus of
independent failure domains whether it is down, and alerts once.

Start here:  probemesh up                     a whole mesh in one command
             probemesh apply -f checks.yaml   say what to watch
             probemesh get checks --watch     see it`,
		Version:            version.String(),
		SilenceUsage:       true,
		DisableSuggestions: true, // ours is one sentence
		SilenceErrors:      true,
		PersistentPreRunE:  func(cmd *cobra.Command, _ []string) error { return a.settle(cmd) },
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetUsageTemplate(strings.ReplaceAll(usageTemplate, "WIDTH", strconv.Itoa(helpWidth(a.out))))
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s\nSee `%s --help`.", flagProblem(cmd, err), cmd.CommandPath())
	})
	a.globalFlags(root)
	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run a mesh:"},
		&cobra.Group{ID: groupConfigure, Title: "Say what to watch:"},
		&cobra.Group{ID: groupSee, Title: "See what is going on:"},
		&cobra.Group{ID: groupAct, Title: "Take part:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupRun, a.processCommands()...)
	add(groupConfigure, a.applyCommand(), a.diffCommand(), a.deleteCommand())
	add(groupSee, a.getCommand(), a.explainCommand(), a.probeCommand(), a.simulateCommand())
	add(groupAct, a.runCommand(), a.ackCommand(), a.drainCommand(), a.undrainCommand(), a.approveCommand(), a.haltCommand(), a.testCommand(), a.stepdownCommand(), a.memberCommand())
	add("", a.versionCommand(), a.completionCommand(), exitCodesTopic(), a.holdFlushesCommand(), a.enterNetworkCommand())
	root.SetHelpCommand(helpCommand())
	fitHelp(root, helpWidth(a.out))
	return root
}

// commandNames are the commands that people may type.
func commandNames(root *cobra.Command) []string {
	var names []string
	for _, c := range root.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	return names
}

// Groups of commands in the help.
const (
	groupRun       = "run"
	groupConfigure = "configure"
	groupSee       = "see"
	groupAct       = "act"
)

// globalFlags defines the flags that every command has.
func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", defaultServer,
		"server to ask, `HOST:PORT`, or several with commas: any server answers any call. The default is where `probemesh up` listens")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout,
		"how long to wait for an answer, 100ms or more; long enough for the election of a new leader to pass meanwhile")
	f.StringVar(&a.logLevel, "log-level", "info", "least `LEVEL` to log: debug, info, warn, error; info has every change of state and no single probe")
	f.BoolVar(&a.noColour, "no-color", false, "no colours, even on a terminal; NO_COLOR has the same effect")
	f.StringVar(&a.tls.CA, "ca-file", "", "PEM `FILE` to verify servers by; without it and --cert-file the connection is not encrypted")
	f.StringVar(&a.tls.Certificate, "cert-file", "", "PEM `FILE` with the certificate to present to servers; needs --key-file")
	f.StringVar(&a.tls.Key, "key-file", "", "PEM `FILE` with the key of --cert-file")
	f.StringVar(&a.config, "config", "", "YAML `FILE` with values for flags, keyed by their names; command line and environment win over it")
}

// check says what is wrong with the values of the global flags, after all of them are known.
func (a *app) check() error {
	if a.timeout < 100*time.Millisecond {
		return usagef("--timeout %s is shorter than 100ms; raise it", a.timeout)
	}
	if _, err := parseLevel(a.logLevel); err != nil {
		return err
	}
	return nil
}

func parseLevel(s string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return 0, usagef("--log-level %q is not one of debug, info, warn, error%s", s, nearest.Hint(s, []string{"debug", "info", "warn", "error"}))
	}
	return l, nil
}

// report prints an error for people.
func (a *app) report(err error) {
	if err == nil || err.Error() == "" {
		return
	}
	fmt.Fprintf(a.env.Err, "%s %s\n", a.err.paint(red, "error:"), cleanText(strings.TrimRight(err.Error(), "\n")))
}

// note prints a remark for people, not part of the result.
func (a *app) note(format string, args ...any) {
	fmt.Fprintln(a.env.Err, a.err.paint(dim, cleanText(fmt.Sprintf(format, args...))))
}

// print writes a line of the result.
func (a *app) print(line string) { fmt.Fprintln(a.env.Out, line) }
