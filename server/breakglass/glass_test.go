package breakglass_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "glass.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOutageWithoutEtcdIsToldOnceAndBecomesOneIncident(t *testing.T) {
	inWorld(t, func(w *world) {
		w.etcd.SetLeaderless(true)
		time.Sleep(8 * time.Second)
		w.setDown(true, "shop")
		begun := time.Now()
		w.probe(20 * time.Second)
		key := w.wantTold(pagerURL, "marked OPENED")[0]
		if w.told[0].server != "a" || !strings.HasPrefix(key, "outage-") || !strings.HasSuffix(key, ".OPENED.pager") {
			t.Fatalf("told by %s under %s", w.told[0].server, key)
		}
		for _, n := range w.nodes() {
			w.want(n.name, "shop", meshv1.CheckStatus_DOWN)
			if s, _ := n.c.Status("checks/shop"); !s.GetUndecided() || n.c.Undecided() != 1 {
				t.Fatalf("%s does not show that it is undecided: %v", n.name, s)
			}
		}
		w.etcd.SetLeaderless(false)
		w.probe(40 * time.Second)
		w.wantTold(pagerURL, "marked OPENED")
		w.wantTold("https://chat.example.com", "OPENED")
		all := w.incidents()
		if len(all) != 1 {
			t.Fatalf("%d incidents", len(all))
		}
		i := all[0]
		if !strings.HasPrefix(key, i.GetBreakGlassKey()+".") || i.GetStartTime().AsTime().Sub(begun) > time.Second {
			t.Fatalf("incident %v", i)
		}
		if text := timeline(i); !strings.Contains(text, "receivers/pager was told of OPENED by servers/a") || !strings.Contains(text, "receivers/ops is not told of OPENED again") {
			t.Fatalf("timeline\n%s", text)
		}
		w.setDown(false, "shop")
		w.probe(2 * time.Minute)
		w.wantTold(pagerURL, "marked OPENED", "RESOLVED")
		w.wantTold("https://chat.example.com", "OPENED", "RESOLVED")
	})
}

func TestOutageThatEndsWithoutEtcdIsToldToItsEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		w.etcd.SetLeaderless(true)
		time.Sleep(8 * time.Second)
		w.setDown(true, "shop")
		w.probe(20 * time.Second)
		w.setDown(false, "shop")
		w.probe(time.Minute)
		keys := w.wantTold(pagerURL, "marked OPENED", "marked RESOLVED")
		if strings.TrimSuffix(keys[0], ".OPENED.pager") != strings.TrimSuffix(keys[1], ".RESOLVED.pager") {
			t.Fatalf("keys %q", keys)
		}
		w.etcd.SetLeaderless(false)
		w.probe(time.Minute)
		w.wantTold(pagerURL, "marked OPENED", "marked RESOLVED")
		w.wantTold("https://chat.example.com", "OPENED", "RESOLVED")
		all := w.incidents()
		if len(all) != 1 || all[0].GetState() != meshv1.Incident_RESOLVED || !strings.Contains(all[0].GetSummary(), "while etcd had no quorum") {
			t.Fatalf("incidents %v", all)
		}
	})
}

func TestServerThatAloneIsCutOffFromEtcdKeepsQuiet(t *testing.T) {
	inWorld(t, func(w *world) {
		w.servers["b"].link.Cut()
		time.Sleep(8 * time.Second)
		w.setDown(true, "shop")
		w.probe(30 * time.Second)
		w.wantTold(pagerURL, "OPENED")
		if s, _ := w.servers["b"].c.Status("checks/shop"); s.GetUndecided() {
			t.Fatalf("the server that is cut off calls undecided what another decides: %v", s)
		}
	})
}

