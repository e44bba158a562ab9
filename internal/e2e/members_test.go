//go:build linux

package e2e

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// One server grows to three as the documentation says: it is restarted with an address for the others, and two join with the command that `member add` prints. Then
// a machine dies and is replaced by another one of the same name, and one that was removed ends with a sentence.
func TestMeshGrowsFromOneServerToThreeAndReplacesADeadOne(t *testing.T) {
	t.Parallel()
	a := startMesh(t, "server", []string{"--name", "a", "--datacenter", "a"})
	a.apply(webCheck("shop", "http://127.0.0.1:9/", 30*time.Second, 1, 1, ""))
	_, errs, code := a.cli("", "member", "add", "b", "http://10.0.0.2:2380")
	if code == 0 || !strings.Contains(errs, "--etcd-listen-peer") {
		t.Fatalf("a member that could not reach the others was added (%d): %s", code, errs)
	}
	a.proc.interrupt()
	a.args = append(a.args, "--etcd-listen-peer", "http://"+quietAddress(t))
	a.start()
	b := a.join("b")
	c := a.join("c")
	a.awaitMembers("a votes", "b votes", "c votes")
	if _, err := c.checks.GetCheck(c.ctx(), &meshv1.GetCheckRequest{Name: "checks/shop"}); err != nil {
		t.Errorf("c does not know what a knew: %v", err)
	}
	x := &trio{t: t, servers: []*mesh{a, b, c}}
	x.settled()

	c.proc.kill()
	if _, errs, code := a.cli("", "member", "remove", "b"); code == 0 || !strings.Contains(errs, "majority") {
		t.Errorf("b was removed while c is dead (%d): %s", code, errs)
	}
	if out, errs, code := a.cli("", "member", "remove", "c"); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	c = a.join("c")
	a.awaitMembers("a votes", "b votes", "c votes")
	x.servers[2] = c
	x.settled()
	if out, errs, code := a.cli("", "member", "remove", "b", "--force"); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	if code := b.proc.code(); code == 0 || !b.proc.log.has("was removed from its cluster") {
		t.Errorf("the removed server ended with %d and says:\n%s", code, tail(b.proc.log.String(), 3))
	}
}

var printedFlags = regexp.MustCompile(`--etcd-initial-cluster (\S+)`)

// join lets a server of a new machine join, by the command that `member add` prints.
func (m *mesh) join(name string) *mesh {
	m.t.Helper()
	peer := "http://" + quietAddress(m.t)
	out, errs, code := m.cli("", "member", "add", name, peer)
	if code != 0 {
		m.t.Fatalf("member add %s: %s%s", name, out, errs)
	}
	cluster := printedFlags.FindStringSubmatch(out)
	if cluster == nil || !strings.Contains(out, "--etcd-listen-peer "+peer) {
		m.t.Fatalf("it does not say how to start it:\n%s", out)
	}
	s := newMesh(m.t, "server", []string{"--name", name, "--datacenter", name, "--etcd-cluster-state", "existing", "--etcd-listen-peer", peer, "--etcd-initial-cluster", cluster[1]}, m.t.TempDir())
	s.start()
	m.awaitMembers(name + " votes")
	return s
}

// awaitMembers waits until `get members` has lines that begin with these words.
func (m *mesh) awaitMembers(want ...string) {
	m.t.Helper()
	until(m.t, fmt.Sprint("members: ", want), func() (bool, string) {
		out, errs, _ := m.cli("", "get", "members")
		for _, w := range want {
			found := false
			for l := range strings.Lines(out) {
				found = found || strings.HasPrefix(strings.Join(strings.Fields(l), " "), w)
			}
			if !found {
				return false, out + errs
			}
		}
		return true, ""
	})
}

