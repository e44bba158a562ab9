package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/probemesh/probemesh/internal/collector"
	"github.com/probemesh/probemesh/internal/rpc"
	"github.com/probemesh/probemesh/internal/telemetry"
	"github.com/probemesh/probemesh/server"
)

// addressesFile is where a server writes, under its data directory, the addresses it listens on: other programs need not guess a port that was chosen.
const addressesFile = "addresses.json"

// stopGrace is how long a process may take to stop after the first signal; after that, or at a second signal, it ends at once.
const stopGrace = 20 * time.Second

func (a *app) serverCommand() *cobra.Command {
	cfg := server.Config{}
	var logFormat string
	var validate bool
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run one server of a mesh",
		Long: `Runs one control-plane process until it is told to stop (SIGINT, SIGTERM): it serves the API and the probers' sessions, keeps
the history, and while it leads it decides and alerts. Its state lives in etcd: an embedded member under --data, or the
cluster given by --etcd.

Several servers that share one etcd cluster are one mesh: one of them leads, probers attach to that one, and when it dies
another takes over.`,
		Example: `  probemesh server --data /var/lib/probemesh --name a --datacenter fra --grpc-listen 0.0.0.0:7700 --grpc-advertise a.example.com:7700
  probemesh server --data /var/lib/probemesh --etcd http://10.0.0.1:2379,http://10.0.0.2:2379,http://10.0.0.3:2379`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.Validate(); err != nil {
				return serverFault(err)
			}
			if _, err := rpc.ServerTLS(cfg.TLS); err != nil {
				return usagef("%v", err)
			}
			if validate {
				fmt.Fprintln(a.env.Out, "the configuration is valid")
				return nil
			}
			log, err := telemetry.NewLogger(a.env.Err, logFormat, a.logLevel)
			if err != nil {
				return usagef("--log-format: %v", err)
			}
			return a.runServer(a.untilStdinEnds(cmd), cfg, log)
		},
	}
	f := cmd.Flags()
	serverFlags(cmd, &cfg)
	f.StringVar(&cfg.Name, "name", "a", "`NAME` of this server, unique in the mesh")
	f.StringSliceVar(&cfg.Etcd, "etcd", nil, "`URL`s of an external etcd cluster (3.5 or later); without it the server runs an embedded member")
	f.StringVar(&cfg.EtcdInitialCluster, "etcd-initial-cluster", "", "members of a cluster of embedded members, `NAME=URL,...`, the same for all of them; without it the member is alone")
	f.StringVar(&cfg.EtcdListenPeer, "etcd-listen-peer", "", "`URL` at which the embedded member talks to the others, for example http://10.0.0.1:2380; needed with --etcd-initial-cluster")
	f.StringVar(&cfg.EtcdAdvertisePeer, "etcd-advertise-peer", "", "`URL` at which the other members reach this one, as --etcd-initial-cluster has it; the default is --etcd-listen-peer")
	f.StringVar(&cfg.EtcdClusterState, "etcd-cluster-state", "", "`STATE` of the cluster: new for one that begins, existing for a member that joins one; the default is new")
	f.StringVar(&cfg.EtcdListenClient, "etcd-listen-client", "", "`URL` at which the embedded member serves other clients such as etcdctl; the default is a free port on 127.0.0.1")
	f.DurationVar(&cfg.EtcdHeartbeat, "etcd-heartbeat-interval", 0, "time between two heartbeats of the embedded etcd's leader, 10ms to 10s, the same for all members; the default is 50ms: "+
		"raise it to the round trip where members are farther apart")
	f.DurationVar(&cfg.EtcdElection, "etcd-election-timeout", 0, "how long the embedded etcd's leader may be silent, 5 heartbeats to 50s, the same for all members; the default is 500ms, so that a dead "+
		"one is replaced within a second or two: use 10 round trips where members are farther apart")
	f.StringVar(&cfg.TLS.Certificate, "tls-cert", "", "PEM `FILE` with the certificate of the gRPC listener; without it, it speaks plain text")
	f.StringVar(&cfg.TLS.Key, "tls-key", "", "PEM `FILE` with the key of --tls-cert")
	f.StringVar(&cfg.TLS.CA, "tls-client-ca", "", "PEM `FILE` with authorities; clients and probers must then present a certificate of theirs")
	logFormatFlag(cmd, &logFormat)
	validateFlag(cmd, &validate)
	stopOnStdin(cmd)
	return cmd
}

