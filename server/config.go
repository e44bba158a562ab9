package server

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/probemesh/probemesh/internal/rpc"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/internal/spool"
	"github.com/probemesh/probemesh/server/breakglass"
	"github.com/probemesh/probemesh/server/deadman"
	"github.com/probemesh/probemesh/server/store/embedded"
)

// Config is what an operator may choose about a server. The zero value of every field but Data means its default.
type Config struct {
	// Name is the server's bare name, unique in the mesh, with the same rule as for check names. Default "a".
	Name string
	// Datacenter is where it runs. Default "local".
	Datacenter string
	// Labels are further failure domains that it stands in, for example provider=hetzner. At most 32.
	Labels map[string]string
	// Data is the directory for everything that it keeps: the etcd member and the history. It is made if it does not exist. Required.
	Data string
	// GRPCListen is where the gRPC API listens. Default 127.0.0.1:7700; port 0 chooses a free one.
	GRPCListen string
	// HTTPListen is where /healthz, /readyz, /metrics and the Prometheus-compatible API listen. Default 127.0.0.1:7701; port 0 chooses a free one.
	HTTPListen string
	// GRPCAdvertise and HTTPAdvertise are the addresses under which others reach the server. Default: where it listens.
	GRPCAdvertise, HTTPAdvertise string
	// TLS are the files with which the gRPC listener speaks TLS. Without them it speaks plain text.
	TLS rpc.TLSFiles
	// Etcd are the endpoints of an external etcd cluster, version 3.5 or later. Empty: the server runs an embedded member.
	Etcd []string
	// EtcdListenPeer, EtcdInitialCluster and EtcdClusterState are those of etcd, for embedded members that form a cluster: see `probemesh server --help`.
	EtcdListenPeer, EtcdInitialCluster, EtcdClusterState string
	// EtcdAdvertisePeer is the URL at which the other members reach the embedded one, as EtcdInitialCluster has it. Default: EtcdListenPeer. It differs
	// where a member cannot listen on the name that others know, such as in a container.
	EtcdAdvertisePeer string
	// EtcdListenClient is where the embedded member serves other clients, for example etcdctl. Default: a free port on 127.0.0.1.
	EtcdListenClient string
	// EtcdHeartbeat and EtcdElection are the embedded member's raft times; the same for all members. Default 50ms and 500ms, see package embedded.
	EtcdHeartbeat, EtcdElection time.Duration
	// Unassisted leaves a dead leader to the end of its lease, instead of letting two servers that miss it take its key away. Default false.
	Unassisted bool
	// LeaseTTL is how long a silent leader keeps its term. Whole seconds, 2s to 60s; default 5s.
	LeaseTTL time.Duration
	// HistoryRetention is how long results are kept. Default 30 days.
	HistoryRetention time.Duration
	// HistoryMaxBytes is how much disk the history may take. Default: no limit but the retention.
	HistoryMaxBytes int64
	// HistoryOutOfOrder is how late a result may be and still be filed, such as the backlog of a prober that was cut off. Default 24h.
	HistoryOutOfOrder time.Duration
	// JournalMaxBytes is how much disk may be taken by results that not every other server has yet; at least 1 MiB. Default 1 GiB.
	JournalMaxBytes int64
	// KeepIncidents is how many resolved incidents are kept. Default 20,000.
	KeepIncidents int
	// DeadMan is whom the leader tells that alerts come.
	DeadMan DeadMan
	// BreakGlass is a file of receivers that are told of outages while etcd has no quorum. It is read again when it changes. Empty: nobody is.
	BreakGlass string
	// StopTimeout is how long calls under way may take to end when the server stops. Default 5s.
	StopTimeout time.Duration
}

// DeadMan is the dead man's switch of the mesh: somebody outside who raises an alarm when the leader's calls stop. Give every server the same.
type DeadMan struct {
	// URL is called. Empty: there is none.
	URL string
	// Method is POST or GET. Default POST.
	Method string
	// Interval is the time between two calls, 10 s to 1 h. Default 60 s.
	Interval time.Duration
}

