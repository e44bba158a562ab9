//go:build linux

package e2e

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// A prober whose clock is an hour ahead of the mesh's is heard, its results are filed under the mesh's time, and operators are told.
//
// No clock is changed: between prober and server stands a relay that takes every timestamp it passes on to the server for one of a world an hour earlier, and
// moves it, and moves those to the prober back. Seen from the server this is a prober an hour ahead; seen from the prober, a mesh an hour behind.
func TestAClockAnHourOffIsCorrected(t *testing.T) {
	t.Parallel()
	const off = time.Hour
	m := startMesh(t, "up", nil)
	m.awaitProber("local-1")
	prober := launchProber(t, startClockRelay(t, m, off), "late-1", "b", t.TempDir())
	m.awaitProber("late-1")
	target, hook := startWebTarget(t, nil), startReceiver(t)
	m.apply(hook.yaml("ops") + webCheck("shop", target.url(), pace, 2, 2, "receivers: [receivers/ops]"))
	m.awaitVerdict("shop", meshv1.CheckStatus_UP, 2)
	var offset time.Duration
	until(t, "the server knows the prober's offset", func() (bool, string) {
		p, err := m.probers.GetProber(m.ctx(), &meshv1.GetProberRequest{Name: "probers/late-1"})
		if err != nil {
			return false, err.Error()
		}
		offset = p.GetClockOffset().AsDuration()
		return (offset - off).Abs() < time.Second, offset.String()
	})
	var wrong, right int
	until(t, "results are in the history", func() (bool, string) {
		resp, err := m.history.QueryRange(m.ctx(), &meshv1.QueryRangeRequest{Check: "checks/shop", Prober: "probers/late-1",
			StartTime: timestamppb.New(time.Now().Add(-3 * off)), EndTime: timestamppb.New(time.Now().Add(3 * off))})
		if err != nil {
			return false, err.Error()
		}
		wrong, right = 0, 0
		for _, s := range resp.GetSeries() {
			for _, p := range s.GetPoints() {
				if time.Since(p.GetTime().AsTime()).Abs() < limit {
					right++
				} else {
					wrong++
				}
			}
		}
		return right >= 3, "too few"
	})
	if wrong != 0 {
		t.Errorf("%d results of %d are filed under a wrong time", wrong, wrong+right)
	}
	if len(prober.log.lines("this machine's clock differs from the mesh's")) == 0 {
		t.Errorf("the prober does not say that its clock is off:\n%s", tail(prober.log.String(), 5))
	}
	until(t, "/readyz tells of the clock", func() (bool, string) {
		resp, err := http.Get("http://" + m.http + "/readyz")
		if err != nil {
			return false, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusOK && containsAll(string(body), "late-1", "clock"), resp.Status + " " + string(body)
	})
	// Its votes count: an outage is announced as fast as by anybody else.
	stopped := time.Now()
	target.stop()
	d := hook.await(t, 1, opened)
	if begun := d.note.GetStartTime().AsTime(); begun.Before(stopped.Add(-time.Second)) || begun.After(d.at) {
		t.Errorf("the incident began at %s, the target was stopped at %s", begun, stopped)
	}
	t.Logf("offset %s; %d results filed under the mesh's time; OPENED %s after the stop", offset, right, d.at.Sub(stopped).Round(time.Millisecond))
}

// clockRelay passes sessions on and moves their timestamps.
type clockRelay struct {
	meshv1.UnimplementedSessionServiceServer
	server  meshv1.SessionServiceClient
	address string
	off     time.Duration
}

func startClockRelay(t *testing.T, m *mesh, off time.Duration) (address string) {
	t.Helper()
	l := listen(t)
	s := grpc.NewServer()
	meshv1.RegisterSessionServiceServer(s, &clockRelay{server: m.sessions, address: l.Addr().String(), off: off})
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func (c *clockRelay) Session(prober grpc.BidiStreamingServer[meshv1.ProberMessage, meshv1.ServerMessage]) error {
	ctx, cancel := context.WithCancel(prober.Context())
	defer cancel()
	server, err := c.server.Session(ctx)
	if err != nil {
		return err
	}
	go func() {
		defer cancel()
		for {
			msg, err := prober.Recv()
			if err != nil {
				return
			}
			move(msg.ProtoReflect(), c.off)
			if server.Send(msg) != nil {
				return
			}
		}
	}()
	for {
		msg, err := server.Recv()
		if err != nil {
			return err
		}
		move(msg.ProtoReflect(), -c.off)
		if w := msg.GetWelcome(); w != nil {
			w.Addresses = []string{c.address}
		}
		if err := prober.Send(msg); err != nil {
			return err
		}
	}
}

// move adds to every timestamp in a message.
func move(m protoreflect.Message, by time.Duration) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				move(v.List().Get(i).Message(), by)
			}
		case f.Message().FullName() == (&timestamppb.Timestamp{}).ProtoReflect().Descriptor().FullName():
			moved := timestamppb.New(v.Message().Interface().(*timestamppb.Timestamp).AsTime().Add(by))
			m.Set(f, protoreflect.ValueOfMessage(proto.Message(moved).ProtoReflect()))
		default:
			move(v.Message(), by)
		}
		return true
	})
}
