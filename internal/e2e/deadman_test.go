//go:build linux

package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// The leader tells the dead man's switch at once that all is well, says how the mesh is, and does so again after a crash; while the switch is away, the mesh says so.
func TestTheDeadMansSwitchIsToldAtOnceAndAfterACrash(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var calls []*meshv1.Mesh
	code := http.StatusOK
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		m := &meshv1.Mesh{}
		if err == nil {
			err = protojson.Unmarshal(b, m)
		}
		if err != nil || r.Method != http.MethodPost {
			t.Errorf("%s with %q: %v", r.Method, b, err)
		}
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, m)
		w.WriteHeader(code)
	}))
	defer outside.Close()
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(calls)
	}
	m := startMesh(t, "up", []string{"--dead-man-url", outside.URL + "/ping", "--dead-man-interval", "10s"})
	until(t, "the first call", func() (bool, string) { return count() >= 1, "none" })
	mu.Lock()
	if first := calls[0]; first.GetServer() != "servers/local" && first.GetServer() != "servers/a" || first.GetLeader() != first.GetServer() || first.GetTerm() == 0 {
		t.Errorf("the first call says %v", first)
	}
	mu.Unlock()
	if out, errs, exit := m.cli("", "get", "mesh"); exit != 0 && exit != 1 {
		t.Errorf("get mesh ends with %d: %s%s", exit, out, errs)
	}
	m.proc.kill()
	before := count()
	mu.Lock()
	code = http.StatusNotFound
	mu.Unlock()
	m.start()
	until(t, "calls after the crash", func() (bool, string) { return count() > before, strconv.Itoa(count()) })
	until(t, "the mesh says that the switch fails", func() (bool, string) {
		out, _, _ := m.cli("", "get", "mesh", "-o", "json")
		r := &meshv1.GetMeshResponse{}
		if err := protojson.Unmarshal([]byte(out), r); err != nil {
			return false, err.Error()
		}
		for _, c := range r.GetMesh().GetConditions() {
			if c.GetCode() == meshv1.Condition_DEAD_MAN_FAILING {
				return true, ""
			}
		}
		return false, out
	})
}
