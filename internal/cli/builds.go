package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func buildResource() *resource {
	return &resource{
		plural: "builds", singular: "build", short: []string{"b"}, collection: spec.Builds,
		response: func() proto.Message { return &meshv1.ListBuildsResponse{} },
		page: func(ctx context.Context, c *client, filter, token string) (proto.Message, error) {
			return c.builds.ListBuilds(ctx, &meshv1.ListBuildsRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		},
		get: func(ctx context.Context, c *client, name string) (proto.Message, error) {
			return c.builds.GetBuild(ctx, &meshv1.GetBuildRequest{Name: name})
		},
		columns: buildColumns,
		row:     buildRow,
		hint:    "No build is known: no prober is enrolled. Start one with: probemesh prober",
	}
}

func buildColumns(t *table, wide bool) {
	t.columns("NAME*", "STAGE", "SINCE", "PROBERS", "COMPARED", "DISSENTS")
	if wide {
		t.columns("CANARIES*", "KINDS*", "CHECKS*", "BY", "INCIDENT", "AGE")
	}
	t.columns("REASON*")
}

func buildRow(m proto.Message, wide bool, now time.Time) []cell {
	b := m.(*meshv1.Build)
	stage := cell{enumText(b.GetStage(), b.GetStage() == 0), plainText}
	switch b.GetStage() {
	case meshv1.Build_SETTLED:
		stage.colour = green
	case meshv1.Build_HALTED:
		stage.colour = red
	case meshv1.Build_SHADOW, meshv1.Build_CANARY:
		stage.colour = yellow
	}
	row := []cell{text(spec.ID(b.GetName())), stage, text(age(b.GetStageTime(), now)), text(strconv.Itoa(len(b.GetProbers()))),
		text(strconv.FormatInt(b.GetComparisons(), 10)), text(strconv.FormatInt(b.GetDissents(), 10))}
	if wide {
		var kinds, checks []string
		for _, k := range b.GetDissentsByKind() {
			kinds = append(kinds, fmt.Sprintf("%s %d", k.GetKind(), k.GetCount()))
			for _, e := range k.GetExamples() {
				checks = append(checks, spec.ID(e.GetCheck()))
			}
		}
		row = append(row, text(list(b.GetCanaries())), text(orDash(strings.Join(kinds, ", "))), text(orDash(strings.Join(checks, ", "))), text(orDash(b.GetBy())),
			text(orDash(spec.ID(b.GetIncident()))), text(age(b.GetCreateTime(), now)))
	}
	why := b.GetReason()
	if b.GetWaitsFor() != "" {
		why = "waits: " + b.GetWaitsFor()
	}
	return append(row, text(orDash(why)))
}

func (a *app) approveCommand() *cobra.Command {
	return a.decideCommand("approve build NAME", "Let the votes of a build count like any other's",
		`Settles a build of the prober: its votes count like any other's at once, whether it was in the shadow, a canary or halted. The mesh
does that by itself when the build has agreed with the settled ones for long enough; see probemesh get builds.`,
		"  probemesh approve build 1.4.2 --reason \"the redirects are meant to be refused\"", "settled",
		func(ctx context.Context, c *client, name, by, reason string) (*meshv1.Build, error) {
			return answer(ctx, a, c.builds.ApproveBuild, &meshv1.ApproveBuildRequest{Name: name, By: by, Reason: reason})
		})
}

func (a *app) haltCommand() *cobra.Command {
	return a.decideCommand("halt build NAME", "Stop counting the votes of a build",
		`Halts a build of the prober: its votes do not count until it is approved or its probers run a settled build again. They go on
probing. The mesh does that by itself when the build disagrees with the settled ones; see probemesh get builds.`,
		"  probemesh halt build 1.4.2 --reason \"reports redirects as down\"", "halted",
		func(ctx context.Context, c *client, name, by, reason string) (*meshv1.Build, error) {
			return answer(ctx, a, c.builds.HaltBuild, &meshv1.HaltBuildRequest{Name: name, By: by, Reason: reason})
		})
}

// decideCommand is a command by which somebody decides about a build.
func (a *app) decideCommand(use, short, long, example, done string, do func(ctx context.Context, c *client, name, by, reason string) (*meshv1.Build, error)) *cobra.Command {
	var by, reason string
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeOne(buildResource()),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := oneName(cmd, spec.Builds, args)
			if err != nil {
				return err
			}
			if by == "" {
				by = a.me()
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			b, err := do(cmd.Context(), c, name, by, reason)
			if err != nil {
				return err
			}
			a.print(a.out.paint(green, done) + fmt.Sprintf("  %s, run by %d probers: %s", clean(b.GetName()), len(b.GetProbers()), clean(b.GetReason())))
			return nil
		},
	}
	cmd.Flags().StringVar(&by, "by", "", "`NAME` of who decides; the default is $USER, the one who types")
	cmd.Flags().StringVar(&reason, "reason", "", "a `TEXT` that says why, at most 1,000 characters; none by default")
	return cmd
}

// planPolicy makes the policy of builds be as a file says, or only says what would change. A file without one leaves it as it is.
func (a *app) planPolicy(ctx context.Context, c *client, want *meshv1.BuildPolicy, validateOnly bool) (*meshv1.Change, error) {
	if want == nil {
		return nil, nil
	}
	held, err := c.builds.GetBuildPolicy(ctx, &meshv1.GetBuildPolicyRequest{})
	if err != nil {
		return nil, a.explain(err)
	}
	ch := &meshv1.Change{Name: held.GetName(), Action: meshv1.Change_UNCHANGED}
	for _, f := range policyFields(want, held) {
		ch.Action = meshv1.Change_UPDATE
		ch.Fields = append(ch.Fields, f)
	}
	if ch.Action == meshv1.Change_UNCHANGED || validateOnly {
		return ch, nil
	}
	if _, err := c.builds.UpdateBuildPolicy(ctx, &meshv1.UpdateBuildPolicyRequest{Policy: want}); err != nil {
		return nil, a.explain(err)
	}
	return ch, nil
}

// policyFields are the fields that a file sets and that differ. What it leaves out is the default, which is not compared here: the server says what that is.
func policyFields(want, held *meshv1.BuildPolicy) (list []*meshv1.FieldChange) {
	w, h := want.ProtoReflect(), held.ProtoReflect()
	fields := w.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Name() == "name" || f.Name() == "etag" || !w.Has(f) && f.Kind() != protoreflect.BoolKind {
			continue
		}
		if before, after := jsonField(h, f), jsonField(w, f); before != after {
			list = append(list, &meshv1.FieldChange{Path: string(f.Name()), Before: before, After: after})
		}
	}
	return list
}

// jsonField is a field as protojson has it.
func jsonField(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if f.Message() != nil {
		b, err := protojson.Marshal(m.Get(f).Message().Interface())
		if err != nil {
			return ""
		}
		return string(b)
	}
	return m.Get(f).String()
}