func TestServersThatHearNobodySendTheSameKey(t *testing.T) {
	inWorld(t, func(w *world) {
		w.etcd.SetLeaderless(true)
		time.Sleep(8 * time.Second)
		w.setDown(true, "shop")
		w.mu.Lock()
		for _, pair := range []string{"a<b", "b<a", "a<c", "c<a"} {
			w.deaf[pair] = true
		}
		w.mu.Unlock()
		// What a still knows of the others' votes goes stale, so it must hear all three: its own, and those of two probers that moved.
		w.attach("pb", "a")
		w.attach("pc", "a")
		for range 2 {
			for _, p := range []string{"pa", "pb", "pc"} {
				w.servers["a"].cast(p, "checks/shop", "")
			}
			w.probe(10 * time.Second)
		}
		keys := map[string]int{}
		for _, g := range w.told {
			keys[g.key]++
		}
		if len(keys) != 1 || len(w.told) != 2 {
			t.Fatalf("%d messages, by key %v; want two with one key", len(w.told), keys)
		}
	})
}

func TestNextServerSendsWhenTheFirstCannot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.etcd.SetLeaderless(true)
		time.Sleep(8 * time.Second)
		w.servers["a"].end()
		w.setDown(true, "shop")
		begun := time.Now()
		w.probe(10 * time.Second)
		w.wantTold(pagerURL, "marked OPENED")
		if w.told[0].server != "b" {
			t.Fatalf("told by %s %s after the outage began, want b", w.told[0].server, time.Since(begun))
		}
	})
}

func TestMessageIsTriedUntilItsReceiverAnswers(t *testing.T) {
	inWorld(t, func(w *world) {
		w.etcd.SetLeaderless(true)
		time.Sleep(8 * time.Second)
		w.mu.Lock()
		w.broken = true
		w.mu.Unlock()
		w.setDown(true, "shop")
		w.probe(time.Minute)
		w.wantTold(pagerURL)
		w.mu.Lock()
		w.broken = false
		w.mu.Unlock()
		w.probe(time.Minute)
		list, keys := w.at(pagerURL)
		for _, k := range keys {
			if k != keys[0] {
				t.Fatalf("told %q under %q", list, keys)
			}
		}
		if len(list) == 0 {
			t.Fatal("never told")
		}
	})
}

// A server that told somebody dies, and comes back when etcd does: nobody else knows what it did but by what it wrote down.
func TestServerStartedAnewRemembersWhomItTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.etcd.SetLeaderless(true)
		time.Sleep(8 * time.Second)
		w.mu.Lock()
		for _, pair := range []string{"b<a", "c<a"} {
			w.deaf[pair] = true
		}
		w.mu.Unlock()
		w.servers["b"].end()
		w.servers["c"].end()
		w.attach("pb", "a")
		w.setDown(true, "shop")
		for range 2 {
			w.servers["a"].cast("pb", "checks/shop", "")
			w.probe(10 * time.Second)
		}
		w.wantTold(pagerURL, "marked OPENED")
		dir := w.servers["a"].dir
		w.servers["a"].end()
		clear(w.deaf)
		w.etcd.SetLeaderless(false)
		w.start("b", t.TempDir())
		w.start("a", dir)
		w.start("c", t.TempDir())
		time.Sleep(time.Second)
		for _, s := range []string{"a", "b", "c"} {
			w.attach("p"+s, s)
		}
		w.probe(time.Minute)
		w.wantTold(pagerURL, "marked OPENED")
		if all := w.incidents(); len(all) != 1 || all[0].GetBreakGlassKey() == "" {
			t.Fatalf("incidents %v", all)
		}
	})
}

func TestHundredOutagesAtOnceAreOneMessage(t *testing.T) {
	inWorld(t, func(w *world) {
		var names []string
		for i := range 100 {
			names = append(names, fmt.Sprintf("c%02d", i))
		}
		w.makeChecks(names...)
		w.etcd.SetLeaderless(true)
		w.setDown(true, names...)
		w.probe(40 * time.Second)
		list, _ := w.at(pagerURL)
		if len(list) == 0 || len(list) > 3 {
			t.Fatalf("%d messages: %v", len(list), list)
		}
		if n := w.affected(pagerURL); n != 100 {
			t.Fatalf("messages about %d checks, want 100", n)
		}
		w.etcd.SetLeaderless(false)
		w.probe(time.Minute)
		if all := w.incidents(); len(all) != 100 {
			t.Fatalf("%d incidents, want 100", len(all))
		}
		if again, _ := w.at(pagerURL); len(again) != len(list) {
			t.Fatalf("told again: %v", again[len(list):])
		}
	})
}
