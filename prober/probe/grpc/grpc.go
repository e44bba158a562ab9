// Package grpc is the kind grpc: one call over a connection of its own, of the health service (Check, or the first message of Watch) or of a method that the check
// names.
//
// How to call such a method is known from descriptors in the check or is asked of the server by reflection, before the call and on the same connection, and kept in
// the runner: at most 1 MiB of descriptors in 500 files, for an hour, or until the server says that it does not have the method. The answer is turned into JSON for the
// expectations.
//
// A status that the server itself sends is an answer, good or bad: `statuses` and the expectations judge it. What keeps the call from being answered
// (connection, TLS, a peer that does not speak gRPC or breaks its rules) is a failure of its class.
//
// What a server can cost is bounded by the timeout, by the bytes that it may send on the connection (the message's limit and 256 KiB; 2 MiB more while it is
// asked for its descriptors), by one connection for each probe, and by the size of the JSON that an answer would become, which is estimated before anything is decoded.
package grpc

import (
	"context"
	stdtls "crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// keepDescribed is how long the descriptors that a server told are used: a server that has changed a message keeps the method, and would be read by old names for ever.
const keepDescribed = time.Hour

// runner runs one check of kind grpc.
type runner struct {
	plan      *probe.Plan
	options   *meshv1.GrpcProbe
	target    *spec.Target
	config    *stdtls.Config // nil without TLS
	fresh     *stdtls.Config // never resumes a session; the same as config unless the check asks for that
	dialer    probe.Dialer
	agent     string
	authority string
	given     *described // of the check's own descriptors; nil without

	mu   sync.Mutex // guards told
	told *described // by the server; nil until then
}

// described is a method and the encoded request. It does not change.
type described struct {
	method  *spec.GRPCMethod
	request []byte
	at      time.Time // when the server told it
}

// Compile makes a runner of a check of kind grpc whose defaults are resolved. There is nothing to close.
func Compile(c *meshv1.Check, t *spec.Target, env probe.Env) (probe.Runner, error) {
	o := c.GetGrpc()
	plan, err := probe.NewPlan(c, o.GetExpect())
	if err != nil {
		return nil, err
	}
	r := &runner{plan: plan, options: o, target: t, dialer: probe.Dialer{Family: o.GetIpFamily()}, agent: env.UserAgent}
	r.authority = net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
	if o.GetAuthority() != "" {
		r.authority = o.Authority
	}
	if t.Secure {
		if r.config, err = env.TLSConfig(o.GetTls(), t.Host); err != nil {
			return nil, err
		}
		r.config.NextProtos = []string{"h2"}
		if r.fresh = r.config; r.config.ClientSessionCache != nil {
			r.fresh = r.config.Clone()
			r.fresh.ClientSessionCache = nil
		}
	}
	if o.GetCall().GetDescriptorSet() != nil {
		set, err := spec.ParseDescriptorSet(o.Call.DescriptorSet)
		if err != nil {
			return nil, fmt.Errorf("grpc.call.descriptor_set: %w", err)
		}
		method, err := spec.FindGRPCMethod(set, o.Call.Method)
		if err != nil {
			return nil, fmt.Errorf("grpc.call.descriptor_set: %w", err)
		}
		if r.given, err = describe(method, o.Call); err != nil {
			return nil, fmt.Errorf("grpc.call.request: %w", err)
		}
	}
	plan.Talk = r.talk
	return r, nil
}

// describe encodes the request of a method.
func describe(m *spec.GRPCMethod, c *meshv1.GrpcCall) (*described, error) {
	request, err := m.Request(c)
	if err != nil {
		return nil, err
	}
	return &described{method: m, request: request, at: time.Now()}, nil
}

// Probe implements probe.Runner.
func (r *runner) Probe(ctx context.Context, o probe.Options) *meshv1.Result {
	return r.plan.Run(ctx, o)
}

// Close implements probe.Runner.
func (r *runner) Close() {}

func (r *runner) talk(ctx context.Context, a *probe.Attempt) (probe.Answer, error) {
	c := &call{runner: r, attempt: a, config: r.config}
	if a.Options().Fresh {
		c.config = r.fresh
	}
	c.allow(int64(r.options.GetMessageLimit()) + slack)
	a.Meeting(r.target.Host)
	conn, err := r.client(c)
	if err != nil {
		return nil, &probe.Failure{Class: meshv1.Result_PROBER, Sentence: "this prober cannot make a gRPC client: " + err.Error()}
	}
	defer conn.Close()
	pairs := make([]string, 0, 2*len(r.options.GetMetadata())+2)
	for k, v := range r.options.GetMetadata() {
		pairs = append(pairs, k, v)
	}
	if t := a.Options().Traceparent; t != "" {
		pairs = append(pairs, "traceparent", t)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, pairs...)
	var got *answer
	if r.options.GetCall() != nil {
		got, err = c.callMethod(ctx, conn)
	} else {
		got, err = c.askHealth(ctx, conn)
	}
	if got == nil || got.status == nil {
		return nil, err
	}
	return got, err
}

// askHealth asks the health service.
func (c *call) askHealth(ctx context.Context, conn *grpc.ClientConn) (*answer, error) {
	request, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: c.runner.target.Service})
	if err != nil {
		return nil, err
	}
	path, watch := healthpb.Health_Check_FullMethodName, c.runner.options.GetWatch()
	if watch {
		path = healthpb.Health_Watch_FullMethodName
	}
	got, err := c.invoke(ctx, conn, path, watch, request)
	if err != nil || !got.answered {
		return got, err
	}
	response := &healthpb.HealthCheckResponse{}
	if err := proto.Unmarshal(got.message, response); err != nil {
		return got, probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "the answer is no grpc.health.v1.HealthCheckResponse")
	}
	got.serving = servingText(response.GetStatus())
	got.json, err = protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(&healthpb.HealthCheckResponse{Status: response.GetStatus()})
	return got, err
}

