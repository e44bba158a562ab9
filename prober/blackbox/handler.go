package blackbox

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Register adds the handlers to mux: /probe, /config, /-/healthy, and /-/reload for POST and PUT.
func (e *Exporter) Register(mux *http.ServeMux) {
	mux.HandleFunc("/probe", e.serveProbe)
	mux.HandleFunc("/config", e.serveConfig)
	mux.HandleFunc("/-/reload", e.serveReload)
	mux.HandleFunc("/-/healthy", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Healthy") })
}

func (e *Exporter) serveReload(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		http.Error(w, "This endpoint requires a POST request.", http.StatusMethodNotAllowed)
		return
	}
	if err := e.Reload(); err != nil {
		e.log.Error("blackbox configuration not reloaded", "err", err)
		http.Error(w, "failed to reload config: "+err.Error(), http.StatusInternalServerError)
		return
	}
	e.log.Info("blackbox configuration reloaded", "modules", len(e.Modules()))
}

func (e *Exporter) serveConfig(w http.ResponseWriter, _ *http.Request) {
	text, err := yaml.Marshal(e.active.Load().config)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(text)
}

// job is one request of /probe.
type job struct {
	exporter *Exporter
	clients  *clients
	name     string // of the module
	module   *Module
	target   string
	hostname string // parameter hostname; empty without
	timeout  time.Duration
	log      *slog.Logger  // of the probe, for debug=true
	lookup   time.Duration // to find an address
	out      series
}

// prober makes one probe of a job and fills in its series.
type prober func(ctx context.Context, j *job) *meshv1.Result

// pick is the function of a prober's name.
func pick(name string) prober {
	switch name {
	case "http":
		return probeHTTP
	case "tcp":
		return probeTCP
	case "unix":
		return probeUnix
	case "dns":
		return probeDNS
	case "icmp":
		return probeICMP
	case "grpc":
		return probeGRPC
	}
	return nil
}

func (e *Exporter) serveProbe(w http.ResponseWriter, r *http.Request) {
	refuse := func(reason, message string, status int) {
		e.metrics.refuse(r.Context(), reason)
		http.Error(w, message, status)
	}
	query := r.URL.Query()
	active := e.active.Load()
	j := &job{exporter: e, clients: active.clients, name: query.Get("module"), target: query.Get("target"), hostname: query.Get("hostname")}
	if j.name == "" {
		j.name = "http_2xx"
	}
	if j.module = active.config.Modules[j.name]; j.module == nil {
		refuse("module", fmt.Sprintf("Unknown module %q", j.name), http.StatusBadRequest)
		return
	}
	var err error
	if j.timeout, err = timeout(r.Header.Get("X-Prometheus-Scrape-Timeout-Seconds"), j.module.Timeout); err != nil {
		refuse("timeout", "Failed to parse timeout from Prometheus header: "+err.Error(), http.StatusInternalServerError)
		return
	}
	if pick(j.module.Prober) == nil {
		refuse("prober", fmt.Sprintf("Unknown prober %q", j.module.Prober), http.StatusBadRequest)
		return
	}
	if j.target == "" {
		refuse("target", "Target parameter is missing", http.StatusBadRequest)
		return
	}
	if host := header(j.module.HTTP.Headers, "Host"); j.module.Prober == "http" && j.hostname != "" && host != "" && host != j.hostname {
		refuse("hostname", fmt.Sprintf("the module sends Host: %s, and the parameter hostname asks for %s; drop one", host, j.hostname), http.StatusBadRequest)
		return
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	default:
		w.Header().Set("Retry-After", "1")
		refuse("busy", fmt.Sprintf("%d probes run already, as many as may; the target was not probed", cap(e.slots)), http.StatusServiceUnavailable)
		return
	}
	e.metrics.running.Add(r.Context(), 1)
	defer e.metrics.running.Add(context.WithoutCancel(r.Context()), -1)
	e.answer(w, r, j, query.Get("debug") == "true")
}

// answer probes and writes what was measured.
func (e *Exporter) answer(w http.ResponseWriter, r *http.Request, j *job, debug bool) {
	var trail bytes.Buffer
	j.log = slog.New(slog.DiscardHandler)
	if debug {
		j.log = slog.New(slog.NewTextHandler(&trail, &slog.HandlerOptions{Level: slog.LevelDebug}))
		j.log.Info("beginning probe", "prober", j.module.Prober, "module", j.name, "target", j.target, "timeout_seconds", j.timeout.Seconds())
	}
	begin := time.Now()
	result := pick(j.module.Prober)(r.Context(), j)
	took := time.Since(begin)
	success := result.GetOutcome() == meshv1.Result_OK
	j.out.flag("probe_success", success)
	j.out.set("probe_duration_seconds", took.Seconds())
	e.metrics.probed(context.WithoutCancel(r.Context()), j.module.Prober, success)
	if !success {
		j.log.Error("probe failed", "err", result.GetError(), "class", result.GetErrorClass().String())
		e.log.Debug("blackbox probe failed", "module", j.name, "target", j.target, "err", result.GetError())
	}
	if debug {
		j.log.Info("probe ended", "success", success, "duration_seconds", took.Seconds())
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		e.explain(w, &trail, j)
		return
	}
	if result.GetFailedExpectation() == overBudget {
		e.metrics.refuse(r.Context(), "memory")
		http.Error(w, result.GetError(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_ = j.out.writeTo(w)
}

// explain writes what debug=true shows.
func (e *Exporter) explain(w http.ResponseWriter, trail *bytes.Buffer, j *job) {
	fmt.Fprintf(w, "Logs for the probe:\n%s\n\n\nMetrics that would have been returned:\n", trail.Bytes())
	_ = j.out.writeTo(w)
	text, err := yaml.Marshal(j.module)
	if err != nil {
		text = []byte(err.Error())
	}
	fmt.Fprintf(w, "\n\n\nModule configuration:\n%s", text)
}

// timeout is how long a probe may take: what the scrape leaves of its own timeout, or the module's where that is shorter or the scrape leaves nothing.
func timeout(header string, module time.Duration) (time.Duration, error) {
	scrape := timeoutDefault
	if header != "" {
		seconds, err := strconv.ParseFloat(header, 64)
		if err != nil {
			return 0, err
		}
		if math.IsNaN(seconds) {
			return 0, fmt.Errorf("%q is not a number of seconds", header)
		}
		if seconds != 0 {
			scrape = time.Duration(max(min(seconds, timeoutMost.Seconds()), -1) * float64(time.Second))
		}
	}
	most := scrape - TimeoutOffset
	switch {
	case module > 0 && (module < most || most <= 0):
		return module, nil
	case most <= 0:
		return max(scrape, time.Millisecond), nil // a scrape shorter than the offset: better an answer that may come late than none
	}
	return most, nil
}

// run makes a probe of what talk does.
func (j *job) run(ctx context.Context, talk func(context.Context, *probe.Attempt) error) *meshv1.Result {
	plan := &probe.Plan{Check: "module " + j.name, Timeout: j.timeout, URI: j.target,
		Talk: func(ctx context.Context, a *probe.Attempt) (probe.Answer, error) { return nil, talk(ctx, a) }}
	return plan.Run(ctx, probe.Options{})
}

// header is the value of a header by its canonical name.
func header(headers map[string]string, name string) string {
	for k, v := range headers {
		if textproto.CanonicalMIMEHeaderKey(k) == name {
			return v
		}
	}
	return ""
}
