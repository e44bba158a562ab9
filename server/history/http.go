package history

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"runtime"
	"sort"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/version"
)

const (
	// maxSeries is how many series or label values an answer of the HTTP API has at most; what is beyond is left out, with a warning.
	maxSeries = 100_000
	// maxForm bounds the body of a POST.
	maxForm = 1 << 20
	// engineVersion is the release of Prometheus whose query engine is built in: clients choose what they ask for by it.
	engineVersion = "3.15.0"
)

// Kinds of error that the HTTP API knows, as Prometheus names them.
const (
	errorBadData     = "bad_data"
	errorExecution   = "execution"
	errorCanceled    = "canceled"
	errorTimeout     = "timeout"
	errorUnavailable = "unavailable"
	errorNotFound    = "not_found"
	errorInternal    = "internal"
)

// envelope is the form of every answer.
type envelope struct {
	Status    string   `json:"status"`
	Data      any      `json:"data,omitempty"`
	ErrorType string   `json:"errorType,omitempty"`
	Error     string   `json:"error,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	Infos     []string `json:"infos,omitempty"`
}

// queryData is the answer to a query.
type queryData struct {
	ResultType parser.ValueType `json:"resultType"`
	Result     parser.Value     `json:"result"`
}

// answer is what a question of the HTTP API gives.
type answer struct {
	data     json.RawMessage // encoded while the store was held: label values may lie in its mapped files
	warnings annotations.Annotations
	query    string // for the positions in warnings
}

// badData is an error in what the client sent.
type badData struct{ error }

// Handler serves the HTTP API of Prometheus, as far as it asks about series: /api/v1/query, query_range, series, labels, label/<name>/values, metadata (empty),
// status/buildinfo, and /-/healthy and /-/ready, by GET and POST. Grafana takes it for a data source, promtool for a server. Answers come from this
// server's own history. A question that finds no turn is refused with 503 and Retry-After.
func (h *History) Handler() http.Handler {
	mux := http.NewServeMux()
	api := func(path string, question func(context.Context, *store, *http.Request) (answer, error)) {
		serve := func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, question) }
		mux.HandleFunc("GET "+path, serve)
		mux.HandleFunc("POST "+path, serve)
	}
	api("/api/v1/query", instantQuery)
	api("/api/v1/query_range", rangeQuery)
	api("/api/v1/series", seriesQuery)
	api("/api/v1/labels", labelNames)
	api("/api/v1/label/{name}/values", labelValues)
	mux.HandleFunc("GET /api/v1/metadata", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, envelope{Status: "success", Data: map[string]any{}})
	})
	mux.HandleFunc("GET /api/v1/status/buildinfo", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, envelope{Status: "success", Data: map[string]string{
			"application": "probemesh", "version": engineVersion, "revision": version.Build(), "branch": "", "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
		}})
	})
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("probemesh is healthy.\n")) })
	mux.HandleFunc("GET /-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if _, release, err := h.open(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		} else {
			release()
			_, _ = w.Write([]byte("probemesh is ready.\n"))
		}
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		respondError(w, errorNotFound, r.URL.Path+" is not served here; see /api/v1/query, query_range, series, labels and label/<name>/values")
	})
	return mux
}

// serve answers one request with a question.
func (h *History) serve(w http.ResponseWriter, r *http.Request, question func(context.Context, *store, *http.Request) (answer, error)) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		respondError(w, errorBadData, "the parameters cannot be read: "+err.Error())
		return
	}
	ctx := r.Context()
	timeout, err := durationParam(r, "timeout", h.config.QueryTimeout)
	if err != nil {
		respondError(w, errorBadData, err.Error())
		return
	}
	if timeout < h.config.QueryTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var a answer
	err = h.ask(ctx, "http", func(ctx context.Context, s *store) (err error) {
		a, err = question(ctx, s, r)
		return err
	})
	if err != nil {
		respondError(w, kindOf(err), err.Error())
		return
	}
	// Written after the turn: a client that reads slowly holds up nobody.
	warnings, infos := a.warnings.AsStrings(a.query, 10, 10)
	respond(w, http.StatusOK, envelope{Status: "success", Data: a.data, Warnings: warnings, Infos: infos})
}

// kindOf is the kind of an error as the HTTP API names it.
func kindOf(err error) string {
	var (
		bad      badData
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		broken   promql.ErrStorage
	)
	_, refused := fault.From(err)
	switch {
	case errors.As(err, &bad):
		return errorBadData
	case refused:
		return errorUnavailable
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return errorTimeout
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return errorCanceled
	case errors.As(err, &broken):
		return errorInternal
	}
	return errorExecution
}

func respondError(w http.ResponseWriter, kind, message string) {
	code := http.StatusInternalServerError
	switch kind {
	case errorBadData:
		code = http.StatusBadRequest
	case errorExecution:
		code = http.StatusUnprocessableEntity
	case errorCanceled:
		code = 499 // the client has gone
	case errorTimeout:
		code = http.StatusServiceUnavailable
	case errorUnavailable:
		code = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	case errorNotFound:
		code = http.StatusNotFound
	}
	respond(w, code, envelope{Status: "error", ErrorType: kind, Error: message})
}

func respond(w http.ResponseWriter, code int, e envelope) {
	b, err := json.Marshal(e)
	if err != nil {
		code = http.StatusInternalServerError
		b, _ = json.Marshal(envelope{Status: "error", ErrorType: errorInternal, Error: "the answer cannot be encoded: " + err.Error()})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b)
}

func instantQuery(ctx context.Context, s *store, r *http.Request) (answer, error) {
	at, err := timeParam(r, "time", time.Now())
	if err != nil {
		return answer{}, badData{err}
	}
	o, err := queryOptions(r)
	if err != nil {
		return answer{}, badData{err}
	}
	q, err := s.engine.NewInstantQuery(ctx, s.db, o, r.Form.Get("query"), at)
	return execute(ctx, q, err, r)
}

func rangeQuery(ctx context.Context, s *store, r *http.Request) (answer, error) {
	start, end, step, err := rangeParams(r)
	if err != nil {
		return answer{}, badData{err}
	}
	o, err := queryOptions(r)
	if err != nil {
		return answer{}, badData{err}
	}
	q, err := s.engine.NewRangeQuery(ctx, s.db, o, r.Form.Get("query"), start, end, step)
	return execute(ctx, q, err, r)
}

// execute runs a query that was made with err. It encodes the result before the query is closed, because closing gives its memory back.
func execute(ctx context.Context, q promql.Query, err error, r *http.Request) (answer, error) {
	expr := r.Form.Get("query")
	if err != nil {
		return answer{}, badData{parameterError("query", expr, err)}
	}
	defer q.Close()
	limit, err := limitParam(r)
	if err != nil {
		return answer{}, badData{err}
	}
	result := q.Exec(ctx)
	if result.Err != nil {
		return answer{}, result.Err
	}
	value := result.Value
	switch v := value.(type) {
	case promql.Vector:
		if value = v; v == nil {
			value = promql.Vector{}
		}
		if len(v) > limit {
			value = v[:limit]
			result.Warnings.Add(errTruncated)
		}
	case promql.Matrix:
		if value = v; v == nil {
			value = promql.Matrix{}
		}
		if len(v) > limit {
			value = v[:limit]
			result.Warnings.Add(errTruncated)
		}
	}
	a, err := encode(queryData{ResultType: value.Type(), Result: value}, result.Warnings)
	a.query = expr
	return a, err
}

// encode makes the answer that has v as its data.
func encode(v any, warnings annotations.Annotations) (answer, error) {
	raw, err := json.Marshal(v)
	return answer{data: raw, warnings: warnings}, err
}

// errTruncated is the warning of an answer that is cut short.
var errTruncated = errors.New("the answer is cut short at the limit")

func seriesQuery(ctx context.Context, s *store, r *http.Request) (answer, error) {
	selected, err := readSelection(s, r, true)
	if err != nil {
		return answer{}, badData{err}
	}
	q, err := s.db.Querier(selected.first, selected.last)
	if err != nil {
		return answer{}, err
	}
	defer q.Close()
	var sets []storage.SeriesSet
	hints := &storage.SelectHints{Start: selected.first, End: selected.last, Func: "series"}
	for _, m := range selected.matchers {
		sets = append(sets, q.Select(ctx, true, hints, m...))
	}
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	out, warnings := []labels.Labels{}, annotations.New()
	for set.Next() {
		if len(out) >= selected.limit {
			warnings.Add(errTruncated)
			break
		}
		out = append(out, set.At().Labels())
	}
	if err := errors.Join(set.Err(), ctx.Err()); err != nil {
		return answer{}, err
	}
	return encode(out, warnings.Merge(set.Warnings()))
}

func labelNames(ctx context.Context, s *store, r *http.Request) (answer, error) {
	return distinct(s, r, func(q storage.Querier, m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, nil, m...)
	})
}

func labelValues(ctx context.Context, s *store, r *http.Request) (answer, error) {
	name := r.PathValue("name")
	if name == "" {
		return answer{}, badData{errors.New("the name of the label is empty")}
	}
	return distinct(s, r, func(q storage.Querier, m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, nil, m...)
	})
}

// distinct gives the sorted union of what get finds for each selector of the request, or for none.
func distinct(s *store, r *http.Request, get func(storage.Querier, []*labels.Matcher) ([]string, annotations.Annotations, error)) (answer, error) {
	selected, err := readSelection(s, r, false)
	if err != nil {
		return answer{}, badData{err}
	}
	q, err := s.db.Querier(selected.first, selected.last)
	if err != nil {
		return answer{}, err
	}
	defer q.Close()
	if len(selected.matchers) == 0 {
		selected.matchers = [][]*labels.Matcher{nil}
	}
	found, warnings := map[string]bool{}, annotations.New()
	for _, m := range selected.matchers {
		names, w, err := get(q, m)
		if err != nil {
			return answer{}, err
		}
		warnings.Merge(w)
		for _, n := range names {
			found[n] = true
		}
	}
	out := make([]string, 0, len(found))
	for n := range found {
		out = append(out, n)
	}
	sort.Strings(out)
	if len(out) > selected.limit {
		out = out[:selected.limit]
		warnings.Add(errTruncated)
	}
	return encode(out, *warnings)
}
