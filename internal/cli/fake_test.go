package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/fault"
	"github.com/probemesh/probemesh/internal/spec"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// fakePage is the page size of the fake, small so that two checks and a third make two pages.
const fakePage = 2

// fakeMesh behaves as a server does for the command line: it keeps resources in memory, pages its lists, plans an Apply, and streams its watches.
type fakeMesh struct {
	meshv1.UnimplementedCheckServiceServer
	meshv1.UnimplementedStatusServiceServer
	meshv1.UnimplementedIncidentServiceServer
	meshv1.UnimplementedProberServiceServer
	meshv1.UnimplementedReceiverServiceServer
	meshv1.UnimplementedServerServiceServer
	meshv1.UnimplementedMeshServiceServer

	addr   string
	server *grpc.Server
	served chan struct{}

	mu         sync.Mutex // guards everything below
	changed    chan struct{}
	revision   int64
	checks     map[string]*meshv1.Check
	receivers  map[string]*meshv1.Receiver
	probers    map[string]*meshv1.Prober
	incidents  map[string]*meshv1.Incident
	servers    []*meshv1.Server
	mesh       *meshv1.Mesh
	leader     string // address of the leader when it is not this one
	leaderless int    // so many calls find no leader
}

// startFake serves a fake on a port of its own until the test ends.
func startFake(t testing.TB) *fakeMesh {
	m := newFake()
	m.listen(t, "127.0.0.1:0")
	t.Cleanup(m.stop)
	return m
}

func newFake() *fakeMesh {
	return &fakeMesh{
		changed: make(chan struct{}), revision: 100, checks: map[string]*meshv1.Check{}, receivers: map[string]*meshv1.Receiver{},
		probers: map[string]*meshv1.Prober{}, incidents: map[string]*meshv1.Incident{},
	}
}

// listen serves at addr; a stopped fake may listen again.
func (m *fakeMesh) listen(t testing.TB, addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().String()
	s := grpc.NewServer()
	meshv1.RegisterCheckServiceServer(s, m)
	meshv1.RegisterStatusServiceServer(s, m)
	meshv1.RegisterIncidentServiceServer(s, m)
	meshv1.RegisterProberServiceServer(s, m)
	meshv1.RegisterReceiverServiceServer(s, m)
	meshv1.RegisterServerServiceServer(s, m)
	meshv1.RegisterMeshServiceServer(s, m)
	m.server, m.served = s, make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = s.Serve(l)
	}(m.served)
}

func (m *fakeMesh) stop() {
	m.server.Stop()
	<-m.served
}

// change runs f under the lock and wakes the watchers.
func (m *fakeMesh) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// ago is a time so long ago that its age is stable while a test runs.
func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(-d)) }

// setVerdict makes a check have a verdict.
func (m *fakeMesh) setVerdict(name string, v meshv1.CheckStatus_Verdict, summary string) {
	m.change(func() {
		m.checks[name].Status = &meshv1.CheckStatus{Check: name, Verdict: v, Reason: meshv1.CheckStatus_QUORUM_UP, Summary: summary, Since: ago(50*time.Hour + 30*time.Minute), Probers: 3, Quorum: 2}
	})
}

func sorted[T proto.Message](m map[string]T) []T {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	out := make([]T, len(names))
	for i, n := range names {
		out[i] = proto.CloneOf(m[n])
	}
	return out
}

// pageOf cuts a page out of a list; the token is the index at which the next begins.
func pageOf[T any](all []T, token string) ([]T, string, error) {
	from := 0
	if token != "" {
		var err error
		if from, err = strconv.Atoi(token); err != nil || from > len(all) {
			return nil, "", fault.New(codes.InvalidArgument, meshv1.ErrorReason_PAGE_TOKEN_INVALID, "", "the page token %q is not one of this call", token)
		}
	}
	to := min(from+fakePage, len(all))
	if to == len(all) {
		return all[from:to], "", nil
	}
	return all[from:to], strconv.Itoa(to), nil
}

func (m *fakeMesh) ListChecks(_ context.Context, r *meshv1.ListChecksRequest) (*meshv1.ListChecksResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leaderless > 0 {
		m.leaderless--
		return nil, fault.New(codes.Unavailable, meshv1.ErrorReason_NO_LEADER, "", "no server leads at present").Retry(10 * time.Millisecond)
	}
	all := sorted(m.checks)
	if want, ok := strings.CutPrefix(r.GetFilter(), "verdict = "); ok {
		kept := all[:0]
		for _, c := range all {
			if c.GetStatus().GetVerdict().String() == want {
				kept = append(kept, c)
			}
		}
		all = kept
	} else if r.GetFilter() != "" {
		return nil, fault.New(codes.InvalidArgument, meshv1.ErrorReason_FILTER_INVALID, "", "the filter %q does not parse; write key = value", r.GetFilter())
	}
	page, next, err := pageOf(all, r.GetPageToken())
	return &meshv1.ListChecksResponse{Checks: page, NextPageToken: next}, err
}

