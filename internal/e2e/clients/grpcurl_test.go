package clients

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const grpcurlPackage = "github.com/fullstorydev/grpcurl/cmd/grpcurl"

// caller calls a mesh with grpcurl, which knows the services by reflection alone.
type caller struct {
	t    *testing.T
	m    *mesh
	path string
}

func callerOf(t *testing.T) caller {
	t.Helper()
	m := running(t)
	return caller{t, m, tool(t, m, "grpcurl", grpcurlPackage)}
}

// run runs grpcurl with options, then the address, then the rest.
func (c caller) run(options []string, rest ...string) output {
	c.t.Helper()
	args := append([]string{"-plaintext"}, options...)
	return execute(c.t, c.m.root, ownEnvironment(), c.path, append(append(args, c.m.GRPC), rest...)...)
}

// call makes a unary call that must succeed and gives its answer.
func (c caller) call(method string, request any) map[string]any {
	c.t.Helper()
	out := c.run([]string{"-d", asJSON(c.t, request)}, "probemesh.v1."+method)
	if out.code != 0 {
		c.t.Fatalf("%s failed with %d: %s", method, out.code, out.stderr)
	}
	answers := messages(c.t, out.stdout)
	if len(answers) != 1 {
		c.t.Fatalf("%s answered %d messages, want 1:\n%s", method, len(answers), out.stdout)
	}
	return answers[0]
}

// fails makes a call that must fail, and gives the lines that grpcurl prints of the error.
func (c caller) fails(method string, request any) string {
	c.t.Helper()
	out := c.run([]string{"-d", asJSON(c.t, request)}, "probemesh.v1."+method)
	if out.code == 0 {
		c.t.Fatalf("%s succeeded, it should fail; it answered:\n%s", method, out.stdout)
	}
	return out.stderr
}

// check creates a check of the mesh's target, which is deleted when the test ends.
func (c caller) check(name, uri string) {
	c.t.Helper()
	c.call("CheckService/CreateCheck", object{"check_id": name, "check": object{"uri": uri, "interval": "1s", "timeout": "1s", "labels": object{"test": name}}})
	c.t.Cleanup(func() {
		c.run([]string{"-d", fmt.Sprintf(`{"name": "checks/%s", "allow_missing": true}`, name)}, "probemesh.v1.CheckService/DeleteCheck")
	})
}

// await repeats a call until its answer is as wished, for half a minute.
func (c caller) await(method string, request any, good func(map[string]any) bool) map[string]any {
	c.t.Helper()
	var answer map[string]any
	c.eventually(method, func() bool {
		answer = c.call(method, request)
		return good(answer)
	}, &answer)
	return answer
}

// eventually looks at a condition of the mesh again and again, for half a minute. seen is shown when it never holds.
func (c caller) eventually(what string, good func() bool, seen ...any) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !good(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s is not as expected after 30s: %s", what, asJSON(c.t, seen))
		}
	}
}

