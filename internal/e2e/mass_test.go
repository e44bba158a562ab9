//go:build linux

package e2e

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// massChecks is how many checks fail together: 5,000 with PROBEMESH_E2E_ALL, 300 without, PROBEMESH_E2E_CHECKS if that is set.
func massChecks(t *testing.T) (n int, interval time.Duration) {
	t.Helper()
	n, interval = 300, 6*time.Second
	if everything() {
		n = 5000
	}
	if v := os.Getenv("PROBEMESH_E2E_CHECKS"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil || n < 100 || n > 20000 {
			t.Fatalf("PROBEMESH_E2E_CHECKS is %q; it must be a number of checks, 100 to 20000", v)
		}
	}
	if n > 1000 {
		interval = 20 * time.Second
	}
	return n, interval
}

// massHosts is on how many hosts the checks are.
const massHosts = 50

// mass is a server with its embedded etcd, three datacenters with two probers each, of which those of nrt are behind a link of their own, and thousands of checks of one rack of fifty hosts.
type mass struct {
	t                *testing.T
	mesh             *mesh
	link             *link
	port             string
	site             *http.Server
	users, operators *receiver
	metrics          []string // of all probers: host and port
	checks           int
	interval         time.Duration
}

// Thousands of checks fail together. First their rack dies: users are told once, of one group that names what the checks share, and once of its end. Then one datacenter's probers see all of them fail, since
// their network loses what they send to the targets and to nobody else: users are told nothing, and operators of one incident of the mesh that names the datacenter. Neither makes more
// probes, transactions of etcd or notifications than the documented budgets.
func TestThousandsOfChecksThatFailTogetherAreOneIncident(t *testing.T) {
	if testing.Short() {
		t.Skip("an outage of some hundred checks takes a minute, of five thousand four; run without -short")
	}
	t.Parallel()
	x := newMass(t)
	x.apply(1)
	usual := x.rate(x.interval)
	x.targetsDie("one host", usual)
	x.apply(massHosts)
	x.targetsDie("one rack", usual)
	x.datacenterIsCutOff(usual)
}

func newMass(t *testing.T) *mass {
	t.Helper()
	x := &mass{t: t, link: newLink(t, 1), users: startReceiver(t), operators: startReceiver(t)}
	x.checks, x.interval = massChecks(t)
	for i := range massHosts {
		if out, err := exec.Command("ip", "addr", "add", x.host(i)+"/24", "dev", x.link.device).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	_, x.port, _ = net.SplitHostPort(quietAddress(t))
	x.open()
	t.Cleanup(func() { x.site.Close() })
	x.mesh = startMesh(t, "server", []string{"--name", "a", "--datacenter", "ams"})
	outside := x.link.forward(t, x.link.here, x.mesh.grpc)
	var names []string
	for _, d := range []string{"ams", "fra", "nrt"} {
		for i := 1; i <= 2; i++ {
			name, server, at, options := fmt.Sprintf("%s-%d", d, i), x.mesh.grpc, quietAddress(t), []option(nil)
			if d == "nrt" {
				_, port, _ := net.SplitHostPort(at)
				server, at, options = outside, net.JoinHostPort(x.link.there, port), []option{x.link.inside()}
			}
			begin(t, "prober "+name, []string{"prober", "--name", name, "--datacenter", d, "--data", t.TempDir(), "--server", server, "--http-listen", at}, options...)
			x.metrics, names = append(x.metrics, at), append(names, name)
		}
	}
	for _, n := range names {
		x.mesh.awaitProber(n)
	}
	return x
}

// apply puts the checks on so many of the rack's hosts, and waits until all of them are UP.
func (x *mass) apply(hosts int) {
	x.t.Helper()
	var yaml strings.Builder
	fmt.Fprintf(&yaml, "receivers: [{name: ops, webhook: {url: %q}}, {name: mesh, mesh_incidents: true, webhook: {url: %q}}]\nchecks:\n", x.users.url, x.operators.url)
	for i := range x.checks {
		fmt.Fprintf(&yaml, "- {name: m%04d, uri: 'http://%s:%s/%d', interval: %s, timeout: 3s, probers: 3, quorum: 2, labels: {rack: r7}, receivers: [ops]}\n", i, x.host(i%hosts), x.port, i, x.interval)
	}
	begun := time.Now()
	x.mesh.apply(yaml.String())
	took := time.Since(begun)
	for end := x.patience(); x.count(meshv1.CheckStatus_UP) == x.checks && hosts > 1 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond) // the servers have not heard yet that all of them have changed
	}
	x.all(meshv1.CheckStatus_UP)
	x.t.Logf("%d checks applied in %s, all UP after %s", x.checks, took.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond))
}

