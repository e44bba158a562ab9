package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"

	"github.com/probemesh/probemesh/internal/collector"
	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/telemetry"
	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/prober"
	"github.com/probemesh/probemesh/prober/blackbox"
	"github.com/probemesh/probemesh/prober/machine"
	"github.com/probemesh/probemesh/prober/probe"
)

// proberOptions are the flags of prober.
type proberOptions struct {
	config     prober.Config
	httpListen string
	blackbox   blackboxOptions
	logFormat  string
	validate   bool
}

func (a *app) proberRunCommand() *cobra.Command {
	var o proberOptions
	cmd := &cobra.Command{
		Use:   "prober",
		Short: "Run a prober: it probes, wherever servers ask it to",
		Long: `Runs one prober until it is stopped. It connects to the servers given by --server (the others are learnt from the first that
answers), runs the checks that they assign to it, and streams the results. Without any server it goes on probing and
hands everything over later.`,
		Example: "  probemesh prober --name fra-1 --datacenter fra --server mesh-a:7700,mesh-b:7700 --data /var/lib/probemesh",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			servers, err := parseServers(a.server)
			if err != nil {
				return err
			}
			o.config.Servers = servers
			o.config.CAFile, o.config.CertFile, o.config.KeyFile = a.tls.CA, a.tls.Certificate, a.tls.Key
			return a.runProber(a.untilStdinEnds(cmd), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config.Name, "name", hostName(), "`NAME` of the prober, unique in the mesh: 1 to 63 characters of a-z, 0-9 and -; the default is this machine's name")
	f.StringVar(&o.config.Datacenter, "datacenter", "local", "`NAME` of the datacenter it runs in, the first failure domain: votes of one datacenter count once")
	pairsFlag(f, &o.config.Labels, "label", "another failure domain, `KEY=VALUE`, for example provider=hetzner; may be repeated")
	f.StringArrayVar(&o.config.Canaries, "canary", nil,
		"`HOST:PORT` that answers as long as this prober's own network works, besides the mesh's servers, for example a name server of the provider; may be repeated, at most 8")
	f.StringVar(&o.config.Data, "data", "./probemesh-prober", "`DIR` for assignments and results that no server has acknowledged yet; one process may use it at a time")
	f.Int64Var(&o.config.SpoolBytes, "spool-bytes", prober.SpoolBytesDefault,
		"most `BYTES` of unacknowledged results to keep; the default is about a day of 15 results a second")
	fenceFlags(f, &o.config)
	f.IntVar(&o.config.InFlight, "in-flight", prober.InFlightDefault, "most scheduled probes at once, 1 to 100000; more start late, and say so")
	f.StringVar(&o.httpListen, "http-listen", "", "`HOST:PORT` for /healthz, /readyz and /metrics; none by default, since several probers may share a machine")
	o.blackbox.flags(f)
	f.StringVar(&o.logFormat, "log-format", "text", "`FORMAT` of the log: text for people, json for machines")
	f.BoolVar(&o.validate, "validate", false, "only check the configuration, and exit")
	stopOnStdin(cmd)
	return cmd
}

// fenceFlags says where the probes of a prober may go.
func fenceFlags(f *pflag.FlagSet, c *prober.Config) {
	f.StringSliceVar(&c.AllowNetworks, "allow-networks", nil,
		"`NETWORKS` and addresses that probes may connect to, for example 192.0.2.0/24,2001:db8::/32; all by default, since much that is worth watching is internal")
	f.StringSliceVar(&c.DenyNetworks, "deny-networks", probe.DenyNetworksDefault(),
		"`NETWORKS` and addresses that probes may not connect to, even if allowed, or none; the default are those by which clouds hand out credentials to their machines")
	f.StringSliceVar(&c.UnixSockets, "unix-sockets", nil,
		"`PATHS` of Unix sockets that probes may connect to, globs of them, or directories with a slash at the end; none by default, since some, such as Docker's, command the machine")
}

// fenceArgs are the flags that give another prober the same fence.
func fenceArgs(c prober.Config) []string {
	var args []string
	for _, f := range []struct {
		name   string
		values []string
	}{{"allow-networks", c.AllowNetworks}, {"deny-networks", c.DenyNetworks}, {"unix-sockets", c.UnixSockets}} {
		args = append(args, "--"+f.name+"="+strings.Join(f.values, ","))
	}
	return args
}

// hostName is this machine's name as far as it can name a prober, or "prober".
func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "prober"
	}
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	host = strings.Trim(strings.Map(func(r rune) rune {
		if (r >= 'a' && r <= 'z') || (r >= '0' && r <= '9') {
			return r
		}
		return '-'
	}, host), "-")
	if host == "" {
		return "prober"
	}
	return strings.Trim(host[:min(len(host), 63)], "-")
}

