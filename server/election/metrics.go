package election

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are the election's own figures.
type metrics struct {
	reigns metric.Int64Counter
}

// newMetrics panics when an instrument's name is not valid: a fault of ours.
func newMetrics(m metric.Meter, term func() int64) *metrics {
	reigns, err := m.Int64Counter("probemesh_election_reigns_total", metric.WithDescription("Reigns of this server that ended, by why."))
	if err != nil {
		panic("election: " + err.Error())
	}
	_, err = m.Int64ObservableGauge("probemesh_election_leading",
		metric.WithDescription("The term in which this server leads, 0 while it does not."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(term())
			return nil
		}))
	if err != nil {
		panic("election: " + err.Error())
	}
	return &metrics{reigns: reigns}
}

func (m *metrics) ended(ctx context.Context, cause error) {
	why := "stopped"
	for name, err := range map[string]error{"lease_lost": ErrLeaseLost, "not_renewed": ErrNotRenewed, "evicted": ErrEvicted, "resigned": ErrResigned} {
		if errors.Is(cause, err) {
			why = name
		}
	}
	m.reigns.Add(ctx, 1, metric.WithAttributes(attribute.String("why", why)))
}