type object map[string]any

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// messages reads the JSON objects that grpcurl printed one after the other.
func messages(t *testing.T, text string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for d := json.NewDecoder(strings.NewReader(text)); d.More(); {
		var m map[string]any
		if err := d.Decode(&m); err != nil {
			t.Fatalf("%v in:\n%s", err, text)
		}
		all = append(all, m)
	}
	return all
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

func TestReflectionShowsEveryServiceToGrpcurl(t *testing.T) {
	c := callerOf(t)
	want := []string{
		"grpc.channelz.v1.Channelz", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
		"probemesh.peer.v1.PeerService", "probemesh.v1.BuildService", "probemesh.v1.CheckService", "probemesh.v1.HistoryService", "probemesh.v1.IncidentService",
		"probemesh.v1.MemberService", "probemesh.v1.MeshService", "probemesh.v1.ProberService",
		"probemesh.v1.ReceiverService", "probemesh.v1.ServerService", "probemesh.v1.SessionService", "probemesh.v1.StatusService",
	}
	if got := strings.Fields(c.run(nil, "list").stdout); !slices.Equal(got, want) {
		t.Errorf("list gives %q, want %q", got, want)
	}
	contains(t, c.run(nil, "describe", "probemesh.v1.CheckService").stdout,
		"rpc Apply ( .probemesh.v1.ApplyRequest ) returns ( .probemesh.v1.ApplyResponse );",
		"rpc RunCheck ( .probemesh.v1.RunCheckRequest ) returns ( stream .probemesh.v1.RunCheckResponse );")
	contains(t, c.run(nil, "describe", "probemesh.v1.SessionService").stdout,
		"rpc Session ( stream .probemesh.v1.ProberMessage ) returns ( stream .probemesh.v1.ServerMessage );")
	contains(t, c.run(nil, "describe", "probemesh.v1.CheckStatus").stdout, "message CheckStatus {", ".probemesh.v1.CheckStatus.Verdict verdict = 2;", "DEGRADED = 2;")
}

func TestTheStandardHealthCheckSaysServing(t *testing.T) {
	c := callerOf(t)
	out := c.run(nil, "grpc.health.v1.Health/Check")
	contains(t, out.stdout, `"status": "SERVING"`)
}

// Every service is called at least once, in the order in which a user would.
func TestGrpcurlCallsEveryService(t *testing.T) {
	c := callerOf(t)
	c.check("every-service", c.m.target)
	name := object{"name": "checks/every-service"}

	c.await("StatusService/GetStatus", object{"check": "checks/every-service"}, func(a map[string]any) bool { return a["verdict"] == "UP" })
	contains(t, asJSON(t, c.call("CheckService/GetCheck", name)), `"verdict":"UP"`, `"etag":`)
	contains(t, asJSON(t, c.call("CheckService/ListChecks", object{"filter": `labels.test = "every-service" AND verdict = UP`})), `"checks/every-service"`)
	contains(t, asJSON(t, c.call("CheckService/ExplainCheck", name)), "the quorum is 1")

	out := c.run([]string{"-d", asJSON(t, name)}, "probemesh.v1.CheckService/RunCheck")
	run := messages(t, out.stdout)
	if len(run) != 3 || !strings.Contains(asJSON(t, run[0]), "probers/local-1") || !strings.Contains(asJSON(t, run[1]), `"outcome":"OK"`) || len(run[2]) != 0 {
		t.Errorf("a run gives who was asked, a result, and an end without failures; got:\n%s%s", out.stdout, out.stderr)
	}

	c.await("HistoryService/QueryRange", object{"check": "checks/every-service", "metric": "probe_duration_seconds"}, func(a map[string]any) bool {
		return strings.Contains(asJSON(t, a), `"prober":"probers/local-1"`) && strings.Contains(asJSON(t, a), `"value"`)
	})
	c.await("HistoryService/GetUptime", object{"check": "checks/every-service"}, func(a map[string]any) bool { return a["availability"] == 1.0 })

	contains(t, asJSON(t, c.call("ServerService/ListServers", object{})), `"leader":true`, `"name":"servers/a"`)
	contains(t, asJSON(t, c.call("ProberService/GetProber", object{"name": "probers/local-1"})), `"state":"ONLINE"`, `"capabilities"`)
	contains(t, asJSON(t, c.call("IncidentService/ListIncidents", object{"filter": "state = RESOLVED AND check = checks/every-service"})), "{}")

	// The Session is for probers. Without its handshake it is refused with a reason, and the server goes on.
	contains(t, c.fails("SessionService/Session", object{"ping": object{}}), "Code: InvalidArgument", `"reason": "SESSION_BROKEN"`)
	contains(t, c.fails("SessionService/Session", object{"hello": object{"prober": "probers/x"}}), "Code: FailedPrecondition", `"reason": "PROTOCOL_UNSUPPORTED"`)
}

func TestAWatchSendsASnapshotThenChanges(t *testing.T) {
	c := callerOf(t)
	c.check("watched", c.m.target)
	filter := asJSON(t, object{"filter": "name = watched"})
	c.await("StatusService/GetStatus", object{"check": "checks/watched"}, func(a map[string]any) bool { return a["verdict"] == "UP" })

	watch := exec.CommandContext(t.Context(), c.path, "-plaintext", "-max-time", "30", "-d", filter, c.m.GRPC, "probemesh.v1.StatusService/WatchStatuses")
	stdout, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = watch.Process.Kill()
		_ = watch.Wait()
	}()
	var order []string
	for d := json.NewDecoder(stdout); !slices.Contains(order, "PAUSED"); {
		var m map[string]any
		if err := d.Decode(&m); err != nil {
			t.Fatalf("the watch ended after %q: %v", order, err)
		}
		if m["synced"] == true {
			order = append(order, "synced")
			c.call("CheckService/UpdateCheck", object{"check": object{"name": "checks/watched", "paused": true}, "update_mask": object{"paths": []string{"paused"}}})
		} else if s, ok := m["status"].(map[string]any); ok {
			order = append(order, s["verdict"].(string))
		}
	}
	if order = slices.Compact(order); len(order) < 2 || order[len(order)-1] != "PAUSED" || order[0] == "synced" || !slices.Contains(order, "synced") {
		t.Errorf("the watch sent %q; want the snapshot, synced, and PAUSED at last", order)
	}
}

func TestAnErrorCarriesItsReasonAndEveryFault(t *testing.T) {
	c := callerOf(t)
	contains(t, c.fails("CheckService/CreateCheck", object{"check_id": "bad", "check": object{"uri": "gopher://x", "interval": "0.5s", "quorum": 9, "probers": 2}}),
		"Code: InvalidArgument", "google.rpc.ErrorInfo", `"reason": "INVALID_FIELD"`, `"domain": "probemesh"`, "google.rpc.BadRequest",
		`"field": "check.uri"`, `"field": "check.interval"`, `"field": "check.quorum"`)
	contains(t, c.fails("CheckService/GetCheck", object{"name": "checks/nowhere"}), "Code: NotFound", `"reason": "RESOURCE_NOT_FOUND"`, `"name": "checks/nowhere"`)
	contains(t, c.fails("CheckService/ListChecks", object{"filter": "verdict = SIDEWAYS"}), "Code: InvalidArgument", `"reason": "FILTER_INVALID"`)
	contains(t, c.fails("CheckService/ListChecks", object{"page_token": "made-up"}), `"reason": "PAGE_TOKEN_INVALID"`)
	contains(t, c.fails("IncidentService/GetIncident", object{"name": "incidents/nowhere"}), `"reason": "RESOURCE_NOT_FOUND"`)
	c.check("fresh", c.m.target)
	contains(t, c.fails("CheckService/UpdateCheck", object{"check": object{"name": "checks/fresh", "etag": "1", "uri": c.m.target}}), "Code: Aborted", `"reason": "ETAG_MISMATCH"`)
}

