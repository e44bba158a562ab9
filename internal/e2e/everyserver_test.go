//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Three servers, one prober at each. Every call is made at each of them, before an outage, in it and after it, and each must say the same: they lag behind each other, so
// the answers are compared until they agree. What is left out of the comparison is what each server measures for itself, or counts from its own start.
func TestEveryServerGivesTheSameAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three servers with an etcd cluster; run without -short")
	}
	t.Parallel()
	data := t.TempDir()
	up := begin(t, "up", []string{"up", "--datacenters", "3", "--probers", "1", "--data", data, "--lease-ttl", "2s", "--grpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"})
	var at addresses
	until(t, "the local mesh is up", func() (bool, string) {
		b, err := os.ReadFile(filepath.Join(data, "addresses.json"))
		if err != nil {
			if !up.alive() {
				t.Fatal(tail(up.log.String(), 20))
			}
			return false, err.Error()
		}
		return json.Unmarshal(b, &at) == nil && len(at.Servers) == 3 && len(at.Probers) == 3, string(b)
	})
	var all []*mesh
	for _, s := range at.Servers {
		m := &mesh{t: t, data: data, grpc: s.GRPC}
		m.connect(s.GRPC)
		all = append(all, m)
	}
	hook, target := startReceiver(t), startWebTarget(t, nil)
	all[0].apply(fmt.Sprintf(`
receivers: [{name: ops, webhook: {url: %q}}]
checks: [{name: shop, uri: "http://%s/", interval: 2s, timeout: 1s, quorum: 2, probers: 3, receivers: [ops]}]
`, hook.url, target.address))
	for i, m := range all {
		m.awaitVerdict("shop", meshv1.CheckStatus_UP, 3)
		// A prober is at the server of its datacenter, not where the leader is.
		until(t, "each server has a prober of its own, and hears all", func() (bool, string) {
			r, err := m.probers.ListProbers(m.ctx(), &meshv1.ListProbersRequest{})
			var held []string
			for _, p := range r.GetProbers() {
				held = append(held, p.GetServer())
			}
			slices.Sort(held)
			return err == nil && fmt.Sprint(held) == "[servers/a servers/b servers/c]", fmt.Sprintf("server %d: %v, %v", i, held, err)
		})
	}
	alike(t, all, "before the outage")

	target.stop()
	hook.await(t, 1, meshv1.Notification_OPENED)
	for _, m := range all {
		m.awaitVerdict("shop", meshv1.CheckStatus_DOWN, 3)
	}
	alike(t, all, "in the outage")
	standbysAct(t, all, hook)

	target.start()
	until(t, "RESOLVED", func() (bool, string) {
		return strings.Contains(story(hook.distinct()), "RESOLVED"), story(hook.distinct())
	})
	alike(t, all, "after the outage")
	if code, took := up.interrupt(); code != 0 {
		t.Errorf("`up` ended with %d after %s, want 0", code, took)
	}
}

