package history

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/storage"
	"go.opentelemetry.io/otel/metric"
)

// Config is what an operator may choose. The zero value of every field but Dir means its default.
type Config struct {
	// Dir is the directory of the store. It is made if it does not exist, and belongs to one process alone.
	Dir string
	// Retention is how long results are kept. 1h or more; default 30 days. What is older goes within a few hours, a block at a time.
	Retention time.Duration
	// MaxBytes is how much disk the blocks may take before the oldest are removed; 0, the default, means no limit but Retention. At least 64 MiB if set. The log
	// of the newest two to three hours comes on top.
	MaxBytes int64
	// OutOfOrder is how much older than the newest one a result may be, such as the backlog of a prober that was cut off. 0 to Retention; default
	// 24h, or Retention if that is shorter. Negative: late results are refused.
	OutOfOrder time.Duration
	// VerdictPeriod is how often the controller records verdicts. A recorded verdict holds until the next one, at most three periods: a longer gap is
	// time that nobody monitored. 1s to 5m; default 10s.
	VerdictPeriod time.Duration
	// MaxQueries is how many questions are answered at once. 1 to 1000; default 20.
	MaxQueries int
	// QueryTimeout is how long one question may take. 1s to 10m; default 2m.
	QueryTimeout time.Duration
	// MaxSamples is how many samples one question may hold in memory, 16 bytes each. At least 1000; default 20 million.
	MaxSamples int
	// MaxGroups is how many pairs of check and prober keep their place in the store at hand, about 0.7 KB each. More are served too, but
	// each time their labels are built anew. At least 16; default 200,000.
	MaxGroups int
}

// Dependencies are the parts around a history. All may be nil.
type Dependencies struct {
	// Log receives what operators should know.
	Log *slog.Logger
	// Meter makes the instruments `probemesh_history_...`.
	Meter metric.Meter
	// Registry receives the store's own figures, `prometheus_tsdb_...` and `prometheus_engine_...`, until Close.
	Registry prometheus.Registerer
	// Incomplete tells whether results of a check are known to be on their way, for example while a prober drains its backlog. It must be quick.
	Incomplete func(check string) bool
	// Interval is the interval of a check, 0 when it is not known, for example `checks/shop`. It must be quick. Without it, gaps are measured against the
	// median distance of the results.
	Interval func(check string) time.Duration
	// Wrap comes between the history and its store: tests put faults there.
	Wrap func(storage.Appendable) storage.Appendable
}

const day = 24 * time.Hour

// withDefaults resolves what is unset.
func (c Config) withDefaults() Config {
	if c.Retention == 0 {
		c.Retention = 30 * day
	}
	if c.OutOfOrder == 0 {
		c.OutOfOrder = min(day, c.Retention)
	}
	if c.VerdictPeriod == 0 {
		c.VerdictPeriod = 10 * time.Second
	}
	if c.MaxQueries == 0 {
		c.MaxQueries = 20
	}
	if c.QueryTimeout == 0 {
		c.QueryTimeout = 2 * time.Minute
	}
	if c.MaxSamples == 0 {
		c.MaxSamples = 20_000_000
	}
	if c.MaxGroups == 0 {
		c.MaxGroups = 200_000
	}
	return c
}

// Validate lists everything that is wrong with the configuration.
func (c Config) Validate() error {
	var faults []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Errorf("history: "+format, args...))
		}
	}
	d := c.withDefaults()
	bad(c.Dir == "", "dir is empty; name a directory")
	bad(d.Retention < time.Hour, "retention %v is shorter than 1h; raise it", d.Retention)
	bad(d.MaxBytes < 0 || d.MaxBytes > 0 && d.MaxBytes < 64<<20, "max_bytes %d is below 64 MiB; raise it, or use 0 for no limit", d.MaxBytes)
	bad(d.OutOfOrder > d.Retention, "out_of_order %v is longer than retention %v; results that old would be removed at once", d.OutOfOrder, d.Retention)
	bad(d.VerdictPeriod < time.Second || d.VerdictPeriod > 5*time.Minute, "verdict_period %v is outside 1s to 5m; use 10s", d.VerdictPeriod)
	bad(d.MaxQueries < 1 || d.MaxQueries > 1000, "max_queries %d is outside 1 to 1000; use 20", d.MaxQueries)
	bad(d.QueryTimeout < time.Second || d.QueryTimeout > 10*time.Minute, "query_timeout %v is outside 1s to 10m; use 2m", d.QueryTimeout)
	bad(d.MaxSamples < 1000, "max_samples %d is below 1000; use 20000000", d.MaxSamples)
	bad(d.MaxGroups < 16, "max_groups %d is below 16; use 200000", d.MaxGroups)
	return errors.Join(faults...)
}
