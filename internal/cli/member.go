package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func memberResource() *resource {
	return &resource{
		plural: "members", singular: "member", short: []string{"m"}, collection: spec.Members,
		response: func() proto.Message { return &meshv1.ListMembersResponse{} },
		page: func(ctx context.Context, c *client, _, _ string) (proto.Message, error) {
			return c.members.ListMembers(ctx, &meshv1.ListMembersRequest{})
		},
		columns: memberColumns,
		row:     memberRow,
		whole:   true,
		hint:    "The etcd cluster has no members, which cannot be.",
	}
}

func memberColumns(t *table, wide bool) {
	t.columns("NAME*", "STATE", "ALIVE", "ETCD LEADER", "PEER URLS*")
	if wide {
		t.columns("ID")
	}
}

func memberRow(m proto.Message, wide bool, _ time.Time) []cell {
	x := m.(*meshv1.Member)
	state, alive, leader := text("votes"), cell{"yes", green}, text("-")
	switch {
	case !x.GetStarted():
		state = cell{"not started", yellow}
	case x.GetLearner():
		state = cell{"joining", yellow}
	}
	if !x.GetReachable() {
		alive = cell{"no", red}
	}
	if x.GetLeader() {
		leader = text("yes")
	}
	peers := text(list(x.GetPeerUrls()))
	if len(x.GetPeerUrls()) == 0 {
		peers = cell{"(stands alone)", dim}
	}
	row := []cell{text(spec.ID(x.GetName())), state, alive, leader, peers}
	if wide {
		row = append(row, text(x.GetId()))
	}
	return row
}

func (a *app) memberCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "Add or remove an etcd member that a server runs",
		Long: `Changes who the embedded etcd members are: to grow from one server to three, to replace a dead machine, or to leave. See them
with: probemesh get members`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("there is no %q%s Write: %s add NAME PEER-URL, or %s remove NAME", args[0], cmp.Or(nearest.Hint(args[0], []string{"add", "remove"}), "."), cmd.CommandPath(), cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("which? Write: %s add NAME PEER-URL, or %s remove NAME", cmd.CommandPath(), cmd.CommandPath())
		},
	}
	cmd.AddCommand(a.memberAddCommand(), a.memberRemoveCommand())
	return cmd
}

func (a *app) memberAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME PEER-URL",
		Short: "Make room for a member, and say how to start it",
		Long: `Makes room for one more etcd member, to be run by the server NAME and reached by the other members at PEER-URL, and prints how
to start it. The mesh goes on as before: the new member has no vote until it has started and caught up. One joins at a time.`,
		Example: `  probemesh member add b http://10.0.0.2:2380`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usagef("which member, and where do the others reach it? Write: %s NAME http://HOST:PORT", cmd.CommandPath())
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			name := strings.TrimPrefix(strings.TrimPrefix(args[0], spec.Members+"/"), "member/")
			r, err := answer(cmd.Context(), a, c.members.AddMember, &meshv1.AddMemberRequest{Server: name, PeerUrl: args[1]})
			if err != nil {
				return err
			}
			url := r.GetMember().GetPeerUrls()[0]
			a.print(a.out.paint(green, "room made") + " for " + clean(name) + ". Start it now, on an empty data directory, with its own datacenter and address:\n")
			a.print(fmt.Sprintf("  probemesh server --name %s --datacenter DATACENTER --data DIRECTORY --grpc-listen ADDRESS:7700 \\\n    --etcd-cluster-state existing --etcd-listen-peer %s \\\n    --etcd-initial-cluster %s\n",
				clean(name), clean(url), clean(r.GetInitialCluster())))
			a.print("It is in when `probemesh get members` says that it votes. Flags --etcd-cluster-state and --etcd-initial-cluster are not read again once it has data.")
			return nil
		},
	}
}

func (a *app) memberRemoveCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a member that is dead or leaves",
		Long: `Removes an etcd member for good: its data directory is of no use afterwards, and a server that still runs it stops. Stop that
server first, unless it is dead. One that never started is named by its id. What would leave no majority is refused.`,
		Example: `  probemesh member remove c`,
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := oneName(cmd, spec.Members, args)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := answer(cmd.Context(), a, c.members.RemoveMember, &meshv1.RemoveMemberRequest{Name: name, Force: force})
			if err != nil {
				return err
			}
			voters := 0
			for _, m := range r.GetMembers() {
				if m.GetStarted() && !m.GetLearner() {
					voters++
				}
			}
			a.print(a.out.paint(green, "removed") + fmt.Sprintf("  %s; %d members are left, which survive the loss of %d", clean(r.GetRemoved().GetName()), voters, (voters-1)/2))
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove it also while it is alive; what would leave no majority is refused all the same")
	return cmd
}