func (m *fakeMesh) GetCheck(_ context.Context, r *meshv1.GetCheckRequest) (*meshv1.Check, error) {
	return lookUp(m, m.checks, r.GetName())
}

func lookUp[T proto.Message](m *fakeMesh, in map[string]T, name string) (T, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := in[name]
	if !ok {
		return v, fault.NotFound(name)
	}
	return proto.CloneOf(v), nil
}

func (m *fakeMesh) DeleteCheck(_ context.Context, r *meshv1.DeleteCheckRequest) (*emptypb.Empty, error) {
	if _, err := lookUp(m, m.checks, r.GetName()); err != nil {
		return nil, err
	}
	m.change(func() { delete(m.checks, r.GetName()) })
	return &emptypb.Empty{}, nil
}

// Apply plans by comparing fields, top level only, which is enough for what the command line shows.
func (m *fakeMesh) Apply(_ context.Context, r *meshv1.ApplyRequest) (*meshv1.ApplyResponse, error) {
	if r.GetRequestId() == "" {
		return nil, fault.Invalid(fault.Violation{Field: "request_id", Problem: "is empty"})
	}
	resp := &meshv1.ApplyResponse{}
	var bad []fault.Violation
	m.change(func() {
		wanted := map[string]bool{}
		for i, c := range r.GetChecks() {
			wanted[c.GetName()] = true
			for j, d := range c.GetDatacenters() {
				if d == "frra" {
					resp.Warnings = append(resp.Warnings, &meshv1.ApplyWarning{Field: fmt.Sprintf("checks[%d].datacenters[%d]", i, j), Problem: `is "frra", where no prober is enrolled; did you mean "fra"?`})
				}
			}
			for j, rec := range c.GetReceivers() {
				if m.receivers[rec] == nil && !inRequest(r, rec) {
					bad = append(bad, fault.Violation{Field: fmt.Sprintf("checks[%d].receivers[%d]", i, j), Problem: rec + " does not exist; add it, or leave it out"})
				}
			}
			old := m.checks[c.GetName()]
			resp.Changes = append(resp.Changes, planned(c.GetName(), plain(old), c, old == nil))
			if !r.GetValidateOnly() && len(bad) == 0 {
				m.revision++
				stored := proto.CloneOf(c)
				stored.Etag, stored.Revision, stored.CreateTime, stored.Status = strconv.FormatInt(m.revision, 10), m.revision, ago(74*time.Hour+30*time.Minute), old.GetStatus()
				m.checks[c.GetName()] = stored
			}
		}
		for _, rec := range r.GetReceivers() {
			wanted[rec.GetName()] = true
			old := m.receivers[rec.GetName()]
			resp.Changes = append(resp.Changes, planned(rec.GetName(), old, rec, old == nil))
			if !r.GetValidateOnly() && len(bad) == 0 {
				m.receivers[rec.GetName()] = proto.CloneOf(rec)
			}
		}
		for name := range m.checks {
			if r.GetPrune() && !wanted[name] {
				resp.Changes = append(resp.Changes, &meshv1.Change{Name: name, Action: meshv1.Change_DELETE})
				if !r.GetValidateOnly() && len(bad) == 0 {
					delete(m.checks, name)
				}
			}
		}
	})
	if len(bad) > 0 {
		return nil, fault.Invalid(bad...)
	}
	sort.Slice(resp.Changes, func(i, j int) bool { return resp.Changes[i].Name < resp.Changes[j].Name })
	return resp, nil
}

func inRequest(r *meshv1.ApplyRequest, receiver string) bool {
	for _, rec := range r.GetReceivers() {
		if rec.GetName() == receiver {
			return true
		}
	}
	return false
}

// plain is a check without what the server fills in.
func plain(c *meshv1.Check) *meshv1.Check {
	if c == nil {
		return nil
	}
	c = proto.CloneOf(c)
	spec.Normalize(c)
	c.Etag = ""
	return c
}

func planned(name string, old, wished proto.Message, missing bool) *meshv1.Change {
	ch := &meshv1.Change{Name: name, Action: meshv1.Change_UNCHANGED}
	if missing {
		ch.Action = meshv1.Change_CREATE
		return ch
	}
	a, b := old.ProtoReflect(), wished.ProtoReflect()
	fields := a.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if before, after := show(a, fd), show(b, fd); before != after {
			ch.Action = meshv1.Change_UPDATE
			ch.Fields = append(ch.Fields, &meshv1.FieldChange{Path: string(fd.Name()), Before: before, After: after})
		}
	}
	return ch
}

