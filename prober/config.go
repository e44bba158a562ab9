package prober

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"

	"github.com/probemesh/probemesh/internal/domain"
	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/internal/version"
	"github.com/probemesh/probemesh/prober/canary"
	"github.com/probemesh/probemesh/prober/probe"
)

// Defaults of Config.
const (
	InFlightDefault   = 2048
	SpoolBytesDefault = spool.LimitDefault
)

const (
	labelsMax     = 32
	labelValueMax = 200
	inFlightMax   = 100_000
)

var labelKey = regexp.MustCompile(`^[a-z0-9_.-]{1,63}$`)

// Config says who a prober is. It has plain values only; [Config.Validate] lists every fault at once.
type Config struct {
	// Name is the prober's name, with or without `probers/`: 1 to 63 characters of a-z, 0-9 and -, not starting or ending with -. It must be the only prober of that
	// name; a second one is turned away by the servers, and probes without being heard until the first is gone.
	Name string
	// Datacenter is where the prober runs, its first failure domain, with the same rule as the name.
	Datacenter string
	// Labels are its other failure domains, for example `provider: hetzner`. At most 32; keys 1 to 63 characters of a-z, 0-9, `_`, `.` and `-`, other than
	// those that the mesh sees itself (see package domain), values 1 to 200 bytes.
	Labels map[string]string
	// Servers are gRPC addresses, `host:port`, tried in this order. At least one; the others are learnt from it.
	Servers []string
	// Canaries are addresses, `host:port`, besides the mesh's servers, by which the prober knows whether its own network works; at most 8. See package canary.
	Canaries []string
	// AllowNetworks are the networks, such as `10.0.0.0/8`, and addresses that probes may connect to; empty for all. DenyNetworks are those that they may not, even so. UnixSockets are the
	// Unix sockets that they may: absolute paths, globs of them, and directories with a slash at the end for all below; empty for none. See [probe.Fence]. Whatever is refused is a
	// result ERROR that says so.
	AllowNetworks, DenyNetworks, UnixSockets []string
	// Data is the directory for assignments and spool, made if need be. One process may use it at a time.
	Data string
	// SpoolBytes is how much disk the results may take that no server has acknowledged; at least 1 MiB, default 256 MiB, which is a day of
	// about 15 results a second. When full, the oldest are dropped and counted.
	SpoolBytes int64
	// InFlight is how many scheduled probes may run at once, 1 to 100,000; default 2048: more than the 1,000 places that 5,000 checks every 10 s need of which a fifth hangs. When all places are taken, probes start late, which their
	// lag says.
	InFlight int
	// Build is the version of the program, a failure domain; default that of this binary.
	Build string
	// CAFile has PEM certificates to verify servers by. With CAFile or CertFile the connection uses TLS, without both it does not.
	CAFile string
	// CertFile and KeyFile are the PEM certificate and key that the prober presents; both or none.
	CertFile, KeyFile string
}

// withDefaults returns the configuration with every default resolved.
func (c Config) withDefaults() Config {
	if c.SpoolBytes == 0 {
		c.SpoolBytes = SpoolBytesDefault
	}
	if c.InFlight == 0 {
		c.InFlight = InFlightDefault
	}
	if c.Build == "" {
		c.Build = version.Build()
	}
	c.Name, c.Datacenter = spec.ID(c.Name), spec.ID(c.Datacenter)
	return c
}

// Validate lists every fault, as one [fault.Error]; nil when there is none. It reads no file.
func (c Config) Validate() error {
	var v []fault.Violation
	bad := func(field, format string, args ...any) {
		v = append(v, fault.Violation{Field: field, Problem: fmt.Sprintf(format, args...)})
	}
	if err := spec.CheckID("prober", spec.ID(c.Name)); err != nil {
		bad("name", "%v", err)
	}
	if err := spec.CheckID("datacenter", spec.ID(c.Datacenter)); err != nil {
		bad("datacenter", "%v", err)
	}
	c.validateLabels(bad)
	if len(c.Servers) == 0 {
		bad("servers", "none is given; name at least one as host:port")
	}
	for i, s := range c.Servers {
		if host, port, err := net.SplitHostPort(s); err != nil || host == "" || port == "" {
			bad(fmt.Sprintf("servers[%d]", i), "%q is not an address; write host:port, for example mesh.example.com:7700", s)
		}
	}
	if len(c.Canaries) > canary.NamedMax {
		bad("canaries", "%d are given; at most %d are allowed", len(c.Canaries), canary.NamedMax)
	}
	for i, s := range c.Canaries {
		host, port, err := net.SplitHostPort(s)
		if n, bad := strconv.ParseUint(port, 10, 16); bad != nil || n == 0 {
			err = cmp.Or(err, errors.New("no port"))
		}
		if err != nil || host == "" {
			bad(fmt.Sprintf("canaries[%d]", i), "%q is not an address; write host:port with the number of a TCP port, for example 9.9.9.9:53", s)
		}
	}
	for _, list := range []struct {
		field string
		texts []string
	}{{"allow_networks", c.AllowNetworks}, {"deny_networks", c.DenyNetworks}} {
		if _, err := probe.Networks(list.texts); err != nil {
			bad(list.field, "%v", err)
		}
	}
	if _, err := probe.SocketPaths(c.UnixSockets); err != nil {
		bad("unix_sockets", "%v", err)
	}
	if c.Data == "" {
		bad("data", "no directory is given; the prober keeps its assignments and results there")
	}
	if c.SpoolBytes != 0 && c.SpoolBytes < spool.LimitMin {
		bad("spool_bytes", "%d is below the minimum of %d (1 MiB)", c.SpoolBytes, spool.LimitMin)
	}
	if c.InFlight < 0 || c.InFlight > inFlightMax {
		bad("in_flight", "%d is not between 1 and %d", c.InFlight, inFlightMax)
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		bad("cert_file", "certificate and key go together; give both or none")
	}
	if len(v) > 0 {
		return fault.Invalid(v...)
	}
	return nil
}

func (c Config) validateLabels(bad func(field, format string, args ...any)) {
	if len(c.Labels) > labelsMax {
		bad("labels", "%d are given; at most %d are allowed", len(c.Labels), labelsMax)
	}
	for k, value := range c.Labels {
		field := "labels." + k
		switch {
		case !labelKey.MatchString(k):
			bad(field, "the key must be 1 to 63 characters of a-z, 0-9, _, . and -")
		case slices.Contains(domain.Reserved(), k):
			bad(field, "the mesh sees this failure domain itself, and a label cannot claim it; leave it out, or give it another key")
		case value == "" || len(value) > labelValueMax:
			bad(field, "the value must have 1 to %d bytes", labelValueMax)
		}
	}
}

// tls reads the files; nil without TLS.
func (c Config) tls() (*tls.Config, error) {
	if c.CAFile == "" && c.CertFile == "" {
		return nil, nil
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	var errs []error
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		out.RootCAs = x509.NewCertPool()
		if err != nil {
			errs = append(errs, fmt.Errorf("ca_file: %w", err))
		} else if !out.RootCAs.AppendCertsFromPEM(pem) {
			errs = append(errs, fmt.Errorf("ca_file: %s has no PEM certificate", c.CAFile))
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("cert_file: %w", err))
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, errors.Join(errs...)
}
