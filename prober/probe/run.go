package probe

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/probemesh/probemesh/internal/expect"
	"github.com/probemesh/probemesh/internal/spec"
	"github.com/probemesh/probemesh/prober/probe/tls/inspect"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// Answer is what a target answered, in the terms of one kind.
type Answer interface {
	// Record sets the details of the kind in the result.
	Record(r *meshv1.Result)
	// Respond sets the fields of the response that the kind knows; it need not set those that p does not read.
	Respond(r *meshv1.Response, p *expect.Program)
	// Judge is the kind's own judgement, nil when the answer is good. expected is true when the check has expectations, which then decide in
	// place of the kind's default.
	Judge(expected bool) *Failure
	// Evidence sets the parts of the evidence that the kind knows.
	Evidence(e *meshv1.Evidence)
}

// Degrader is an [Answer] that may be good and degraded all the same.
type Degrader interface {
	// Degraded says why in one sentence; empty when it is not. It is asked of answers that are good.
	Degraded() string
}

// Plan is a compiled check, as far as all kinds have it in common. It does not change.
type Plan struct {
	// Check is the name of the check.
	Check string
	// Timeout bounds a probe.
	Timeout time.Duration
	// Expect are the expectations; nil without any.
	Expect *expect.Program
	// FailAbove and DegradedAbove bound the phases of a probe that is good otherwise; nil for no bounds.
	FailAbove, DegradedAbove *meshv1.PhaseLimits
	// URI is what the response tells as uri unless the kind tells another.
	URI string
	// Talk speaks with the target. The answer may be nil, or what there is of it together with an error. It must return soon after ctx ends.
	Talk func(ctx context.Context, a *Attempt) (Answer, error)

	tls     *meshv1.TlsConfig // what the check says of TLS, for what is told of a handshake
	host    string            // of the URI, when it is a name
	issuers atomic.Pointer[issuers]
}

// NewPlan compiles what kinds have in common of a check. The error is one of its expectations.
func NewPlan(c *meshv1.Check, exprs []string) (*Plan, error) {
	program, err := expect.Compile(exprs)
	if err != nil {
		return nil, err
	}
	return &Plan{Check: c.GetName(), Timeout: c.GetTimeout().AsDuration(), Expect: program, URI: c.GetUri(),
		FailAbove: c.GetFailAbove(), DegradedAbove: c.GetDegradedAbove(), tls: spec.TLSOf(c), host: nameIn(c.GetUri())}, nil
}

// nameIn is the host of a URI when it is a name; empty when it is an address.
func nameIn(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return ""
	}
	return u.Hostname()
}

// issuers are those of the chain that a peer sent last: most send the same for weeks, and the text costs more than to see that it is the same.
type issuers struct {
	raw   string // their encoded names
	texts []string
}

// maxIssuersKept bounds the encoded names that are kept of a chain. Those of a usual one have 200 bytes; a stranger may send 256 KiB.
const maxIssuersKept = 4 << 10

// issuersOf are the issuers of a chain, as text. The list must not be changed.
func (p *Plan) issuersOf(chain []*x509.Certificate) []string {
	if known := p.issuers.Load(); known != nil && known.of(chain) {
		return known.texts
	}
	made := &issuers{texts: inspect.Issuers(chain)}
	var raw []byte
	for _, c := range chain {
		raw = append(raw, c.RawIssuer...)
	}
	if len(raw) <= maxIssuersKept {
		made.raw = string(raw)
		p.issuers.Store(made)
	}
	return made.texts
}

// of tells whether they are those of the chain.
func (x *issuers) of(chain []*x509.Certificate) bool {
	rest := x.raw
	for _, c := range chain {
		n := len(c.RawIssuer)
		if n > len(rest) || rest[:n] != string(c.RawIssuer) {
			return false
		}
		rest = rest[n:]
	}
	return rest == ""
}

// Run runs one probe; see [Runner] for what it promises.
func (p *Plan) Run(ctx context.Context, o Options) *meshv1.Result {
	a := &Attempt{start: time.Now(), timeout: p.Timeout, options: o}
	probeCtx := bound(ctx, a.start.Add(p.Timeout))
	defer probeCtx.end()
	answer, failure := p.talk(probeCtx, ctx, a)
	a.end()
	return p.concludeSafely(a, answer, failure)
}

// concludeSafely is conclude, or a result that tells of a panic in it: what judges an answer looks at what a stranger sent, as Talk does.
func (p *Plan) concludeSafely(a *Attempt, answer Answer, failure *Failure) (r *meshv1.Result) {
	defer func() {
		if fault := recover(); fault != nil {
			f := panicked(a, fault)
			a.tls, a.certs = nil, nil // which may be what it was about
			r = p.conclude(a, nil, f)
		}
	}()
	return p.conclude(a, answer, failure)
}

