package link

import (
	"maps"
	"sync"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// asked are the runs that a session's server waits for. The zero value has none; safe for concurrent use.
type asked struct {
	mu   sync.Mutex
	runs map[string]time.Time // until when somebody waits, by run
}

// add notes a run. Those that were not answered for long are let go of when there are too many, and a new one is not noted when that was not enough.
func (q *asked) add(run string, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.runs == nil {
		q.runs = map[string]time.Time{}
	}
	if len(q.runs) >= queueMax[Run] {
		maps.DeleteFunc(q.runs, func(_ string, until time.Time) bool { return now.After(until) })
	}
	if len(q.runs) < queueMax[Run] {
		q.runs[run] = now.Add(lingerMax)
	}
}

// answered notes that results or refusals of runs were sent.
func (q *asked) answered(m *meshv1.ProberMessage) {
	results, refusal := m.GetResults().GetResults(), m.GetRunRefusal()
	if refusal == nil && (len(results) == 0 || results[0].GetRunId() == "") {
		return // results of runs go in batches of their own
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.runs, refusal.GetRunId())
	for _, r := range results {
		if r.GetOutcome() != meshv1.Result_SLOW {
			delete(q.runs, r.GetRunId())
		}
	}
}

// empty tells whether nobody waits any more.
func (q *asked) empty(now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	maps.DeleteFunc(q.runs, func(_ string, until time.Time) bool { return now.After(until) })
	return len(q.runs) == 0
}
