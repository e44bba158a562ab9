package history

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// shopHistory has ten minutes of a check by two probers, a result every 15 s, the last of them now.
func shopHistory(t *testing.T, c Config) (*History, time.Time) {
	t.Helper()
	h := openTest(t, c, Dependencies{})
	end := now()
	var entries []Entry
	for i := range 40 {
		at := end.Add(-time.Duration(39-i) * 15 * time.Second)
		entries = append(entries, httpOK("fra-1", at, 100*time.Millisecond),
			with(httpOK("iad-1", at, 300*time.Millisecond), func(e *Entry) { e.Datacenter, e.Result.Outcome = "iad", meshv1.Result_FAIL }))
	}
	if err := h.Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	return h, end
}

// prometheusClient is Prometheus' own client on a running handler.
func prometheusClient(t *testing.T, h *History) (promv1.API, string) {
	t.Helper()
	s := httptest.NewServer(h.Handler())
	t.Cleanup(s.Close)
	c, err := api.NewClient(api.Config{Address: s.URL, Client: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	return promv1.NewAPI(c), s.URL
}

func TestPrometheusOwnClientReadsTheHistory(t *testing.T) {
	h, end := shopHistory(t, Config{})
	c, _ := prometheusClient(t, h)
	ctx := t.Context()

	v, warnings, _, err := c.Query(ctx, `avg by (check) (probe_success)`, end)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if vector, ok := v.(model.Vector); !ok || len(vector) != 1 || vector[0].Value != 0.5 || vector[0].Metric["check"] != "shop" || vector[0].Timestamp.Time().UnixMilli() != end.UnixMilli() {
		t.Errorf("vector is %v", v)
	}
	v, _, _, err = c.Query(ctx, `42.5`, end)
	if scalar, ok := v.(*model.Scalar); err != nil || !ok || scalar.Value != 42.5 {
		t.Errorf("scalar is %v %v", v, err)
	}
	v, _, _, err = c.Query(ctx, `probe_duration_seconds{prober="fra-1"}[1m]`, end)
	if m, ok := v.(model.Matrix); err != nil || !ok || len(m) != 1 || len(m[0].Values) != 4 {
		t.Errorf("matrix is %v %v", v, err)
	}
	v, _, _, err = c.QueryRange(ctx, `probe_duration_seconds`, promv1.Range{Start: end.Add(-5 * time.Minute), End: end, Step: time.Minute})
	if m, ok := v.(model.Matrix); err != nil || !ok || len(m) != 2 || len(m[0].Values) != 6 || m[1].Values[5].Value != 0.3 {
		t.Errorf("range is %v %v", v, err)
	}
	v, _, _, err = c.Query(ctx, `absent_metric`, end)
	if vector, ok := v.(model.Vector); err != nil || !ok || len(vector) != 0 {
		t.Errorf("nothing is %v %v", v, err)
	}

	series, _, _, err := c.Series(ctx, []string{`probe_success`, `probe_http_version{datacenter="iad"}`}, end.Add(-time.Hour), end)
	if err != nil || len(series) != 3 {
		t.Errorf("series are %v %v", series, err)
	}
	names, _, _, err := c.LabelNames(ctx, nil, end.Add(-time.Hour), end)
	if err != nil || fmt.Sprint(names) != "__name__, check, cipher, datacenter, instance, job, phase, prober, version" {
		t.Errorf("label names are %v %v", names, err)
	}
	values, _, _, err := c.LabelValues(ctx, "prober", []string{`probe_success{datacenter="iad"}`}, end.Add(-time.Hour), end)
	if err != nil || len(values) != 1 || values[0] != "iad-1" {
		t.Errorf("values are %v %v", values, err)
	}
	values, warnings, _, err = c.LabelValues(ctx, "prober", nil, end.Add(-time.Hour), end, promv1.WithLimit(1))
	if err != nil || len(values) != 1 || len(warnings) != 1 {
		t.Errorf("limited values are %v %v %v", values, warnings, err)
	}
	b, err := c.Buildinfo(ctx)
	if err != nil || b.Version != engineVersion {
		t.Errorf("build info is %v %v", b, err)
	}
	if m, err := c.Metadata(ctx, "", ""); err != nil || len(m) != 0 {
		t.Errorf("metadata is %v %v", m, err)
	}
}

func TestFaultyRequestsAreAnsweredAsPrometheusDoes(t *testing.T) {
	h, end := shopHistory(t, Config{MaxSamples: 1000})
	_, base := prometheusClient(t, h)
	at := end.Format(time.RFC3339)
	for _, c := range []struct {
		path, query string
		code        int
		kind, says  string
	}{
		{"query", "query=sum(", 400, "bad_data", `invalid parameter "query"`},
		{"query", "query=1&time=yesterday", 400, "bad_data", `invalid parameter "time"`},
		{"query", "query=1&timeout=-1s", 400, "bad_data", `invalid parameter "timeout"`},
		{"query", "query=1&limit=-1", 400, "bad_data", `invalid parameter "limit"`},
		{"query", "query=" + url.QueryEscape(`probe_success + on(check) probe_duration_seconds`) + "&time=" + at, 422, "execution", "many-to-many"},
		{"query", "query=" + url.QueryEscape(`{__name__=~".+"}[1h]`) + "&time=" + at, 422, "execution", "too many samples"},
		{"query_range", "query=1&start=0&end=1", 400, "bad_data", `invalid parameter "step"`},
		{"query_range", "query=1&start=2&end=1&step=1", 400, "bad_data", "before the start"},
		{"query_range", "query=1&start=0&end=100000&step=1s", 400, "bad_data", "more than 11000 points"},
		{"query_range", "query=1&start=0&end=1&step=0", 400, "bad_data", "longer than 0"},
		{"series", "", 400, "bad_data", `invalid parameter "match[]"`},
		{"series", "match[]=%7B%7D", 400, "bad_data", `invalid parameter "match[]"`},
		{"labels", "start=2&end=1", 400, "bad_data", "before the start"},
		{"rules", "", 404, "not_found", "/api/v1/rules is not served here"},
	} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(method+" "+c.path+" "+c.query, func(t *testing.T) {
				code, e := call(t, method, base+"/api/v1/"+c.path, c.query)
				if code != c.code || e.Status != "error" || e.ErrorType != c.kind || !strings.Contains(e.Error, c.says) {
					t.Errorf("got %d %s %q, want %d %s %q", code, e.ErrorType, e.Error, c.code, c.kind, c.says)
				}
			})
		}
	}
}

