package http

import (
	"errors"
	"fmt"
	"maps"
	nethttp "net/http"
	"strconv"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/probemesh/probemesh/internal/capture"
	"github.com/probemesh/probemesh/prober/probe"
	meshv1 "github.com/probemesh/probemesh/proto/probemesh/v1"
)

// step is one compiled step of a check.
type step struct {
	name     string
	options  *meshv1.HttpStep
	plan     *probe.Plan // of its expectations
	captures *capture.Program
	follow   bool
	whole    bool // the whole body is needed
}

// compileSteps compiles the steps of a check; there may be none.
func (r *runner) compileSteps(c *meshv1.Check) ([]step, error) {
	var out []step
	list := c.GetHttp().GetSteps()
	for i, o := range list {
		s := step{name: o.GetName(), options: o, follow: c.GetHttp().GetFollowRedirects()}
		if s.name == "" {
			s.name = strconv.Itoa(i + 1)
		}
		if o.FollowRedirects != nil {
			s.follow = o.GetFollowRedirects()
		}
		var err error
		if s.plan, err = probe.NewPlan(c, o.GetExpect()); err != nil {
			return nil, fmt.Errorf("step %s: %w", s.name, err)
		}
		var faults []capture.Fault
		if s.captures, faults = capture.Compile(o.GetCaptures(), true); len(faults) > 0 {
			return nil, fmt.Errorf("step %s: captures[%d]: %s", s.name, faults[0].Index, faults[0].Problem)
		}
		s.whole = s.plan.Expect.Reads("body") || s.plan.Expect.Reads("json") || s.captures != nil || o.GetGraphql() != nil || i == len(list)-1 && r.readsBody()
		if written, ok := writtenOrigin(r.url, o.GetUrl()); ok {
			if r.origins == nil {
				r.origins = make(map[string]bool)
			}
			r.origins[written] = true
		}
		out = append(out, s)
	}
	return out, nil
}

// readsBody tells whether the expectations of the check read the body.
func (r *runner) readsBody() bool { return r.plan.Expect.Reads("body") || r.plan.Expect.Reads("json") }

// walk takes the steps one after the other. The answer is that to the last one.
func (v *visit) walk() (probe.Answer, error) {
	values := make(capture.Values)
	for i := range v.steps {
		s := &v.steps[i]
		err := v.a.Step(s.name, func() error { return v.step(s, values) })
		if err != nil {
			return v.got.orNil(), err
		}
	}
	return v.got, nil
}

// step takes one step.
func (v *visit) step(s *step, values capture.Values) error {
	v.got.begin(s)
	q, err := v.request(s, values)
	if err != nil {
		return probe.Failf(v.a, meshv1.Result_EXPECTATION, "it cannot be sent: %s", err)
	}
	v.got.uri = q.url.String()
	if err := v.fetch(q, s.whole); err != nil {
		return wireError(err, v.a)
	}
	v.keepCookies(v.got.last, v.got.resp)
	if f := v.got.Judge(s.plan.Expect.Len() > 0); f != nil {
		return f
	}
	header := v.got.resp.Header
	first := func(name string) (string, bool) {
		values := header.Values(name)
		if len(values) == 0 {
			return "", false
		}
		return values[0], true
	}
	if err := s.captures.Take(capture.Source{Body: v.got.body, Header: first}, values); err != nil {
		return &probe.Failure{Class: meshv1.Result_EXPECTATION, Phase: meshv1.Result_EXPECT, Sentence: err.Error()}
	}
	v.a.Captured(maps.Clone(values))
	if f := s.plan.Unmet(v.a, v.got); f != nil {
		return f
	}
	return nil
}

