package server

import (
	"context"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
	"github.com/probemesh/probemesh/server/history"
)

// recallPeriod is how long a server may have been away for its verdicts to be taken for the same as before: the restart of a machine, not a night without any.
const recallPeriod = 15 * time.Minute

// recordVerdicts writes what is held true of every check into the history.
func (s *Server) recordVerdicts(ctx context.Context, at time.Time, statuses []*meshv1.CheckStatus) error {
	samples := make([]history.VerdictSample, 0, len(statuses))
	for _, st := range statuses {
		samples = append(samples, history.VerdictSample{Check: st.GetCheck(), Verdict: st.GetVerdict(), Time: at, Since: st.GetSince().AsTime()})
	}
	return s.hist.RecordVerdicts(ctx, samples)
}

// recall reads what recordVerdicts wrote before this server was started.
func (s *Server) recall(ctx context.Context) (scheduler.Recalled, error) {
	samples, err := s.hist.LastVerdicts(ctx, s.began, recallPeriod)
	if err != nil {
		return scheduler.Recalled{}, err
	}
	e := scheduler.Recalled{Verdicts: make(map[string]scheduler.Recollection, len(samples))}
	for _, v := range samples {
		e.Verdicts[v.Check] = scheduler.Recollection{Verdict: v.Verdict, Since: v.Since}
	}
	return e, nil
}