// Three servers share an etcd cluster of three that runs elsewhere: the leader's death is noticed as fast, and the death of an etcd member stops nothing.
func TestServersShareAnExternalCluster(t *testing.T) {
	t.Parallel()
	endpoints, stop := startEtcd(t, 3)
	x := &trio{t: t}
	for _, n := range []string{"a", "b", "c"} {
		x.servers = append(x.servers, newMesh(t, "server", []string{"--name", n, "--datacenter", n, "--lease-ttl", "5s", "--etcd", strings.Join(endpoints, ",")}, t.TempDir()))
	}
	for _, s := range x.servers {
		s.launch()
	}
	for _, s := range x.servers {
		s.ready()
	}
	s := x.settled()
	killed := time.Now()
	s.proc.kill()
	_, at := x.leader(killed)
	t.Logf("kill to next leader: %s", at.Sub(killed).Round(time.Millisecond))
	s.start()
	s = x.settled()
	if _, errs, code := s.cli("", "member", "add", "d", "http://10.0.0.4:2380"); code == 0 || !strings.Contains(errs, "etcdctl member") {
		t.Errorf("a member was added to a cluster that is not the servers' (%d): %s", code, errs)
	}
	stop(0)
	// Whoever leads by then can write.
	until(t, "a check can be applied while one of three etcd members is dead", func() (bool, string) {
		out, errs, code := s.cli(webCheck("shop", "http://127.0.0.1:9/", 30*time.Second, 1, 1, ""), "apply", "-f", "-")
		return code == 0, out + errs
	})
	x.settled()
}

// startEtcd runs a cluster of n members in this process. stop stops one of them.
func startEtcd(t *testing.T, n int) (endpoints []string, stop func(int)) {
	t.Helper()
	var configs []*embed.Config
	var cluster []string
	address := func() url.URL { return url.URL{Scheme: "http", Host: quietAddress(t)} }
	for i := range n {
		c := embed.NewConfig()
		c.Name, c.Dir = fmt.Sprintf("e%d", i), t.TempDir()
		peer, client := address(), address()
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
		configs, endpoints = append(configs, c), append(endpoints, client.String())
		cluster = append(cluster, c.Name+"="+peer.String())
	}
	members := make([]*embed.Etcd, n)
	for i, c := range configs {
		c.InitialCluster = strings.Join(cluster, ",")
		var err error
		if members[i], err = embed.StartEtcd(c); err != nil {
			t.Fatal(err)
		}
	}
	stop = func(i int) {
		if members[i] != nil {
			members[i].Close()
			members[i] = nil
		}
	}
	t.Cleanup(func() {
		for i := range members {
			stop(i)
		}
	})
	for _, m := range members {
		select {
		case <-m.Server.ReadyNotify():
		case <-time.After(limit):
			t.Fatal("the etcd cluster found no leader")
		}
	}
	return endpoints, stop
}

// Two datacenters with probers, and a third place with a server and an etcd member alone: the loss of either datacenter is survived, and what is watched from the
// other one is still decided and announced.
func TestTwoDatacentersAndAWitnessSurviveEither(t *testing.T) {
	t.Parallel()
	for _, lost := range []int{0, 1} {
		t.Run("without "+string(rune('a'+lost)), func(t *testing.T) {
			x := startTrio(t) // c is the witness: it has no prober
			hook, target := startReceiver(t), startWebTarget(t, nil)
			all := x.servers[0].grpc + "," + x.servers[1].grpc + "," + x.servers[2].grpc
			var probers []*process
			for _, dc := range []string{"a", "b"} {
				probers = append(probers, launchProber(t, all, dc+"-1", dc, t.TempDir()))
			}
			m := x.servers[2]
			m.awaitProber("a-1")
			m.awaitProber("b-1")
			m.apply(hook.yaml("ops") + webCheck("shop", target.url(), time.Second, 2, 1, "receivers: [receivers/ops]"))
			m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)
			x.servers[lost].proc.kill()
			probers[lost].kill()
			target.stop()
			d := hook.await(t, 1, opened)
			t.Logf("announced: %s", d.note.GetSummary())
		})
	}
}
