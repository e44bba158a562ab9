package controller

import (
	"testing"
	"time"

	"github.com/probemesh/probemesh/scheduler"
)

// A prober that goes home, finds that home is elsewhere and comes back at once has, for a moment, an old and a new session at one server and one at another. The mind
// learns of each change of the newest one.
func TestProberThatComesBackBeforeItsOldSessionEndedIsWhereItCameBackTo(t *testing.T) {
	begun := time.Unix(1000, 0)
	p := newPresences()
	at := func(server string, since time.Duration) string {
		events, _ := p.put("nrt-1", held{server: server, boot: "1", since: begun.Add(since)})
		if len(events) == 0 {
			return ""
		}
		return events[0].(scheduler.ProberOnline).Server
	}
	for _, step := range []struct {
		server string
		since  time.Duration
		want   string
	}{{"servers/c", 0, "servers/c"}, {"servers/b", 15 * time.Second, "servers/b"}, {"servers/c", 16 * time.Second, "servers/c"}, {"servers/c", 16 * time.Second, ""}} {
		if got := at(step.server, step.since); got != step.want {
			t.Errorf("after a session at %s from %s: the mind is told %q, want %q", step.server, step.since, got, step.want)
		}
	}
	if events, _ := p.drop("nrt-1", "servers/b", "1", false, false); len(events) != 0 {
		t.Errorf("the end of an older session was told: %v", events)
	}
	if n := p.newest("nrt-1"); n.server != "servers/c" {
		t.Errorf("the newest session is at %s", n.server)
	}
}
