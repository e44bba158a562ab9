package blackbox

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	pconfig "github.com/prometheus/common/config"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func probeGRPC(ctx context.Context, j *job) *meshv1.Result {
	o := &j.module.GRPC
	j.out.set("probe_grpc_ssl", 0)
	j.out.set("probe_grpc_status_code", 0)
	j.out.set("probe_ssl_earliest_cert_expiry", 0)
	result := j.run(ctx, func(ctx context.Context, a *probe.Attempt) error {
		target, err := parseTarget(j.target)
		if err != nil {
			return probe.Failf(a, meshv1.Result_PROBER, "%v", err)
		}
		if _, err := pconfig.NewTLSConfig(&o.TLSConfig); err != nil { // even where it is not used
			return probe.Failf(a, meshv1.Result_PROBER, "tls_config: %v", err)
		}
		ip, err := j.choose(ctx, a, o.Family, target.Hostname())
		if err != nil {
			return err
		}
		check, err := j.call(ctx, target, ip)
		if err != nil {
			return probe.Failf(a, meshv1.Result_PROBER, "tls_config: %v", err)
		}
		r, err := j.probe(ctx, a, check, probe.Options{Evidence: true})
		if err != nil {
			j.called(&meshv1.Result{ErrorClass: meshv1.Result_PROBER})
			return err
		}
		j.called(r)
		return failureOf(r)
	})
	j.out.phases("probe_grpc_duration_seconds", phase{"resolve", j.lookup})
	return result
}

// parseTarget reads a target that may lack its scheme, and whose host may be an IPv6 address without brackets before its port, or an IPv4 address within them, which package net/url took once.
func parseTarget(text string) (*url.URL, error) {
	if !strings.HasPrefix(text, "http://") && !strings.HasPrefix(text, "https://") {
		text = "http://" + text
	}
	scheme, rest, _ := strings.Cut(text, "://")
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	begin := strings.LastIndexByte(rest[:end], '@') + 1
	u, err := url.Parse(scheme + "://" + rest[:begin] + bracketed(rest[begin:end]) + rest[end:])
	if err != nil {
		return nil, fmt.Errorf("the target is not a URL: %w", err)
	}
	return u, nil
}

// bracketed gives a host and port the brackets that they should have.
func bracketed(authority string) string {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 {
		return authority
	}
	host, port := authority[:i], authority[i:]
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		return "[" + host + "]" + port
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err == nil && a.Is4() {
		return a.String() + port
	}
	return authority
}

