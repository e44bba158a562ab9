package prober

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/assignment"
	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/prober/linktest"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// target is what probes meet: outcomes and durations by check.
type target struct {
	mu      sync.Mutex
	outcome map[string]meshv1.Result_Outcome
	takes   map[string]time.Duration
	probes  int
}

func (g *target) set(check string, outcome meshv1.Result_Outcome, takes time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.outcome[check], g.takes[check] = outcome, takes
}

type fakeRunner struct {
	target *target
	check  *meshv1.Check
}

func (r *fakeRunner) Probe(ctx context.Context, _ probe.Options) *meshv1.Result {
	start := time.Now()
	r.target.mu.Lock()
	outcome, takes := r.target.outcome[r.check.GetName()], r.target.takes[r.check.GetName()]
	r.target.probes++
	r.target.mu.Unlock()
	if outcome == 0 {
		outcome = meshv1.Result_OK
	}
	if takes == 0 {
		takes = 10 * time.Millisecond
	}
	select {
	case <-time.After(min(takes, r.check.GetTimeout().AsDuration())):
	case <-ctx.Done():
		outcome = meshv1.Result_ERROR
	}
	return &meshv1.Result{Check: r.check.GetName(), StartTime: timestamppb.New(start), Duration: durationpb.New(time.Since(start)), Outcome: outcome}
}

func (r *fakeRunner) Close() {}

// world is a prober with its network, in a bubble.
type world struct {
	t       *testing.T
	net     *linktest.Network
	target  *target
	data    string
	deps    Deps // Meter and Tracer
	prober  *Prober
	stopped chan error
	cancel  context.CancelFunc
}

func inWorld(t *testing.T, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, net: linktest.NewNetwork(), data: t.TempDir(),
			target: &target{outcome: map[string]meshv1.Result_Outcome{}, takes: map[string]time.Duration{}}}
		f(w)
		if w.cancel != nil {
			w.stop()
		}
	})
}

func (w *world) start(servers ...string) {
	w.t.Helper()
	w.startWith(func(c *meshv1.Check) (probe.Runner, error) {
		if strings.HasPrefix(c.GetUri(), "icmp:") {
			return nil, &probe.Refusal{Capability: "icmp", Reason: "raw ICMP needs CAP_NET_RAW"}
		}
		return &fakeRunner{target: w.target, check: c}, nil
	}, servers...)
}

func (w *world) startWith(compile func(*meshv1.Check) (probe.Runner, error), servers ...string) {
	w.t.Helper()
	p, err := New(Config{Name: "fra-1", Datacenter: "fra", Servers: servers, Data: w.data, Build: "test"}, Deps{
		Compile:     compile,
		DialOptions: []grpc.DialOption{w.net.DialOption()}, Meter: w.deps.Meter, Tracer: w.deps.Tracer, DialCanary: w.deps.DialCanary, Machine: w.deps.Machine,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.prober, w.cancel, w.stopped = p, cancel, make(chan error, 1)
	go func() { w.stopped <- p.Run(ctx) }()
}

func (w *world) stop() {
	w.t.Helper()
	begun := time.Now()
	w.cancel()
	if err := <-w.stopped; err != nil {
		w.t.Errorf("the prober ended with %v", err)
	}
	if d := time.Since(begun); d > 5*time.Second {
		w.t.Errorf("stopping took %v", d)
	}
	w.cancel = nil
}

func (w *world) server(address string) *linktest.Server {
	s := &linktest.Server{Address: address}
	s.Start(w.net)
	return s
}

func assigned(n int, interval time.Duration) []*meshv1.Assignment {
	var out []*meshv1.Assignment
	for i := range n {
		name := fmt.Sprint("checks/c", i)
		a := &meshv1.Assignment{Check: &meshv1.Check{Name: name, Uri: "tcp://a:1", Interval: durationpb.New(interval), Timeout: durationpb.New(interval / 2), Revision: 7},
			Phase: durationpb.New(assignment.Phase(name, 0, 1, interval))}
		a.Fingerprint = assignment.Fingerprint(a)
		out = append(out, a)
	}
	return out
}

func TestAnHourOfProbingReachesTheHistoryOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(20, time.Minute)...)
		w.start("a:1")
		time.Sleep(time.Hour)
		if st := w.prober.Status(); st.Assignments != 20 || st.Server != "servers/a:1" || st.Spooled > 20 {
			t.Errorf("status %+v", st)
		}
		w.stop()
		seen := s.Seen()
		live := len(seen.Results(meshv1.ResultBatch_LIVE))
		if h := len(seen.History()); h != live || h < 1180 || h > 1200 || h != w.target.probes {
			t.Errorf("%d in the history, %d live, %d probes; want about 1200, all equal", h, live, w.target.probes)
		}
		if seen.Goodbyes != 1 || len(seen.Hellos) != 1 || seen.Largest > 32<<10 {
			t.Errorf("%d goodbyes, %d sessions, largest message %d", seen.Goodbyes, len(seen.Hellos), seen.Largest)
		}
	})
}

func TestHoursWithoutAServerAreHandedOverOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		s.Want(false, assigned(100, time.Minute)...)
		w.start("a:1")
		time.Sleep(10 * time.Minute)
		s.Stop()
		time.Sleep(2 * time.Hour)
		w.stop() // and the prober is restarted in the middle of it
		w.start("a:1")
		time.Sleep(time.Hour)
		s.Start(w.net)
		time.Sleep(2 * time.Minute)
		w.stop()
		s.Stop()
		seen := s.Seen()
		if h := len(seen.History()); h != w.target.probes {
			t.Errorf("%d in the history, %d probes", h, w.target.probes)
		}
		if late := len(seen.Results(meshv1.ResultBatch_BACKLOG)); late < 17_000 {
			t.Errorf("%d came as BACKLOG; want about 18000", late)
		}
		if n := len(seen.Results(meshv1.ResultBatch_STATE)); n < 100 {
			t.Errorf("%d STATE results; want one an assignment", n)
		}
	})
}

func TestTheShrinkGuardAndTheDigestHeal(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(40, time.Minute)...)
		w.start("a:1")
		time.Sleep(5 * time.Second)
		s.Want(false)
		s.Sync()
		time.Sleep(5 * time.Second)
		acks := s.Seen().Acks
		if last := acks[len(acks)-1]; !last.GetShrinkRefused() || last.GetShrinkCount() != 40 || last.GetHeld() != 40 {
			t.Fatalf("ack %v; want the shrink refused", last)
		}
		s.Want(true, assigned(3, time.Minute)...)
		time.Sleep(35 * time.Second) // the digest of the 30-second ping
		if st := w.prober.Status(); st.Assignments != 3 {
			t.Fatalf("%d assignments; want 3 after the digest went round", st.Assignments)
		}
	})
}

func TestARefusedItemIsHeldAndNotRun(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		defer s.Stop()
		all := assigned(5, time.Minute)
		all[4].Check.Uri = "icmp://a"
		all[4].Fingerprint = assignment.Fingerprint(all[4])
		s.Want(false, all...)
		w.start("a:1")
		time.Sleep(5 * time.Minute)
		ack := s.Seen().Acks[0]
		if len(ack.GetRefusals()) != 1 || ack.GetRefusals()[0].GetCapability() != "icmp" || ack.GetHeld() != 5 {
			t.Errorf("ack %v; want one refusal and five held", ack)
		}
		if st := w.prober.Status(); st.Assignments != 4 || st.Refused != 1 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestAFrozenServerIsLeftAfterThreeSeconds(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.server("a:1"), w.server("b:1")
		defer a.Stop()
		defer b.Stop()
		w.start("a:1", "b:1")
		time.Sleep(20*time.Second + 100*time.Millisecond)
		a.Freeze(true)
		time.Sleep(3 * time.Second)
		if a.Attached() {
			t.Error("still attached after three silent seconds")
		}
		time.Sleep(1100 * time.Millisecond)
		if !b.Attached() {
			t.Error("not attached to the other server a second later")
		}
	})
}

// A standby knows no better than to send probers to a leader that has just died, until another is elected. That must not drive their backoff up.
func TestAProberIsBackSoonAfterServersSentItToADeadLeader(t *testing.T) {
	inWorld(t, func(w *world) {
		standby := w.server("b:1")
		defer standby.Stop()
		w.start("b:1")
		toTheDead := &meshv1.ServerMessage{Message: &meshv1.ServerMessage_Redirect{Redirect: &meshv1.Redirect{Addresses: []string{"a:1"}}}}
		redirects := 0
		for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
			if standby.Attached() && standby.Say(toTheDead) {
				redirects++
			}
		}
		if redirects < 5 {
			t.Errorf("asked again %d times in 30s, want at least every few seconds", redirects)
		}
		time.Sleep(5 * time.Second) // the standby was elected and sends nobody away
		if !standby.Attached() {
			t.Error("not attached 5s after the election")
		}
	})
}

