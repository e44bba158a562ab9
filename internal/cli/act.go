package cli

import (
	"context"
	"fmt"
	"os/user"

	"github.com/spf13/cobra"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func (a *app) ackCommand() *cobra.Command {
	var by, comment string
	cmd := &cobra.Command{
		Use:   "ack INCIDENT...",
		Short: "Say that you take care of an incident",
		Long: `Records in an open incident that somebody takes care of it. Doing it again as the same person changes nothing.
A resolved incident cannot be acknowledged.`,
		Example: `  probemesh ack 01hzx3v9s4q4k3t9d1f5a8c2ye --comment "rolling back"`,
		Args:    cobra.ArbitraryArgs,
		ValidArgsFunction: func(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
			return a.completeFiltered(cmd, incidentResource(), "state = OPEN", prefix), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 && (args[0] == "incident" || args[0] == "incidents") {
				args = args[1:]
			}
			if len(args) == 0 {
				return usagef("which incident? `probemesh get incidents` lists them")
			}
			if by == "" {
				by = a.me()
			}
			if by == "" {
				return usagef("who takes care? Neither --by nor USER says it")
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.ackAll(cmd.Context(), c, args, by, comment)
		},
	}
	cmd.Flags().StringVar(&by, "by", "", "`NAME` of who takes care; the default is $USER, the one who types")
	cmd.Flags().StringVar(&comment, "comment", "", "a `TEXT` for the incident's timeline, at most 1,000 characters; none by default")
	return cmd
}

func (a *app) ackAll(ctx context.Context, c *client, incidents []string, by, comment string) error {
	var problems []string
	for _, arg := range incidents {
		name, err := nameOf(spec.Incidents, arg)
		if err != nil {
			return err
		}
		i, err := answer(ctx, a, c.incidents.AcknowledgeIncident, &meshv1.AcknowledgeIncidentRequest{Name: name, By: by, Comment: comment})
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		a.print(a.out.paint(green, "acknowledged") + fmt.Sprintf("  %s by %s: %s", i.GetName(), clean(i.GetAcknowledgedBy()), clean(i.GetSummary())))
	}
	return joinProblems(problems)
}

// me is who types.
func (a *app) me() string {
	if u := a.env.Getenv("USER"); u != "" {
		return u
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func (a *app) drainCommand() *cobra.Command {
	return a.proberCommand("drain prober NAME", "Take a prober out of service",
		`Moves the checks of a prober to others and stops counting its votes, for example before its machine is worked on. The prober
stays enrolled; undrain puts it back. Draining one that is drained changes nothing.

Where no other prober of the datacenter can take over, checks that leave "probers" and "quorum" to the default go on with the
datacenters that are left. A quorum that a check states does not shrink: with too few voices it is UNKNOWN until the prober
is back. See it with: probemesh get checks --filter 'verdict = UNKNOWN'`,
		func(ctx context.Context, c *client, name string) (*meshv1.Prober, error) {
			return answer(ctx, a, c.probers.DrainProber, &meshv1.DrainProberRequest{Name: name})
		}, "drained")
}

func (a *app) undrainCommand() *cobra.Command {
	return a.proberCommand("undrain prober NAME", "Put a drained prober back into service",
		`Puts a drained prober back into service. Its checks come back a few percent a minute, so that nothing jumps.`,
		func(ctx context.Context, c *client, name string) (*meshv1.Prober, error) {
			return answer(ctx, a, c.probers.UndrainProber, &meshv1.UndrainProberRequest{Name: name})
		}, "in service")
}

// proberCommand is a command that changes one prober.
func (a *app) proberCommand(use, short, long string, do func(context.Context, *client, string) (*meshv1.Prober, error), done string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeOne(proberResource()),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := oneName(cmd, spec.Probers, args)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			p, err := do(cmd.Context(), c, name)
			if err != nil {
				return err
			}
			a.print(a.out.paint(green, done) + "  " + clean(p.GetName()))
			return nil
		},
	}
}

func (a *app) testCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test receiver NAME",
		Short: "Send a test notification to a receiver",
		Long: `Sends one notification with transition TEST to a receiver and shows what it answered. It is sent once and not tried again.
Exits with 1 when it was not delivered.`,
		Example:           "  probemesh test receiver ops",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeOne(receiverResource()),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := oneName(cmd, spec.Receivers, args)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			r, err := answer(cmd.Context(), a, c.receivers.TestReceiver, &meshv1.TestReceiverRequest{Name: name})
			if err != nil {
				return err
			}
			said := ""
			if r.GetStatus() != 0 {
				said = fmt.Sprintf(", HTTP %d", r.GetStatus())
			}
			if !r.GetDelivered() {
				a.print(a.out.paint(red, "not delivered") + fmt.Sprintf("  %s after %s%s: %s", name, brief(r.GetDuration()), said, clean(r.GetError())))
				return answerNo()
			}
			a.print(a.out.paint(green, "delivered") + fmt.Sprintf("  %s in %s%s", name, brief(r.GetDuration()), said))
			return nil
		},
	}
}

func (a *app) stepdownCommand() *cobra.Command {
	var term int64
	cmd := &cobra.Command{
		Use:   "stepdown",
		Short: "Make the leader resign, so that another server leads",
		Long: `Makes the leader resign. Another server is elected within milliseconds, or the same one again when it is alone. When the
server that was asked does not lead, the leader is asked instead.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			req := &meshv1.StepDownRequest{Term: int32(term)}
			resp, err := answer(cmd.Context(), a, c.servers.StepDown, req)
			if e, ok := fault.From(causeOf(err)); ok && e.Reason == meshv1.ErrorReason_NOT_LEADER && e.Metadata["leader"] != "" {
				leader, dialErr := a.connectTo(e.Metadata["leader"])
				if dialErr != nil {
					return err
				}
				defer leader.Close()
				a.note("asking the leader at %s", e.Metadata["leader"])
				a.server = e.Metadata["leader"] // the one that is meant, should it not answer
				resp, err = answer(cmd.Context(), a, leader.servers.StepDown, req)
			}
			if err != nil {
				return err
			}
			a.print(fmt.Sprintf("term %d has ended", resp.GetTerm()))
			return nil
		},
	}
	cmd.Flags().Int64Var(&term, "term", 0, "resign only if this is the present `TERM`; 0, whichever it is")
	return cmd
}

// causeOf is the error that a failure was made from.
func causeOf(err error) error {
	if f, ok := err.(*failure); ok {
		return f.cause
	}
	return err
}
