package peer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/probemesh/probemesh/internal/fault"
	peerv1 "github.com/probemesh/probemesh/proto/probemesh/peer/v1"
	statev1 "github.com/probemesh/probemesh/proto/probemesh/state/v1"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A lease that expires, or an etcd that forgets, makes nobody deaf; only who is silent as well is followed no more.
func TestAServerThatTheStoreForgotIsFollowedWhileItAnswers(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		a.attach("p")
		time.Sleep(time.Second)
		w.publish(a, false)
		time.Sleep(time.Minute)
		if v := b.view("a"); v.Missed(time.Now()) || v.Server == "" || len(b.hears("a")) != 1 {
			t.Fatalf("a is on no list, and answers: %+v", v)
		}
		a.kill()
		time.Sleep(SilentAfter + 2*time.Second)
		if v := b.view("a"); v.Server != "" || len(b.told().silent) == 0 {
			t.Errorf("a is on no list and silent, and still followed: %+v", v)
		}
		w.start("a", "a2")
		time.Sleep(time.Second)
		if v := b.view("a"); v.BootID != "a2" || v.Missed(time.Now()) {
			t.Errorf("a is back: %+v", v)
		}
	})
}

func TestServersFindEachOtherWithoutAStore(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(3 * time.Second)
		a.kill()
		b.kill()
		w.mu.Lock()
		w.records = nil
		w.mu.Unlock()
		blind := func(*Config, *Deps) {}
		a, b = w.start("a", "a2", blind), w.start("b", "b2", blind)
		w.publish(a, false)
		w.publish(b, false)
		a.attach("p")
		time.Sleep(3 * time.Second)
		if v := b.view("a"); v.Missed(time.Now()) || v.BootID != "a2" || len(b.hears("a")) != 1 {
			t.Errorf("b: %+v", v)
		}
		if v := a.view("b"); v.Missed(time.Now()) || v.BootID != "b2" {
			t.Errorf("a: %+v", v)
		}
	})
}

func TestAServerThatWasNeverHeardIsMissedFromWhenItWasTried(t *testing.T) {
	inWorld(t, func(w *world) {
		b := w.start("b", "b1")
		w.mu.Lock()
		w.records = append(w.records, &statev1.ServerRecord{Name: "servers/x", GrpcAddress: "x:7700", BootId: "x1"})
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		if v := b.view("x"); !v.Heard.IsZero() || v.Missed(time.Now()) || !v.Refused || v.BootID != "x1" {
			t.Errorf("at first: %+v", v)
		}
		time.Sleep(MissedAfter)
		if v := b.view("x"); !v.Missed(time.Now()) || !v.Refused {
			t.Errorf("then: %+v", v)
		}
		time.Sleep(SilentAfter)
		if len(b.told().silent) != 1 {
			t.Errorf("silent were %q", b.told().silent)
		}
	})
}

func TestOnlyServersOfTheMeshMayFollow(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start("a", "a1")
		w.start("b", "b1")
		time.Sleep(time.Second)
		for _, c := range []struct {
			why    string
			start  *peerv1.Start
			code   codes.Code
			reason meshv1.ErrorReason
			says   string
		}{
			{"a name of its own", &peerv1.Start{Server: "servers/a", BootId: "other", Protocol: 1}, codes.AlreadyExists, meshv1.ErrorReason_SERVER_NAME_TAKEN, "another process"},
			{"the name of one that follows", &peerv1.Start{Server: "servers/b", BootId: "b2", Protocol: 1}, codes.AlreadyExists, meshv1.ErrorReason_SERVER_NAME_TAKEN, "boot b1"},
			{"a stranger", &peerv1.Start{Server: "servers/x", BootId: "x", Protocol: 1}, codes.Unavailable, meshv1.ErrorReason_STORE_UNAVAILABLE, "do both use the same etcd"},
			{"another protocol", &peerv1.Start{Server: "servers/b", BootId: "b1", Protocol: 2}, codes.FailedPrecondition, meshv1.ErrorReason_PROTOCOL_UNSUPPORTED, "upgrade the older"},
			{"no name", &peerv1.Start{Server: "b", BootId: "b1", Protocol: 1}, codes.InvalidArgument, meshv1.ErrorReason_SESSION_BROKEN, "servers/"},
			{"no boot", &peerv1.Start{Server: "servers/b", Protocol: 1}, codes.InvalidArgument, meshv1.ErrorReason_SESSION_BROKEN, "boot id"},
			{"no start", nil, codes.InvalidArgument, meshv1.ErrorReason_SESSION_BROKEN, "must be Start"},
		} {
			conn, err := w.dial("test", "a:7700")
			if err != nil {
				t.Fatal(err)
			}
			stream, err := peerv1.NewPeerServiceClient(conn).Follow(w.ctx)
			if err != nil {
				t.Fatal(err)
			}
			m := &peerv1.FollowRequest{Message: &peerv1.FollowRequest_Start{Start: c.start}}
			if c.start == nil {
				m = &peerv1.FollowRequest{Message: &peerv1.FollowRequest_Acknowledgement{Acknowledgement: &peerv1.Acknowledgement{}}}
			}
			if err := stream.Send(m); err != nil {
				t.Fatal(err)
			}
			_, err = stream.Recv()
			if status.Code(err) != c.code || !fault.IsReason(err, c.reason) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s: %v", c.why, err)
			}
			conn.Close()
		}
		if len(a.peers.Views()) != 1 {
			t.Errorf("a follows %v", a.peers.Views())
		}
	})
}

