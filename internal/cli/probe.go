package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// probeOptions are the flags of probe.
type probeOptions struct {
	method, body, serverName, starttls, output string
	headers, expect                            []string
	insecure, noRedirects, each                bool
	failAbove, degradedAbove                   time.Duration
	dns                                        probeDNSOptions
}

func (a *app) probeCommand() *cobra.Command {
	var o probeOptions
	cmd := &cobra.Command{
		Use:   "probe URI",
		Short: "Probe something once from here, without any server",
		Long: `Probes a URI once from this machine as a prober would: phases and their times, TLS, expectations, and a verdict.
Schemes are http, https, tcp, unix, udp, ws, wss, tls, dns, icmp, grpc and grpcs. --timeout bounds the probe, 100ms to 60s.
Exits with 0 when the target answered as expected, else with 1.`,
		Example: `  probemesh probe https://shop.example.com/health --expect 'response.status == 200'
  probemesh probe 'dns://9.9.9.9/example.com?type=A' --dns-transport tls --dnssec
  probemesh probe tls://mail.example.com --starttls smtp
  probemesh probe wss://feed.example.com/stream --body ping --expect 'response.body == "pong"'
  probemesh probe grpc://localhost:9000/my.Service --timeout 2s
  probemesh probe https://pair.example.com/ --each-address --degraded-above 500ms`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat(o.output, "text", formatJSON); err != nil {
				return err
			}
			if len(args) != 1 || args[0] == "" {
				return usagef("what to probe? Write: probemesh probe URI, for example probemesh probe https://example.com/")
			}
			check, err := o.check(args[0], a.timeout)
			if err != nil {
				return err
			}
			return a.probe(cmd.Context(), check, o.output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.method, "method", "", "HTTP `METHOD`; the default is GET, or POST with --body")
	f.StringArrayVar(&o.headers, "header", nil, "header of HTTP or a WebSocket's upgrade, or gRPC metadata, `NAME:VALUE`; may be repeated")
	f.StringVar(&o.body, "body", "", "HTTP request body, or what to send over tcp, udp or WebSocket, as `TEXT`; none by default")
	f.StringArrayVar(&o.expect, "expect", nil, "`CEL` over response that must hold, for example 'response.status == 200'; may be repeated; the default is that of the kind")
	f.StringVar(&o.serverName, "server-name", "", "`NAME` to send and verify in TLS; the default is the host of the URI")
	f.StringVar(&o.starttls, "starttls", "", "`PROTOCOL` in which a tls:// server is asked to begin TLS, for example smtp, imap or postgres, with its port unless the URI has one; by default TLS begins at once")
	f.BoolVar(&o.insecure, "insecure", false, "do not verify certificates; off, as a check verifies them")
	f.BoolVar(&o.noRedirects, "no-redirects", false, "do not follow HTTP redirects; off, as a check follows them")
	f.BoolVar(&o.each, "each-address", false, "probe every address of the name, at most 8, and fail when any of them does; off: whichever connects first")
	f.DurationVar(&o.failAbove, "fail-above", 0, "`DURATION` above which the probe fails although it is answered as expected, 1ms to --timeout; none by default")
	f.DurationVar(&o.degradedAbove, "degraded-above", 0, "`DURATION` above which an answer as expected is shown as degraded, 1ms to --timeout; none by default")
	o.dns.flags(cmd)
	outputFlag(cmd, &o.output, "text", formatJSON)
	return cmd
}

// check makes the check that the flags describe, and says what is wrong with them.
func (o probeOptions) check(uri string, timeout time.Duration) (*meshv1.Check, error) {
	c := &meshv1.Check{Name: "checks/probe", Uri: uri, Timeout: durationpb.New(timeout)}
	kind, err := spec.KindOf(uri)
	if err != nil {
		return nil, usagef("%s", err)
	}
	if o.each {
		c.EachAddress = &meshv1.EachAddress{}
	}
	if o.failAbove != 0 {
		c.FailAbove = &meshv1.PhaseLimits{Total: durationpb.New(o.failAbove)}
	}
	if o.degradedAbove != 0 {
		c.DegradedAbove = &meshv1.PhaseLimits{Total: durationpb.New(o.degradedAbove)}
	}
	headers := map[string]string{}
	for _, h := range o.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, usagef("--header %q has no colon; write NAME:VALUE", h)
		}
		headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	var tls *meshv1.TlsConfig
	if o.serverName != "" || o.insecure {
		tls = &meshv1.TlsConfig{ServerName: o.serverName, InsecureSkipVerify: o.insecure}
	}
	var left []string
	without := func(flag string, given bool) {
		if given {
			left = append(left, "--"+flag)
		}
	}
	if kind != spec.HTTP {
		without("method", o.method != "")
		without("no-redirects", o.noRedirects)
		without("body", o.body != "" && kind != spec.TCP && kind != spec.UDP && kind != spec.WEBSOCKET)
		without("header", len(o.headers) > 0 && kind != spec.GRPC && kind != spec.WEBSOCKET)
		without("server-name or --insecure", tls != nil && kind != spec.TLS && kind != spec.GRPC && kind != spec.WEBSOCKET && kind != spec.DNS)
	}
	without("starttls", o.starttls != "" && kind != spec.TLS)
	if kind != spec.DNS {
		left = append(left, o.dns.given()...)
	}
	if len(left) > 0 {
		return nil, usagef("a probe of kind %s has no %s; leave it out", kind, strings.Join(left, ", "))
	}
	switch kind {
	case spec.HTTP:
		c.Http = &meshv1.HttpProbe{Method: o.method, Headers: headers, Body: o.body, Expect: o.expect, Tls: tls}
		if o.noRedirects {
			c.Http.FollowRedirects = new(bool)
		}
	case spec.TCP:
		c.Tcp = &meshv1.TcpProbe{Send: o.body, Expect: o.expect}
	case spec.TLS:
		c.Tls = &meshv1.TlsProbe{Tls: tls, Starttls: o.starttls, Expect: o.expect}
	case spec.DNS:
		if c.Dns, err = o.dns.options(o.expect, tls); err != nil {
			return nil, err
		}
	case spec.ICMP:
		c.Icmp = &meshv1.IcmpProbe{Expect: o.expect}
	case spec.GRPC:
		c.Grpc = &meshv1.GrpcProbe{Metadata: headers, Expect: o.expect, Tls: tls}
	case spec.UDP:
		c.Udp = &meshv1.UdpProbe{Send: o.body, Expect: o.expect}
	case spec.WEBSOCKET:
		c.Websocket = &meshv1.WebsocketProbe{Headers: headers, Tls: tls, Expect: o.expect}
		if o.body != "" { // any message will do: the expectations say what it must be
			c.Websocket.Steps = []*meshv1.WebsocketStep{{Send: strings.ReplaceAll(o.body, "${", "$${"), Expect: "(?s).*"}}
		}
	}
	if violations := spec.ValidateCheck(c, ""); len(violations) > 0 {
		lines := []string{"this cannot be probed:"}
		for _, v := range violations {
			lines = append(lines, v.String())
		}
		return nil, usagef("%s", strings.Join(lines, "\n  "))
	}
	return spec.Effective(c, 1), nil
}

// probe runs the check once and prints what came of it.
func (a *app) probe(ctx context.Context, check *meshv1.Check, output string) error {
	runner, err := kinds.Compile(check, probe.Env{UserAgent: "probemesh/" + version.Version, Capabilities: kinds.Capabilities()})
	if err != nil {
		return &failure{code: ExitNo, message: "this machine cannot run the probe: " + err.Error(), cause: err}
	}
	defer runner.Close()
	result := runner.Probe(ctx, probe.Options{Fresh: true, Evidence: true, Aliases: probe.NewAliases()})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if output == formatJSON {
		if err := a.printMessage(result, formatJSON); err != nil {
			return err
		}
	} else {
		a.printResult(check, result)
	}
	if result.GetOutcome() != meshv1.Result_OK {
		return answerNo()
	}
	return nil
}
