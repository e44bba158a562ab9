package server

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/metric/noop"

	"github.com/probemesh/probemesh/server/controller"
)

// unread is a server that has not read etcd yet.
func unread(t *testing.T) *Server {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	mesh, err := controller.New(controller.Config{}, controller.Deps{Log: log, Meter: noop.NewMeterProvider().Meter("test")})
	if err != nil {
		t.Fatal(err)
	}
	return &Server{log: log, mesh: mesh}
}

func TestAPageBeforeEtcdWasReadSaysToComeAgain(t *testing.T) {
	s := unread(t)
	r := httptest.NewRequest("GET", "/checks/shop", nil)
	r.SetPathValue("name", "shop")
	w := httptest.NewRecorder()
	s.checkPage(w, r)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "5" || !strings.Contains(w.Body.String(), "has not read etcd yet") || !strings.Contains(w.Body.String(), "<style>") {
		t.Errorf("%d %v\n%s", w.Code, w.Header(), w.Body)
	}
	w = httptest.NewRecorder()
	if s.nowhere(w, httptest.NewRequest("GET", "/nothing", nil)); w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d\n%s", w.Code, w.Body)
	}
}

func TestAPathWithoutAPageSaysWhichWasMeant(t *testing.T) {
	s := unread(t)
	for path, want := range map[string]string{
		"/checks": "/", "/checks/": "/", "/check": "/", "/metric": "/metrics", "/ready": "/readyz", "/incident/01a": "/incidents/01a", "/xyzzy": "/", "/probers/fra-1": "/", "/index.html": "/",
	} {
		if got := s.meant(path); len(got) != 1 || got[0].Path != want {
			t.Errorf("%s: %v, want %s", path, got, want)
		}
	}
	text := render(t, noPageHTML, nothing{"Nothing here", "There is no <page>.", []link{{"/checks/shop", "the check shop"}}})
	for _, want := range []string{"There is no &lt;page&gt;.", `<a href="/checks/shop">the check shop</a>`, `<a href="/">the status page</a>`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s:\n%s", want, text)
		}
	}
	w := httptest.NewRecorder()
	if s.nowhere(w, httptest.NewRequest("POST", "/checks/shop", nil)); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d %v", w.Code, w.Header())
	}
}