// call is the check that asks the health service of a target at one address.
func (j *job) call(ctx context.Context, target *url.URL, ip *net.IPAddr) (*meshv1.Check, error) {
	o := &j.module.GRPC
	scheme, port := "grpc", cmp.Or(target.Port(), "80")
	if o.TLS {
		scheme, port = "grpcs", cmp.Or(target.Port(), "443")
	}
	uri := scheme + "://" + net.JoinHostPort(ip.String(), port)
	if o.Service != "" {
		uri += "/" + url.PathEscape(o.Service)
	}
	c := j.check(uri, deadline(ctx))
	c.Grpc = &meshv1.GrpcProbe{Authority: net.JoinHostPort(target.Hostname(), port), Metadata: o.Metadata}
	if o.TLS {
		var err error
		if c.Grpc.Tls, err = tlsOptions(&o.TLSConfig, target.Hostname()); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// tlsOptions are a module's options in the terms of a check; files are read.
func tlsOptions(c *pconfig.TLSConfig, host string) (*meshv1.TlsConfig, error) {
	t := &meshv1.TlsConfig{ServerName: cmp.Or(c.ServerName, host), InsecureSkipVerify: c.InsecureSkipVerify}
	t.MinVersion, t.MaxVersion = tlsVersion(c.MinVersion), tlsVersion(c.MaxVersion)
	for _, x := range []struct {
		to           *string
		inline, file string
	}{{&t.CaPem, c.CA, c.CAFile}, {&t.ClientCertificatePem, c.Cert, c.CertFile}, {&t.ClientKeyPem, string(c.Key), c.KeyFile}} {
		*x.to = x.inline
		if x.inline == "" && x.file != "" {
			text, err := os.ReadFile(x.file)
			if err != nil {
				return nil, err
			}
			*x.to = string(text)
		}
	}
	return t, nil
}

// tlsVersion is a version of TLS as a check has it, "" for none.
func tlsVersion(v pconfig.TLSVersion) string {
	if v == 0 {
		return ""
	}
	return strings.TrimPrefix(tls.VersionName(uint16(v)), "TLS ")
}

// called tells what a call showed.
func (j *job) called(r *meshv1.Result) {
	t := r.GetTimings()
	j.out.phases("probe_grpc_duration_seconds", phase{"check", t.GetConnect().AsDuration() + t.GetHandshake().AsDuration() + t.GetProcessing().AsDuration() + t.GetTransfer().AsDuration()})
	for name := range healthpb.HealthCheckResponse_ServingStatus_value {
		v := 0.0
		if name == r.GetGrpc().GetServing() {
			v = 1
		}
		j.out.with("probe_grpc_healthcheck_response", v, "serving_status", name)
	}
	j.out.set("probe_grpc_status_code", float64(statusCode(r)))
	if r.GetTls() == nil || r.GetGrpc().GetStatus() != codes.OK.String() {
		return // as blackbox_exporter: it tells of TLS what it learns with an answer
	}
	j.out.set("probe_grpc_ssl", 1)
	j.out.set("probe_ssl_earliest_cert_expiry", unix(r.Tls.GetEarliestExpiry().AsTime()))
	j.out.with("probe_tls_version_info", 1, "version", "TLS "+r.Tls.Version)
	j.out.with("probe_tls_cipher_info", 1, "cipher", r.Tls.Cipher)
	if certs := r.GetEvidence().GetCertificates(); len(certs) > 0 {
		leaf := certs[0]
		names := slices.DeleteFunc(slices.Clone(leaf.Names), func(n string) bool {
			_, err := netip.ParseAddr(n)
			return err == nil
		})
		j.out.with("probe_ssl_last_chain_info", 1, "fingerprint_sha256", leaf.Sha256, "issuer", leaf.Issuer, "serialnumber", leaf.Serial, "subject", leaf.Subject,
			"subjectalternative", strings.Join(names, ","))
	}
}

// statusCode is the number of the gRPC status that a client would have been told.
func statusCode(r *meshv1.Result) codes.Code {
	if text := r.GetGrpc().GetStatus(); text != "" {
		for c := codes.OK; c <= codes.Unauthenticated; c++ {
			if strings.EqualFold(strings.ReplaceAll(text, "_", ""), c.String()) {
				return c
			}
		}
		return codes.Unknown
	}
	switch r.GetErrorClass() {
	case meshv1.Result_ERROR_CLASS_UNSPECIFIED:
		return codes.OK
	case meshv1.Result_TIMEOUT:
		return codes.DeadlineExceeded
	}
	if m := answeredHTTP.FindStringSubmatch(r.GetError()); m != nil {
		return ofHTTP(m[1])
	}
	return codes.Unavailable
}

// answeredHTTP is what a gRPC client says of a server that speaks HTTP/2 and not gRPC.
var answeredHTTP = regexp.MustCompile(`HTTP status code received from server: (\d+)`)

// ofHTTP is the gRPC status that stands for one of HTTP (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
func ofHTTP(status string) codes.Code {
	switch status {
	case "400":
		return codes.Internal
	case "401":
		return codes.Unauthenticated
	case "403":
		return codes.PermissionDenied
	case "404":
		return codes.Unimplemented
	case "429", "502", "503", "504":
		return codes.Unavailable
	}
	return codes.Unknown
}
