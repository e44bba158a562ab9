package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/configfile"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func (a *app) diffCommand() *cobra.Command {
	var w wish
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: `Shows as a unified diff what apply with the same flags would change: lines with - are what the mesh has, lines with +
what the files say. Nothing is changed. Exits with 0 when there is no difference, and with 1 when there is one.`,
		Example: "  probemesh diff -f checks.yaml --prune",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := a.load(cmd, w)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.diff(cmd.Context(), c, config, w)
		},
	}
	w.flags(cmd)
	return cmd
}

func (a *app) diff(ctx context.Context, c *client, config *configfile.Config, w wish) error {
	resp, err := a.plan(ctx, c, config, w, true)
	if err != nil {
		return err
	}
	a.noteWarnings(resp.GetWarnings(), config)
	wanted := map[string]proto.Message{}
	for _, check := range config.Config.GetChecks() {
		wanted[check.GetName()] = editableCheck(check)
	}
	for _, receiver := range config.Config.GetReceivers() {
		wanted[receiver.GetName()] = editableReceiver(receiver)
	}
	different := 0
	for _, ch := range resp.GetChanges() {
		if ch.GetAction() == meshv1.Change_UNCHANGED {
			continue
		}
		different++
		var have, want proto.Message
		if ch.GetAction() != meshv1.Change_CREATE {
			if have, err = a.stored(ctx, c, ch.GetName()); err != nil {
				return a.explain(err)
			}
		}
		if ch.GetAction() != meshv1.Change_DELETE {
			want = wanted[ch.GetName()]
		}
		if err := a.printDiff(ch, have, want); err != nil {
			return err
		}
	}
	if different > 0 {
		return answerNo()
	}
	a.note("no difference")
	return nil
}

// stored gets what the mesh has, as a configuration file would have it.
func (a *app) stored(ctx context.Context, c *client, name string) (proto.Message, error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if strings.HasPrefix(name, spec.Receivers+"/") {
		r, err := c.receivers.GetReceiver(ctx, &meshv1.GetReceiverRequest{Name: name})
		return editableReceiver(r), err
	}
	check, err := c.checks.GetCheck(ctx, &meshv1.GetCheckRequest{Name: name})
	return editableCheck(check), err
}

// printDiff prints one resource's difference. Where its text is the same, as with a default that is written out, the server's list of fields is printed.
func (a *app) printDiff(ch *meshv1.Change, have, want proto.Message) error {
	before, err := yamlOf(have)
	if err != nil {
		return err
	}
	after, err := yamlOf(want)
	if err != nil {
		return err
	}
	from, to := "mesh/"+ch.GetName(), "file/"+ch.GetName()
	if have == nil {
		from = "/dev/null"
	}
	if want == nil {
		to = "/dev/null"
	}
	text := string(diff.Diff(from, before, to, after))
	_, text, _ = strings.Cut(text, "\n") // a heading that repeats the two names
	if text == "" {
		var b strings.Builder
		fmt.Fprintf(&b, "--- %s\n+++ %s\n", from, to)
		for _, f := range ch.GetFields() {
			fmt.Fprintf(&b, "-%s: %s\n+%s: %s\n", f.GetPath(), jsonOrUnset(f.GetBefore()), f.GetPath(), jsonOrUnset(f.GetAfter()))
		}
		text = b.String()
	}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		a.print(a.out.paint(diffColour(line), cleanText(line)))
	}
	return nil
}

func yamlOf(m proto.Message) ([]byte, error) {
	if m == nil {
		return nil, nil
	}
	out, err := configfile.Marshal(m)
	return bytes.TrimLeft(out, "\n"), err
}

func diffColour(line string) colour {
	switch {
	case strings.HasPrefix(line, "---"), strings.HasPrefix(line, "+++"):
		return bold
	case strings.HasPrefix(line, "@@"):
		return cyan
	case strings.HasPrefix(line, "-"):
		return red
	case strings.HasPrefix(line, "+"):
		return green
	}
	return plainText
}
