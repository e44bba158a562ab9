package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spec"
)

// getOptions are the flags of get.
type getOptions struct {
	output string
	watch  bool
	filter string
}

func (a *app) getCommand() *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use:   "get KIND [NAME...]",
		Short: "Show checks, statuses, incidents, probers, builds, servers, receivers, members or the mesh",
		Long: `Shows resources: all of a kind, those that --filter accepts, or those named.

Kinds are checks, statuses, incidents, probers, builds (of the prober, and how far each is trusted), servers, receivers and
members (those of etcd); singular (check) and short (c, st, i, p, b, s, r, m) work too.
A name may be written with or without its kind: shop, checks/shop.

get mesh shows how the mesh itself is, as the server that is asked sees it: what is wrong, worst first, what to do about it,
and below it what merely follows from it. Its exit code is 0 when the mesh is healthy, 1 when something is to be mended.

With -o json the output is the API's list response; with -o yaml checks and receivers come as a configuration file that
apply takes. With --watch it goes on: on a terminal the table is kept up to date in place, otherwise each change adds a line
(a JSON or YAML document of its own with -o json or -o yaml). A lost connection is taken up again by itself.`,
		Example: `  probemesh get checks
  probemesh get checks --filter 'labels.team = "payments" AND verdict != UP'
  probemesh get check shop -o yaml > shop.yaml
  probemesh get statuses --watch
  probemesh get mesh`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeGet,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && args[0] == meshKind {
				if len(args) > 1 {
					return usagef("there is one mesh only; leave %q out", args[1])
				}
				return a.getMesh(cmd.Context(), o)
			}
			kind, names, err := a.kindAndNames(cmd, args, resources())
			if err != nil {
				return err
			}
			return a.get(cmd.Context(), kind, names, o)
		},
	}
	outputFlag(cmd, &o.output, formatTable, formatWide, formatJSON, formatYAML)
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "go on and show each change; probers, builds, servers, receivers, members and the mesh are asked for every 2s")
	cmd.Flags().StringVar(&o.filter, "filter", "", "only those that this `FILTER` accepts, for example 'verdict != UP'; the default is all")
	return cmd
}

// kindAndNames reads `KIND [NAME...]`, or `checks/shop ...` without a kind.
func (a *app) kindAndNames(cmd *cobra.Command, args []string, of []*resource) (*resource, []string, error) {
	if len(args) == 0 {
		plurals := make([]string, len(of))
		for i, r := range of {
			plurals[i] = r.plural
		}
		example := plurals[0]
		if !strings.HasPrefix(cmd.Use, "get ") {
			example = of[0].singular + " NAME"
		}
		if strings.HasPrefix(cmd.Use, "get ") {
			plurals = append(plurals, "mesh")
		}
		return nil, nil, usagef("which kind? Write one of %s, for example: %s %s", strings.Join(plurals, ", "), cmd.CommandPath(), example)
	}
	word, names := args[0], args[1:]
	if before, _, slash := strings.Cut(word, "/"); slash {
		word, names = before, args
	}
	kind, err := kindOf(word, of)
	if err != nil {
		return nil, nil, err
	}
	full := make([]string, 0, len(names))
	for _, n := range names {
		name, err := nameOf(kind.collection, n)
		if err != nil {
			return nil, nil, err
		}
		if !contains(full, name) {
			full = append(full, name)
		}
	}
	return kind, full, nil
}

