package breakglass

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

type metrics struct {
	messages metric.Int64Counter
	refused  metric.Int64Counter
}

func newMetrics(meter metric.Meter, g *Glass) (*metrics, error) {
	var m metrics
	var err1, err2, err5 error
	m.messages, err1 = meter.Int64Counter("probemesh_break_glass_messages_total",
		metric.WithDescription("Break-glass messages of this server, by transition and outcome: delivered, failed (an attempt; it is tried again), dropped."))
	m.refused, err2 = meter.Int64Counter("probemesh_break_glass_refused_total", metric.WithDescription("Outages that were not told of, because too many came at once."))
	lost, err3 := meter.Int64ObservableGauge("probemesh_store_quorum_lost", metric.WithDescription("1 while no server that this one hears can read etcd, else 0."))
	waiting, err4 := meter.Int64ObservableGauge("probemesh_break_glass_outages", metric.WithDescription("Outages that this server saw without etcd and that are no incidents yet."))
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	_, err5 = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		n := int64(0)
		for _, e := range g.entries {
			if !e.joined {
				n++
			}
		}
		yes := int64(0)
		if g.now.lost {
			yes = 1
		}
		o.ObserveInt64(lost, yes)
		o.ObserveInt64(waiting, n)
		return nil
	}, lost, waiting)
	return &m, err5
}

func (m *metrics) sent(ctx context.Context, t meshv1.Notification_Transition, outcome string) {
	m.messages.Add(ctx, 1, metric.WithAttributes(attribute.String("transition", t.String()), attribute.String("outcome", outcome)))
}