// host is the address of one of the rack's hosts.
func (x *mass) host(i int) string {
	return x.link.here[:strings.LastIndexByte(x.link.here, '.')+1] + strconv.Itoa(64+i)
}

// open has all hosts answer.
func (x *mass) open() {
	x.t.Helper()
	l, err := net.Listen("tcp4", ":"+x.port)
	if err != nil {
		x.t.Fatal(err)
	}
	x.site = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "fine") })}
	go func(s *http.Server) { _ = s.Serve(l) }(x.site)
}

// patience is how long a turn of all checks may take: two rounds, and twice the usual limit for a machine that has other work.
func (x *mass) patience() time.Time { return time.Now().Add(2*x.interval + 2*limit) }

// all waits until all checks have a verdict.
func (x *mass) all(v meshv1.CheckStatus_Verdict) {
	x.t.Helper()
	for end := x.patience(); ; time.Sleep(200 * time.Millisecond) {
		n := x.count(v)
		if n == x.checks {
			return
		}
		if time.Now().After(end) {
			x.t.Fatalf("%d of %d checks are %s", n, x.checks, v)
		}
	}
}

func (x *mass) count(v meshv1.CheckStatus_Verdict) int {
	return int(x.sum(x.mesh.http, "probemesh_checks", fmt.Sprintf("verdict=%q", v)))
}

// sum adds up the series of a metric with a label.
func (x *mass) sum(address, name, label string) (sum float64) {
	x.t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		l := lines.Text()
		if !strings.HasPrefix(l, name+"{") || !strings.Contains(l, label) {
			continue
		}
		v, err := strconv.ParseFloat(l[strings.LastIndexByte(l, ' ')+1:], 64)
		if err != nil {
			x.t.Fatalf("%s: %v", l, err)
		}
		sum += v
	}
	return sum
}

// tally is what has been done so far.
type tally struct {
	at               time.Time
	probes           float64 // by all probers
	asked, refused   float64 // confirmations
	revision         int64   // of etcd: each transaction that writes makes one
	users, operators int     // webhooks, repeats included
	casts            float64 // votes
}

func (x *mass) now() tally {
	x.t.Helper()
	c := tally{at: time.Now(), users: len(x.users.all()), operators: len(x.operators.all()), asked: x.sum(x.mesh.http, "probemesh_confirmations_total", `outcome="asked"`),
		refused: x.sum(x.mesh.http, "probemesh_confirmations_total", `outcome="over_budget"`), casts: x.sum(x.mesh.http, "probemesh_votes_total", "")}
	for _, m := range x.metrics {
		c.probes += x.sum(m, "probemesh_prober_probes_total", "") - x.sum(m, "probemesh_prober_probes_total", `outcome="SLOW"`)
	}
	resp, err := x.mesh.control.ListServers(x.mesh.ctx(), &meshv1.ListServersRequest{})
	if err != nil {
		x.t.Fatal(err)
	}
	c.revision = resp.GetServers()[0].GetRevision()
	return c
}

// rate is how many probes are made a second, over some time.
func (x *mass) rate(over time.Duration) float64 {
	x.t.Helper()
	before := x.now()
	time.Sleep(over)
	after := x.now()
	return (after.probes - before.probes) / after.at.Sub(before.at).Seconds()
}

// figures prints what was done since, and holds it against the budgets: a tenth more probes than usual and what may be asked for; transactions at one for each forty checks that turn, and the few of
// the incident itself; probers are asked for 200 probes at once and 50 a second each at most (see scheduler.Config).
func (x *mass) figures(what string, before tally, usual float64) {
	x.t.Helper()
	after := x.now()
	took := after.at.Sub(before.at)
	rate, asked, writes := (after.probes-before.probes)/took.Seconds(), after.asked-before.asked, after.revision-before.revision
	x.t.Logf("%s, %s: probes %.0f a second (usual %.0f); %.0f of them asked for, %.0f refused by budgets; %d transactions of etcd; %d notifications to users, %d to operators", what,
		took.Round(time.Second), rate, usual, asked, after.refused-before.refused, writes, after.users-before.users, after.operators-before.operators)
	if most := float64(len(x.metrics)) * (200 + 50*took.Seconds()); asked > most {
		x.t.Errorf("%s: %.0f probes were asked for, the budget is %.0f", what, asked, most)
	}
	if most := 1.1*usual*took.Seconds() + asked + 100; after.probes-before.probes > most {
		x.t.Errorf("%s: %.0f probes in %s, at most %.0f were expected", what, after.probes-before.probes, took, most)
	}
	if most := int64(x.checks/20 + 20); writes > most {
		x.t.Errorf("%s: %d transactions of etcd, at most %d were expected", what, writes, most)
	}
}