func (a *app) get(ctx context.Context, kind *resource, names []string, o getOptions) error {
	if err := checkFormat(o.output, formatTable, formatWide, formatJSON, formatYAML); err != nil {
		return err
	}
	if len(names) > 0 && o.filter != "" {
		return usagef("--filter and names exclude each other; give one of them")
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	if o.watch {
		return a.watch(ctx, c, kind, names, o)
	}
	items, missing, err := a.fetch(ctx, c, kind, names, o.filter)
	if err != nil {
		if kind.plural == "servers" {
			a.note("`probemesh get mesh -o wide` answers also while etcd does not.")
		}
		return a.explain(err)
	}
	if len(items) > 0 || missing == nil {
		if err := a.show(kind, items, o); err != nil {
			return err
		}
	}
	return missing
}

// fetch gets the named resources, or all. Names that do not exist are told in missing, and do not keep the others from being shown.
func (a *app) fetch(ctx context.Context, c *client, kind *resource, names []string, filter string) (items []proto.Message, missing, err error) {
	if len(names) == 0 {
		items, err = kind.all(ctx, a, c, filter)
		if kind.whole && filter != "" && err == nil {
			return nil, nil, usagef("%s cannot be filtered; name them instead", kind.plural)
		}
		return items, nil, err
	}
	if kind.get == nil {
		return a.pick(ctx, c, kind, names)
	}
	var problems []string
	for _, name := range names {
		item, err := func() (proto.Message, error) {
			ctx, cancel := context.WithTimeout(ctx, a.timeout)
			defer cancel()
			return kind.get(ctx, c, name)
		}()
		switch {
		case err == nil:
			items = append(items, item)
		case isNotFound(err):
			problems = append(problems, a.explain(err).Error())
		default:
			return nil, nil, err
		}
	}
	return items, joinProblems(problems), nil
}

// pick takes the named ones out of the list, for kinds without a Get call.
func (a *app) pick(ctx context.Context, c *client, kind *resource, names []string) (items []proto.Message, missing, err error) {
	all, err := kind.all(ctx, a, c, "")
	if err != nil {
		return nil, nil, err
	}
	byName := map[string]proto.Message{}
	for _, m := range all {
		byName[nameField(m)] = m
	}
	var problems []string
	for _, name := range names {
		if m, ok := byName[name]; ok {
			items = append(items, m)
		} else {
			problems = append(problems, name+" does not exist or is not alive; `probemesh get "+kind.plural+"` lists what there is")
		}
	}
	return items, joinProblems(problems), nil
}

func joinProblems(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return &failure{code: ExitServer, message: strings.Join(problems, "\n  ")}
}

// show prints resources in the format that was asked for.
func (a *app) show(kind *resource, items []proto.Message, o getOptions) error {
	switch o.output {
	case formatJSON:
		return a.printMessage(kind.wrap(items), formatJSON)
	case formatYAML:
		if kind.editable != nil {
			edited := make([]proto.Message, len(items))
			for i, m := range items {
				edited[i] = kind.editable(m)
			}
			items = edited
		}
		return a.printMessage(kind.wrap(items), formatYAML)
	}
	if len(items) == 0 {
		if o.filter != "" {
			a.note("No %s fits the filter.", kind.singular)
		} else {
			a.note("%s", kind.hint)
		}
		return nil
	}
	for _, line := range kind.table(items, o.output == formatWide, time.Now()).withoutEmpty(whyColumn).lines(a.out) {
		a.print(line)
	}
	return nil
}

// table puts resources under the headings of their kind.
func (r *resource) table(items []proto.Message, wide bool, now time.Time) *table {
	t := &table{}
	r.columns(t, wide)
	for _, m := range items {
		t.rows = append(t.rows, r.row(m, wide, now))
	}
	return t
}

// completeNames offers the ids of a collection that the server has; nothing when it does not answer within a second.
func (a *app) completeNames(cmd *cobra.Command, kind *resource, prefix string) []string {
	return a.completeFiltered(cmd, kind, "", prefix)
}

// completeFiltered is completeNames with a filter.
func (a *app) completeFiltered(cmd *cobra.Command, kind *resource, filter, prefix string) []string {
	if a.settle(cmd) != nil {
		return nil
	}
	c, err := a.connect()
	if err != nil {
		return nil
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), time.Second)
	defer cancel()
	response, err := kind.page(ctx, c, filter, "")
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range kind.items(response) {
		if id := spec.ID(nameField(m)); strings.HasPrefix(id, prefix) {
			out = append(out, id)
		}
	}
	return out
}

// completeGet completes what get takes: kinds with their names, and the mesh.
func (a *app) completeGet(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && args[0] == meshKind {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, directive := a.completeKindAndNames(resources())(cmd, args, prefix)
	if len(args) == 0 {
		list = append(list, meshKind)
	}
	return list, directive
}

// completeKindAndNames completes `KIND NAME...`.
func (a *app) completeKindAndNames(of []*resource) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			var kinds []string
			for _, r := range of {
				kinds = append(kinds, r.plural)
			}
			return kinds, cobra.ShellCompDirectiveNoFileComp
		}
		kind, err := kindOf(args[0], of)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.completeNames(cmd, kind, prefix), cobra.ShellCompDirectiveNoFileComp
	}
}