func call(t *testing.T, method, address, query string) (int, envelope) {
	t.Helper()
	var r *http.Request
	var err error
	if method == "GET" {
		r, err = http.NewRequestWithContext(t.Context(), method, address+"?"+query, nil)
	} else {
		r, err = http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(query))
	}
	if err != nil {
		t.Fatal(err)
	}
	if method == "POST" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e envelope
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return answer.StatusCode, e
}

func TestAnswersHaveTheExactFormOfPrometheus(t *testing.T) {
	h, _ := shopHistory(t, Config{})
	for expr, want := range map[string]string{
		`1/0`:         `{"status":"success","data":{"resultType":"scalar","result":[1767225600.5,"+Inf"]}}`,
		`"text"`:      `{"status":"success","data":{"resultType":"string","result":[1767225600.5,"text"]}}`,
		`vector(0/0)`: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1767225600.5,"NaN"]}]}}`,
		`absent`:      `{"status":"success","data":{"resultType":"vector","result":[]}}`,
		`absent[5m]`:  `{"status":"success","data":{"resultType":"matrix","result":[]}}`,
	} {
		for _, at := range []string{"1767225600.5", "2026-01-01T00:00:00.5Z"} {
			w := httptest.NewRecorder()
			h.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?time="+at+"&query="+url.QueryEscape(expr), nil))
			if got := w.Body.String(); got != want || w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%s at %s: %d %s, want %s", expr, at, w.Code, got, want)
			}
		}
	}
}

func TestTooManyQuestionsAreRefusedInWords(t *testing.T) {
	h, _ := shopHistory(t, Config{MaxQueries: 1})
	h.turnWait = time.Millisecond
	h.turns <- struct{}{} // a question that takes long
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?query=1", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "too many questions") || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	<-h.turns
	w = httptest.NewRecorder()
	h.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?query=1", nil))
	if w.Code != 200 {
		t.Errorf("got %d %s when there was room again", w.Code, w.Body)
	}
}
