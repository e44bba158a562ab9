package server

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestStatusPageShowsTroubleFirstHoweverManyChecksThereAre(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	g := glance{now: now, rows: map[meshv1.CheckStatus_Verdict][]row{}, counts: map[meshv1.CheckStatus_Verdict]int{}}
	add := func(name string, v meshv1.CheckStatus_Verdict) {
		g.add(&meshv1.CheckStatus{Check: "checks/" + name, Verdict: v, Since: timestamppb.New(now.Add(-75 * time.Hour))})
	}
	for i := range indexRows + 10 {
		add(fmt.Sprintf("a%04d", i), meshv1.CheckStatus_UP)
	}
	add("x", meshv1.CheckStatus_DEGRADED)
	add("y", meshv1.CheckStatus_PAUSED)
	add("z", meshv1.CheckStatus_DOWN)
	rows, counts, more := g.result()
	if got := fmt.Sprint(counts); got != "[{DOWN 1} {DEGRADED 1} {UP 510} {PAUSED 1}]" {
		t.Errorf("counts %s", got)
	}
	if len(rows) != indexRows || !more || rows[0].Name != "z" || rows[1].Name != "x" || rows[2].Name != "a0000" {
		t.Errorf("%d rows, more %t, first %v", len(rows), more, rows[:3])
	}
	if rows[0].Since != "3d3h" {
		t.Errorf("since %s", rows[0].Since)
	}
}
