package history

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/probemesh/probemesh/internal/telemetry"
)

func TestTheMetricsPageShowsWhatBecameOfResultsAcrossAReopening(t *testing.T) {
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer tel.Shutdown(t.Context())
	d := Dependencies{Meter: tel.Meter("history"), Registry: tel.Registry()}
	c := Config{Dir: filepath.Join(t.TempDir(), "history")}
	for range 2 { // the second opening finds the names free again
		h, err := Open(c, d)
		if err != nil {
			t.Fatal(err)
		}
		at := now()
		entries := []Entry{httpOK("p", at, time.Second), httpOK("q", at, time.Second), httpOK("p", at.Add(-48*time.Hour), time.Second), httpOK("p", at.Add(time.Hour), time.Second), {}}
		for range 2 {
			if err := h.Append(t.Context(), entries); err != nil {
				t.Fatal(err)
			}
		}
		w := httptest.NewRecorder()
		tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if page := w.Body.String(); !strings.Contains(page, "\nprobemesh_history_available 1\n") || !strings.Contains(page, "\nprometheus_tsdb_head_series ") ||
			!strings.Contains(page, "\nprobemesh_history_cached_groups 2\n") {
			t.Errorf("the page lacks states of the history:\n%s", page)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	page := w.Body.String()
	for _, want := range []string{
		`probemesh_history_results_total{fate="repeated"} 4`, `probemesh_history_results_total{fate="too_old"} 4`,
		`probemesh_history_results_total{fate="in_future"} 4`, `probemesh_history_results_total{fate="malformed"} 4`,
		`probemesh_history_results_total{fate="written"} 4`, `probemesh_history_append_seconds_count 4`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(page, "prometheus_tsdb_head_series ") {
		t.Error("the figures of a closed store are still shown")
	}
}
