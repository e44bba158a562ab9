package cli

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/probemesh/probemesh/internal/telemetry"
	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/prober/blackbox"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
)

// blackboxOptions are the flags of a prober that answers /probe.
type blackboxOptions struct {
	on       bool
	file     string
	inFlight int
}

func (o *blackboxOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "blackbox", false,
		"answer /probe on --http-listen as blackbox_exporter does, with built-in modules; off by default, since whoever reaches it can have anything probed that this machine reaches")
	f.StringVar(&o.file, "blackbox-config", "", "`FILE` of modules for /probe, as blackbox_exporter has it; implies --blackbox. Read again on SIGHUP and POST /-/reload")
	f.IntVar(&o.inFlight, "blackbox-in-flight", blackbox.InFlightDefault,
		"most probes of /probe at once, 1 or more; beyond that the answer is 503. The default is enough for 2,000 targets a minute, two thirds of them silent for 10 s")
}

// open makes what answers /probe on a prober, nil when nobody asked for it.
func (o *blackboxOptions) open(p proberOptions, tel *telemetry.Telemetry, log *slog.Logger) (*blackbox.Exporter, error) {
	switch {
	case !o.on && o.file == "" && o.inFlight != blackbox.InFlightDefault:
		return nil, usagef("--blackbox-in-flight is about /probe, which is not asked for; add --blackbox or --blackbox-config FILE, or remove it")
	case !o.on && o.file == "":
		return nil, nil
	case p.httpListen == "":
		return nil, usagef("--blackbox answers on --http-listen; give it an address that only Prometheus reaches, for example --http-listen 127.0.0.1:9115")
	case o.inFlight < 1:
		return nil, usagef("--blackbox-in-flight must be at least 1")
	}
	fence, err := probe.NewFence(p.config.AllowNetworks, p.config.DenyNetworks, p.config.UnixSockets)
	if err != nil {
		return nil, err
	}
	box, err := blackbox.New(blackbox.Options{File: o.file, InFlight: o.inFlight, Log: log,
		Env:   probe.Env{UserAgent: "probemesh/" + version.Version, Capabilities: kinds.Capabilities(), Fence: fence},
		Meter: tel.Meter("github.com/probemesh/probemesh/prober/blackbox")})
	if err != nil {
		return nil, &failure{code: ExitUsage, message: "--blackbox-config: " + err.Error(), cause: err}
	}
	log.Info("blackbox modules loaded", "file", o.file, "modules", len(box.Modules()))
	return box, nil
}

// reloadOnHangup reads the modules again on each SIGHUP, until ctx ends or stop is called. stop waits for it, and gives back what box keeps.
func reloadOnHangup(ctx context.Context, box *blackbox.Exporter, log *slog.Logger) (stop func()) {
	if box == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
			}
			if err := box.Reload(); err != nil {
				log.Error("blackbox configuration not reloaded", "err", err)
				continue
			}
			log.Info("blackbox configuration reloaded", "modules", len(box.Modules()))
		}
	}()
	return func() {
		signal.Stop(hangups)
		cancel()
		<-done
		box.Close()
	}
}