func TestRedirectMovesTheProberWithoutGoodbye(t *testing.T) {
	inWorld(t, func(w *world) {
		a, b := w.server("a:1"), w.server("b:1")
		defer a.Stop()
		defer b.Stop()
		for _, s := range []*linktest.Server{a, b} {
			s.Want(false, assigned(10, time.Second)...)
		}
		w.start("a:1")
		time.Sleep(20 * time.Second)
		a.Say(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_Redirect{Redirect: &meshv1.Redirect{Addresses: []string{"b:1"}, Delay: durationpb.New(5 * time.Second)}}})
		time.Sleep(4 * time.Second)
		if !a.Attached() {
			t.Error("moved before the delay")
		}
		time.Sleep(2 * time.Second)
		if a.Attached() || !b.Attached() || a.Seen().Goodbyes != 0 {
			t.Errorf("a %v, b %v, goodbyes %d", a.Attached(), b.Attached(), a.Seen().Goodbyes)
		}
		time.Sleep(10 * time.Second)
		w.stop()
		history := a.Seen().History()
		for k, r := range b.Seen().History() {
			history[k] = r
		}
		if len(history) != w.target.probes {
			t.Errorf("%d in the histories, %d probes", len(history), w.target.probes)
		}
	})
}

func TestATakenNameBacksOffAndEndsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		var mu sync.Mutex
		attempts, taken := 0, true
		s := &linktest.Server{Address: "a:1", Greet: func(*meshv1.Hello) error {
			mu.Lock()
			defer mu.Unlock()
			if attempts++; taken {
				return fault.New(codes.AlreadyExists, meshv1.ErrorReason_PROBER_NAME_TAKEN, "probers/fra-1", "another process has a session as probers/fra-1")
			}
			return nil
		}}
		s.Start(w.net)
		defer s.Stop()
		w.start("a:1")
		time.Sleep(10 * time.Minute)
		mu.Lock()
		if attempts < 60 || attempts > 240 {
			t.Errorf("%d attempts in ten minutes; want one in 5 s on average", attempts)
		}
		taken = false
		mu.Unlock()
		time.Sleep(31 * time.Second)
		if !s.Attached() {
			t.Error("not attached after the name was free")
		}
	})
}

func TestAClockAnHourOffIsCorrected(t *testing.T) {
	inWorld(t, func(w *world) {
		s := &linktest.Server{Address: "a:1", ClockOffset: -time.Hour}
		s.Want(false, assigned(10, time.Minute)...)
		s.Start(w.net)
		defer s.Stop()
		w.start("a:1")
		time.Sleep(10 * time.Minute)
		if st := w.prober.Status(); st.ClockOffset != time.Hour {
			t.Errorf("offset %v; want 1h", st.ClockOffset)
		}
		for _, r := range s.Seen().History() {
			if late := s.Now().Sub(r.GetStartTime().AsTime()); late < 0 || late > 11*time.Minute {
				t.Fatalf("a result began %v ago on the mesh's clock", late)
			}
		}
	})
}

func TestGarbageFromTheServerEndsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(5, time.Second)...)
		w.start("a:1")
		far := &timestamppb.Timestamp{Seconds: 1 << 60, Nanos: -5}
		for _, m := range []*meshv1.ServerMessage{
			{},
			{Message: &meshv1.ServerMessage_Welcome{}},
			{Message: &meshv1.ServerMessage_Pong{Pong: &meshv1.Pong{Id: 3, ReceiveTime: far, TransmitTime: far}}},
			{Message: &meshv1.ServerMessage_ResultAck{ResultAck: &meshv1.ResultAck{Sequence: 1 << 63}}},
			{Message: &meshv1.ServerMessage_Resend{Resend: &meshv1.Resend{FromSequence: 1 << 63}}},
			{Message: &meshv1.ServerMessage_RunNow{RunNow: &meshv1.RunNow{}}},
			{Message: &meshv1.ServerMessage_RunNow{RunNow: &meshv1.RunNow{RunId: "x", Assignment: &meshv1.Assignment{Check: &meshv1.Check{Name: "checks/x"}}}}},
			{Message: &meshv1.ServerMessage_AssignmentUpdate{AssignmentUpdate: &meshv1.AssignmentUpdate{Upserts: []*meshv1.Assignment{{}, {Check: &meshv1.Check{Name: "checks/y"}}}, Last: true}}},
			{Message: &meshv1.ServerMessage_Redirect{Redirect: &meshv1.Redirect{Addresses: []string{"", "nowhere"}, Delay: &durationpb.Duration{Seconds: -1 << 60}}}},
		} {
			for !s.Say(m) {
				time.Sleep(time.Second)
			}
			time.Sleep(40 * time.Second)
		}
		time.Sleep(time.Minute)
		if st := w.prober.Status(); st.Server == "" || st.Assignments != 5 {
			t.Errorf("status %+v; want a session and five assignments", st)
		}
	})
}

