package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/probemesh/probemesh/internal/localmesh"
	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/server"
)

// upLocalMesh runs the processes of a local mesh until ctx ends, or all of them have ended. One that dies is not started again: killing them is what this is for.
// Each server is given the further arguments args, each prober proberArgs.
func (a *app) upLocalMesh(ctx context.Context, cfg server.Config, datacenters, probers int, args, proberArgs []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	full := cfg.WithDefaults()
	m, err := localmesh.New(localmesh.Options{
		Program: self, Data: cfg.Data, Datacenters: datacenters, Probers: probers,
		GRPCListen: full.GRPCListen, HTTPListen: full.HTTPListen, LeaseTTL: full.LeaseTTL,
		Args: func(x *localmesh.Member) []string {
			if x.Kind == localmesh.KindServer {
				return args
			}
			return proberArgs
		},
	})
	if err != nil {
		return usagef("%v", err)
	}
	fmt.Fprintf(a.env.Out, "probemesh %s is starting %s and %s on %s ...\n", version.Build(), count(len(m.Servers()), "server"), count(len(m.Probers()), "prober"), cfg.Data)
	return watched(ctx, func(ctx context.Context) error {
		defer m.Stop()
		if err := m.Start(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		a.meshBanner(m)
		return a.watchLocalMesh(ctx, m, self)
	})
}

// localMeshArgs are the arguments that every server of a local mesh is given: the flags of `up` that say what a server does. Those that say where it is differ from
// server to server; one that was set is refused rather than forgotten.
func localMeshArgs(cmd *cobra.Command) ([]string, error) {
	var args, refused []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "assisted-eviction", "break-glass", "dead-man-interval", "dead-man-method", "dead-man-url", "history-max-bytes", "history-out-of-order", "history-retention",
			"journal-max-bytes", "keep-incidents", "log-format", "log-level":
			args = append(args, "--"+f.Name+"="+f.Value.String())
		case "datacenter", "grpc-advertise", "http-advertise", "label", "prober-name":
			refused = append(refused, "--"+f.Name)
		}
	})
	if len(refused) > 0 {
		return nil, usagef("a local mesh of several processes does not take %s, since every process has its own; leave it out, or start the processes yourself with `probemesh server` and `probemesh prober`",
			strings.Join(refused, ", "))
	}
	return args, nil
}

// watchLocalMesh says which process has ended, until ctx ends or none is left.
func (a *app) watchLocalMesh(ctx context.Context, m *localmesh.Mesh, self string) error {
	for left := len(m.Members()); left > 0; left-- {
		select {
		case <-ctx.Done():
			fmt.Fprintln(a.env.Out, "stopping; everything is kept in", m.Data())
			return nil
		case e := <-m.Ended():
			why := "it ended"
			if e.Err != nil {
				why = e.Err.Error()
			}
			fmt.Fprintf(a.env.Out, "%s  %s (pid %d): %s; the others go on. Start it again with:\n  %s %s\n", time.Now().Format(time.TimeOnly), e.Member, e.PID, why,
				self, strings.Join(e.Member.Args(), " "))
		}
	}
	return errors.New("every process of the mesh has ended")
}

// meshBanner says what runs where and what to do next.
func (a *app) meshBanner(m *localmesh.Mesh) {
	out := a.env.Out
	each := "each with"
	if len(m.Servers()) == 1 {
		each = "with"
	}
	fmt.Fprintf(out, "\nThe mesh is up: %s, %s a server and an etcd member, and %s.\n\n", count(len(m.Servers()), "datacenter"), each, count(len(m.Probers()), "prober"))
	for _, s := range m.Servers() {
		fmt.Fprintf(out, "  server %-4s  pid %-7d  gRPC %s   status page http://%s/\n", s.Name, s.PID(), s.GRPC, s.HTTP)
	}
	for _, p := range m.Probers() {
		fmt.Fprintf(out, "  prober %-4s  pid %-7d  in datacenter %s\n", p.Name, p.PID(), p.Datacenter)
	}
	program, write, file := a.example()
	fmt.Fprintf(out, `
Logs and data are below %[1]s. Kill any of them and see what happens. Next, from another terminal:

  export PROBEMESH_SERVER=%[2]s
  %[3]s get servers
%[5]s  %[3]s apply -f %[4]s
  %[3]s get checks --watch

Ctrl-C stops it; nothing is lost.
`, m.Data(), m.Addresses(), program, file, write)
}