// WithDefaults gives the configuration with every default filled in.
func (c Config) WithDefaults() Config {
	def(&c.Name, "a")
	def(&c.Datacenter, "local")
	def(&c.GRPCListen, "127.0.0.1:7700")
	def(&c.HTTPListen, "127.0.0.1:7701")
	def(&c.LeaseTTL, 5*time.Second)
	def(&c.StopTimeout, 5*time.Second)
	return c
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Validate lists everything that is wrong with the configuration, one fault a line.
func (c Config) Validate() error {
	var faults []error
	bad := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	d := c.WithDefaults()
	if err := spec.CheckID("server", spec.ID(d.Name)); err != nil {
		bad("name: %v", err)
	}
	if err := spec.CheckID("datacenter", d.Datacenter); err != nil {
		bad("datacenter: %v", err)
	}
	if c.Data == "" {
		bad("data: is empty; name a directory for the server's data")
	}
	for what, address := range map[string]string{"grpc-listen": d.GRPCListen, "http-listen": d.HTTPListen} {
		if _, _, err := net.SplitHostPort(address); err != nil {
			bad("%s: %q is not an address; write host:port, for example 127.0.0.1:7700", what, address)
		}
	}
	for what, address := range map[string]string{"grpc-advertise": c.GRPCAdvertise, "http-advertise": c.HTTPAdvertise} {
		if host, _, err := net.SplitHostPort(address); address != "" && (err != nil || host == "") {
			bad("%s: %q is not an address that others can reach; write host:port", what, address)
		}
	}
	if len(c.Labels) > 32 {
		bad("label: %d labels are too many; at most 32", len(c.Labels))
	}
	if d.LeaseTTL < 2*time.Second || d.LeaseTTL > time.Minute || d.LeaseTTL%time.Second != 0 {
		bad("lease-ttl: %s is not whole seconds from 2s to 60s; use 5s unless failover must be faster", d.LeaseTTL)
	}
	if len(c.Etcd) > 0 && (c.EtcdInitialCluster != "" || c.EtcdListenPeer != "" || c.EtcdListenClient != "" || c.EtcdClusterState != "" || c.EtcdAdvertisePeer != "" ||
		c.EtcdHeartbeat != 0 || c.EtcdElection != 0) {
		bad("etcd: with an external cluster there is no embedded member; leave out --etcd-initial-cluster, --etcd-listen-peer, --etcd-advertise-peer, --etcd-listen-client, " +
			"--etcd-cluster-state, --etcd-heartbeat-interval and --etcd-election-timeout")
	}
	if len(c.Etcd) == 0 {
		c.checkMember(bad)
	}
	for _, e := range c.Etcd {
		if _, _, err := net.SplitHostPort(e); err == nil && !strings.Contains(e, "://") {
			continue // etcd's clients take HOST:PORT too
		}
		u, err := url.Parse(e)
		web := err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
		if socket := err == nil && (u.Scheme == "unix" || u.Scheme == "unixs") && u.Host+u.Path != ""; !web && !socket {
			bad("etcd: %q is not the URL of an etcd member; write http://HOST:2379, or several with commas", e)
		}
	}
	if c.DeadMan.URL == "" && (c.DeadMan.Method != "" && c.DeadMan.Method != http.MethodPost || c.DeadMan.Interval != 0 && c.DeadMan.Interval != deadman.DefaultInterval) {
		bad("dead-man-url: is empty; name the URL to call, or leave --dead-man-method and --dead-man-interval out")
	}
	if c.DeadMan.URL != "" {
		if err := (deadman.Config{URL: c.DeadMan.URL, Method: c.DeadMan.Method, Interval: c.DeadMan.Interval}).Validate(); err != nil {
			faults = append(faults, err)
		}
	}
	if c.BreakGlass != "" {
		if _, err := breakglass.Load(c.BreakGlass); err != nil {
			bad("break-glass: %v", err)
		}
	}
	if c.JournalMaxBytes != 0 && c.JournalMaxBytes < spool.LimitMin {
		bad("journal-max-bytes: %d is below the minimum of %d (1 MiB); use 1073741824 (1 GiB)", c.JournalMaxBytes, spool.LimitMin)
	}
	if h := d.HistoryRetention; h != 0 && h < time.Hour {
		bad("history-retention: %s is shorter than 1h; raise it", h)
	} else if h != 0 && d.HistoryOutOfOrder > h {
		bad("history-out-of-order: %s is longer than --history-retention %s; results that old would be removed at once", d.HistoryOutOfOrder, h)
	}
	if b := c.HistoryMaxBytes; b < 0 || b > 0 && b < 64<<20 {
		bad("history-max-bytes: %d is below 67108864 (64 MiB); raise it, or use 0 for as much as the retention needs", b)
	}
	if c.KeepIncidents < 0 {
		bad("keep-incidents: %d is negative; use 20000", c.KeepIncidents)
	}
	return errors.Join(faults...)
}

// checkMember checks what is for the embedded member alone.
func (c Config) checkMember(bad func(format string, args ...any)) {
	tick, election := c.EtcdHeartbeat, c.EtcdElection
	def(&tick, embedded.DefaultTick)
	def(&election, embedded.DefaultElection)
	if tick < 10*time.Millisecond || tick > 10*time.Second {
		bad("etcd-heartbeat-interval: %s is not from 10ms to 10s; use 50ms, or the round trip to the farthest member if that is longer", tick)
	}
	if election < 5*tick || election > 50*time.Second {
		bad("etcd-election-timeout: %s is not from five heartbeat intervals (%s) to 50s; use ten of them", election, 5*tick)
	}
	for _, f := range []struct{ flag, url string }{{"etcd-listen-peer", c.EtcdListenPeer}, {"etcd-advertise-peer", c.EtcdAdvertisePeer}, {"etcd-listen-client", c.EtcdListenClient}} {
		if f.url != "" && !memberURL(f.url) {
			bad("%s: %q is not a URL of the form http://HOST:PORT, for example http://10.0.0.1:2380", f.flag, f.url)
		}
	}
	if c.EtcdInitialCluster != "" {
		c.checkCluster(bad)
	}
	if c.EtcdClusterState != "" && c.EtcdClusterState != "new" && c.EtcdClusterState != "existing" {
		bad("etcd-cluster-state: %q is neither new nor existing; write existing for a member that joins, as `probemesh member add` says, else leave it out", c.EtcdClusterState)
	}
	if c.EtcdClusterState == "existing" && c.EtcdInitialCluster == "" {
		bad("etcd-cluster-state: a member that joins needs --etcd-initial-cluster; `probemesh member add` prints it")
	}
}

// checkCluster checks the members of a cluster: each with a URL, this server among them, and an address to listen at.
func (c Config) checkCluster(bad func(format string, args ...any)) {
	own, name := false, c.WithDefaults().Name
	for _, m := range strings.Split(c.EtcdInitialCluster, ",") {
		member, u, _ := strings.Cut(m, "=")
		if own = own || member == name; member == "" || !memberURL(u) {
			bad("etcd-initial-cluster: %q is not NAME=http://HOST:PORT", m)
		}
	}
	if !own {
		bad("etcd-initial-cluster: %q does not have this server, %q; list every member, this one among them, by its --name", c.EtcdInitialCluster, name)
	}
	if c.EtcdListenPeer == "" {
		bad("etcd-listen-peer: is empty; a cluster of several needs the URL at which this member talks to the others, for example http://10.0.0.1:2380")
	}
}

// memberURL tells whether an etcd member may listen or be reached at u.
func memberURL(u string) bool {
	p, err := url.Parse(u)
	return err == nil && p.Scheme == "http" && p.Host != "" && p.Port() != "" && (p.Path == "" || p.Path == "/")
}