// callMethod calls the method of the check. When the server does not have a method that it told of in an earlier probe, it is asked again and called once more: a call that
// ends so has done nothing.
func (c *call) callMethod(ctx context.Context, conn *grpc.ClientConn) (*answer, error) {
	d, old, err := c.described(ctx, conn)
	if err != nil {
		return nil, err
	}
	got, err := c.callDescribed(ctx, conn, d)
	if old && (err != nil && errors.As(err, new(*undecodable)) || err == nil && got.status.Code() == codes.Unimplemented) {
		c.runner.forget(d)
		if d, _, err = c.described(ctx, conn); err != nil {
			return nil, err
		}
		got, err = c.callDescribed(ctx, conn, d)
	}
	var u *undecodable
	if errors.As(err, &u) {
		err = probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "%s", u.Error())
	}
	return got, err
}

// undecodable is the error of an answer that is not what the descriptors say.
type undecodable struct{ error }

// callDescribed calls a method and decodes the answer.
func (c *call) callDescribed(ctx context.Context, conn *grpc.ClientConn, d *described) (*answer, error) {
	m := d.method.Descriptor
	path := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	got, err := c.invoke(ctx, conn, path, m.IsStreamingServer(), d.request)
	if got != nil {
		got.method = d.method
	}
	if err != nil || !got.answered {
		return got, err
	}
	if got.json, err = newDecoder(d.method).toJSON(got.message, m.Output()); err != nil {
		return got, &undecodable{fmt.Errorf("the answer cannot be read as a %s: %w", m.Output().FullName(), err)}
	}
	return got, nil
}

// described is how to call the method. old tells that the server told it in an earlier probe.
func (c *call) described(ctx context.Context, conn *grpc.ClientConn) (d *described, old bool, err error) {
	r := c.runner
	if r.given != nil {
		return r.given, false, nil
	}
	r.mu.Lock()
	d = r.told
	r.mu.Unlock()
	if d != nil && time.Since(d.at) < keepDescribed {
		return d, true, nil
	}
	method, err := c.describe(ctx, conn, r.options.GetCall().GetMethod())
	if err != nil {
		return nil, false, err
	}
	if d, err = describe(method, r.options.GetCall()); err != nil {
		return nil, false, probe.Failf(c.attempt, meshv1.Result_PROTOCOL, "%s", err)
	}
	r.mu.Lock()
	r.told = d
	r.mu.Unlock()
	return d, false, nil
}

// forget drops what the server told, unless it has told something newer since.
func (r *runner) forget(d *described) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == d {
		r.told = nil
	}
}