// questions are the calls that ask; each gives its answer without what servers may differ in.
func questions() map[string]func(m *mesh) (string, error) {
	since := time.Now().Add(-time.Hour)
	return map[string]func(m *mesh) (string, error){
		"GetCheck": func(m *mesh) (string, error) {
			k, err := m.checks.GetCheck(m.ctx(), &meshv1.GetCheckRequest{Name: "checks/shop"})
			plainly(k.GetStatus())
			return answer(k, err)
		},
		"ListChecks": func(m *mesh) (string, error) {
			r, err := m.checks.ListChecks(m.ctx(), &meshv1.ListChecksRequest{})
			for _, k := range r.GetChecks() {
				plainly(k.GetStatus())
			}
			return answer(r, err)
		},
		"ExplainCheck": func(m *mesh) (string, error) {
			r, err := m.checks.ExplainCheck(m.ctx(), &meshv1.ExplainCheckRequest{Name: "checks/shop"})
			return answer(&meshv1.ExplainCheckResponse{Status: plainly(r.GetStatus()), Placement: r.GetPlacement(), Quorum: r.GetQuorum(), Probers: r.GetProbers()}, err)
		},
		"GetStatus": func(m *mesh) (string, error) {
			r, err := m.statuses.GetStatus(m.ctx(), &meshv1.GetStatusRequest{Check: "checks/shop", WithEvidence: true})
			return answer(plainly(r), err)
		},
		"ListStatuses": func(m *mesh) (string, error) {
			r, err := m.statuses.ListStatuses(m.ctx(), &meshv1.ListStatusesRequest{})
			for _, s := range r.GetStatuses() {
				plainly(s)
			}
			return answer(r, err)
		},
		"WatchStatuses": func(m *mesh) (string, error) {
			stream, err := m.statuses.WatchStatuses(m.ctx(), &meshv1.WatchStatusesRequest{})
			return snapshot(stream, err, func(r *meshv1.WatchStatusesResponse) bool { plainly(r.GetStatus()); return r.GetSynced() })
		},
		"ListIncidents": func(m *mesh) (string, error) {
			return answer(m.incidents.ListIncidents(m.ctx(), &meshv1.ListIncidentsRequest{}))
		},
		"GetIncident": func(m *mesh) (string, error) {
			list, err := m.incidents.ListIncidents(m.ctx(), &meshv1.ListIncidentsRequest{})
			if err != nil || len(list.GetIncidents()) == 0 {
				return "none", err
			}
			return answer(m.incidents.GetIncident(m.ctx(), &meshv1.GetIncidentRequest{Name: list.GetIncidents()[0].GetName()}))
		},
		"WatchIncidents": func(m *mesh) (string, error) {
			stream, err := m.incidents.WatchIncidents(m.ctx(), &meshv1.WatchIncidentsRequest{})
			return snapshot(stream, err, func(r *meshv1.WatchIncidentsResponse) bool { return r.GetSynced() })
		},
		"ListProbers": func(m *mesh) (string, error) {
			r, err := m.probers.ListProbers(m.ctx(), &meshv1.ListProbersRequest{})
			for _, p := range r.GetProbers() {
				measured(p)
			}
			return answer(r, err)
		},
		"GetProber": func(m *mesh) (string, error) {
			list, err := m.probers.ListProbers(m.ctx(), &meshv1.ListProbersRequest{})
			if err != nil {
				return "", err
			}
			p, err := m.probers.GetProber(m.ctx(), &meshv1.GetProberRequest{Name: list.GetProbers()[0].GetName()})
			return answer(measured(p), err)
		},
		"ListReceivers": func(m *mesh) (string, error) {
			return answer(m.receivers.ListReceivers(m.ctx(), &meshv1.ListReceiversRequest{}))
		},
		"GetReceiver": func(m *mesh) (string, error) {
			return answer(m.receivers.GetReceiver(m.ctx(), &meshv1.GetReceiverRequest{Name: "receivers/ops"}))
		},
		"QueryRange": func(m *mesh) (string, error) {
			return answer(m.history.QueryRange(m.ctx(), &meshv1.QueryRangeRequest{Check: "checks/shop", StartTime: timestamppb.New(since), EndTime: timestamppb.New(time.Now().Add(-2 * time.Second))}))
		},
		"RunCheck": func(m *mesh) (string, error) {
			stream, err := m.checks.RunCheck(m.ctx(), &meshv1.RunCheckRequest{Name: "checks/shop"})
			if err != nil {
				return "", err
			}
			var came []string
			for {
				r, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					slices.Sort(came)
					return fmt.Sprint(came), nil
				}
				if err != nil {
					return "", err
				}
				if x := r.GetResult(); x != nil {
					came = append(came, x.GetProber()+" "+x.GetOutcome().String())
				}
				for _, f := range r.GetFailures() {
					came = append(came, f.GetProber()+" "+f.GetReason())
				}
			}
		},
	}
}

