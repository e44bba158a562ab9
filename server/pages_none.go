package server

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/probemesh/probemesh/internal/nearest"
	"github.com/probemesh/probemesh/internal/spec"
)

// guessAmong bounds the names of checks that a guess is made from: a page that is none must not cost as much as a listing.
const guessAmong = 5000

// nothing is what a page shows that is none, with links to what may have been meant.
type (
	nothing struct {
		Title, Why string
		Meant      []link
	}
	link struct{ Path, Text string }
)

// noPage says that there is none, or that this server cannot know yet.
func (s *Server) noPage(w http.ResponseWriter, why string, meant ...link) {
	select {
	case <-s.mesh.Ready():
	default:
		w.Header().Set("Retry-After", "5")
		s.writePage(w, http.StatusServiceUnavailable, noPageHTML, nothing{Title: "Not yet", Why: "This server has not read etcd yet, and so knows no checks and incidents; ask another one, or again in a moment."})
		return
	}
	s.writePage(w, http.StatusNotFound, noPageHTML, nothing{"Nothing here", why, meant})
}

// nowhere answers for paths that nothing else answers for.
func (s *Server) nowhere(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, fmt.Sprintf("%s is not taken here; pages are for GET. Changes are made by gRPC, which listens at another port: see `probemesh apply --help`.", r.Method), http.StatusMethodNotAllowed)
		return
	}
	path := r.URL.Path
	if len(path) > 200 {
		path = strings.ToValidUTF8(path[:200], "") + "…"
	}
	s.noPage(w, fmt.Sprintf("There is no page at %s.", path), s.meant(r.URL.Path)...)
}

// meant guesses which page a path was meant to be.
func (s *Server) meant(path string) []link {
	pages := map[string]link{
		"checks": {"/", "all checks"}, "incidents": {"/", "all checks, with their incidents"}, "probers": {"/", "all probers"}, "status": {"/", "the status page"}, "index.html": {"/", "the status page"},
		"metrics": {"/metrics", "metrics of this server"}, "ready": {"/readyz", "readiness"}, "readyz": {"/readyz", "readiness"}, "health": {"/healthz", "liveness"}, "healthz": {"/healthz", "liveness"},
		"livez": {"/healthz", "liveness"}, "query": {"/api/v1/query", "the history, as Prometheus answers"}, "api": {"/api/v1/query", "the history, as Prometheus answers"},
	}
	var words []string
	for w := range pages {
		words = append(words, w)
	}
	first, rest, _ := strings.Cut(strings.Trim(path, "/"), "/")
	word := nearest.To(first, words)
	if rest == "" {
		if x, ok := pages[word]; ok {
			return []link{x}
		}
		if near := s.nearChecks(first); near != nil {
			return near
		}
		return []link{{"/", "the status page"}}
	}
	if word == "incidents" {
		return []link{{"/incidents/" + url.PathEscape(rest), "the incident " + rest}}
	}
	if near := s.nearChecks(rest); near != nil && word != "probers" {
		return near
	}
	return []link{{"/", "the status page"}}
}

// nearChecks links the check of that name, or the one whose name is nearest.
func (s *Server) nearChecks(name string) []link {
	if strings.Contains(name, ".") {
		return nil // a file that browsers and crawlers ask for, and no name of a check
	}
	ids := s.mesh.Names()
	ids = ids[:min(len(ids), guessAmong)]
	for i := range ids {
		ids[i] = spec.ID(ids[i])
	}
	if near := nearest.To(name, ids); near != "" {
		return []link{{"/checks/" + near, "the check " + near}}
	}
	return nil
}
