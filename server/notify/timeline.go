package notify

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// errNothingNew ends an amendment that would add what is there already.
var errNothingNew = errors.New("the incident tells it already")

// entryOf is what the timeline is told of an attempt.
func entryOf(j job, now time.Time, event meshv1.TimelineEntry_Event, text string) *meshv1.TimelineEntry {
	return &meshv1.TimelineEntry{Time: timestamppb.New(now), Event: event, Text: text,
		Receiver: j.entry.GetNotification().GetReceiver(), Attempt: int32(j.attempt)}
}

// tells tells whether the timeline has e itself (a write whose answer was lost), or, when unless is set, whether the last failure of e's receiver
// has that error.
func tells(i *meshv1.Incident, e *meshv1.TimelineEntry, unless string) bool {
	for k := len(i.GetTimeline()) - 1; k >= 0; k-- {
		held := i.GetTimeline()[k]
		if held.GetReceiver() != e.GetReceiver() {
			continue
		}
		if proto.Equal(held, e) {
			return true
		}
		if unless != "" && held.GetEvent() == meshv1.TimelineEntry_NOTIFICATION_FAILED {
			return strings.HasPrefix(held.GetText(), unless+"; ")
		}
		if held.GetTime().AsTime().Before(e.GetTime().AsTime()) && unless == "" {
			return false
		}
	}
	return false
}

// pages lets one at a time write in an incident: when its receivers answer all at once, their records would else contend for one key.
type pages struct {
	mu sync.Mutex
	// held are the incidents being written; the channel is closed when that is over. Guarded by mu.
	held map[string]chan struct{}
}

func newPages() *pages { return &pages{held: map[string]chan struct{}{}} }

// take waits for the incident's turn; the caller calls release when it has written.
func (p *pages) take(ctx context.Context, incident string) (release func(), err error) {
	for {
		p.mu.Lock()
		busy, taken := p.held[incident]
		if !taken {
			mine := make(chan struct{})
			p.held[incident] = mine
			p.mu.Unlock()
			return func() {
				p.mu.Lock()
				delete(p.held, incident)
				p.mu.Unlock()
				close(mine)
			}, nil
		}
		p.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