// runProber runs the prober and its HTTP listener until ctx ends.
func (a *app) runProber(ctx context.Context, o proberOptions) error {
	log, err := telemetry.NewLogger(a.env.Err, o.logFormat, a.logLevel)
	if err != nil {
		return usagef("%s", err)
	}
	if err := o.config.Validate(); err != nil {
		return configurationFault(err)
	}
	tel, err := telemetry.Setup(ctx, telemetry.Config{Service: "probemesh-prober", Version: version.Version, Instance: o.config.Name, Log: log})
	if err != nil {
		return err
	}
	defer func() { _ = tel.Shutdown(context.WithoutCancel(ctx)) }()
	p, err := newAgent(o.config, tel, log)
	if err != nil {
		return err
	}
	box, err := o.blackbox.open(o, tel, log)
	if err != nil {
		return err
	}
	if o.validate {
		a.print("the configuration is valid")
		return nil
	}
	stop, err := a.serveProber(o.httpListen, p, box, tel, log)
	if err != nil {
		return err
	}
	defer stop()
	defer collector.Frugal(a.env.Getenv)()
	defer reloadOnHangup(ctx, box, log)()
	if err := p.Run(ctx); err != nil {
		return &failure{code: ExitUsage, message: err.Error(), cause: err}
	}
	return nil
}

// newAgent makes a prober.
func newAgent(cfg prober.Config, tel *telemetry.Telemetry, log *slog.Logger) (*prober.Prober, error) {
	p, err := prober.New(cfg, prober.Deps{
		Log:         log,
		Meter:       tel.Meter("github.com/probemesh/probemesh/prober"),
		Tracer:      tel.Tracer("github.com/probemesh/probemesh/prober"),
		DialOptions: []grpc.DialOption{tel.DialOption()},
		DialCanary:  (&net.Dialer{KeepAlive: -1}).DialContext,
		Machine:     machine.Facts(os.DirFS("/")),
	})
	if err != nil {
		return nil, configurationFault(err)
	}
	return p, nil
}

// configurationFault lists the faults of a configuration by the names of their flags.
func configurationFault(err error) error {
	e, ok := fault.From(err)
	if !ok || len(e.Violations) == 0 {
		return &failure{code: ExitUsage, message: err.Error(), cause: err}
	}
	lines := []string{"the configuration is not right:"}
	for _, v := range e.Violations {
		flag, rest, _ := strings.Cut(strings.ReplaceAll(v.Field, "_", "-"), "[")
		if rest != "" {
			flag = strings.TrimSuffix(flag, "s")
		}
		if name, key, ok := strings.Cut(flag, "."); ok {
			flag = strings.TrimSuffix(name, "s") + " " + key
		}
		lines = append(lines, "--"+flag+": "+v.Problem)
	}
	return &failure{code: ExitUsage, message: strings.Join(lines, "\n  "), cause: err}
}

// serveProber serves the prober's health and metrics at addr, if any, until stop is called, and /probe where box is not nil. It is ready while it has a session with a server.
func (a *app) serveProber(addr string, p *prober.Prober, box *blackbox.Exporter, tel *telemetry.Telemetry, log *slog.Logger) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, &failure{code: ExitUsage, message: fmt.Sprintf("--http-listen %s: %v; choose another address", addr, err), cause: err}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if p.Status().Server == "" {
			http.Error(w, "no session with a server; probing goes on", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", tel.Handler())
	if box != nil {
		box.Register(mux)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("http listener failed", "err", err)
		}
	}()
	log.Info("http listening", "address", listener.Addr().String())
	return func() {
		_ = server.Close()
		<-done
	}, nil
}
