package timeline

import (
	"testing"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// numbered are entries that are numbered from 0.
func numbered(n int, event func(n int) meshv1.TimelineEntry_Event) *meshv1.Incident {
	i := &meshv1.Incident{}
	for k := range n {
		Add(i, &meshv1.TimelineEntry{Attempt: int32(k), Event: event(k)})
	}
	return i
}

func TestAFullTimelineLosesItsMiddleAndCounts(t *testing.T) {
	i := numbered(250, func(int) meshv1.TimelineEntry_Event { return meshv1.TimelineEntry_NOTIFIED })
	if len(i.Timeline) != Most || i.TimelineDropped != 50 || i.Timeline[99].Attempt != 99 || i.Timeline[100].Attempt != 150 || i.Timeline[199].Attempt != 249 {
		t.Errorf("%d entries, %d dropped, the 101st is %d", len(i.Timeline), i.TimelineDropped, i.Timeline[100].Attempt)
	}
}

func TestWhatABreakGlassMessageToldIsKept(t *testing.T) {
	i := numbered(1000, func(n int) meshv1.TimelineEntry_Event {
		if n >= 120 && n < 130 {
			return meshv1.TimelineEntry_BREAK_GLASS
		}
		return meshv1.TimelineEntry_NOTIFICATION_FAILED
	})
	if len(i.Timeline) != Most || i.TimelineDropped != 800 || i.Timeline[100].Attempt != 120 || i.Timeline[109].Attempt != 129 || i.Timeline[110].Attempt != 910 {
		t.Errorf("%d entries, %d dropped, %v", len(i.Timeline), i.TimelineDropped, i.Timeline[100:111])
	}
}

func TestATimelineOfBreakGlassMessagesAloneIsBoundedToo(t *testing.T) {
	i := numbered(1000, func(int) meshv1.TimelineEntry_Event { return meshv1.TimelineEntry_BREAK_GLASS })
	if len(i.Timeline) != Most || i.TimelineDropped != 800 || i.Timeline[199].Attempt != 999 {
		t.Errorf("%d entries, %d dropped", len(i.Timeline), i.TimelineDropped)
	}
}