func TestAnAddressThatIsAnotherServersIsNotTakenForThis(t *testing.T) {
	inWorld(t, func(w *world) {
		a := w.start("a", "a1")
		w.start("b", "b1")
		w.mu.Lock()
		w.records = append(w.records, &statev1.ServerRecord{Name: "servers/c", GrpcAddress: "b:7700", BootId: "c1"})
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		time.Sleep(5 * time.Second)
		if v := a.view("c"); !v.Heard.IsZero() || v.Refused {
			t.Errorf("c, at whose address b answers: %+v", v)
		}
		if v := a.view("b"); v.Missed(time.Now()) {
			t.Errorf("b: %+v", v)
		}
	})
}

// While a process stands still it hears nobody, and that is not the others' fault.
func TestAProcessThatStoodStillMissesNobody(t *testing.T) {
	inWorld(t, func(w *world) {
		b := w.start("b", "b1")
		w.start("a", "a1")
		time.Sleep(time.Second)
		b.peers.mu.Lock()
		b.peers.ticked = b.peers.ticked.Add(-time.Minute)
		b.peers.others["servers/a"].heard = time.Now().Add(-time.Minute)
		b.peers.mu.Unlock()
		if v := b.view("a"); v.Missed(time.Now()) {
			t.Errorf("a is missed for %s right after b woke up", v.Silence(time.Now()))
		}
		w.valve("a", "b").shut()
		time.Sleep(MissedAfter + time.Millisecond)
		if v := b.view("a"); !v.Missed(time.Now()) {
			t.Errorf("a is not missed although nothing was heard for %s", v.Silence(time.Now()))
		}
	})
}

// A clock that was far ahead when a server was seen last, or is now, must not forget it, nor remember it for ever.
func TestClockStepsForgetNobody(t *testing.T) {
	for _, c := range []struct {
		name string
		seen time.Duration // against now
		keep time.Duration
	}{{"ahead", 1000 * time.Hour, RememberFor}, {"behind", -1000 * time.Hour, time.Hour}} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				b := w.start("b", "b1")
				a := w.start("a", "a1")
				time.Sleep(3 * time.Second)
				b.kill()
				path := filepath.Join(w.dir, "b", "peers.json")
				var list []remembered
				data, _ := os.ReadFile(path)
				if err := json.Unmarshal(data, &list); err != nil || len(list) != 1 {
					t.Fatalf("%s has %s: %v", path, data, err)
				}
				list[0].Seen = time.Now().Add(c.seen)
				data, _ = json.Marshal(list)
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
				w.publish(a, false)
				a.kill()
				b = w.start("b", "b2")
				b.file(results("p", "c", 1, 100))
				time.Sleep(c.keep - time.Minute)
				if held := b.peers.journal.held.Load(); held != 100 {
					t.Errorf("the journal holds %d for a server that was seen within the day; want 100", held)
				}
				time.Sleep(2 * time.Minute)
				if held := b.peers.journal.held.Load(); held != 0 || len(b.peers.memories()) != 0 {
					t.Errorf("the journal holds %d for a server that has been away for a day", held)
				}
			})
		})
	}
}

func TestDamagedFilesCostRepetitionsOnly(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.start("a", "a1"), w.start("b", "b1")
		time.Sleep(time.Second)
		a.file(results("p", "c", 1, 500))
		b.full("p", 1, 500)
		b.kill()
		a.file(results("p", "c", 501, 1000))
		time.Sleep(3 * time.Second)
		a.kill()
		for _, f := range []string{"a/peers.json", "a/journal.json", "b/peers.json", "b/journal.json"} {
			if err := os.WriteFile(filepath.Join(w.dir, f), []byte("{\"id\":"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a, b = w.start("a", "a2"), w.start("b", "b2")
		a.file(results("p", "c", 1001, 1100))
		b.full("p", 1, 1100)
	})
}
