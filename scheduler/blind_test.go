package scheduler

import (
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A datacenter that is lost for good must not make its checks their owners' affair: nobody judges them, and that is the mesh's to tell.
func TestLostDatacenterKeepsTheMeshsIncidentOpen(t *testing.T) {
	r := newRig(t)
	r.apply(ReceiverPut{Receiver: &meshv1.Receiver{Name: "receivers/mesh", MeshIncidents: true}})
	r.probers("ams", "fra")
	r.check(tcpCheck("web", 2))
	for range 20 {
		r.votes("web", ok, "ams", "fra")
		r.after(20 * time.Second)
	}
	r.want("web", "UP QUORUM_UP")
	r.apply(ProberOffline{Name: "fra-1"})
	for range 20 {
		r.votes("web", fail, "ams")
		r.after(20 * time.Second)
	}
	t.Log(r.verdict("web"), r.owed)
	if r.s.mesh.incident == nil {
		t.Fatal("nobody is told")
	}
}
