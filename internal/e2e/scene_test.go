//go:build linux

package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// scene is a mesh of nine probers in five datacenters, ten sites on ports of their own that are UP from five of them each, and who is told: owners of checks, and operators.
type scene struct {
	t                *testing.T
	mesh             *mesh
	procs            map[string]*process
	dirs             map[string]string
	users, operators *receiver
	sites            []*webTarget
	expect           string        // of the checks, besides an answer
	told             int           // how often users should have been told by now
	begun            time.Duration // from the newest outage until the incident is said to have begun
}

// newScene sets it up. expect is an expectation of every check, or empty. start, if not nil, starts the liar in place of a sound prober, once the build of the others is settled.
func newScene(t *testing.T, expect string, start func(m *mesh, dir string) *process) *scene {
	t.Helper()
	x := &scene{t: t, expect: expect, procs: map[string]*process{}, dirs: map[string]string{}}
	x.mesh = startMesh(t, "server", []string{"--name", "a", "--datacenter", "ams"})
	for _, d := range []string{"ams", "fra", "iad", "nrt", "syd"} {
		for i := 1; i <= 2; i++ {
			if d == "iad" && i == 2 {
				continue // the liar is alone there: its checks would be moved to its neighbour while it is started anew
			}
			name := fmt.Sprintf("%s-%d", d, i)
			x.dirs[name] = t.TempDir()
			if name == liar && start != nil {
				continue
			}
			x.procs[name] = launchProber(t, x.mesh.grpc, name, d, x.dirs[name])
		}
	}
	for name := range x.procs {
		x.mesh.awaitProber(name)
	}
	if start != nil {
		until(t, "the others' build is settled", func() (bool, string) {
			out, errs, _ := x.mesh.cli("", "get", "builds")
			return strings.Contains(out, "SETTLED"), out + errs
		})
		x.procs[liar] = start(x.mesh, x.dirs[liar])
		x.mesh.awaitProber(liar)
	}
	x.users, x.operators = startReceiver(t), startReceiver(t)
	for range 10 {
		x.sites = append(x.sites, startWebTarget(t, nil))
	}
	x.mesh.apply(fmt.Sprintf("receivers: [{name: ops, webhook: {url: %q}}, {name: mesh, mesh_incidents: true, webhook: {url: %q}}]\n", x.users.url, x.operators.url) + x.yaml())
	if start == nil {
		x.awaitUp(5)
	}
	return x
}

// yaml is the configuration of the checks.
func (x *scene) yaml() string {
	var yaml strings.Builder
	yaml.WriteString("checks:\n")
	for i, w := range x.sites {
		fmt.Fprintf(&yaml, "- {name: site-%d, uri: %q, interval: 2s, timeout: 1s, probers: 5, quorum: 3, receivers: [ops]%s}\n", i, w.url(), x.expect)
	}
	return yaml.String()
}

// awaitUp waits until all sites are UP by so many fresh votes.
func (x *scene) awaitUp(votes int) {
	x.t.Helper()
	for i := range x.sites {
		x.mesh.awaitVerdict(fmt.Sprint("site-", i), meshv1.CheckStatus_UP, votes)
	}
}

// outageBound is how long an outage of a check with an interval of 2 s and a timeout of 1 s may take to be announced, whoever lies meanwhile: a round of the slowest prober, with its timeout,
// and the two seconds for which a vote may be on its way. Among sound probers it is a fifth of a second.
const outageBound = 5 * time.Second

func inTime(t *testing.T, took time.Duration) {
	t.Helper()
	if took > outageBound {
		t.Errorf("an outage was announced after %s, its bound is %s", took, outageBound)
	}
}

// outage has a site go down and come back, and gives how long it took until users were told of the one and of the other.
func (x *scene) outage(site int) (opened, resolved time.Duration) {
	x.t.Helper()
	name := fmt.Sprint("checks/site-", site)
	began := time.Now()
	x.sites[site].stop()
	d := x.users.await(x.t, x.told+1, meshv1.Notification_OPENED)
	if opened = d.at.Sub(began); d.note.GetCheck() != name {
		x.t.Errorf("users were told of %s: %s", d.note.GetCheck(), d.note.GetSummary())
	}
	inTime(x.t, opened)
	x.begun = d.note.GetStartTime().AsTime().Sub(began)
	began = time.Now()
	x.sites[site].start()
	resolved = x.users.await(x.t, x.told+2, meshv1.Notification_RESOLVED).at.Sub(began)
	x.told += 2
	return opened, resolved
}

// condition waits until the mesh says, to whoever asks it, that something is wrong with it.
func (x *scene) condition(code meshv1.Condition_Code) *meshv1.Condition {
	x.t.Helper()
	var found *meshv1.Condition
	until(x.t, fmt.Sprintf("the mesh says %s", code), func() (bool, string) {
		found = x.mesh.conditions()[code]
		return found != nil, fmt.Sprint(x.mesh.conditions())
	})
	return found
}

// conditions are what is wrong with the mesh, by code.
func (m *mesh) conditions() map[meshv1.Condition_Code]*meshv1.Condition {
	m.t.Helper()
	resp, err := meshv1.NewMeshServiceClient(m.conn).GetMesh(m.ctx(), &meshv1.GetMeshRequest{})
	if err != nil {
		return nil
	}
	all := map[meshv1.Condition_Code]*meshv1.Condition{}
	for _, c := range resp.GetMesh().GetConditions() {
		all[c.GetCode()] = c
	}
	return all
}

// launchBroken starts a prober with a planted fault under the liar's name.
func launchBroken(t *testing.T, program, server, dir, build, fault string, options ...option) *process {
	t.Helper()
	options = append(options, func(c *exec.Cmd) { c.Path, c.Args[0] = program, program })
	return begin(t, "brokenprober "+liar, []string{liar, "iad", server, dir, build, fault}, options...)
}