// request is the request of a step, with what was captured so far.
func (v *visit) request(s *step, values capture.Values) (request, error) {
	text, err := values.Expand(s.options.GetUrl())
	if err != nil {
		return request{}, fmt.Errorf("url: %w", err)
	}
	u, err := v.url.Parse(text)
	switch {
	case err != nil:
		return request{}, fmt.Errorf("%q is not a URI", short(text))
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return request{}, fmt.Errorf("%q is not an http or https URI", short(text))
	case u.Scheme == "http" && v.options.GetVersion() == meshv1.HttpProbe_HTTP3:
		return request{}, fmt.Errorf("%q is not https, which HTTP/3 needs", short(text))
	}
	u.User, u.Fragment = nil, ""
	filled, err := fill(s.options, values)
	if err != nil {
		return request{}, err
	}
	method := s.options.GetMethod()
	if method == "" {
		method = nethttp.MethodGet
		if body, _, err := bodyOf(filled, meshv1.HttpProbe_RAW); err == nil && len(body) > 0 {
			method = nethttp.MethodPost
		}
	}
	q, err := v.newRequest(u, method, filled, filled.GetHeaders(), s.follow)
	if err != nil || v.isOwn(u) || v.origins[origin(u)] {
		return q, err
	}
	return v.ledAstray(q, filled.GetHeaders())
}

// ledAstray is a request to a host that the target chose, by what was captured of its answers: it is sent nothing that was meant for others.
func (v *visit) ledAstray(q request, lines []*meshv1.HttpHeader) (request, error) {
	const remedy = "is not sent to a host that the check does not name, since it may hold secrets"
	for _, l := range lines {
		if !harmless(nethttp.CanonicalHeaderKey(l.GetName())) {
			return request{}, fmt.Errorf("a captured value leads to %s, and header %s %s; write the host in the url of the step", short(origin(q.url)), l.GetName(), remedy)
		}
	}
	if len(q.body) > 0 && !v.options.GetSendBodyToOtherHosts() {
		return request{}, fmt.Errorf("a captured value leads to %s, and the body %s; write the host in the url of the step, or set http.send_body_to_other_hosts", short(origin(q.url)), remedy)
	}
	return q, nil
}

// fill writes captured values into the fields of a step that may have them.
func fill(o *meshv1.HttpStep, values capture.Values) (*meshv1.HttpStep, error) {
	if len(values) == 0 {
		values = capture.Values{} // `$${` is still to be replaced
	}
	out := proto.CloneOf(o)
	var err error
	if out.Body, err = values.Expand(o.GetBody()); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	for _, h := range out.GetHeaders() {
		if h.Value, err = values.Expand(h.GetValue()); err != nil {
			return nil, fmt.Errorf("header %s: %w", h.GetName(), err)
		}
		if !httpguts.ValidHeaderFieldValue(h.GetValue()) {
			return nil, fmt.Errorf("header %s: what was captured for it has control characters", h.GetName())
		}
	}
	for _, field := range out.GetForm() {
		if field.Value, err = values.Expand(field.GetValue()); err != nil {
			return nil, fmt.Errorf("form field %s: %w", field.GetName(), err)
		}
	}
	for _, value := range out.GetGraphql().GetVariables().GetFields() {
		if err = fillValue(value, values); err != nil {
			return nil, fmt.Errorf("graphql.variables: %w", err)
		}
	}
	return out, nil
}

// fillValue writes captured values into the strings of a JSON value.
func fillValue(v *structpb.Value, values capture.Values) error {
	switch kind := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		text, err := values.Expand(kind.StringValue)
		kind.StringValue = text
		return err
	case *structpb.Value_ListValue:
		var errs []error
		for _, one := range kind.ListValue.GetValues() {
			errs = append(errs, fillValue(one, values))
		}
		return errors.Join(errs...)
	case *structpb.Value_StructValue:
		var errs []error
		for _, one := range kind.StructValue.GetFields() {
			errs = append(errs, fillValue(one, values))
		}
		return errors.Join(errs...)
	}
	return nil
}

// begin forgets the answer to the step before.
func (g *answer) begin(s *step) {
	g.resp, g.last, g.body, g.graphql = nil, nil, nil, s.options.GetGraphql()
	g.bodyBytes, g.encoded, g.more, g.cut = 0, 0, false, false
	g.redirectsBefore = g.redirects
}
