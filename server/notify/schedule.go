package notify

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// firstPause and mostPause bound the exponential backoff.
	firstPause = time.Second
	mostPause  = 2 * time.Minute
	// mostRetryAfter is the longest Retry-After that is obeyed.
	mostRetryAfter = 10 * time.Minute
	// Limits of an incident's timeline: of 200 entries the first 50 are kept for ever, then the middle is dropped.
	maxTimeline  = 200
	keptTimeline = 50
)

// pause is how long to wait after the given attempt (from 1) failed. chance is uniform in [0, 1).
//
// With full jitter (uniform from 0 to the backoff), the many notifications of a mass outage do not come back to a struggling receiver in waves.
func pause(a Answer, attempt int, chance float64) time.Duration {
	switch {
	case a.RetryAfter > 0:
		return min(a.RetryAfter, mostRetryAfter)
	case !a.Temporary:
		return mostPause
	}
	backoff := mostPause
	if attempt <= 7 { // 1s << 7 is beyond two minutes
		backoff = min(firstPause<<(attempt-1), mostPause)
	}
	return time.Duration(chance * float64(backoff))
}

// retryAfter reads the header (RFC 9110, 10.2.3): seconds, or an HTTP date. 0 when there is none, or none that can be read.
func retryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		return time.Duration(min(max(seconds, 0), int64(mostRetryAfter/time.Second))) * time.Second
	}
	if t, err := http.ParseTime(header); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}

// temporary tells whether an HTTP status that is not 2xx will likely pass by itself.
func temporary(status int) bool {
	return status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooEarly || status == http.StatusTooManyRequests
}

// record appends to the incident's timeline. The same ending a second time, after a lost answer of the store, changes nothing.
func record(inc *meshv1.Incident, end *ending, receiver string, attempt int) {
	e := &meshv1.TimelineEntry{Time: timestamppb.New(end.at), Event: end.event, Text: end.text, Receiver: receiver, Attempt: int32(attempt)}
	for i := len(inc.Timeline) - 1; i >= 0 && i >= len(inc.Timeline)-10; i-- {
		h := inc.Timeline[i]
		if h.GetEvent() == e.Event && h.GetReceiver() == e.Receiver && h.GetText() == e.Text && h.GetTime().AsTime().Equal(end.at) {
			return
		}
	}
	inc.Timeline = append(inc.Timeline, e)
	for len(inc.Timeline) > maxTimeline {
		inc.Timeline = append(inc.Timeline[:keptTimeline], inc.Timeline[keptTimeline+1:]...)
		inc.TimelineDropped++
	}
}