// massBound is how long it may take until somebody is told of a cause that many checks share: they turn within a round, of which the first seconds are enough to see what they have in common, with the
// three seconds of a timeout, and three for which a datacenter has to see everything fail.
const massBound = 10 * time.Second

// targetsDie: nothing listens there any more.
func (x *mass) targetsDie(what string, usual float64) {
	x.t.Helper()
	told, before := len(x.users.distinct()), x.now()
	x.site.Close()
	d := x.users.await(x.t, told+1, meshv1.Notification_OPENED)
	took := d.at.Sub(before.at)
	if shared := d.note.GetShared(); d.note.GetKind() != meshv1.Incident_GROUP || shared.GetValue() == "" || !strings.Contains(d.note.GetSummary(), shared.GetValue()) {
		x.t.Errorf("%s: users were told of a %s that shares %v: %s", what, d.note.GetKind(), shared, d.note.GetSummary())
	}
	if took > massBound {
		x.t.Errorf("%s: told after %s, the bound is %s", what, took, massBound)
	}
	x.all(meshv1.CheckStatus_DOWN)
	down := time.Since(before.at)
	time.Sleep(x.interval / 2)
	x.figures(what+" is dead", before, usual)
	if list := x.users.distinct()[told:]; len(list) != 1 {
		x.t.Errorf("%s: users were told %d times: %.1000s", what, len(list), story(list))
	}
	told, before = len(x.users.distinct()), x.now()
	x.open()
	x.all(meshv1.CheckStatus_UP)
	up := time.Since(before.at)
	back := x.users.await(x.t, told+1, meshv1.Notification_RESOLVED)
	time.Sleep(5 * time.Second)
	x.figures(what+" is back", before, usual)
	if list := x.users.distinct()[told:]; len(list) != 1 || len(x.operators.distinct()) != 0 {
		x.t.Errorf("%s: users were told %d times of its end: %.1000s; operators %s", what, len(list), story(list), story(x.operators.distinct()))
	}
	x.t.Logf("%s: told after %s, all DOWN after %s; all UP after %s, told after %s: %s", what, took.Round(time.Millisecond), down.Round(time.Millisecond), up.Round(time.Millisecond),
		back.at.Sub(before.at).Round(time.Millisecond), d.note.GetSummary())
}

// datacenterIsCutOff: what the probers of nrt send to the rack is lost; their way to the server is as it was.
func (x *mass) datacenterIsCutOff(usual float64) {
	x.t.Helper()
	prefix := x.link.here[:strings.LastIndexByte(x.link.here, '.')+1]
	users, before := len(x.users.all()), x.now()
	x.link.run(x.t, "ip neigh replace "+prefix+"250 lladdr 02:00:00:00:00:01 dev eth0 nud permanent", "ip route add "+prefix+"64/26 via "+prefix+"250")
	d := x.operators.await(x.t, 1, meshv1.Notification_OPENED)
	took := d.at.Sub(before.at)
	if s := d.note.GetSummary(); d.note.GetKind() == meshv1.Incident_GROUP || !strings.Contains(s, "nrt") {
		x.t.Errorf("operators were told of a %s: %s", d.note.GetKind(), s)
	}
	if took > massBound {
		x.t.Errorf("told after %s, the bound is %s", took, massBound)
	}
	time.Sleep(x.interval)
	verdicts := map[string]int{}
	for v := range meshv1.CheckStatus_Verdict_name {
		if n := x.count(meshv1.CheckStatus_Verdict(v)); n > 0 {
			verdicts[meshv1.CheckStatus_Verdict(v).String()] = n
		}
	}
	if slices.Contains(slices.Collect(maps.Keys(verdicts)), meshv1.CheckStatus_DOWN.String()) {
		x.t.Errorf("some are DOWN: %v", verdicts)
	}
	x.all(meshv1.CheckStatus_UP)
	x.figures("a datacenter is cut off", before, usual)
	if n := len(x.users.all()); n != users || len(x.operators.distinct()) != 1 {
		x.t.Errorf("users were told %s, operators %s", story(x.users.distinct()[users:]), story(x.operators.distinct()))
	}
	for _, n := range []string{"ams-1", "ams-2", "fra-1", "fra-2"} {
		if p := x.mesh.prober(n); p.GetState() != meshv1.Prober_ONLINE {
			x.t.Errorf("%s is %s (%s)", n, p.GetState(), p.GetSetAside())
		}
	}
	x.t.Logf("told after %s, a round later the verdicts are %v: %s", took.Round(time.Millisecond), verdicts, d.note.GetSummary())
}
