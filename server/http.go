package server

import (
	"fmt"
	"net/http"
	"strings"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/api"
)

// condition is one thing that must hold before the server is ready.
type condition struct {
	name string
	ok   bool
	why  string // what is wrong and what to do
	// code is that of the mesh's condition which says the same.
	code meshv1.Condition_Code
}

// conditions are looked at by /readyz, in the order in which a reader should mend them.
func (s *Server) conditions() []condition {
	synced := false
	select {
	case <-s.mesh.Ready():
		synced = true
	default:
	}
	store, leader := "etcd has not been read yet; is it running, and does it have a quorum?", "no server leads; is a majority of etcd members alive?"
	if since, lost := s.pulse.Lost(); synced && lost {
		synced, store = false, fmt.Sprintf("etcd has not answered since %s; bring its members back until most are alive", since.UTC().Format("15:04:05 UTC"))
	}
	list := []condition{
		{"disk", !s.full.Load(), "the disk is full and etcd cannot write; make room, and the server begins anew", meshv1.Condition_DISK_FULL},
		{"store", synced, store, meshv1.Condition_ETCD_LOST},
		{"leader", s.leader().Leader != "", leader, meshv1.Condition_NO_LEADER},
	}
	return list
}

// leader is who leads, and in which term. While etcd is lost, what it said last is true only of a server that says so itself: this one, or one that is heard.
func (s *Server) leader() api.ServerInfo {
	info := s.mesh.Server()
	if _, lost := s.pulse.Lost(); lost && !info.Leading && s.monitor.Facts().Leader != info.Leader {
		info.Leader, info.LeaderAddress, info.Term = "", "", 0
	}
	return info
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
	mux.HandleFunc("GET /checks/{name}", s.checkPage)
	mux.HandleFunc("GET /incidents/{name}", s.incidentPage)
	mux.HandleFunc("/", s.nowhere)
	return mux
}

// unattached says at once what becomes the condition NO_PROBER after a while: whoever has just started a mesh need not wait for it.
func (s *Server) unattached() []string {
	for _, p := range s.mesh.Probers() {
		if p.GetState() == meshv1.Prober_ONLINE {
			return nil
		}
	}
	for _, c := range s.monitor.Mesh().GetConditions() {
		if c.GetCode() == meshv1.Condition_NO_PROBER {
			return nil
		}
	}
	return []string{"no prober is attached: nothing is being watched; start one with `probemesh prober`"}
}

// readyz says 200 when this server can do its work, else 503; the body says of each thing that this takes whether it holds, and then what is wrong with the mesh,
// one a line. What is wrong with the mesh does not make a server unready: votes are counted, probers and readers are served.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
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
	for _, warning := range append(s.unattached(), s.warnings()...) {
		fmt.Fprintf(&b, "[!] %s\n", warning)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(b.String()))
}
