package history

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sort"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

const (
	// maxPoints is how many points one series of an answer may have.
	maxPoints = 11_000
	// maxAnswer is how many points an answer may have in all; its message then has about 12 MB.
	maxAnswer = 500_000
	// maxUptime is the longest period of GetUptime.
	maxUptime = 400 * day
)

// metricName is what Prometheus takes for the name of a metric in its plain form; it is a constant.
var metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]{0,199}$`)

// service is the HistoryService of a history.
type service struct {
	meshv1.UnimplementedHistoryServiceServer
	h *History
}

// Register serves probemesh.v1.HistoryService on s.
func (h *History) Register(s grpc.ServiceRegistrar) {
	meshv1.RegisterHistoryServiceServer(s, &service{h: h})
}

// rangeQuestion is a QueryRangeRequest that has been found valid; times are Unix milliseconds.
type rangeQuestion struct {
	check, prober, metric string
	first, last, step     int64
}

// QueryRange is part of HistoryService.
func (s *service) QueryRange(ctx context.Context, r *meshv1.QueryRangeRequest) (*meshv1.QueryRangeResponse, error) {
	q, err := readRangeQuestion(r, time.Now())
	if err != nil {
		return nil, err
	}
	var found []series
	err = s.h.ask(ctx, "grpc", func(ctx context.Context, st *store) (err error) {
		found, err = st.queryRange(ctx, q)
		return err
	})
	if err != nil {
		return nil, answerError(err)
	}
	answer := &meshv1.QueryRangeResponse{Incomplete: s.h.incomplete(q.check)}
	for _, f := range found {
		answer.Series = append(answer.Series, protoSeries(f))
	}
	sort.SliceStable(answer.Series, func(i, j int) bool { return answer.Series[i].Prober < answer.Series[j].Prober })
	return answer, nil
}

// incomplete asks whether results of a check are on their way.
func (h *History) incomplete(check string) bool {
	return h.deps.Incomplete != nil && h.deps.Incomplete(spec.Name(spec.Checks, check))
}

func readRangeQuestion(r *meshv1.QueryRangeRequest, now time.Time) (rangeQuestion, error) {
	var v []fault.Violation
	q := rangeQuestion{check: readName(&v, "check", spec.Checks, r.Check), metric: r.Metric, step: r.Step.AsDuration().Milliseconds()}
	if r.Prober != "" {
		q.prober = readName(&v, "prober", spec.Probers, r.Prober)
	}
	if q.metric == "" {
		q.metric = metricSuccess
	}
	if !metricName.MatchString(q.metric) {
		v = append(v, fault.Violation{Field: "metric", Problem: fmt.Sprintf("%q is not the name of a metric; use for example probe_duration_seconds", q.metric)})
	}
	q.first, q.last = readPeriod(&v, r.StartTime, r.EndTime, time.Hour, now)
	switch {
	case r.Step != nil && (!r.Step.IsValid() || q.step < 1):
		v = append(v, fault.Violation{Field: "step", Problem: "it is below 1ms; leave it unset for every stored sample"})
	case q.step > 0 && len(v) == 0 && (q.last-q.first)/q.step+1 > maxPoints:
		v = append(v, fault.Violation{Field: "step", Problem: fmt.Sprintf("it would give %d points a series, more than %d; use %v or more",
			(q.last-q.first)/q.step+1, maxPoints, time.Duration((q.last-q.first)/(maxPoints-1)+1)*time.Millisecond)})
	}
	if len(v) > 0 {
		return q, fault.Invalid(v...)
	}
	return q, nil
}

// readName gives the id of a resource name, and notes what is wrong with it.
func readName(v *[]fault.Violation, field, collection, name string) string {
	full, err := spec.ParseName(collection, name)
	if err != nil {
		*v = append(*v, fault.Violation{Field: field, Problem: err.Error()})
	}
	return spec.ID(full)
}

// readPeriod gives a period in Unix milliseconds, and notes what is wrong with it. An unset end is now, an unset start is length before the end.
func readPeriod(v *[]fault.Violation, start, end *timestamppb.Timestamp, length time.Duration, now time.Time) (first, last int64) {
	until := now
	if end != nil {
		if !end.IsValid() {
			*v = append(*v, fault.Violation{Field: "end_time", Problem: "it is not a valid time"})
		}
		until = end.AsTime()
	}
	from := until.Add(-length)
	if start != nil {
		if !start.IsValid() {
			*v = append(*v, fault.Violation{Field: "start_time", Problem: "it is not a valid time"})
		}
		from = start.AsTime()
	}
	if from.After(until) {
		*v = append(*v, fault.Violation{Field: "start_time", Problem: fmt.Sprintf("it is after the end of the range, %s; swap them", until.UTC().Format(time.RFC3339))})
	}
	return from.UnixMilli(), until.UnixMilli()
}

// errTooManyPoints stops the reading of a series that is too long.
var errTooManyPoints = errors.New("too many points")

// queryRange reads what q asks for.
func (st *store) queryRange(ctx context.Context, q rangeQuestion) ([]series, error) {
	matchers := []*labels.Matcher{equal(model.MetricNameLabel, q.metric), equal("check", q.check)}
	if q.prober != "" {
		matchers = append(matchers, equal("prober", q.prober))
	}
	total := 0
	found, err := st.read(ctx, q.first, q.last, func(s *series, p point) error {
		if n := len(s.points); q.step > 0 && n > 0 && (s.points[n-1].t-q.first)/q.step == (p.t-q.first)/q.step {
			s.points[n-1] = p
			return nil
		}
		if total++; total > maxAnswer || len(s.points) >= maxPoints {
			return errTooManyPoints
		}
		s.points = append(s.points, p)
		return nil
	}, matchers...)
	if errors.Is(err, errTooManyPoints) {
		return nil, fault.Invalid(fault.Violation{Field: "step", Problem: fmt.Sprintf(
			"the answer would have more than %d points a series or %d in all; use a longer step, a shorter range, or one prober", maxPoints, maxAnswer)})
	}
	return found, err
}

func protoSeries(f series) *meshv1.Series {
	out := &meshv1.Series{Labels: f.labels.Map(), Points: make([]*meshv1.Point, len(f.points))}
	if p := f.labels.Get("prober"); p != "" {
		out.Prober = spec.Name(spec.Probers, p)
	}
	for i, p := range f.points {
		out.Points[i] = &meshv1.Point{Time: timestamppb.New(time.UnixMilli(p.t)), Value: p.v}
	}
	return out
}

// answerError is an error of a question as gRPC shows it.
func answerError(err error) error {
	if _, ok := fault.From(err); ok {
		return err
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fault.New(codes.Canceled, meshv1.ErrorReason_ERROR_REASON_UNSPECIFIED, "", "the caller has gone").Because(err)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.New(codes.Unavailable, meshv1.ErrorReason_HISTORY_UNAVAILABLE, "",
			"the history of this server did not answer in time; ask for a shorter range or a longer step").Because(err)
	}
	return unavailable(err)
}
