package breakglass

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
	"github.com/probemesh/probemesh/scheduler"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// beatOf is a beat of a server whose clock is off by skew and that lost etcd so long before; negative: it reads etcd.
func beatOf(skew, lost time.Duration, term int64) *peerv1.Beat {
	b := &peerv1.Beat{Time: timestamppb.New(epoch.Add(skew)), Term: term}
	if lost >= 0 {
		b.EtcdLostTime = timestamppb.New(epoch.Add(skew - lost))
	}
	return b
}

func TestMeshHasLostEtcdOnlyWhenAllThatAreHeardHave(t *testing.T) {
	failed := epoch.Add(-10 * time.Second)
	for _, tt := range []struct {
		name   string
		failed time.Time
		peers  []Peer
		want   string
	}{
		{"reads etcd", time.Time{}, []Peer{{"servers/c", true, beatOf(0, 10*time.Second, 1)}}, "lost false cut off false rank 0 term 7"},
		{"alone", failed, nil, "lost true since 10s cut off false rank 0 term 7"},
		{"others have lost it later, one clock is off", failed, []Peer{{"servers/a", true, beatOf(time.Hour, 8*time.Second, 1)}, {"servers/c", true, beatOf(0, 9*time.Second, 1)}},
			"lost true since 8s cut off false rank 1 term 7"},
		{"another reads it", failed, []Peer{{"servers/a", true, beatOf(0, 8*time.Second, 1)}, {"servers/c", true, beatOf(0, -1, 9)}}, "lost false cut off true rank 1 term 9"},
		{"another that read it is not heard any more", failed, []Peer{{"servers/c", false, beatOf(0, -1, 9)}}, "lost true since 10s cut off false rank 0 term 9"},
	} {
		j := judge(epoch, tt.failed, "servers/b", 7, tt.peers)
		got := fmt.Sprintf("lost %v", j.lost)
		if j.lost {
			got += " since " + epoch.Sub(j.since).String()
		}
		got += fmt.Sprintf(" cut off %v rank %d term %d", j.cutOff, j.rank, j.term)
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func wish(n int) scheduler.BreakGlass {
	check := fmt.Sprintf("checks/c%d", n)
	return scheduler.BreakGlass{Outage: scheduler.Outage{Key: fmt.Sprintf("outage-%03d", n), Check: check}, Notification: &meshv1.Notification{
		Check: check, Transition: meshv1.Notification_OPENED, Summary: check + " is DOWN.", StartTime: timestamppb.New(epoch.Add(-time.Duration(n) * time.Second)),
	}}
}

func TestManyOutagesAtOnceAreOneMessage(t *testing.T) {
	w := &window{}
	for n := range 300 {
		w.add(epoch.Add(time.Duration(n)*time.Millisecond), wish(n))
	}
	if got := w.flush(epoch.Add(900 * time.Millisecond)); got != nil {
		t.Fatalf("%d batches before it is known how many there are", len(got))
	}
	first := w.flush(epoch.Add(time.Second))
	if len(first) != 1 || len(first[0]) != 300 {
		t.Fatalf("%d batches, want one of 300", len(first))
	}
	for n := range 5 {
		w.add(epoch.Add(3*time.Second), wish(300+n))
	}
	if got := w.flush(epoch.Add(4 * time.Second)); got != nil {
		t.Fatal("a second message within the window")
	}
	if late := w.flush(epoch.Add(10 * time.Second)); len(late) != 1 || len(late[0]) != 5 {
		t.Fatalf("late batches %v", late)
	}
	if n, key := message(&task{transition: meshv1.Notification_OPENED, items: first[0]}, epoch); n.GetAffectedCount() != 300 || len(n.GetAffectedChecks()) != 100 ||
		!strings.HasPrefix(key, "outages-") || n.GetBreakGlassKey() != key || !n.GetBreakGlass() || !strings.Contains(n.GetSummary(), "300 checks have failed") ||
		!strings.Contains(n.GetSummary(), "without etcd") || n.GetStartTime().AsTime() != epoch.Add(-299*time.Second) {
		t.Fatalf("message %v", n)
	}
}

func TestFewOutagesAreToldOneByOne(t *testing.T) {
	w := &window{}
	told := 0
	for n := range most {
		at := epoch.Add(time.Duration(n) * 400 * time.Millisecond)
		w.add(at, wish(n))
		told += len(w.flush(at.Add(100 * time.Millisecond)))
	}
	told += len(w.flush(epoch.Add(9 * time.Second)))
	if told != most {
		t.Fatalf("%d messages of %d outages", told, most)
	}
	if w.flush(epoch.Add(10 * time.Second)); !w.begun.IsZero() {
		t.Fatal("the window did not end")
	}
}

func TestKeyOfAMessageAboutManyDependsOnWhichTheyAre(t *testing.T) {
	a, b := []scheduler.BreakGlass{wish(1), wish(2)}, []scheduler.BreakGlass{wish(2), wish(1)}
	_, one := message(&task{items: a}, epoch)
	_, two := message(&task{items: b}, epoch.Add(time.Minute))
	_, three := message(&task{items: append(a, wish(3))}, epoch)
	if one != two || one == three {
		t.Fatalf("keys %s, %s, %s", one, two, three)
	}
}

func TestJournalOfAFormerLifeIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	o := protoOf(scheduler.Outage{Key: "outage-1", Check: "checks/shop", Verdict: meshv1.CheckStatus_DOWN, Start: epoch, Due: epoch.Add(time.Second)})
	o.Deliveries = []*peerv1.OutageDelivery{{Receiver: "receivers/ops", Transition: meshv1.Notification_OPENED, Time: timestamppb.New(epoch), Server: "servers/a"}}
	if err := writeJournal(dir, []*peerv1.Outage{o}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, journalFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(whole, "{damaged\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	got, broken, err := readJournal(dir)
	if err != nil || broken != 1 || len(got) != 1 || len(outageOf(got[0]).Told) != 1 || !outageOf(got[0]).Start.Equal(epoch) {
		t.Fatalf("read %v, %d broken, err %v", got, broken, err)
	}
	if err := writeJournal(dir, nil); err != nil {
		t.Fatal(err)
	}
	if got, _, err := readJournal(dir); err != nil || len(got) != 0 {
		t.Fatalf("after the outage was joined: %v, %v", got, err)
	}
}

func TestFileIsRefusedWithWhatWouldBeRight(t *testing.T) {
	for text, want := range map[string]string{
		"receivers: []\n": "write a list under `receivers:`",
		"receivers:\n  - name: ops\n    webhook: {url: ftp://x}\n":                                                                                 "does not begin with http",
		"checks:\n  - {name: shop, uri: 'tcp://x.example:1', interval: 30s}\nreceivers:\n  - name: ops\n    webhook: {url: 'https://x.example'}\n": "checks do not belong",
		"receivers:\n  - name: ops\n    webhok: {url: 'https://x.example'}\n":                                                                      "webhok",
	} {
		path := filepath.Join(t.TempDir(), "glass.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one that says %q", text, err, want)
		}
	}
}
