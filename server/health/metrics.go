package health

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// newMetrics registers the gauges, which are read from the monitor when somebody asks.
func newMetrics(m metric.Meter, h *Monitor) error {
	conditions, err1 := m.Int64ObservableGauge("probemesh_mesh_condition",
		metric.WithDescription("1 while the mesh has the condition as this server sees it, else 0; severity is info, warning or critical, cause is the condition that it follows from, or none."))
	since, err2 := m.Float64ObservableGauge("probemesh_mesh_condition_since_seconds", metric.WithUnit("s"),
		metric.WithDescription("Since when the mesh has the condition, seconds since 1970; there is no series without the condition."))
	state, err3 := m.Int64ObservableGauge("probemesh_mesh_state", metric.WithDescription("How the mesh is as this server sees it: 1 healthy, 2 impaired, 3 failing; 0 before it has looked."))
	heard, err4 := m.Int64ObservableGauge("probemesh_server_heard", metric.WithDescription("1 while this server hears the other one, else 0."))
	members, err5 := m.Int64ObservableGauge("probemesh_etcd_member_healthy", metric.WithDescription("1 while the etcd member answers this server, else 0."))
	size, err6 := m.Int64ObservableGauge("probemesh_etcd_database_bytes", metric.WithUnit("By"), metric.WithDescription("Size of the database of an etcd member, where it is known here."))
	told, err7 := m.Float64ObservableGauge("probemesh_dead_man_last_success_seconds", metric.WithUnit("s"),
		metric.WithDescription("When this server last told the dead man's switch that all is well, seconds since 1970; 0 when it never has."))
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return err
	}
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		mesh := h.Mesh()
		o.ObserveInt64(state, int64(mesh.GetState()))
		observe(o, conditions, since, mesh)
		last := 0.0
		if t := mesh.GetDeadManTime(); t != nil {
			last = float64(t.AsTime().UnixMilli()) / 1000
		}
		o.ObserveFloat64(told, last)
		for _, s := range mesh.GetServers() {
			if s.GetName() != mesh.GetServer() {
				o.ObserveInt64(heard, bit(s.GetHeard()), metric.WithAttributes(attribute.String("server", s.GetName())))
			}
		}
		for _, e := range mesh.GetEtcdMembers() {
			name := metric.WithAttributes(attribute.String("member", orID(Member{Name: e.GetName(), ID: e.GetId()})))
			o.ObserveInt64(members, bit(e.GetHealthy()), name)
			if e.GetDbSizeBytes() > 0 {
				o.ObserveInt64(size, e.GetDbSizeBytes(), name)
			}
		}
		return nil
	}, conditions, since, state, heard, members, size, told)
	return err
}

// observe gives every condition that there is, and a 0 under its usual severity for every code that there is not: rules need no absent().
func observe(o metric.Observer, gauge metric.Int64ObservableGauge, since metric.Float64ObservableGauge, mesh *meshv1.Mesh) {
	there := map[meshv1.Condition_Code]bool{}
	for _, c := range mesh.GetConditions() {
		there[c.GetCode()] = true
		labels := labelsOf(c.GetCode(), c.GetSeverity(), c.GetCausedBy())
		o.ObserveInt64(gauge, 1, labels)
		o.ObserveFloat64(since, float64(c.GetSince().AsTime().UnixMilli())/1000, labels)
	}
	for _, r := range rules() {
		if !there[r.code] {
			o.ObserveInt64(gauge, 0, labelsOf(r.code, r.severity, 0))
		}
	}
}

func labelsOf(code meshv1.Condition_Code, severity meshv1.Condition_Severity, cause meshv1.Condition_Code) metric.MeasurementOption {
	because := "none"
	if cause != 0 {
		because = cause.String()
	}
	word := map[meshv1.Condition_Severity]string{info: "info", warning: "warning", critical: "critical"}[severity]
	return metric.WithAttributes(attribute.String("condition", code.String()), attribute.String("severity", word), attribute.String("cause", because))
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
