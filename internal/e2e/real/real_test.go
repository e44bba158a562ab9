//go:build linux

package real

import (
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	"github.com/probemesh/probemesh/prober/probe/kinds"
	"github.com/probemesh/probemesh/prober/probe/probetest"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// TestMain is also the main of the servers that the tests start of this very program.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := serveRole(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// patience is the timeout of probes that should not run out of it, short of those that should at once, and unhurried of those that should later on.
const (
	patience  = 10 * time.Second
	short     = 700 * time.Millisecond
	unhurried = 2 * time.Second
)

// probed is one probe of a server in some state.
type probed struct {
	kind, state string
	uri         string
	check       func(*meshv1.Check) // nil for the defaults
	want        probetest.Want
}

// row is a line of the table.
type row struct {
	order               int
	kind, server, state string
	result              *meshv1.Result
}

// table collects what was seen. It may be used concurrently.
type table struct {
	mu   sync.Mutex
	rows []row
}

func (b *table) add(r row) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.order = len(b.rows)
	b.rows = append(b.rows, r)
}

// text is the table in Markdown, ordered by kind and server.
func (b *table) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	sort.SliceStable(b.rows, func(i, j int) bool {
		x, y := b.rows[i], b.rows[j]
		if x.kind != y.kind {
			return x.kind < y.kind
		}
		if x.server != y.server {
			return x.server < y.server
		}
		return x.order < y.order
	})
	var out strings.Builder
	out.WriteString("| kind | server | state | outcome | class | phase | sentence |\n|---|---|---|---|---|---|---|\n")
	for _, r := range b.rows {
		class, phase := r.result.ErrorClass.String(), r.result.FailedPhase.String()
		if r.result.Outcome == meshv1.Result_OK {
			class, phase = "", ""
		}
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s | %s | %s |\n", r.kind, r.server, r.state, r.result.Outcome, class, phase, strings.ReplaceAll(r.result.Error, "|", `\|`))
	}
	return out.String()
}

// probe compiles the check, as a prober does, and runs it once.
func (p probed) probe(t *testing.T, timeout time.Duration) *meshv1.Result {
	t.Helper()
	c := &meshv1.Check{Name: "checks/real", Uri: p.uri, Interval: durationpb.New(time.Minute), Timeout: durationpb.New(timeout)}
	if p.check != nil {
		p.check(c)
	}
	if list := spec.ValidateCheck(c, ""); len(list) > 0 {
		t.Fatalf("the check of %s is not valid: %v", p.uri, list)
	}
	runner, err := kinds.Compile(c, probetest.Env())
	if err != nil {
		t.Fatal(err)
	}
	defer runner.Close()
	r := runner.Probe(context.Background(), probe.Options{})
	probetest.Promises(t, r)
	return r
}

// run probes all at once, and checks and records the results in their order.
func (b *table) run(t *testing.T, server string, timeout time.Duration, list []probed) {
	t.Helper()
	results := make([]*meshv1.Result, len(list))
	var wg sync.WaitGroup
	for i, p := range list {
		wg.Go(func() { results[i] = p.probe(t, timeout) })
	}
	wg.Wait()
	for i, p := range list {
		t.Run(strings.ReplaceAll(p.kind+"/"+p.state, " ", "_"), func(t *testing.T) {
			p.want.Match(t, results[i])
			if took := results[i].Duration.AsDuration(); took > timeout+2*time.Second {
				t.Errorf("the probe took %s with a timeout of %s", took, timeout)
			}
		})
		b.add(row{kind: p.kind, server: server, state: p.state, result: results[i]})
	}
}

// outage is what the up checks of a server say while it hangs and when it is gone.
type outage struct {
	hanging, down probetest.Want
}

// ordinary is what protocols over TCP say that begin with a request or a greeting.
func ordinary() outage {
	return outage{
		hanging: probetest.Fail(meshv1.Result_TIMEOUT, meshv1.Result_PROCESSING, ""),
		down:    probetest.Fail(meshv1.Result_CONNECTION_REFUSED, meshv1.Result_CONNECT, "connection refused"),
	}
}

// handshaking is what protocols say that begin with TLS.
func handshaking() outage {
	o := ordinary()
	o.hanging.Phase = meshv1.Result_HANDSHAKE
	return o
}

// subject is a check that is OK while its server is up, and what becomes of it.
type subject struct {
	kind  string
	uri   string
	check func(*meshv1.Check)
	outage
}

// life takes a server through its four states: wrong are probes that find something else than they want. What is in between runs while the server is up, after all these.
func (b *table) life(t *testing.T, name string, s *server, subjects []subject, wrong []probed, between ...func()) {
	t.Helper()
	in := func(state string, want func(subject) probetest.Want) (list []probed) {
		for _, u := range subjects {
			list = append(list, probed{u.kind, state, u.uri, u.check, want(u)})
		}
		return list
	}
	b.run(t, name, patience, in("up", func(subject) probetest.Want { return probetest.OK() }))
	b.run(t, name, patience, wrong)
	for _, f := range between {
		f()
	}
	s.freeze(t)
	b.run(t, name, short, in("hanging", func(u subject) probetest.Want { return u.hanging }))
	s.stop()
	b.run(t, name, patience, in("down", func(u subject) probetest.Want { return u.down }))
}

// TestRealServers is the table of kinds, servers and states.
func TestRealServers(t *testing.T) {
	b := &table{}
	t.Run("servers", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T, *table){
			"nginx": testNginx, "knot": testKnot, "unbound": testUnbound, "postfix": testPostfix, "dovecot": testDovecot, "postgresql": testPostgres,
			"mariadb": testMariaDB, "grpc-go": testGRPC, "quic-go": testHTTP3, "websocket": testWebsocket, "icmp": testICMP, "slapd": testSlapd, "vsftpd": testVsftpd, "prosody": testProsody,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t, b)
			})
		}
	})
	t.Log("what probes say of real servers:\n\n" + b.text())
}
