package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// condition is one thing that must hold before the server is ready.
type condition struct {
	name string
	ok   bool
	why  string // what is wrong and what to do
}

// conditions are looked at by /readyz, in the order in which a reader should mend them.
func (s *Server) conditions() []condition {
	synced := false
	select {
	case <-s.mesh.Ready():
		synced = true
	default:
	}
	info := s.mesh.Server()
	list := []condition{
		{"disk", !s.full.Load(), "the disk is full and etcd cannot write; make room, and the server begins anew"},
		{"store", synced, "etcd has not been read yet; is it running, and does it have a quorum?"},
		{"leader", info.Leader != "", "no server leads; is a majority of etcd members alive?"},
	}
	return list
}

// etcdPatience is how long /readyz waits for etcd.
const etcdPatience = time.Second

// warnings do not make a server unready, but an operator wants to know of them.
func (s *Server) warnings() []string {
	if !s.mesh.Server().Leading {
		return nil // probers attach to the leader: a standby does not know how they are
	}
	var list []string
	online := 0
	for _, p := range s.mesh.Probers() {
		if p.GetState() == meshv1.Prober_ONLINE {
			online++
		}
		if d := p.GetClockOffset().AsDuration(); d.Abs() > clockSkew {
			list = append(list, fmt.Sprintf("the clock of %s is off by %s; its results are corrected, but set its clock (NTP)", p.GetName(), d))
		}
		if len(p.GetRefusals()) > 0 {
			r := p.GetRefusals()[0]
			list = append(list, fmt.Sprintf("%s refuses %d assignments, such as %s: %s", p.GetName(), len(p.GetRefusals()), r.GetCheck(), r.GetReason()))
		}
	}
	if online == 0 {
		list = append(list, "no prober is attached: nothing is being watched; start one with `probemesh prober`")
	}
	return list
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", s.tel.Handler())
	h := s.hist.Handler()
	mux.Handle("/api/v1/", h)
	mux.Handle("/-/", h)
	mux.HandleFunc("GET /{$}", s.index)
	return mux
}

// readyz says 200 when every condition holds, else 503; the body names each condition and warning, one a line.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	var b strings.Builder
	code := http.StatusOK
	for _, c := range s.conditions() {
		if c.ok {
			fmt.Fprintf(&b, "[+] %s ok\n", c.name)
			continue
		}
		code = http.StatusServiceUnavailable
		fmt.Fprintf(&b, "[-] %s: %s\n", c.name, c.why)
	}
	warnings := s.warnings()
	ctx, cancel := context.WithTimeout(r.Context(), etcdPatience)
	defer cancel()
	if err := s.store.Ready(ctx); err != nil && code == http.StatusOK {
		// Still ready: votes are counted, probers and readers are served.
		warnings = append(warnings, "etcd does not answer: verdicts go on, but nothing is opened, resolved or sent until it does; do most of its members live?")
	}
	for _, warning := range warnings {
		fmt.Fprintf(&b, "[!] %s\n", warning)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(b.String()))
}