// stdinFlag makes a process stop when its standard input ends: those that `up` starts are then gone whenever it is gone.
const stdinFlag = "stop-with-stdin"

func stopOnStdin(cmd *cobra.Command) {
	cmd.Flags().Bool(stdinFlag, false, "stop when standard input ends")
	_ = cmd.Flags().MarkHidden(stdinFlag)
}

// untilStdinEnds is the command's context, which also ends with standard input if the flag says so. The goroutine that reads ends with the process.
func (a *app) untilStdinEnds(cmd *cobra.Command) context.Context {
	if on, err := cmd.Flags().GetBool(stdinFlag); err != nil || !on {
		return cmd.Context()
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	go func() {
		_, _ = io.Copy(io.Discard, a.env.In)
		cancel()
	}()
	return ctx
}

// serverFlags are those that `up` has too.
func serverFlags(cmd *cobra.Command, cfg *server.Config) {
	f := cmd.Flags()
	f.StringVar(&cfg.Data, "data", "./probemesh-data", "`DIR` for everything that is kept: etcd, history, spool; made if it does not exist")
	f.StringVar(&cfg.Datacenter, "datacenter", "local", "`NAME` of the datacenter it runs in, the first failure domain")
	pairsFlag(f, &cfg.Labels, "label", "another failure domain, `KEY=VALUE`, for example provider=hetzner; may be repeated")
	f.StringVar(&cfg.GRPCListen, "grpc-listen", "127.0.0.1:7700", "`ADDRESS` of the gRPC API; port 0 takes a free one; not open to the network unless you say so, since there is no login yet")
	f.StringVar(&cfg.HTTPListen, "http-listen", "127.0.0.1:7701", "`ADDRESS` of the status page, /healthz, /readyz, /metrics and the Prometheus-compatible API; port 0 takes a free one")
	f.StringVar(&cfg.GRPCAdvertise, "grpc-advertise", "", "`ADDRESS` at which probers and servers reach the gRPC API; the default is --grpc-listen")
	f.StringVar(&cfg.HTTPAdvertise, "http-advertise", "", "`ADDRESS` at which others reach the HTTP listener; the default is --http-listen")
	f.DurationVar(&cfg.LeaseTTL, "lease-ttl", 5*time.Second, "how long a silent leader keeps its term, whole seconds from 2s to 60s; 5s survives a slow disk, less fails over faster")
	f.Var(negated{&cfg.Unassisted}, "assisted-eviction", "whether two servers that miss the leader end its term at once, as BOOL; false waits for --lease-ttl; safe either way, since a former leader's writes are refused")
	f.Lookup("assisted-eviction").NoOptDefVal = "true"
	f.DurationVar(&cfg.HistoryRetention, "history-retention", 30*24*time.Hour, "how long results are kept; 30 days are about 11 GB for 10,000 checks a minute from one prober")
	f.Int64Var(&cfg.JournalMaxBytes, "journal-max-bytes", 1<<30, "disk that may be taken by results that another server lacks, in bytes, at least 1048576: 1 GiB are some five million results, so that a server "+
		"may be away for a day; when it is full, the oldest are dropped and counted")
	f.Int64Var(&cfg.HistoryMaxBytes, "history-max-bytes", 0, "disk that the history may take, in bytes, at least 67108864; 0 means as much as the retention needs")
	f.DurationVar(&cfg.HistoryOutOfOrder, "history-out-of-order", 24*time.Hour, "how late a result may come and still be filed; 24h lets a prober be cut off for a day")
	f.StringVar(&cfg.DeadMan.URL, "dead-man-url", "", "`URL` that the leader calls while alerts come, so that somebody outside notices when it stops; give every server the same; without it nobody is called")
	f.StringVar(&cfg.DeadMan.Method, "dead-man-method", "POST", "`METHOD` of these calls: POST with a short JSON document, or GET")
	f.DurationVar(&cfg.DeadMan.Interval, "dead-man-interval", time.Minute, "time between two of these calls, 10s to 1h; let the other side wait for three of them, so that a failover is no alarm")
	f.StringVar(&cfg.BreakGlass, "break-glass", "", "`FILE` with receivers that are told of outages while etcd has no quorum, since those in etcd cannot be; read again when it changes; without it nobody is told then")
	f.IntVar(&cfg.KeepIncidents, "keep-incidents", 20_000, "how many resolved incidents are kept; 20000 are about 100 MB in etcd")
}

// pairsFlag defines a flag of KEY=VALUE pairs without the empty default that pflag would print.
func pairsFlag(f *pflag.FlagSet, into *map[string]string, name, usage string) {
	f.StringToStringVar(into, name, nil, usage)
	f.Lookup(name).DefValue = ""
}

// serverFault lists the faults of a server's configuration, one a line, by the names of their flags.
func serverFault(err error) error {
	var b strings.Builder
	for _, l := range strings.Split(err.Error(), "\n") {
		if !strings.HasPrefix(l, " ") { // else it is more of the fault above it
			l = "--" + l
		}
		b.WriteString("\n  " + l)
	}
	return usagef("the configuration is not right:%s", b.String())
}

func logFormatFlag(cmd *cobra.Command, v *string) {
	cmd.Flags().StringVar(v, "log-format", "text", "`FORMAT` of the log on standard error: text for people, json for machines")
}

func validateFlag(cmd *cobra.Command, v *bool) {
	cmd.Flags().BoolVar(v, "validate", false, "check the configuration and exit: 0 if it is valid, 2 with every fault if not")
}

// runServer runs a server until ctx ends, and writes its addresses down while it does.
func (a *app) runServer(ctx context.Context, cfg server.Config, log *slog.Logger) error {
	s, err := server.New(cfg, server.Deps{Log: log})
	if err != nil {
		return usagef("%v", err)
	}
	defer collector.Roomy(a.env.Getenv)()
	_ = os.Remove(filepath.Join(cfg.Data, addressesFile)) // from a run before: its ports may be another's now
	return watched(ctx, func(ctx context.Context) error {
		// A server that cannot start ends before it is ready: then nobody must wait for that any more.
		ctx, ended := context.WithCancel(ctx)
		defer ended()
		done := make(chan struct{})
		go func() {
			defer close(done)
			select {
			case <-ctx.Done():
			case <-s.Ready():
				at := s.Addresses()
				if err := writeAddresses(cfg.Data, at); err != nil {
					log.Error("the addresses could not be written down", "err", err)
				}
				log.Info("server ready", "name", cfg.Name, "grpc", at.GRPC, "http", at.HTTP)
			}
		}()
		err := s.Run(ctx)
		ended()
		<-done
		return err
	})
}

// stopped marks the error that ended a process after it had begun: that is no fault of the command line.
func stopped(err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	if errors.Is(err, server.ErrRestart) {
		err = fmt.Errorf("%w: %w", err, restart())
	}
	return &failure{code: ExitServer, message: err.Error(), cause: err}
}

// watched runs f, and ends the process when f has not returned stopGrace after ctx ended: a stop that hangs must not look like a process that serves.
func watched(ctx context.Context, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	select {
	case err := <-done:
		return stopped(err)
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return stopped(err)
	case <-time.After(stopGrace):
		return stopped(fmt.Errorf("it did not stop within %s and was ended; nothing that was acknowledged is lost", stopGrace))
	}
}

// writeAddresses writes the file whole or not at all.
func writeAddresses(dir string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, addressesFile+".tmp")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, addressesFile))
}

// negated is a flag that is true when its variable is false.
type negated struct{ v *bool }

func (n negated) String() string {
	return strconv.FormatBool(n.v == nil || !*n.v)
}

func (n negated) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return fmt.Errorf("%q is neither true nor false", s)
	}
	*n.v = !b
	return nil
}

func (n negated) Type() string { return "bool" }