func TestRunsAreDoneOnceRefusedOrLate(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(2, time.Hour)...)
		w.start("a:1")
		time.Sleep(5 * time.Second)
		run := func(m *meshv1.RunNow) { s.Say(&meshv1.ServerMessage{Message: &meshv1.ServerMessage_RunNow{RunNow: m}}) }
		foreign := assigned(3, time.Minute)[2]
		run(&meshv1.RunNow{RunId: "held", Check: "checks/c1", Deadline: timestamppb.New(time.Now().Add(time.Second))})
		run(&meshv1.RunNow{RunId: "held", Check: "checks/c1"})
		run(&meshv1.RunNow{RunId: "foreign", Assignment: foreign})
		run(&meshv1.RunNow{RunId: "unknown", Check: "checks/none"})
		run(&meshv1.RunNow{RunId: "late", Check: "checks/c1", Deadline: timestamppb.New(time.Now().Add(-time.Second))})
		time.Sleep(100 * time.Millisecond)
		byRun := map[string]int{}
		for _, r := range s.Seen().Results(meshv1.ResultBatch_LIVE) {
			byRun[r.GetRunId()]++
		}
		if byRun["held"] != 1 || byRun["foreign"] != 1 {
			t.Errorf("results by run: %v", byRun)
		}
		refused := map[string]bool{}
		for _, r := range s.Seen().Refusals {
			refused[r.GetRunId()] = r.GetReason() != ""
		}
		if len(refused) != 2 || !refused["unknown"] || !refused["late"] {
			t.Errorf("refusals: %v", refused)
		}
	})
}

func TestASlowProbeSaysSoOnceBeforeItsResult(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(1, time.Minute)...)
		w.start("a:1")
		time.Sleep(10 * time.Minute)
		w.target.set("checks/c0", meshv1.Result_FAIL, time.Hour)
		time.Sleep(5 * time.Minute)
		slow := 0
		for _, r := range s.Seen().Results(meshv1.ResultBatch_LIVE) {
			if r.GetOutcome() == meshv1.Result_SLOW {
				slow++
				if r.GetSequence() != 0 || r.GetDuration().AsDuration() != 3*time.Second {
					t.Errorf("SLOW result %v; want number 0 after a tenth of the timeout of 30s", r)
				}
			}
		}
		if slow != 1 {
			t.Errorf("%d SLOW results; want 1, for the first hanging probe", slow)
		}
	})
}

func TestASteadilySlowTargetIsLateOnlyWhenItTakesLongerThanUsual(t *testing.T) {
	inWorld(t, func(w *world) {
		s := w.server("a:1")
		defer s.Stop()
		s.Want(false, assigned(1, time.Minute)...)
		w.target.set("checks/c0", meshv1.Result_OK, 12*time.Second)
		w.start("a:1")
		lates := func() (after []time.Duration) {
			for _, r := range s.Seen().Results(meshv1.ResultBatch_LIVE) {
				if r.GetOutcome() == meshv1.Result_SLOW {
					after = append(after, r.GetDuration().AsDuration())
				}
			}
			return after
		}
		time.Sleep(2 * time.Hour)
		learning := len(lates())
		if learning != usualWeight {
			t.Errorf("%d SLOW results in two hours at a steady 12s of 30s; want %d, until that is known to be usual", learning, usualWeight)
		}
		w.target.set("checks/c0", meshv1.Result_FAIL, time.Hour)
		time.Sleep(5 * time.Minute)
		if late := lates()[learning:]; len(late) != 1 || late[0] != 18*time.Second {
			t.Errorf("SLOW after %v once it hangs; want one, after 18s", late)
		}
	})
}

func TestASecondProcessOnTheSameDataIsTurnedAway(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start("a:1")
		time.Sleep(time.Second)
		err := w.prober.Run(context.Background())
		if err == nil || !strings.Contains(err.Error(), "is in use by process") {
			t.Errorf("error %v", err)
		}
	})
}

func TestValidateListsEveryFault(t *testing.T) {
	err := Config{Name: "Bad Name", Labels: map[string]string{"build": "x", "K": "v"}, Servers: []string{"nohost"}, SpoolBytes: 5, InFlight: -1, CertFile: "c"}.Validate()
	f, ok := fault.From(err)
	if !ok || len(f.Violations) != 9 {
		t.Fatalf("%v; want nine violations", err)
	}
}
