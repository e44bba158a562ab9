package health_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/server/health"
)

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// well are the facts of server a in a mesh of three datacenters, each with a server, an etcd member and two probers, where nothing is wrong.
func well() health.Facts {
	f := health.Facts{Server: "servers/a", Leading: true, Leader: "servers/a", Term: 7, SeesProbers: true,
		Checks:    health.Checks{Total: 10},
		Receivers: []health.Receiver{{Name: "receivers/ops", Mesh: true}, {Name: "receivers/dev"}},
		Disk:      health.Disk{Known: true, Free: 10 << 30},
		DeadMan:   health.DeadMan{Configured: true, Interval: time.Minute, Told: begin}}
	for _, n := range []string{"a", "b", "c"} {
		f.Servers = append(f.Servers, health.Server{Name: "servers/" + n, Datacenter: "dc-" + n, Version: "1.0", Self: n == "a", Beat: true, Leader: "servers/a",
			Term: 7, Hears: 6, Sessions: 2, Revision: 100, RevisionSince: begin.Add(-time.Hour)})
		f.Etcd.Members = append(f.Etcd.Members, health.Member{Name: n, ID: "00" + n, Healthy: true, Leader: n == "b"})
		for _, k := range []string{"1", "2"} {
			f.Probers = append(f.Probers, &meshv1.Prober{Name: "probers/" + n + k, Datacenter: "dc-" + n, State: meshv1.Prober_ONLINE, InSync: true,
				StateTime: timestamppb.New(begin.Add(-time.Hour))})
		}
	}
	return f
}

// silence makes a server silent, with its etcd member.
func silence(f *health.Facts, name string) {
	for i := range f.Servers {
		if f.Servers[i].Name == "servers/"+name {
			f.Servers[i].Silence, f.Servers[i].Beat = 20*time.Second, false
			f.Etcd.Members[i].Healthy = false
		}
	}
}

// lose makes probers of a datacenter silent.
func lose(f *health.Facts, datacenter string, n int) {
	for _, p := range f.Probers {
		if p.GetDatacenter() == datacenter && n > 0 {
			p.State, n = meshv1.Prober_OFFLINE, n-1
		}
	}
}

// aside sets probers aside for datacenter=dc-a.
func aside(f *health.Facts, probers ...int) {
	for _, i := range probers {
		f.Probers[i].State, f.Probers[i].SetAside = meshv1.Prober_QUARANTINED, "datacenter=dc-a"
	}
}

// told writes conditions as lines: CODE severity subjects, those with a cause as `CAUSE > CODE`.
func told(list []*meshv1.Condition) []string {
	var out []string
	for _, c := range list {
		line := c.GetCode().String()
		if c.GetCausedBy() != 0 {
			line = c.GetCausedBy().String() + " > " + line
		}
		out = append(out, line)
	}
	return out
}

func TestNothingIsWrongWithAMeshThatIsWell(t *testing.T) {
	if found := health.Evaluate(begin, well()); len(found) != 0 {
		t.Errorf("found %v", told(found))
	}
}

func TestEachConditionAppearsWithItsConsequencesAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(*health.Facts)
		want string
		says string // part of the first summary
	}{
		{"one server is silent", func(f *health.Facts) { silence(f, "b") }, "SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN", "Server b has been silent for 20s"},
		{"a silent server refuses", func(f *health.Facts) { silence(f, "b"); f.Servers[1].Refused = true }, "SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN", "nothing listens"},
		{"a whole datacenter is silent", func(f *health.Facts) { silence(f, "b"); lose(f, "dc-b", 2) },
			"DATACENTER_SILENT > SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN, DATACENTER_SILENT, DATACENTER_SILENT > PROBER_SILENT", ""},
		{"two servers are silent and etcd with them, but one is heard", func(f *health.Facts) {
			silence(f, "b")
			silence(f, "c")
			f.Servers = append(f.Servers, health.Server{Name: "servers/d", Beat: true, Leader: "servers/a", Term: 7, Hears: 6, Revision: 100})
			f.Etcd.LostSince = begin.Add(-10 * time.Second)
		}, "SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN, ETCD_MEMBER_DOWN > ETCD_LOST", "The servers b and c are silent"},
		{"this server is cut off", func(f *health.Facts) {
			silence(f, "b")
			silence(f, "c")
			f.Etcd.LostSince, f.Leader, f.Leading = begin.Add(-10*time.Second), "", false
		}, "ISOLATED, ISOLATED > SERVER_SILENT, SERVER_SILENT > ETCD_MEMBER_DOWN, ETCD_MEMBER_DOWN > ETCD_LOST, ISOLATED > NO_LEADER", "cut off"},
		{"etcd does not answer", func(f *health.Facts) { f.Etcd.LostSince, f.Leader = begin.Add(-10*time.Second), "" }, "ETCD_LOST, ETCD_LOST > NO_LEADER", "for 10s"},
		{"etcd does not answer another server", func(f *health.Facts) { f.Servers[1].EtcdLostSince = begin.Add(-10 * time.Second) }, "ETCD_LOST", "but not b"},
		{"a member that joins has not been started", func(f *health.Facts) {
			f.Etcd.Members = append(f.Etcd.Members, health.Member{ID: "0d", Learner: true})
		}, "ETCD_MEMBER_DOWN", "to join does not answer (0d)"},
		{"a member that joins and one that votes are down", func(f *health.Facts) {
			f.Etcd.Members[2].Healthy = false
			f.Etcd.Members = append(f.Etcd.Members, health.Member{ID: "0d", Learner: true})
		}, "ETCD_MEMBER_DOWN", "1 member of etcd is down (c); 2 of 3 answer: with one more"},
		{"a member of etcd is down, its server not", func(f *health.Facts) { f.Etcd.Members[2].Healthy = false }, "ETCD_MEMBER_DOWN", "2 of 3 answer: with one more"},
		{"etcd has no space", func(f *health.Facts) { f.Etcd.Alarms = []string{"NOSPACE"} }, "ETCD_ALARM", "NOSPACE"},
		{"etcd is slow", func(f *health.Facts) { f.Etcd.Slow = 400 * time.Millisecond }, "ETCD_SLOW", "400ms"},
		{"etcd is slow because the disk hangs", func(f *health.Facts) { f.Etcd.Slow, f.Disk.Stall = time.Second, 4*time.Second }, "DISK_STALLED, DISK_STALLED > ETCD_SLOW", "waiting for 4s"},
		{"nobody leads", func(f *health.Facts) { f.Leader, f.Leading = "", false }, "NO_LEADER", "nobody is alerted"},
		{"servers differ about the leader", func(f *health.Facts) { f.Servers[2].Leader, f.Servers[2].Term = "servers/c", 6 }, "LEADER_DISPUTED", "a in term 7, c holds c"},
		{"the leader is blind", func(f *health.Facts) { f.Servers[0].Hears = 2 }, "LEADER_BLIND", "hears 2 probers; b hears 6"},
		{"the leader is stuck", func(f *health.Facts) { f.Servers[0].Uncommitted = 9 * time.Second }, "LEADER_STUCK", "for 9s"},
		{"two servers do not hear each other", func(f *health.Facts) { f.Servers[1].Misses = []string{"servers/c"} }, "PEERS_CUT", "b does not hear c"},
		{"a server's state stands still", func(f *health.Facts) { f.Servers[1].Revision = 90 }, "STATE_BEHIND", "10 revisions old"},
		{"builds differ", func(f *health.Facts) { f.Servers[1].Version = "1.1" }, "BUILDS_DIFFER", "1.0 and 1.1"},
		{"a prober's canaries are silent over IPv6", func(f *health.Facts) {
			f.Probers[0].Canaries = []*meshv1.CanaryState{{Family: "ipv4"}, {Family: "ipv6", Failing: true}}
		}, "PROBER_NETWORK_FAILING", "answers over IPv6"},
		{"a prober is set aside", func(f *health.Facts) { aside(f, 0) }, "PROBERS_SET_ASIDE", "1 prober is set aside for datacenter=dc-a: a1. Its votes do not count."},
		{"a datacenter is set aside and checks lack its votes", func(f *health.Facts) {
			aside(f, 0, 1)
			f.Checks.Blind, f.Checks.Aside = []string{"checks/shop"}, []string{"probers/a1", "probers/a2"}
		}, "PROBERS_SET_ASIDE, PROBERS_SET_ASIDE > CHECKS_BLIND", "1 check of 10 cannot be judged for want of votes, such as shop; of those that run them, a1 and a2 are set aside."},
		{"a prober is set aside and checks lack other votes", func(f *health.Facts) {
			aside(f, 0)
			f.Checks.Blind = []string{"checks/shop"}
		}, "PROBERS_SET_ASIDE, CHECKS_BLIND", ""},
		{"a silent prober that runs no such check is no cause", func(f *health.Facts) {
			lose(f, "dc-b", 1)
			aside(f, 0)
			f.Checks.Blind, f.Checks.Aside = []string{"checks/shop"}, []string{"probers/a1"}
		}, "PROBER_SILENT, PROBERS_SET_ASIDE, PROBERS_SET_ASIDE > CHECKS_BLIND", ""},
		{"a silent datacenter that runs no such check is no cause", func(f *health.Facts) {
			lose(f, "dc-b", 2)
			f.Checks.Blind = []string{"checks/shop"}
		}, "DATACENTER_SILENT, DATACENTER_SILENT > PROBER_SILENT, CHECKS_BLIND", ""},
		{"checks lack the votes of a silent prober", func(f *health.Facts) {
			lose(f, "dc-b", 1)
			f.Checks.Blind, f.Checks.Silent = []string{"checks/shop"}, []string{"probers/b1"}
		}, "PROBER_SILENT, PROBER_SILENT > CHECKS_BLIND", "such as shop; of those that run them, b1 is silent."},
		{"checks lack the votes of a silent datacenter", func(f *health.Facts) {
			lose(f, "dc-b", 2)
			f.Checks.Blind, f.Checks.Silent = []string{"checks/shop"}, []string{"probers/b1", "probers/b2"}
		}, "DATACENTER_SILENT, DATACENTER_SILENT > PROBER_SILENT, DATACENTER_SILENT > CHECKS_BLIND", ""},
		{"a prober that was deleted since is no cause and is not named", func(f *health.Facts) {
			f.Checks.Blind, f.Checks.Silent = []string{"checks/shop"}, []string{"probers/gone"}
		}, "CHECKS_BLIND", "such as shop."},
		{"probers may not probe a target", func(f *health.Facts) {
			f.Checks.Forbidden, f.Checks.ForbiddenBy = []string{"checks/meta"}, "a1: this prober may not connect to 169.254.169.254, which --deny-networks forbids"
		}, "CHECKS_FORBIDDEN", "1 check cannot be judged, because the settings of the probers forbid it: meta (a1: this prober may not connect to 169.254.169.254, which --deny-networks forbids)."},
		{"one prober is silent", func(f *health.Facts) { lose(f, "dc-b", 1) }, "PROBER_SILENT", "b1"},
		{"the probers of a datacenter are silent, its server not", func(f *health.Facts) { lose(f, "dc-b", 2) }, "DATACENTER_SILENT, DATACENTER_SILENT > PROBER_SILENT", "although its server b is"},
		{"one datacenter and one prober elsewhere", func(f *health.Facts) { lose(f, "dc-b", 2); lose(f, "dc-c", 1) },
			"DATACENTER_SILENT, DATACENTER_SILENT > PROBER_SILENT, PROBER_SILENT", ""},
		{"most datacenters are silent", func(f *health.Facts) {
			lose(f, "dc-b", 2)
			lose(f, "dc-c", 2)
			f.Checks.Blind = []string{"checks/shop"}
		}, "NO_DATACENTER_QUORUM, NO_DATACENTER_QUORUM > DATACENTER_SILENT, DATACENTER_SILENT > PROBER_SILENT, NO_DATACENTER_QUORUM > CHECKS_BLIND", "1 of 3 datacenters is heard"},
		{"no prober is heard", func(f *health.Facts) { lose(f, "dc-a", 2); lose(f, "dc-b", 2); lose(f, "dc-c", 2) }, "NO_PROBER", "of 6 that are enrolled"},
		{"every prober is drained", func(f *health.Facts) {
			for _, p := range f.Probers {
				p.State = meshv1.Prober_DRAINED
			}
		}, "NO_PROBER", "Every prober is drained: nothing is being watched. `probemesh undrain prober a1`"},
		{"drained probers are not missed", func(f *health.Facts) { f.Probers[0].State = meshv1.Prober_DRAINED }, "", ""},
		{"a prober is not in sync", func(f *health.Facts) { f.Probers[0].InSync = false }, "ASSIGNMENTS_BEHIND", "1 prober does not run what it should: a1"},
		{"a prober refuses", func(f *health.Facts) {
			f.Probers[0].Refusals = []*meshv1.AssignmentRefusal{{Check: "checks/ping", Reason: "no raw sockets"}}
		}, "ASSIGNMENTS_REFUSED", "such as ping: no raw sockets"},
		{"a prober dropped results", func(f *health.Facts) { f.Probers[0].Dropped = 12 }, "RESULTS_DROPPED", "12 results"},
		{"a prober's clock is off", func(f *health.Facts) { f.Probers[0].ClockOffset = durationpb.New(-3 * time.Second) }, "CLOCK_SKEW", "off by -3s"},
		{"a prober was copied", func(f *health.Facts) {
			f.Probers[2].BootId, f.Probers[2].Server = "first", "servers/b"
			f.TurnedAway = []health.TurnedAway{{Prober: "probers/b1", BootID: "copy", Datacenter: "dc-b", Build: "1.0", Address: "10.0.0.7", Twin: true, First: begin.Add(-time.Minute), Last: begin}}
		}, "PROBER_TURNED_AWAY", "says that it is b1 and is turned away: it has boot copy, datacenter dc-b and build 1.0, calls from 10.0.0.7, and the session is that of boot first, at server b"},
		{"a prober that is started anew waits for its own end", func(f *health.Facts) {
			f.TurnedAway = []health.TurnedAway{{Prober: "probers/b1", BootID: "new", Twin: true, First: begin.Add(-3 * time.Second), Last: begin}}
		}, "", ""},
		{"a prober was turned away here and let in elsewhere", func(f *health.Facts) {
			f.Probers[2].BootId = "new"
			f.TurnedAway = []health.TurnedAway{{Prober: "probers/b1", BootID: "new", Twin: true, First: begin.Add(-time.Minute), Last: begin}}
		}, "", ""},
		{"a prober speaks another protocol", func(f *health.Facts) {
			f.TurnedAway = []health.TurnedAway{{Prober: "probers/old-1", BootID: "x", Why: "it speaks protocol 0", First: begin.Add(-time.Minute), Last: begin}}
		}, "PROBER_TURNED_AWAY", "old-1 is turned away: it speaks protocol 0"},
		{"a prober's results have wrong times", func(f *health.Facts) { f.Probers[0].Mistimed = durationpb.New(-time.Hour) }, "RESULTS_MISTIMED", "those of a1 are off by -1h0m0s"},
		{"a server's clock is off", func(f *health.Facts) { f.Servers[1].ClockOffset = 2 * time.Second }, "CLOCK_SKEW", "servers/b is off by 2s"},
		{"checks are blind by themselves", func(f *health.Facts) { f.Checks.Blind = []string{"checks/shop"} }, "CHECKS_BLIND", "1 check of 10"},
		{"checks ask for too much", func(f *health.Facts) { f.Checks.Unsatisfiable = []string{"checks/shop", "checks/web"} }, "CHECKS_UNSATISFIABLE", "2 checks ask for votes"},
		{"the outbox is stuck", func(f *health.Facts) {
			f.Owed = []health.Owed{{Receiver: "receivers/ops", Count: 2, Oldest: begin.Add(-2 * time.Minute)}}
		}, "OUTBOX_STUCK", "to ops has been owed for 2m0s"},
		{"a receiver fails", func(f *health.Facts) {
			f.Owed = []health.Owed{{Receiver: "receivers/ops", Count: 2, Oldest: begin.Add(-20 * time.Second), Failed: true, Error: "503"}}
		}, "RECEIVER_FAILING", "503"},
		{"a receiver has failed for long", func(f *health.Facts) {
			f.Owed = []health.Owed{{Receiver: "receivers/ops", Count: 2, Oldest: begin.Add(-2 * time.Minute), Failed: true}}
		}, "RECEIVER_FAILING > OUTBOX_STUCK, RECEIVER_FAILING", ""},
		{"nobody is told of the mesh", func(f *health.Facts) { f.Receivers[0].Paused = true }, "NO_MESH_RECEIVER", ""},
		{"the history cannot be written", func(f *health.Facts) { f.HistoryFailed = true }, "HISTORY_UNAVAILABLE", "of a cannot"},
		{"a server's history is behind", func(f *health.Facts) { f.Servers[1].HistoryLag, f.Servers[1].HistoryStuck = 500, 2*time.Minute }, "HISTORY_BEHIND", "b lacks 500 results of a"},
		{"the disk is full", func(f *health.Facts) {
			f.Disk.Full, f.Etcd.LostSince, f.Leader = true, begin.Add(-time.Minute), ""
		}, "DISK_FULL, DISK_FULL > ETCD_LOST, ETCD_LOST > NO_LEADER", "is full"},
		{"the disk will be full", func(f *health.Facts) { f.Disk.Free = 100 << 20 }, "DISK_LOW", "100 MiB"},
		{"the disk hangs", func(f *health.Facts) { f.Servers[2].DiskStall = 3 * time.Second }, "DISK_STALLED", "of c has been waiting"},
		{"the dead man's switch fails", func(f *health.Facts) {
			f.DeadMan.FailingSince, f.DeadMan.Error = begin.Add(-2*time.Minute), "it answers 404"
		}, "DEAD_MAN_FAILING", "404"},
		{"what is not known is not said", func(f *health.Facts) { f.SeesProbers = false; lose(f, "dc-b", 2) }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := well()
			c.make(&f)
			found := health.Evaluate(begin, f)
			if got := strings.Join(told(found), ", "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			for _, x := range found {
				if x.GetRemedy() == "" || x.GetSeverity() == 0 || !strings.HasSuffix(x.GetSummary(), ".") && x.GetCode() < meshv1.Condition_ASSIGNMENTS_REFUSED {
					t.Errorf("not fit to be read: %v", x)
				}
			}
			if c.says != "" && !slices.ContainsFunc(found, func(x *meshv1.Condition) bool { return strings.Contains(x.GetSummary(), c.says) }) {
				t.Errorf("nothing says %q: %v", c.says, found)
			}
		})
	}
}

func TestEveryCodeHasARule(t *testing.T) {
	for n, name := range meshv1.Condition_Code_name {
		if n == 0 {
			continue
		}
		f := func() (err any) {
			defer func() { err = recover() }()
			var tracker health.Tracker
			tracker.Track(begin, []*meshv1.Condition{{Code: meshv1.Condition_Code(n)}})
			return nil
		}
		if err := f(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSubjectsAreBoundedAndCounted(t *testing.T) {
	f := well()
	for i := range 100 {
		f.Probers = append(f.Probers, &meshv1.Prober{Name: fmt.Sprintf("probers/x%03d", i), Datacenter: "dc-a", State: meshv1.Prober_OFFLINE})
	}
	found := health.Evaluate(begin, f)
	if len(found) != 1 || len(found[0].GetSubjects()) != 20 || found[0].GetSubjectCount() != 100 || len(found[0].GetSummary()) > 100 {
		t.Errorf("found %v", found)
	}
}