// panicked is the failure of a panic.
func panicked(a *Attempt, fault any) *Failure {
	return &Failure{Class: meshv1.Result_PROBER, Phase: a.Phase(),
		Sentence: fmt.Sprintf("the probe failed by a fault of probemesh, please report it: %v at %s", fault, firstFrames(debug.Stack()))}
}

// talk calls Talk and turns its error, or its panic, into a failure.
func (p *Plan) talk(ctx, caller context.Context, a *Attempt) (answer Answer, failure *Failure) {
	defer func() {
		if r := recover(); r != nil {
			answer, failure = nil, panicked(a, r)
		}
	}()
	answer, err := p.Talk(ctx, a)
	if err == nil {
		return answer, nil
	}
	if caller.Err() != nil && ctx.Err() != nil && context.Cause(caller) != context.DeadlineExceeded { //nolint:errorlint // the cause itself
		return answer, &Failure{Class: meshv1.Result_PROBER, Phase: a.Phase(), Sentence: "the probe was cancelled before it ended"}
	}
	return answer, Classify(err, a)
}

// conclude makes the result of what the target answered.
func (p *Plan) conclude(a *Attempt, answer Answer, failure *Failure) *meshv1.Result {
	r := &meshv1.Result{
		Check:          p.Check,
		StartTime:      timestamppb.New(a.start),
		Duration:       durationpb.New(a.ended.Sub(a.start)),
		Timings:        a.timings(),
		RemoteAddress:  a.remote,
		Outcome:        meshv1.Result_OK,
		Steps:          a.steps,
		CanonicalNames: a.names,
	}
	if len(a.names) == 0 {
		r.CanonicalNames = a.options.Aliases.known(p.host) // a connection that was kept needs no look-up
	}
	if a.tls != nil {
		r.Tls = inspect.Result(a.tls)
		r.Tls.Issuers = p.issuersOf(a.tls.PeerCertificates)
	}
	if answer != nil {
		answer.Record(r)
	}
	if failure == nil && answer != nil {
		failure = answer.Judge(p.Expect.Len() > 0)
	}
	if failure == nil && p.Expect.Len() > 0 {
		failure = p.judge(a, r, answer)
	}
	if failure == nil {
		failure = tooSlow(p.FailAbove, a)
	}
	if failure != nil {
		failure.record(r)
	} else {
		r.Degraded = p.degraded(a, answer)
	}
	if r.Outcome == meshv1.Result_FAIL || a.options.Evidence {
		r.Evidence = evidence(a, answer)
	}
	return r
}

// judge evaluates the expectations.
func (p *Plan) judge(a *Attempt, r *meshv1.Result, answer Answer) *Failure {
	failed, why := p.Expect.Eval(p.response(a, r, answer))
	if failed == "" {
		return nil
	}
	return &Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Expectation: failed,
		Sentence: fmt.Sprintf("expectation %s does not hold: %v", clip(failed, 300), why)}
}

// response is what the expectations see.
func (p *Plan) response(a *Attempt, r *meshv1.Result, answer Answer) *meshv1.Response {
	resp := &meshv1.Response{Duration: r.Duration, RemoteAddress: r.RemoteAddress, Uri: p.URI}
	if p.Expect.Reads("timings") {
		t := r.Timings
		resp.Timings = &meshv1.ResponseTimings{Resolve: t.Resolve, Connect: t.Connect, Handshake: t.Handshake, Processing: t.Processing, Transfer: t.Transfer}
	}
	if a.tls != nil && p.Expect.Reads("tls") {
		resp.Tls = inspect.Response(a.tls, a.start)
	}
	if p.Expect.Reads("captures") {
		resp.Captures = a.captures
	}
	if answer != nil {
		answer.Respond(resp, p.Expect)
	}
	return resp
}

// Holds tells whether the expectations hold of an answer that may not be complete yet. It is for kinds that read until they do.
func (p *Plan) Holds(a *Attempt, answer Answer) bool { return p.Unmet(a, answer) == nil }

// Unmet is the failure of the first expectation that does not hold of an answer, while the probe still runs; nil when all of them hold. It is for kinds with steps.
func (p *Plan) Unmet(a *Attempt, answer Answer) *Failure {
	if p.Expect.Len() == 0 {
		return nil
	}
	a.mu.Lock()
	r := &meshv1.Result{Duration: durationpb.New(time.Since(a.start)), Timings: a.timings(), RemoteAddress: a.remote}
	a.mu.Unlock()
	return p.judge(a, r, answer)
}