// alike asks every server everything until all agree.
func alike(t *testing.T, all []*mesh, when string) {
	t.Helper()
	for name, ask := range questions() {
		until(t, name+" says the same at every server "+when, func() (bool, string) {
			var said []string
			for _, m := range all {
				s, err := ask(m)
				if err != nil {
					return false, err.Error()
				}
				said = append(said, s)
			}
			return said[0] == said[1] && said[1] == said[2], strings.Join(said, "\n")
		})
	}
}

// standbysAct changes things at servers that do not lead, the leadership itself among them.
func standbysAct(t *testing.T, all []*mesh, hook *receiver) {
	t.Helper()
	var standby *mesh
	for _, m := range all {
		out, _, _ := m.cli("", "get", "servers", "-o", "json")
		var list struct {
			Servers []struct {
				Leader      bool
				Term        int
				GRPCAddress string `json:"grpc_address"`
			}
		}
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("get servers: %v\n%s", err, out)
		}
		for _, s := range list.Servers {
			if s.GRPCAddress == m.grpc && !s.Leader {
				standby = m
			}
		}
	}
	if standby == nil {
		t.Fatal("every server says that it leads")
	}
	before := len(hook.all())
	if r, err := standby.receivers.TestReceiver(standby.ctx(), &meshv1.TestReceiverRequest{Name: "receivers/ops"}); err != nil || !r.GetDelivered() || len(hook.all()) == before {
		t.Errorf("a test notification from a standby: %v, %v", r, err)
	}
	list, err := standby.incidents.ListIncidents(standby.ctx(), &meshv1.ListIncidentsRequest{})
	if err != nil || len(list.GetIncidents()) != 1 {
		t.Fatalf("incidents at a standby: %v, %v", list, err)
	}
	acked, err := standby.incidents.AcknowledgeIncident(standby.ctx(), &meshv1.AcknowledgeIncidentRequest{Name: list.GetIncidents()[0].GetName(), By: "somebody", Comment: "looking"})
	if err != nil || acked.GetAcknowledgedBy() == "" {
		t.Errorf("acknowledged at a standby: %v, %v", acked, err)
	}
	alike(t, all, "after it was acknowledged at a standby")
	if out, errs, code := standby.cli("", "stepdown"); code != 0 {
		t.Errorf("stepdown at a standby: %d, %s%s", code, out, errs)
	}
	until(t, "another server leads", func() (bool, string) {
		out, errs, _ := standby.cli("", "get", "servers")
		return strings.Contains(out, "leader"), out + errs
	})
	alike(t, all, "after the leader has changed")
}

// plainly leaves out what counts from when a server first heard of it.
func plainly(s *meshv1.CheckStatus) *meshv1.CheckStatus {
	if s == nil {
		return nil
	}
	s.Since, s.UpdateTime, s.Confirming = nil, nil, false
	for _, v := range s.GetVotes() {
		v.Streak, v.Pending = 0, false
	}
	return s
}

// measured leaves out what changes with every ping.
func measured(p *meshv1.Prober) *meshv1.Prober {
	if p != nil {
		p.StateTime, p.ClockOffset, p.RoundTripTime, p.Spooled = nil, nil, nil, 0
	}
	return p
}

func answer(m proto.Message, err error) (string, error) {
	if err != nil {
		return "", err
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	return strings.Join(strings.Fields(string(b)), " "), err
}

// snapshot reads a watch up to where its snapshot ends.
func snapshot[T any, M interface {
	*T
	proto.Message
}](stream grpc.ServerStreamingClient[T], err error, last func(M) bool) (string, error) {
	if err != nil {
		return "", err
	}
	all := ""
	for {
		r, err := stream.Recv()
		if err != nil {
			return "", err
		}
		end := last(r)
		s, err := answer(M(r), nil)
		if err != nil {
			return "", err
		}
		if all += s + "\n"; end {
			return all, nil
		}
	}
}