// show is a field as JSON; empty when it is unset.
func show(m protoreflect.Message, fd protoreflect.FieldDescriptor) string {
	if !m.Has(fd) {
		return ""
	}
	alone := m.New()
	alone.Set(fd, m.Get(fd))
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(alone.Interface())
	if err != nil {
		panic(err)
	}
	var field map[string]json.RawMessage
	if err := json.Unmarshal(raw, &field); err != nil {
		panic(err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, field[string(fd.Name())]); err != nil {
		panic(err)
	}
	return b.String()
}

func (m *fakeMesh) ExplainCheck(_ context.Context, r *meshv1.ExplainCheckRequest) (*meshv1.ExplainCheckResponse, error) {
	c, err := lookUp(m, m.checks, r.GetName())
	if err != nil {
		return nil, err
	}
	return &meshv1.ExplainCheckResponse{Status: c.GetStatus(), Text: c.GetName() + " is " + c.GetStatus().GetVerdict().String() + "\n\x1b[2J2 of 3 domains see it answer\n", Probers: 3, Quorum: 2}, nil
}

func (m *fakeMesh) RunCheck(r *meshv1.RunCheckRequest, s grpc.ServerStreamingServer[meshv1.RunCheckResponse]) error {
	c, err := lookUp(m, m.checks, r.GetName())
	if err != nil {
		return err
	}
	asked := r.GetProbers()
	if len(asked) == 0 {
		asked = []string{"probers/fra-1", "probers/iad-1", "probers/sin-1"}
	}
	if err := s.Send(&meshv1.RunCheckResponse{Asked: asked}); err != nil {
		return err
	}
	down := c.GetStatus().GetVerdict() == meshv1.CheckStatus_DOWN
	last := &meshv1.RunCheckResponse{}
	for _, p := range asked {
		if p == "probers/sin-1" && down {
			last.Failures = append(last.Failures, &meshv1.AssignmentFailure{Prober: p, Reason: "it did not answer in time"})
			continue
		}
		res := &meshv1.Result{Check: c.GetName(), Prober: p, Outcome: meshv1.Result_OK, Duration: durationpb.New(42 * time.Millisecond),
			Timings: &meshv1.Timings{Connect: durationpb.New(12 * time.Millisecond), Processing: durationpb.New(30 * time.Millisecond)}}
		if down {
			res.Outcome, res.ErrorClass, res.Error = meshv1.Result_FAIL, meshv1.Result_CONNECTION_REFUSED, "connect to 192.0.2.7:443: connection refused"
		}
		if err := s.Send(&meshv1.RunCheckResponse{Result: res}); err != nil {
			return err
		}
	}
	return s.Send(last)
}

func (m *fakeMesh) GetStatus(_ context.Context, r *meshv1.GetStatusRequest) (*meshv1.CheckStatus, error) {
	c, err := lookUp(m, m.checks, r.GetCheck())
	if err != nil {
		return nil, err
	}
	return c.GetStatus(), nil
}

func (m *fakeMesh) statuses() map[string]*meshv1.CheckStatus {
	out := map[string]*meshv1.CheckStatus{}
	for n, c := range m.checks {
		if c.GetStatus() != nil {
			out[n] = proto.CloneOf(c.GetStatus())
		}
	}
	return out
}

func (m *fakeMesh) ListStatuses(_ context.Context, r *meshv1.ListStatusesRequest) (*meshv1.ListStatusesResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	page, next, err := pageOf(sorted(m.statuses()), r.GetPageToken())
	return &meshv1.ListStatusesResponse{Statuses: page, NextPageToken: next}, err
}

func (m *fakeMesh) WatchStatuses(_ *meshv1.WatchStatusesRequest, s grpc.ServerStreamingServer[meshv1.WatchStatusesResponse]) error {
	sent := map[string]*meshv1.CheckStatus{}
	for first := true; ; first = false {
		m.mu.Lock()
		now, changed := m.statuses(), m.changed
		m.mu.Unlock()
		for _, st := range sorted(now) {
			if !proto.Equal(sent[st.GetCheck()], st) {
				if err := s.Send(&meshv1.WatchStatusesResponse{Status: st}); err != nil {
					return err
				}
			}
		}
		for n := range sent {
			if now[n] == nil {
				if err := s.Send(&meshv1.WatchStatusesResponse{Status: &meshv1.CheckStatus{Check: n}, Removed: true}); err != nil {
					return err
				}
			}
		}
		if first {
			if err := s.Send(&meshv1.WatchStatusesResponse{Synced: true}); err != nil {
				return err
			}
		}
		sent = now
		select {
		case <-s.Context().Done():
			return s.Context().Err()
		case <-changed:
		}
	}
}