// A receiver that hears of an incident from opening to resolving, with every step made by grpcurl.
func TestAnIncidentIsReadAndAcknowledgedByGrpcurl(t *testing.T) {
	c := callerOf(t)
	var broken atomic.Bool
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer target.Close()
	var posts atomic.Int32
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { posts.Add(1) }))
	defer hook.Close()

	receiver := object{"name": "receivers/grpcurl", "webhook": object{"url": hook.URL}}
	c.call("ReceiverService/CreateReceiver", object{"receiver": receiver})
	contains(t, asJSON(t, c.call("ReceiverService/TestReceiver", object{"name": "receivers/grpcurl"})), `"delivered":true`)
	check := object{"name": "checks/incident", "uri": target.URL, "interval": "1s", "timeout": "1s", "receivers": []string{"receivers/grpcurl"}}
	contains(t, asJSON(t, c.call("CheckService/Apply", object{"checks": []object{check}})), `"action":"CREATE"`)
	contains(t, c.fails("ReceiverService/DeleteReceiver", object{"name": "receivers/grpcurl"}), "Code: FailedPrecondition", `"reason": "RESOURCE_IN_USE"`)
	c.await("StatusService/GetStatus", object{"check": "checks/incident"}, func(a map[string]any) bool { return a["verdict"] == "UP" })

	broken.Store(true)
	open := c.await("IncidentService/ListIncidents", object{"filter": "check = incident AND state = OPEN"}, func(a map[string]any) bool { return a["incidents"] != nil })
	incident := open["incidents"].([]any)[0].(map[string]any)["name"].(string)
	acknowledged := c.call("IncidentService/AcknowledgeIncident", object{"name": incident, "by": "ann", "comment": "on it"})
	contains(t, asJSON(t, acknowledged), `"acknowledgedBy":"ann"`)

	broken.Store(false)
	whole := c.await("IncidentService/GetIncident", object{"name": incident}, func(a map[string]any) bool {
		return a["endTime"] != nil && strings.Count(asJSON(t, a), `"event":"NOTIFIED"`) == 2
	})
	contains(t, asJSON(t, whole), `"event":"OPENED"`, `"event":"ACKNOWLEDGED"`, `"event":"RESOLVED"`, "503")
	if n := posts.Load(); n != 3 {
		t.Errorf("the webhook was posted to %d times, want 3: TEST, OPENED, RESOLVED", n)
	}
	contains(t, c.fails("IncidentService/AcknowledgeIncident", object{"name": incident, "by": "ann"}), `"reason": "STATE_CONFLICT"`)
	c.call("CheckService/DeleteCheck", object{"name": "checks/incident"})
	c.call("ReceiverService/DeleteReceiver", object{"name": "receivers/grpcurl"})
}

// A second prober comes, is drained, goes, and is forgotten.
func TestAProberIsDrainedAndForgottenByGrpcurl(t *testing.T) {
	c := callerOf(t)
	dir := t.TempDir()
	p := exec.Command(c.m.binary, "prober", "--name", "second", "--datacenter", "local", "--data", filepath.Join(dir, "second"), "--server", c.m.GRPC)
	p.Env, p.SysProcAttr = ownEnvironment(), &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var logs strings.Builder
	p.Stderr = &logs
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
	}()
	name := object{"name": "probers/second"}
	c.await("ProberService/ListProbers", object{"filter": "name = second AND state = ONLINE"}, func(a map[string]any) bool { return a["probers"] != nil })
	contains(t, asJSON(t, c.call("ProberService/DrainProber", name)), `"drained":true`)
	c.await("ProberService/GetProber", name, func(a map[string]any) bool { return a["state"] == "DRAINED" })
	c.call("ProberService/UndrainProber", name)
	c.await("ProberService/GetProber", name, func(a map[string]any) bool { return a["state"] == "ONLINE" })
	contains(t, c.fails("ProberService/DeleteProber", name), "Code: FailedPrecondition", `"reason": "STATE_CONFLICT"`)
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stopped = true
	if err := p.Wait(); err != nil {
		t.Errorf("the prober did not stop cleanly: %v\n%s", err, logs.String())
	}
	c.await("ProberService/GetProber", name, func(a map[string]any) bool { return a["state"] == "OFFLINE" })
	c.call("ProberService/DeleteProber", name)
	contains(t, c.fails("ProberService/GetProber", name), `"reason": "RESOURCE_NOT_FOUND"`)
}
