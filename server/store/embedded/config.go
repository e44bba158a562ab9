package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"
)

// Raft's times, unless the configuration has others.
const (
	// DefaultTick is half of etcd's own default: with it a member that has died is noticed in half of the time.
	DefaultTick = 50 * time.Millisecond
	// DefaultElection is how long an etcd leader must be silent before another is elected. The next one is there 0.5 to 1 s after its death, a second later when two
	// candidates meet.
	DefaultElection = 500 * time.Millisecond
)

// loneAddress is where a member without others listens for them: etcd insists on it.
const loneAddress = "http://127.0.0.1:0"

// Config says how the member runs. Only Dir is required.
type Config struct {
	// Dir is the member's data directory; it is made if it does not exist.
	Dir string
	// Name is the member's name within its cluster. Default "server".
	Name string
	// ListenClient is the URL at which clients of other processes are heard, for example "http://127.0.0.1:2379"; port 0 chooses one, see
	// Member.Endpoints. Default: nobody is heard, the in-process client needs no socket.
	ListenClient string
	// ListenPeer is the URL at which the other members are heard. Default "http://127.0.0.1:0"; required in a cluster of several.
	ListenPeer string
	// AdvertisePeer is the URL at which the other members reach this one. Default ListenPeer.
	AdvertisePeer string
	// InitialCluster lists all members when the cluster is formed, "a=http://10.0.0.1:2380,b=http://10.1.0.1:2380,...". Default: this one
	// alone. It is not read again once there is data.
	InitialCluster string
	// ClusterState is "new" when the cluster is formed, "existing" when this member was added to a running one. Default "new".
	ClusterState string
	// Tick is the time between two heartbeats of the etcd leader, 10ms to 10s. Default 50ms.
	Tick time.Duration
	// Election is how long a silent etcd leader is waited for at least, and half of the most: each member draws its own time. 5 ticks to 50s, default 500ms.
	Election time.Duration
	// CompactAfter is the age at which overwritten values are forgotten. At least 1m. Default 10m: every delivery rewrites its incident, so the outage of ten
	// thousand checks writes gigabytes of them within the hour, and nobody needs the old ones: a follower that was away for longer reads everything.
	CompactAfter time.Duration
	// QuotaBytes is how large the database may grow before etcd refuses writes. Default and most 8 GiB, which
	// etcd recommends as the limit: at the quota nothing is alerted any more until somebody makes room. Only what is used takes disk.
	QuotaBytes int64
	// Log gets etcd's warnings and errors. Default: none.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.Name, "server")
	set(&c.ListenPeer, loneAddress)
	set(&c.AdvertisePeer, c.ListenPeer)
	set(&c.InitialCluster, c.Name+"="+c.AdvertisePeer)
	set(&c.ClusterState, "new")
	if c.Tick == 0 {
		c.Tick = DefaultTick
	}
	if c.Election == 0 {
		c.Election = DefaultElection
	}
	if c.CompactAfter == 0 {
		c.CompactAfter = 10 * time.Minute
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = 8 << 30
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Validate lists every fault of the configuration.
func (c Config) Validate() error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf("etcd: "+format, args...)) }
	if c.Dir == "" {
		add("no data directory; set one")
	}
	for name, u := range map[string]string{"client listen": c.ListenClient, "peer listen": c.ListenPeer, "peer advertise": c.AdvertisePeer} {
		if p, err := url.Parse(u); u != "" && (err != nil || p.Scheme != "http" || p.Port() == "") {
			add("%s URL %q is not of the form http://host:port", name, u)
		}
	}
	if c.InitialCluster != "" {
		if !strings.Contains(","+c.InitialCluster, ","+c.Name+"=") || c.Name == "" {
			add("the initial cluster %q does not have this member, %q; list every member as name=http://host:port", c.InitialCluster, c.Name)
		}
		if c.ListenPeer == "" {
			add("a cluster of several needs a peer listen URL, for example http://10.0.0.1:2380")
		}
	}
	if c.ClusterState != "" && c.ClusterState != "new" && c.ClusterState != "existing" {
		add("cluster state %q is neither new nor existing", c.ClusterState)
	}
	d := c.withDefaults()
	if d.Tick < 10*time.Millisecond || d.Tick > 10*time.Second {
		add("heartbeat interval %s is not from 10ms to 10s; use about the round trip to the farthest member, 50ms at least", d.Tick)
	}
	if d.Election < 5*d.Tick || d.Election > 50*time.Second {
		add("election timeout %s must be 5 ticks (of %s) to 50s", d.Election, d.Tick)
	}
	if d.CompactAfter < time.Minute {
		add("compaction after %s is below 1m: followers that miss a moment would have to read everything again", d.CompactAfter)
	}
	if d.QuotaBytes < 16<<20 || d.QuotaBytes > 8<<30 {
		add("quota of %d bytes is not between 16 MiB and 8 GiB", d.QuotaBytes)
	}
	return errors.Join(faults...)
}
