package cli

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/probemesh/probemesh/internal/localmesh"
	"github.com/probemesh/probemesh/internal/telemetry"
	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/prober"
	"github.com/probemesh/probemesh/server"
)

func (a *app) upCommand() *cobra.Command {
	cfg := server.Config{Name: "a"}
	var logFormat, name string
	var validate bool
	var datacenters, probers int
	var p prober.Config
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole mesh in one command",
		Long: `Runs an embedded etcd, a server and a prober in one process until it is told to stop (Ctrl-C, SIGTERM). All data is below
--data; started again on the same directory, it goes on where it was, also after a crash or a power cut.

More probers may attach: run "probemesh prober" with another --name, on this machine or, with --grpc-listen, on others.

With --datacenters 3 it runs a local mesh of several processes, to be tried and killed: in each datacenter (a, b, c) a server
with an etcd member, and --probers probers. The servers' ports lie two apart, from those of --grpc-listen and --http-listen.
What each of the servers does is set by the same flags; --data/addresses.json says where each listens.`,
		Example: `  probemesh up
  probemesh up --datacenters 3 --probers 2 --data ./local-mesh
  probemesh up --data /var/lib/probemesh --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p.Name, p.Datacenter, p.Labels, p.Data, p.Servers = name, cfg.Datacenter, cfg.Labels, filepath.Join(cfg.Data, "prober"), []string{"127.0.0.1:1"}
			if datacenters < 1 || datacenters > localmesh.MaxDatacenters || probers < 1 || probers > localmesh.MaxProbers {
				return usagef("--datacenters %d --probers %d: choose 1 to %d datacenters with 1 to %d probers each", datacenters, probers, localmesh.MaxDatacenters, localmesh.MaxProbers)
			}
			if err := cfg.Validate(); err != nil {
				return serverFault(err)
			}
			if err := p.Validate(); err != nil {
				return configurationFault(err)
			}
			if validate {
				if datacenters != 1 || probers != 1 {
					if _, err := localMeshArgs(cmd); err != nil {
						return err
					}
				}
				fmt.Fprintln(a.env.Out, "the configuration is valid")
				return nil
			}
			if datacenters != 1 || probers != 1 {
				args, err := localMeshArgs(cmd)
				if err != nil {
					return err
				}
				return a.upLocalMesh(cmd.Context(), cfg, datacenters, probers, args, fenceArgs(p))
			}
			level := a.logLevel
			if level == "" || level == "info" && !cmd.Flags().Changed("log-level") {
				level = "warn" // the banner says what a newcomer needs
			}
			log, err := telemetry.NewLogger(a.env.Err, logFormat, level)
			if err != nil {
				return usagef("--log-format: %v", err)
			}
			return a.up(cmd.Context(), cfg, p, log)
		},
	}
	serverFlags(cmd, &cfg)
	fenceFlags(cmd.Flags(), &p)
	cmd.Flags().StringVar(&name, "prober-name", "local-1", "`NAME` of the prober, unique in the mesh")
	cmd.Flags().IntVar(&datacenters, "datacenters", 1, "`NUMBER` of datacenters of a local mesh, 1 to 5; 3 survive the loss of one, 2 survive none, since etcd needs a majority")
	cmd.Flags().IntVar(&probers, "probers", 1, "`NUMBER` of probers in each datacenter of a local mesh, 1 to 10")
	logFormatFlag(cmd, &logFormat)
	validateFlag(cmd, &validate)
	return cmd
}

// up runs a server and, on its address, a prober. Whichever ends first ends the other.
func (a *app) up(ctx context.Context, cfg server.Config, p prober.Config, log *slog.Logger) error {
	tel, err := telemetry.Setup(ctx, telemetry.Config{Service: "probemesh", Version: version.Build(), Instance: cfg.Name, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = tel.Shutdown(context.WithoutCancel(ctx)) }()
	s, err := server.New(cfg, server.Deps{Log: log, Telemetry: tel})
	if err != nil {
		return usagef("%v", err)
	}
	_ = os.Remove(filepath.Join(cfg.Data, addressesFile)) // from a run before: its ports may be another's now
	at := s.Addresses()
	p.Servers = []string{at.GRPC}
	fmt.Fprintf(a.env.Out, "probemesh %s is starting on %s ...\n", version.Build(), cfg.Data)
	return watched(ctx, func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		// The prober stops first, so that its goodbye and its last results find the server still there.
		serverCtx, stopServer := context.WithCancel(context.WithoutCancel(ctx))
		defer stopServer()
		group.Go(func() error {
			defer stopServer()
			agent, err := newAgent(p, tel, log)
			if err != nil {
				return err
			}
			return agent.Run(ctx)
		})
		group.Go(func() error {
			err := s.Run(serverCtx)
			if err == nil && ctx.Err() == nil {
				err = fmt.Errorf("the server has ended")
			}
			return err
		})
		group.Go(func() error {
			select {
			case <-ctx.Done():
				return nil
			case <-s.Ready():
			}
			if err := writeAddresses(cfg.Data, at); err != nil {
				return fmt.Errorf("write down the addresses: %w", err)
			}
			a.banner(cfg, at)
			return nil
		})
		err := group.Wait()
		if err == nil {
			fmt.Fprintln(a.env.Out, "stopped; everything is kept in", cfg.Data)
		}
		return err
	})
}

// banner says where everything listens and what to do next.
func (a *app) banner(cfg server.Config, at server.Addresses) {
	flag := ""
	if at.GRPC != defaultServer {
		flag = " --server " + at.GRPC
	}
	program, write, file := a.example()
	fmt.Fprintf(a.env.Out, `
The mesh is up: one server, one prober, in datacenter %q.

  gRPC API      %s   (grpcurl -plaintext %s list)
  status page   http://%s/
  readiness     http://%s/readyz
  metrics       http://%s/metrics
  Grafana       add http://%s as a Prometheus data source
  data          %s

Next, from another terminal:

%s  %s%s apply -f %s
  %s%s get checks --watch

Ctrl-C stops it; nothing is lost.
`, cfg.Datacenter, at.GRPC, at.GRPC, at.HTTP, at.HTTP, at.HTTP, at.HTTP, cfg.Data, write, program, flag, file, program, flag)
}

// example is how this program is called, and a file that it may apply, in what is suggested to the user; write is the line that makes the file, empty when it is there.
func (a *app) example() (program, write, file string) {
	program = cmp.Or(a.env.Program, "probemesh")
	for _, file := range []string{"docs/examples/first.yaml", "checks.yaml"} {
		if _, err := os.Stat(file); err == nil {
			return program, "", file
		}
	}
	return program, "  echo 'checks: [{name: web, uri: \"https://example.com/\"}]' > checks.yaml\n", "checks.yaml"
}
